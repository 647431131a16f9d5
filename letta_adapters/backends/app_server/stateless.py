"""Sessions that leave an agent's memory as it is.

Letta Code changes a memory in two ways: by the agent's own tools, and by reflecting on a
conversation afterwards. A stateless session is shown none of the tools, and works in a directory of
ours in which its agent never reflects: those settings belong to an agent in a working directory
(``.letta/settings.local.json``; ``letta`` 0.34.12), so its other conversations keep theirs.

Internal: not part of the public API.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Final

from letta_adapters._utils.disk import writing
from letta_adapters.backends.app_server import frames
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.app_server.reflecting import Reflecting
from letta_adapters.backends.base import Conversation

_NEVER: Final = {"trigger": "off", "step_count": 1}


class Stateless:
    """The directory in which nobody reflects; made when it is first needed."""

    def __init__(self, reflecting: Reflecting) -> None:
        self._reflecting = reflecting
        self._made: TemporaryDirectory[str] | None = None

    @property
    def directory(self) -> Path:
        """The working directory of stateless conversations."""
        if self._made is None:
            with writing(Path(gettempdir())):
                self._made = TemporaryDirectory(
                    prefix="letta-stateless-", ignore_cleanup_errors=True
                )
            self._reflecting.never(Path(self._made.name))
        return Path(self._made.name)

    async def keep(self, connection: Connection, conversation: Conversation, cwd: object) -> None:
        """Stop the agent of a conversation that works in that directory from reflecting on it."""
        # The runtime has the directory's own file already, and needs no setting.
        if self._reflecting.decides:
            return
        if self._made is not None and cwd == self._made.name:
            await connection.request(frames.reflection(conversation, _NEVER, "local_project"))

    def close(self) -> None:
        """Remove the directory."""
        if self._made is not None:
            self._reflecting.forget(Path(self._made.name))
            self._made.cleanup()
            self._made = None
