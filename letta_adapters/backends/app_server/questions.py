"""Internal: answer the server's questions: may a tool run, and what of a call of no turn.

The server is told to ask about every tool (mode ``strict``). A call that needs nobody's word is
answered at once, by this package's own rules; the others go to whoever reads the turn, with their
kind and the answer that would be given by default.

A server tells every connection that watches a conversation of all its questions. One of a turn that
this client gave up must be answered, or that turn would wait for ever; one of a turn that another
client or process is at is not ours to answer: a denial would speak for its user.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from letta_adapters._utils.bounded import Bounded
from letta_adapters.backends.app_server import frames
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.app_server.frames import Frame
from letta_adapters.backends.base import Conversation
from letta_adapters.backends.config import RuntimeStatus
from letta_adapters.engine.app_server import Verdict
from letta_adapters.errors import LettaError
from letta_adapters.messages import ToolCallMessage
from letta_adapters.permissions import Allow, denials
from letta_adapters.permissions.policy import (
    Ground,
    Machine,
    Rules,
    answer_unasked,
    classify_call,
    is_disallowed,
)

# A callback's `Allow(save=...)` refers to this. The server's own suggestions would write rules into
# the working directory, which grants nothing here.
_SAVE: Final = {"id": "save-default", "text": "Yes, and don't ask again for this very call"}
# The number of remembered calls, of all conversations together; the oldest are asked about again.
_REMEMBERED: Final = 1000

log = logging.getLogger("letta_adapters.app_server")


@dataclass(frozen=True, slots=True)
class Session:
    """The settings of a session, as they are now.

    ``cwd`` is where the agent works, ``None`` if that is not known (any more). ``asks`` is true if
    somebody wants to be asked about every call.
    """

    rules: Rules = field(default_factory=Rules)
    cwd: str | None = None
    asks: bool = False


class Permits:
    """The judge of one backend.

    Args:
        machine: The server's directories, if it runs on this machine as this user. Without it no
            path can be looked at, so that no file may be read unasked.
    """

    def __init__(self, machine: Machine | None) -> None:
        self._machine = machine
        self._remembered: Bounded[tuple[Conversation, str, str], None] = Bounded(_REMEMBERED)
        self._warned: set[str] = set()

    def verdict(
        self, conversation: Conversation, name: str, tool_input: Mapping[str, Any], session: Session
    ) -> Verdict:
        """Return the verdict on a call that the server asks about."""
        # Before all else: what the session rules out stays so, whatever was allowed earlier.
        if is_disallowed(name, session.rules):
            return Verdict(refused=denials.DISALLOWED)
        if self._key(conversation, name, tool_input) in self._remembered:
            return Verdict(granted=True)
        if self._machine is None:
            ground = Ground()
        else:
            ground = self._machine.ground(conversation.agent_id, session.cwd)
        kind = classify_call(name, tool_input, ground)
        answer = answer_unasked(name, kind, session.rules)
        if isinstance(answer, Allow):
            default: dict[str, Any] = {"behavior": "allow"}
        else:
            default = {"behavior": "deny", "message": answer.message}
        about = {"kind": kind, "default": default, "suggestions": (_SAVE,)}
        return Verdict(granted=isinstance(answer, Allow) and not session.asks, about=about)

    def remember(self, conversation: Conversation, call: ToolCallMessage) -> None:
        """Ask no more about this very call in this conversation."""
        self._remembered[self._key(conversation, call.tool_name, call.tool_input)] = None

    def _key(
        self, conversation: Conversation, name: str, tool_input: Mapping[str, Any]
    ) -> tuple[Conversation, str, str]:
        return conversation, name, json.dumps(tool_input, sort_keys=True, default=repr)

    def warn_unasked(self, names: Sequence[str]) -> None:
        """Warn, once for each tool, that somebody else's server runs it without a question."""
        new = sorted(set(names) - self._warned)
        if new:
            self._warned.update(new)
            log.warning(
                "The App Server ran %s without asking: its own settings allow that, and no client "
                "can prevent it.",
                ", ".join(new),
            )


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
        # Held here, as an event loop has only weak references to its tasks.
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
            log.debug("A question is left to the client whose turn asks it.")
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
