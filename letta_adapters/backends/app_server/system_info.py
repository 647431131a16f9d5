"""The conversations that are not told about the device, the directory and their agent's id.

Letta Code puts these before a message as reminders. The App Server's protocol has no setting for
it; a runtime that was started by us looks for a file per conversation
(``runtime/system_info.cjs``).

Internal: not part of the public API.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from letta_adapters._utils.disk import writing
from letta_adapters.backends.base import Conversation
from letta_adapters.errors import UnsupportedOptionError


class SystemInfo:
    """The choice which conversations get system info, kept as files.

    ``folder`` is where the runtime looks for them; ``None`` for a server that is not ours.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def works(self) -> bool:
        """True if the server can leave the system info out."""
        return self._folder is not None and self._folder.is_dir()

    def choose(self, conversation: Conversation, told: bool | None) -> None:
        """Choose for the messages from now on; ``None`` means as usual, which is told.

        Raises:
            UnsupportedOptionError: This version of Letta Code has no such switch.
        """
        if self.works:
            mark = self._mark(conversation)
            with writing(mark.parent):
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
