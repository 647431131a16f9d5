"""Let one turn at a time run in each conversation, and end all turns with their client.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from letta_adapters._utils.locks import NeverFreeError, take
from letta_adapters._utils.loops import running_loop
from letta_adapters.backends.base import (
    Backend,
    BackendTurn,
    Conversation,
    ToolAnswer,
    TurnSettings,
)
from letta_adapters.client.outbox import unread_error, withdraw
from letta_adapters.client.turn import Turn, TurnOptions, serves
from letta_adapters.client.works import Works
from letta_adapters.errors import (
    ConversationBusyError,
    SessionClosedError,
    WaitsForItselfError,
    WrongEventLoopError,
)
from letta_adapters.messages import InitMessage


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message and what travels with it; see :meth:`~.backends.base.BackendTurn.start`.

    Args:
        otid: The message's id.
        content: The message in the form of the wire; ``None`` if there are only answers.
        answers: Answers to the calls that wait in the conversation.
        history: Messages to store before it.
    """

    otid: str
    content: Any
    answers: Sequence[ToolAnswer] = ()
    history: Sequence[Mapping[str, Any]] = ()

    @property
    def item(self) -> Mapping[str, Any]:
        """The message as the queue of those that wait shows it."""
        return {
            "id": self.otid,
            "client_message_id": self.otid,
            "kind": "message",
            "content": self.content,
        }


class TurnSlots:
    """The turns of one client: one runs in each conversation, and others wait for their time.

    It belongs to the event loop on which it is first used.

    Args:
        backend: The backend on which the agents live.
        place: A key that is equal for two clients whose conversations are the same ones: they take
            turns in them.
    """

    def __init__(self, backend: Backend, place: Hashable) -> None:
        self.backend = backend
        self.place = place
        self._loop: asyncio.AbstractEventLoop | None = None
        # The running turn of each conversation.
        self.turns: dict[Conversation, Turn] = {}
        # The turns that wait for their conversation to become free, in the order they were sent.
        self.queue: list[Turn] = []
        self._finishing: set[asyncio.Future[Any]] = set()
        # The openings and sends of sessions that have not ended yet.
        self.works = Works(self.finish)
        self._closed = False

    @property
    def closed(self) -> bool:
        """True once it was closed, which is final."""
        return self._closed

    @property
    def busy(self) -> bool:
        """True while a turn runs or waits, or a clean-up goes on."""
        return bool(self.turns or self.queue or self._finishing)

    def check_usable(self) -> None:
        """Raise if the client is closed, or belongs to another event loop."""
        if self._closed:
            raise SessionClosedError(
                "This client is closed.", hint="Make a new one; a closed client is final."
            )
        # Connections and locks belong to the loop they were made on: used on another one they would
        # hang or fail in odd places, so the mistake is named here.
        loop = running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            state = "which is closed" if self._loop.is_closed() else "which still runs elsewhere"
            raise WrongEventLoopError(
                f"This client was opened on event loop {id(self._loop):#x} ({state}) and is now "
                f"used on {id(loop):#x}."
            )

    # -- one turn at a time -----------------------------------------------------------------

    def reserve(
        self, conversation: Conversation, owner: object, *, in_line: bool = False
    ) -> TurnSlot:
        """Return a context that waits until no turn is active in the conversation, and holds it.

        ::

            async with slots.reserve(conversation, owner) as slot:
                turn = await slot.start(message, options)

        First come, first served, in the whole process: clients of one server on several event loops
        take turns. A turn whose reader has given it up is aborted.

        Args:
            conversation: The conversation to take.
            owner: The task or thread that takes it.
            in_line: True if the owner goes on while this waits, and so may still read the turn that
                is in the way.

        Raises:
            ConversationBusyError: (when entered) The wait would never end, because the owner itself
                would have to read the turn that is in the way.
            WaitsForItselfError: (when entered) The caller is a tool of that conversation's turn.
        """
        return TurnSlot(self, conversation, owner, in_line=in_line)

    def line_up(
        self,
        session: object,
        turn: Turn,
        message: OutgoingMessage,
        settings: Callable[[], TurnSettings],
        init: Callable[[], InitMessage | None],
    ) -> None:
        """Let a turn wait in line; its message is sent when the conversation is free.

        Args:
            session: The session whose end takes the message back.
            turn: The turn, which is not sent yet.
            message: The message to send.
            settings: Called when the turn begins, as the settings may change until then.
            init: Called when the turn has begun; returns the first message of its stream, if any.
        """
        beginning = self.works.start(session, self._begin_in_line(turn, message, settings, init))
        turn.wait(message.item, beginning, self._make_way_for)
        self.queue.append(turn)
        beginning.add_done_callback(lambda _: self.queue.remove(turn))

    async def _begin_in_line(
        self,
        turn: Turn,
        message: OutgoingMessage,
        settings: Callable[[], TurnSettings],
        init: Callable[[], InitMessage | None],
    ) -> None:
        async with self.reserve(turn.conversation, turn.owner, in_line=True) as slot:
            # From here on the message may arrive at the server, and can no longer be taken back.
            turn.on_its_way = True
            await slot.begin(turn, message, settings(), init)

    async def enter(
        self, conversation: Conversation, owner: object, *, in_line: bool
    ) -> Callable[[], None]:
        """Take a conversation as :meth:`reserve` does, and return a function that frees it."""
        self.check_outside(conversation)
        await self._make_way(conversation, None if in_line else owner)
        # A thread that waits here cannot read a turn of its own in another client; the lock must
        # know it to find out that the wait would never end.
        blocks = owner if isinstance(owner, threading.Thread) else None
        try:
            give_back = await take((self.place, conversation), blocks, waits=in_line)
        except NeverFreeError as error:
            raise ConversationBusyError(
                "Another client of this thread has not ended its turn in this conversation.",
                hint="Read its stream to the end, or close it.",
                accepted=False,
            ) from error

        def leave() -> None:
            self.turns.pop(conversation, None)
            give_back()

        return leave

    def check_outside(self, conversation: Conversation) -> None:
        """Raise if the caller is a tool of the conversation's turn, which waits for that tool."""
        turn = self.turns.get(conversation)
        if (turn is not None and turn.waits_for_caller()) or serves(conversation):
            raise WaitsForItselfError(
                "The conversation's turn waits for the tool that wants to use it.", accepted=False
            )

    async def _make_way_for(self, waiting: Turn) -> None:
        """Stop the turn that blocks a waiting one, if the blocking turn's reader has given it up.

        Raises:
            ConversationBusyError: The reader would have to read another turn first.
        """
        await self._make_way(waiting.conversation, waiting.owner)

    async def _make_way(self, conversation: Conversation, owner: object) -> None:
        turn = self.turns.get(conversation)
        if turn is None:
            return
        if turn.given_up(owner):
            await turn.stop("The turn was left unfinished and another message was sent.")
        elif owner is not None and turn.unread and turn.left_behind(owner):
            # Nobody else reads that turn and this owner waits here instead of reading it: without
            # this error both would wait for ever.
            raise unread_error()

    # -- the end ----------------------------------------------------------------------------

    async def finish(self, work: Awaitable[None]) -> None:
        """Run a clean-up to its end even if the caller is cancelled; ``close`` waits for it."""
        await asyncio.shield(self.finish_later(work))

    def finish_later(self, work: Awaitable[None]) -> asyncio.Future[None]:
        """Start a clean-up that runs beside everything else; ``close`` waits for it."""
        task = asyncio.ensure_future(work)
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        return task

    async def close(self) -> None:
        """Take back what waits, stop what runs, and wait for all clean-ups; this is final."""
        self._closed = True
        # The order matters: messages that wait must not begin while others are stopped.
        await withdraw(tuple(self.queue), "client")
        await self.works.end()
        for turn in tuple(self.turns.values()):
            await turn.stop("The client was closed.")
        if self._finishing:
            await asyncio.wait(self._finishing)


