"""The agents that reflect on their conversations, where that is ours to decide.

Letta Code reflects in a child process whose shell nobody is asked about. A runtime that was started
by us (``runtime/guard.cjs``) does so only for an agent that has a file here; the user's own
settings of Letta Code are neither asked nor changed.

Internal: not part of the public API.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from letta_adapters.backends.app_server.options import reflection_settings
from letta_adapters.errors import UnsupportedOptionError
from letta_adapters.options import PERMISSION_MODES, PermissionMode, Sleeptime


class Reflecting:
    """The choice which agents reflect, kept as files.

    ``folder`` is where the runtime looks for them; ``None`` for a server that is not ours.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def decides(self) -> bool:
        """True if the runtime answers all questions about reflection from here."""
        return self._folder is not None and (self._folder / "present").exists()

    def check(self, sleeptime: Sleeptime | None, mode: PermissionMode | None) -> None:
        """Refuse to reflect where tools are not to run unasked.

        Raises:
            UnsupportedOptionError: The session does not let tools run unasked; the text says what
                to do.
        """
        if self._folder is None or sleeptime is None or sleeptime.trigger == "off":
            return
        if PERMISSION_MODES.get(mode or "standard") != "unrestricted":
            raise UnsupportedOptionError(
                "sleeptime",
                backend="local",
                reason="this version of Letta Code reflects in a child with a shell that nobody is "
                "asked about. Add permission_mode='unrestricted' if the agent may have that, or "
                "use trigger='off'.",
            )

    def choose(self, agent_id: str, sleeptime: Sleeptime) -> None:
        """Keep the choice for this agent, for all conversations and processes."""
        if self._folder is None:
            return
        file = self._file(agent_id)
        # An agent without a file does not reflect.
        if sleeptime.trigger == "off":
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Put in place by a rename, so that the runtime never reads half a file.
        new = file.with_suffix(".new")
        new.write_text(json.dumps(reflection_settings(sleeptime)), encoding="utf-8")
        new.replace(file)

    def never(self, directory: Path) -> None:
        """Let no agent reflect on conversations while it works in this directory."""
        if self._folder is not None:
            file = self._file(str(directory))
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)

    def forget(self, directory: Path) -> None:
        """Forget a directory that is gone."""
        if self._folder is not None:
            self._file(str(directory)).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / hashlib.sha256(name.encode()).hexdigest()
