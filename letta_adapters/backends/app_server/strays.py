"""Answer the questions that no turn takes, or leave them to the client they are meant for.

A server tells every connection that watches a conversation of all its questions. One of a turn that
this client gave up must be answered, or that turn would wait for ever; one of a turn that another
client or process is at is not ours to answer: a denial would speak for its user.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from letta_adapters._utils.bounded import Bounded
from letta_adapters.backends.app_server import frames
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.app_server.frames import Frame
from letta_adapters.backends.base import Conversation
from letta_adapters.backends.config import RuntimeStatus
from letta_adapters.errors import LettaError

_log = logging.getLogger("letta_adapters")
# The messages that the clients of this process have sent lately.
_sent_here: Bounded[str, None] = Bounded()

Status = Callable[[], Awaitable[RuntimeStatus]]


class Strays:
    """The questions that one client's turns do not take.

    Args:
        ours: True if the server is of this machine, where nobody else answers for us.
        status: Asks the server's process for its status, if that can be asked.
    """

    def __init__(self, ours: bool, status: Status | None) -> None:
        self._ours = ours
        self._status = status
        self._sent: Bounded[str, None] = Bounded()
        self._background: set[asyncio.Task[None]] = set()

    def sent(self, client_message_id: str) -> None:
        """Note a message of this client: its turn's questions are for this client."""
        self._sent[client_message_id] = _sent_here[client_message_id] = None

    def see(
        self,
        connection: Connection | None,
        conversation: Conversation,
        frame: Frame,
        messages: Iterable[str],
    ) -> None:
        """Take a frame that no turn takes.

        Args:
            connection: The connection it came over.
            conversation: The conversation it is about.
            frame: The frame.
            messages: The messages whose turn runs there.
        """
        answer = frames.nobody(conversation, frame)
        if answer is None or connection is None or not self._ours:
            return
        task = asyncio.ensure_future(self._answer(connection, answer, tuple(messages)))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def done(self) -> None:
        """Wait until the answers that are under way are sent."""
        if self._background:
            await asyncio.wait(self._background)

    async def _answer(
        self, connection: Connection, answer: dict[str, Any], messages: tuple[str, ...]
    ) -> None:
        if await self._is_somebody_else_s(messages):
            _log.debug("A question is left to the client whose turn asks it.")
            return
        with suppress(LettaError):
            await connection.send(answer)

    async def _is_somebody_else_s(self, messages: tuple[str, ...]) -> bool:
        # This client's own turn was given up, so nobody else will answer its question.
        if any(message in self._sent for message in messages):
            return False
        # Another client of this process has sent it, and answers for its own turn.
        if any(message in _sent_here for message in messages):
            return True
        if self._status is None:
            return False
        # A process that is gone will not answer; one that is there may be asked.
        try:
            return (await self._status()).clients > 1
        except LettaError:
            return False