class TurnSlot:
    """A conversation that is held for one turn; :meth:`TurnSlots.reserve` makes it.

    Leaving the context before a turn has started frees the conversation; after that the turn does,
    at its end. The context can be entered again by whoever was handed the slot: the first to leave
    it frees the conversation.
    """

    def __init__(
        self, slots: TurnSlots, conversation: Conversation, owner: object, *, in_line: bool
    ) -> None:
        self._slots = slots
        self._conversation = conversation
        self._owner = owner
        self._in_line = in_line
        # Frees the conversation; ``None`` while this does not hold it.
        self._leave: Callable[[], None] | None = None

    async def __aenter__(self) -> TurnSlot:
        if self._leave is None:
            self._leave = await self._slots.enter(
                self._conversation, self._owner, in_line=self._in_line
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._free()

    def _free(self) -> None:
        if self._leave is not None:
            self._hand_over()()

    def _hand_over(self) -> Callable[[], None]:
        """Return the function that frees the conversation; from now on somebody else calls it."""
        leave, self._leave = self._leave, None
        assert leave is not None, "the conversation is not held"
        return leave

    async def start(self, message: OutgoingMessage, options: TurnOptions) -> Turn:
        """Send a message, and return the turn it begins.

        Raises:
            LettaError: The server refused the message. The conversation is free again.
        """
        started, leave = await self._send(message, options.settings)
        made = Turn(started, self._conversation, options, owner=self._owner, release=leave)
        self._slots.turns[self._conversation] = made
        return made

    async def begin(
        self,
        turn: Turn,
        message: OutgoingMessage,
        settings: TurnSettings,
        init: Callable[[], InitMessage | None],
    ) -> None:
        """Send the message of a turn that has waited in line.

        Args:
            turn: The turn.
            message: Its message.
            settings: The settings that every request of the turn carries.
            init: Called once the message is accepted: see :meth:`TurnSlots.line_up`.

        Raises:
            LettaError: The server refused the message. The conversation is free again.
        """
        started, leave = await self._send(message, settings)
        self._slots.turns[self._conversation] = turn
        turn.begin(started, init(), leave)

    async def _send(
        self, message: OutgoingMessage, settings: TurnSettings
    ) -> tuple[BackendTurn, Callable[[], None]]:
        """Send a message; return its turn and the function that frees the conversation."""
        try:
            turn = self._slots.backend.turn(self._conversation, settings)
            try:
                self._slots.check_usable()
                await turn.start(
                    message.content, message.otid, answers=message.answers, history=message.history
                )
            except asyncio.CancelledError:
                # The request may have arrived, and must not leave a turn running that nobody reads.
                await self._slots.finish(_abandon(turn, self._hand_over()))
                raise
        except BaseException:
            # Whatever it was, no turn has begun that could free the conversation. It is freed here
            # and not when the context is left, so that the message can be sent again before that.
            self._free()
            raise
        return turn, self._hand_over()


async def _abandon(turn: BackendTurn, leave: Callable[[], None]) -> None:
    """Stop a turn whose sender gave up before it was accepted, then free its conversation."""
    try:
        await turn.stop()
    finally:
        leave()
