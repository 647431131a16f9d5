"""Which conversations are told about the device, the directory and their agent's id, and which not.

Letta Code puts that before a message as reminders. The App Server's protocol has no setting for it;
a runtime that was started by us looks for a file per conversation (``runtime/system_info.cjs``).
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from letta_adapters._disk import writing
from letta_adapters.backends.base import Conversation
from letta_adapters.errors import UnsupportedOptionError


class SystemInfo:
    """``folder``: where the runtime looks; ``None`` for a server that is not ours."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def works(self) -> bool:
        """Can the server leave the system info out?"""
        return self._folder is not None and self._folder.is_dir()

    def choose(self, conversation: Conversation, told: bool | None) -> None:
        """From the next message on. ``None``: as usual, told.

        Raises :class:`UnsupportedOptionError` if this version of Letta Code has no such switch.
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
        """Keep nothing of a conversation that is gone."""
        if self._folder is not None:
            with suppress(OSError):
                self._mark(conversation).unlink()

    def _mark(self, conversation: Conversation) -> Path:
        name = f"{conversation.agent_id}\n{conversation.conversation_id}"
        return (self._folder or Path()) / hashlib.sha256(name.encode()).hexdigest()
