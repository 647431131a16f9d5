"""Internal: decide about a server's own habits that are ours to decide (reflection, system info).

The App Server's protocol has no setting for either. A runtime that was started by us looks for
files of ours: one per conversation that is not told about the device, the directory and its agent's
id (``runtime/system_info.cjs``), and one per agent that reflects (``runtime/guard.cjs``), since
Letta Code reflects in a child process whose shell nobody is asked about. The user's own settings of
Letta Code are neither asked nor changed.

A stateless session leaves its agent's memory as it is. It is shown none of the agent's own tools,
and works in a directory of ours in which its agent never reflects: those settings belong to an
agent in a working directory (``.letta/settings.local.json``; ``letta`` 0.34.12), so its other
conversations keep theirs.
"""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Final

from letta_adapters._utils.files import (
    explain_write_errors,
    make_private_folder,
    on_thread,
    write_private,
)
from letta_adapters.backends.app_server import frames
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.app_server.options import reflection_settings
from letta_adapters.backends.base import Conversation
from letta_adapters.errors import UnsupportedOptionError
from letta_adapters.options import PERMISSION_MODES, PermissionMode, Sleeptime


class SystemInfo:
    """The choice which conversations get system info, kept as files.

    ``folder`` is where the runtime looks for them; ``None`` for a server that is not ours.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def works(self) -> bool:
        """True if the server can leave the system info out."""
        # The runtime makes the directory only where it has found the switch in Letta Code.
        return self._folder is not None and self._folder.is_dir()

    def choose(self, conversation: Conversation, told: bool | None) -> None:
        """Choose for the messages from now on; ``None`` means as usual, which is told.

        Raises:
            UnsupportedOptionError: This version of Letta Code has no such switch.
        """
        if self.works:
            mark = self._mark(conversation)
            with explain_write_errors(mark.parent):
                if told is False:
                    mark.touch(mode=0o600)
                else:
                    mark.unlink(missing_ok=True)
        elif told is False:
            raise UnsupportedOptionError(
                "system_info_reminder",
                backend="local",
                reason="this version of Letta Code decides about it elsewhere.",
            )

    def forget(self, conversation: Conversation) -> None:
        """Remove the file of a conversation that is gone."""
        if self._folder is not None:
            with suppress(OSError):
                self._mark(conversation).unlink()

    def _mark(self, conversation: Conversation) -> Path:
        # A hash, since ids come from a server and must not become paths here.
        name = f"{conversation.agent_id}\n{conversation.conversation_id}"
        return (self._folder or Path()) / hashlib.sha256(name.encode()).hexdigest()


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
        """Keep the choice for this agent, for all conversations and processes.

        Raises:
            ConfigurationError: It cannot be written.
            DiskFullError: There is no space.
        """
        if self._folder is None:
            return
        file = self._file(agent_id)
        # An agent without a file does not reflect.
        if sleeptime.trigger == "off":
            with explain_write_errors(file.parent):
                file.unlink(missing_ok=True)
            return
        # The runtime may read it, and another process write it, at this very moment.
        write_private(file, json.dumps(reflection_settings(sleeptime)))

    def never(self, directory: Path) -> None:
        """Let no agent reflect on conversations while it works in this directory.

        Raises:
            ConfigurationError: That cannot be written.
            DiskFullError: There is no space.
        """
        if self._folder is not None:
            file = self._file(str(directory))
            make_private_folder(file.parent)
            with explain_write_errors(file.parent):
                file.touch(mode=0o600)

    def forget(self, directory: Path) -> None:
        """Forget a directory that is gone."""
        if self._folder is not None:
            # What is left of it says nothing about any other directory.
            with suppress(OSError):
                self._file(str(directory)).unlink()

    def _file(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / hashlib.sha256(name.encode()).hexdigest()


_NEVER: Final = {"trigger": "off", "step_count": 1}


class Stateless:
    """The directory in which nobody reflects; made when it is first needed."""

    def __init__(self, reflecting: Reflecting) -> None:
        self._reflecting = reflecting
        self._made: TemporaryDirectory[str] | None = None
        # Several worker threads may ask for it at once.
        self._lock = threading.Lock()

    @property
    def directory(self) -> Path:
        """The working directory of stateless conversations.

        Raises:
            ConfigurationError: It cannot be made.
            DiskFullError: There is no space.
        """
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return Path(self._made.name)

    def _make(self) -> TemporaryDirectory[str]:
        # Python looks for a place that can be written to, and may find none.
        with explain_write_errors(Path("TMPDIR")):
            place = Path(gettempdir())
        with explain_write_errors(place):
            made = TemporaryDirectory(
                prefix="letta-stateless-", dir=place, ignore_cleanup_errors=True
            )
        try:
            self._reflecting.never(Path(made.name))
        except BaseException:
            # Nobody may work where an agent could reflect.
            made.cleanup()
            raise
        return made

    async def keep(self, connection: Connection, conversation: Conversation, cwd: object) -> None:
        """Stop the agent of a conversation that works in that directory from reflecting on it."""
        # The runtime has the directory's own file already, and needs no setting.
        if await on_thread(lambda: self._reflecting.decides):
            return
        if self._made is not None and cwd == self._made.name:
            await connection.request(frames.reflection(conversation, _NEVER, "local_project"))

    def close(self) -> None:
        """Remove the directory."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            self._reflecting.forget(Path(made.name))
            made.cleanup()
