"""Internal: let one turn at a time run in each conversation, and end all turns with their client.

:class:`TurnSlots` are the turns of a client and :class:`Outbox` those of a session; the tasks that
begin them are :class:`Works`, which end with whoever has started them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from letta_adapters._utils.locks import NeverFreeError, take
from letta_adapters._utils.tasks import await_all, end_task, running_loop
from letta_adapters.backends.base import (
    Backend,
    BackendTurn,
    Conversation,
    ToolCallResponse,
    TurnSettings,
)
from letta_adapters.client.record import TurnFacts, TurnRecord
from letta_adapters.client.tool_calls import serves
from letta_adapters.client.turn import Turn
from letta_adapters.client.turn_options import MakeInit, TurnOptions
from letta_adapters.errors import (
    ConversationBusyError,
    SessionClosedError,
    WaitsForItselfError,
    WrongEventLoopError,
)

T = TypeVar("T")

# The number of messages of one session that may wait behind its turn.
MAX_QUEUED: Final = 100

_log = logging.getLogger("letta_adapters.session")


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message and what travels with it; see :meth:`~.backends.base.BackendTurn.start`.

    Args:
        otid: The message's id.
        content: The message in the form of the wire; ``None`` if there are only answers.
        answers: Answers to the calls that wait in the conversation.
        history: Messages to store before it.
        timeout: Seconds its turn may take; ``None`` for the limit of the session.
    """

    otid: str
    content: Any
    answers: Sequence[ToolCallResponse] = ()
    history: Sequence[Mapping[str, Any]] = ()
    timeout: float | None = None

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
        # The running turn of each conversation, by the conversation's key.
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
        init: Callable[[], MakeInit | None],
    ) -> None:
        """Let a turn wait in line; its message is sent when the conversation is free.

        Args:
            session: The session whose end takes the message back.
            turn: The turn, which is not sent yet.
            message: The message to send.
            settings: Called when the turn begins, as the settings may change until then.
            init: Called when the turn has begun; returns what makes the first message of its
                stream, if there is one.
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
        init: Callable[[], MakeInit | None],
    ) -> None:
        async with self.reserve(turn.conversation, turn.owner, in_line=True) as slot:
            # From here on the message may arrive at the server, and can no longer be taken back.
            turn.on_its_way = True
            await slot.begin(turn, message, settings(), init)

    async def enter(
        self, conversation: Conversation, owner: object, *, in_line: bool
    ) -> Callable[[], None]:
        """Take a conversation as :meth:`reserve` does, and return a function that frees it."""
        # Asked first: to stop that turn, or wait for it, would be to wait for the tool that asks.
        self.check_outside(conversation)
        await self._make_way(conversation, None if in_line else owner)
        # A thread that waits here cannot read a turn of its own in another client; the lock must
        # know it to find out that the wait would never end.
        blocks = owner if isinstance(owner, threading.Thread) else None
        try:
            give_back = await take((self.place, conversation.key), blocks, waits=in_line)
        except NeverFreeError as error:
            raise ConversationBusyError(
                "Another client of this thread has not ended its turn in this conversation.",
                hint="Read its stream to the end, or close it.",
                accepted=False,
            ) from error

        def leave() -> None:
            self.turns.pop(conversation.key, None)
            give_back()

        return leave

    def check_outside(self, conversation: Conversation) -> None:
        """Raise if the caller is a tool of the conversation's turn, which waits for that tool."""
        if serves(conversation):
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
        # Looked up at each call, since a turn may end, and another begin, while somebody waits.
        turn = self.turns.get(conversation.key)
        if turn is None:
            return
        if turn.given_up(owner):
            await turn.stop("The turn was left unfinished and another message was sent.")
        elif owner is not None and turn.unread and turn.left_behind(owner):
            # Nobody else reads that turn and this owner waits here instead of reading it: without
            # this error both would wait for ever.
            raise make_unread_error()

    # -- the end ----------------------------------------------------------------------------

    async def finish(self, work: Awaitable[None]) -> None:
        """Run a clean-up to its end even if the caller is cancelled; ``close`` waits for it."""
        await asyncio.shield(self.finish_later(work))

    def finish_later(self, work: Awaitable[None]) -> asyncio.Future[None]:
        """Start a clean-up that runs beside everything else; ``close`` waits for it."""
        task = asyncio.ensure_future(work)
        # Kept here also because asyncio itself holds its tasks by weak references only.
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        return task

    async def close(self, caller: asyncio.Task[Any] | None) -> None:
        """Take back what waits, stop what runs, and wait for all clean-ups; this is final.

        Args:
            caller: The task that is not ended with the others, as it waits for this.
        """
        # From now on `check_usable` stops every send that has not reached its request.
        self._closed = True
        # The order matters: messages that wait must not begin while others are stopped.
        await withdraw(tuple(self.queue), "client")
        await self.works.end(None, caller)
        for turn in tuple(self.turns.values()):
            await turn.stop("The client was closed.")
        # Last: what was cancelled above, and what was given up before, cleans up in these tasks.
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
        record = self._record(message, options)
        started, leave = await self._send(message, options.settings, record)
        made = Turn(started, self._conversation, options, owner=self._owner, release=leave)
        made.record = record
        self._slots.turns[self._conversation.key] = made
        return made

    async def begin(
        self,
        turn: Turn,
        message: OutgoingMessage,
        settings: TurnSettings,
        init: Callable[[], MakeInit | None],
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
        turn.record = self._record(message, turn.options)
        started, leave = await self._send(message, settings, turn.record)
        self._slots.turns[self._conversation.key] = turn
        turn.begin(started, init(), leave)

    def _record(self, message: OutgoingMessage, options: TurnOptions) -> TurnRecord:
        told = options.told
        if options.settings.model:
            told = replace(told, model=options.settings.model)
        backend = self._slots.backend.name
        return TurnRecord(
            TurnFacts(self._conversation, backend, message.otid, message.content, told)
        )

    async def _send(
        self, message: OutgoingMessage, settings: TurnSettings, record: TurnRecord
    ) -> tuple[BackendTurn, Callable[[], None]]:
        """Send a message; return its turn and the function that frees the conversation."""
        try:
            turn = self._slots.backend.turn(self._conversation, settings)
            try:
                # The wait for the conversation may have been long: the client may be closed by now.
                self._slots.check_usable()
                with record.inside():
                    await turn.start(
                        message.content,
                        message.otid,
                        answers=message.answers,
                        history=message.history,
                    )
            except asyncio.CancelledError:
                # The request may have arrived, and must not leave a turn running that nobody reads.
                # The conversation is handed over, to be free once that turn has stopped.
                await self._slots.finish(_abandon(turn, self._hand_over()))
                raise
        except BaseException as error:
            record.refuse(error)
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


# -- the turns of a session ----------------------------------------------------------------


class Outbox:
    """The turns of one session that are not read to their end, oldest first."""

    def __init__(self) -> None:
        self._turns: list[Turn] = []

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns that are not over, and those whose end nobody has read."""
        # Looked through at each use: turns end by themselves and tell nobody.
        self._turns = [turn for turn in self._turns if not (turn.finished and turn.streamed)]
        return tuple(self._turns)

    @property
    def current(self) -> Turn | None:
        """The turn that runs, if one does."""
        return next((turn for turn in self.turns if turn.begun and not turn.finished), None)

    @property
    def busy(self) -> bool:
        """True if another message must wait for one of these turns."""
        # One that was given up is in nobody's way: the next message stops it (`_make_way`).
        return any(not turn.finished and not turn.given_up(None) for turn in self.turns)

    @property
    def unsent(self) -> tuple[Mapping[str, Any], ...]:
        """The messages that will never be sent."""
        return tuple(turn.item for turn in self.turns if turn.unsent)

    def add(self, turn: Turn) -> None:
        """Add a turn that was accepted, or that waits; forget those that were aborted unread."""
        self._turns = [one for one in self.turns if not one.aborted or one.streamed]
        self._turns.append(turn)

    def remove(self, turn: Turn) -> None:
        """Remove a turn whose message was taken back."""
        # A turn that has a stream stays: its reader still gets the end.
        if not turn.streamed:
            self._turns = [one for one in self._turns if one is not turn]

    def check_room(self) -> None:
        """Refuse a message that would make too many wait.

        Raises:
            ConversationBusyError: There is no room.
        """
        waiting = [turn for turn in self.turns if not turn.begun and not turn.finished]
        if len(waiting) >= MAX_QUEUED:
            raise ConversationBusyError(
                f"{len(waiting)} messages of this session wait already.",
                hint="Read their streams first.",
                accepted=False,
            )

    def check_read(self, owner: object) -> None:
        """Refuse to wait for turns that only the caller can bring to their end.

        Raises:
            ConversationBusyError: The caller has sent messages whose streams nobody reads.
        """
        unread = [turn for turn in self.turns if turn.unread and turn.left_behind(owner)]
        if unread:
            raise make_unread_error(len(unread))

    def next(self, owner: object) -> Turn | None:
        """Return the oldest turn nobody reads: the caller's own if there is one, else anybody's."""
        waiting = [turn for turn in self.turns if not turn.streamed]
        mine = [turn for turn in waiting if turn.left_behind(owner)]
        return next(iter(mine or waiting), None)


def make_unread_error(count: int = 1) -> ConversationBusyError:
    """Return the error of a caller who would wait for a turn that waits for the caller."""
    return ConversationBusyError(
        f"{count} message(s) sent before in this conversation have not been read.",
        hint="Read them with stream(), give them up with abort(), or close their session.",
        accepted=False,
    )


async def withdraw(turns: Sequence[Turn], what: str) -> None:
    """Take back the messages that wait, because their session or client is closed, and warn of it.

    Args:
        turns: Those that have begun are left alone.
        what: The thing that was closed: ``"session"`` or ``"client"``.
    """
    reason = f"The {what} was closed."
    # A turn that has begun cannot be taken back; the caller stops it.
    waiting = [turn for turn in turns if not turn.begun]
    for turn in waiting:
        turn.withdraw(reason)  # all, before one of them gets a chance to begin
    for turn in waiting:
        await turn.stop(reason)
    lost = [str(turn.item["id"]) for turn in waiting if turn.unsent]
    if lost:
        _log.warning(
            "%d message(s) waited when the %s was closed and were not sent (session.unsent holds "
            "them): %s",
            len(lost),
            what,
            ", ".join(lost),
        )


# -- tasks ---------------------------------------------------------------------------------


class Works:
    """The running tasks (openings and sends) of a client's sessions, each with its session.

    Args:
        finish: Runs a clean-up to its end, even if its caller is cancelled.
    """

    def __init__(self, finish: Callable[[Awaitable[None]], Awaitable[None]]) -> None:
        self._finish = finish
        self._running: dict[asyncio.Task[Any], object] = {}

    async def run(
        self,
        owner: object,
        work: Coroutine[Any, Any, T],
        undo: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """Await ``work``; cancelling the caller cancels it, and waits for its clean-up.

        Args:
            owner: The session it belongs to.
            work: The work. It starts with the event loop's next round.
            undo: Called with the result of ``work`` if the caller never gets it, because it was
                cancelled just as ``work`` ended.

        Raises:
            SessionClosedError: The owner was closed meanwhile.
        """
        task = self.start(owner, work)
        try:
            # Not awaited directly: that would not tell its cancellation from the caller's.
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # Whoever cancels a second time does not wait for the clean-up.
            await self._finish(_clean_up(task, undo))
            raise
        if task.cancelled():
            raise SessionClosedError("The session was closed meanwhile.")
        return task.result()

    def start(self, owner: object, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let ``work`` run beside everything else; its exceptions are left to whoever awaits it."""
        task = asyncio.ensure_future(work)
        self._running[task] = owner
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        del self._running[task]
        if not task.cancelled():
            task.exception()  # else one that nobody waits for any more is reported as lost

    async def end(self, owners: Sequence[object] | None, caller: asyncio.Task[Any] | None) -> None:
        """Cancel the tasks of ``owners`` (``None``: of all), and wait for their end.

        Args:
            owners: The session, and its facts, which are looked up in tasks of their own.
            caller: The task that is left out: one that closes its own session waits for this.
        """
        chosen = None if owners is None else set(map(id, owners))
        of = [
            task for task, whose in self._running.items() if chosen is None or id(whose) in chosen
        ]
        ending = [task for task in of if task is not caller]
        for task in ending:
            task.cancel()
        await await_all(ending)


async def _clean_up(task: asyncio.Task[T], undo: Callable[[T], Awaitable[None]] | None) -> None:
    await end_task(task)
    if undo is not None and not task.cancelled() and task.exception() is None:
        await undo(task.result())
