"""One turn as its consumer sees it: where requests, tools and time come together."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import suppress
from contextvars import ContextVar
from threading import Thread
from typing import Any, Final, Protocol
from weakref import ReferenceType, ref

from letta_adapters._loops import running_task
from letta_adapters._waiting import ended, within
from letta_adapters.answers import Answerer
from letta_adapters.backends.base import BackendTurn, Conversation, ToolAnswer, inside_a_turn
from letta_adapters.deadline import Deadline
from letta_adapters.engine.outcome import Failure
from letta_adapters.errors import LettaError
from letta_adapters.messages import (
    InitMessage,
    Message,
    ToolCallMessage,
    ToolResultMessage,
    Usage,
)

# How long another reader of the stream gets to see the end of a turn that was stopped.
_END_SECONDS: Final = 10.0
# How often a turn that waits in line looks whether what is in the way will ever move.
_LOOK_SECONDS: Final = 1.0

# The turns whose tools and callbacks the current code is part of.
_answering: ContextVar[tuple[Turn, ...]] = ContextVar("letta_answering", default=())


def serves(conversation: Conversation) -> bool:
    """Return whether this is called by a tool or a callback of a turn of that conversation."""
    return any(turn.conversation == conversation for turn in _answering.get())


class MessageStream(AsyncIterator[Message]):
    """The messages of one turn, in order, ending with its ``ResultMessage``.

    Leaving the loop early stops the agent: at once when the stream is closed (``aclose()``, ``async
    with``) or no longer referenced, at the latest when its reader reads another turn of the
    conversation.
    """

    __slots__ = ("__weakref__", "_messages", "_next", "_stop")

    def __init__(
        self, messages: AsyncGenerator[Message, None], stop: Callable[[], Awaitable[None]]
    ) -> None:
        self._messages = messages
        self._stop = stop
        self._next = messages.__anext__

    def __aiter__(self) -> MessageStream:
        return self

    # Not a coroutine function: that would cost one more coroutine per message.
    def __anext__(self) -> Awaitable[Message]:
        return self._next()

    async def aclose(self) -> None:
        """Stop the agent if the turn is not over. Can be called at any time, more than once.

        While another task waits for the next message, that task gets the stream's end.
        """
        await self._stop()
        if not getattr(self._messages, "ag_running", False):
            await self._messages.aclose()

    async def __aenter__(self) -> MessageStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Keeper(Protocol):
    """What a turn belongs to."""

    @property
    def closed(self) -> bool:
        """Was it closed?"""


class Turn:
    """An accepted turn. Holds its conversation until it is over.

    Without an ``answerer`` it pauses at calls that wait for an answer: its stream ends there,
    without a result, and goes on with :meth:`resume` (or the turn is given up with :meth:`stop`).

    One that waits in line (:meth:`wait`) is not sent yet; its stream waits for it to begin. It is
    not a turn of the server's queue, which would say all messages that wait there in one turn.
    """

    def __init__(
        self,
        backend_turn: BackendTurn,
        conversation: Conversation,
        answerer: Answerer | None,
        *,
        init: InitMessage | None,
        timeout: float | None,
        owner: object,
        release: Callable[[], None] | None,
    ) -> None:
        self._turn = backend_turn
        self._state = backend_turn.state
        self.conversation = conversation
        self._answerer = answerer
        self._init = init
        # Whether it was sent and accepted. If not it holds nothing that could be released.
        self.begun = release is not None
        self._release = release
        self._timeout = timeout
        self._deadline = Deadline(timeout if self.begun else None)
        self._started = time.monotonic()
        self._done = asyncio.Event()
        # Set while no task waits for the next batch.
        self._idle = asyncio.Event()
        self._idle.set()
        self._answering: asyncio.Task[Any] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._stop_reason = "The turn was aborted."
        # When it began to wait for the caller's answers, by time.monotonic().
        self.paused_at: float | None = None
        self.streamed = False
        self._read: ReferenceType[MessageStream] | None = None
        self._reading_began = False
        # The task or thread that sent it, then the one that reads it: see AsyncSession.send.
        self.owner = owner
        # The session it belongs to; ``None`` for a turn that is read by whoever has sent it.
        self.keeper: Callable[[], Keeper | None] | None = None
        # Of a turn that waits, or has waited: its message as the queue shows it, what sends it once
        # the conversation is free, and what makes way for it when it is read.
        self.item: Mapping[str, Any] = {}
        self._beginning: asyncio.Future[None] | None = None
        self._make_way: Callable[[Turn], Awaitable[None]] | None = None
        self.on_its_way = False
        self.aborted = False

    @property
    def finished(self) -> bool:
        """Is the turn over and its conversation free?"""
        return self._done.is_set()

    @property
    def paused(self) -> bool:
        """Does it wait for :meth:`resume`?"""
        return self.paused_at is not None and not self.finished

    @property
    def pending(self) -> tuple[ToolCallMessage, ...]:
        """The calls that wait for an answer."""
        return self._state.pending

    @property
    def details(self) -> Mapping[str, Mapping[str, Any]]:
        """What the server says of its permission questions, by tool call id."""
        return self._state.details

    @property
    def usage(self) -> Usage:
        """What it has used so far."""
        return self._state.usage

    @property
    def connected(self) -> bool:
        """Can the server still be told anything about it?"""
        return self._turn.connected

    @property
    def unread(self) -> bool:
        """Is it not over, and has nobody begun to read its stream or given it up?"""
        return not (self.finished or self._reading_began or self.given_up(None))

    @property
    def unsent(self) -> bool:
        """Was it given up, or refused, before it began?"""
        return self.finished and not self.begun and self._state.input_stored is False

    def given_up(self, by: object) -> bool:
        """Return whether nobody wants to know the turn's end.

        That is so when its stream was dropped or its reader has ended, when nobody has asked for
        its stream and its session is closed or gone, and when it was aborted before. A turn that
        was merely sent is not given up: somebody may read it yet.

        Args:
            by: The task or thread that is about to wait for another turn of the conversation: what
                it has half read it does not read on. ``None`` for a message that waits in line.
        """
        if self.owner is None:
            return True
        if self._read is not None:
            moved_on = self._reading_began and by is not None and self.owner is by
            dropped = self._read() is None or moved_on or self._owner_ended()
            return dropped and self._idle.is_set()
        if self.keeper is None:
            return by is not None and self.left_behind(by)
        keeper = self.keeper()
        return self.aborted or keeper is None or keeper.closed

    def _owner_ended(self) -> bool:
        owner = self.owner
        if asyncio.isfuture(owner):  # a task, of whichever class the event loop makes
            return owner.done()
        return isinstance(owner, Thread) and not owner.is_alive()

    def left_behind(self, sender: object) -> bool:
        """Has nobody but the sender an interest in the turn?"""
        return self.owner is sender or self.owner is None or self._owner_ended()

    def waits_for_caller(self) -> bool:
        """Is this called by a tool or a callback of the turn, which goes on when it returns?"""
        return self in _answering.get()

    def stream(self, owner: object) -> MessageStream:
        """The turn's messages; once. ``owner`` is the task or thread that reads them."""
        self.streamed = True
        return self._reading(self._messages(), owner)

    def _reading(self, messages: AsyncGenerator[Message, None], owner: object) -> MessageStream:
        self.owner = owner
        made = MessageStream(messages, self._stop_reading)
        self._read = ref(made)
        return made

    def wait(
        self,
        item: Mapping[str, Any],
        beginning: asyncio.Future[None],
        make_way: Callable[[Turn], Awaitable[None]],
    ) -> None:
        """Stand in line.

        Args:
            item: The message as the queue shows it: ``id``, ``content``, ...
            beginning: Calls :meth:`begin` when it is this turn's time. Cancelled if the turn is
                given up before.
            make_way: Called again and again while the turn's reader waits: stops what the reader
                has given up; raises where waiting is in vain.
        """
        self.item = item
        self._beginning = beginning
        self._make_way = make_way
        beginning.add_done_callback(self._began)

    def begin(
        self, backend_turn: BackendTurn, init: InitMessage | None, release: Callable[[], None]
    ) -> None:
        """Its message was accepted."""
        self._turn = backend_turn
        self._state = backend_turn.state
        self._init = init
        self._release = release
        self._deadline = Deadline(self._timeout)
        self._started = time.monotonic()
        self.begun = True

    def _began(self, beginning: asyncio.Future[None]) -> None:
        """Its time in line is over: it has begun, or was refused, or given up."""
        if self.begun or self.finished:
            return
        error = None if beginning.cancelled() else beginning.exception()
        if isinstance(error, LettaError):
            self._state.fail_with(error)
            self._state.input_stored = error.accepted
        elif error is None:
            self._state.fail(Failure("cancelled", self._stop_reason))
            self._state.input_stored = None if self.on_its_way else False
        self._done.set()

    async def _wait_in_line(self) -> None:
        """Wait until it has begun, or never will."""
        beginning, make_way = self._beginning, self._make_way
        if beginning is None or make_way is None:
            return
        while not beginning.done():
            if await self._in_vain(make_way):
                await ended(beginning)
            else:
                await asyncio.wait({beginning}, timeout=_LOOK_SECONDS)
        self._began(beginning)
        if not self.begun and not beginning.cancelled():
            raised = beginning.exception()
            if raised is not None and not isinstance(raised, LettaError):
                raise raised

    async def _in_vain(self, make_way: Callable[[Turn], Awaitable[None]]) -> bool:
        try:
            await make_way(self)
        except LettaError as error:
            self._state.fail_with(error)
            return True
        return False

    def resume(self, answers: Sequence[ToolAnswer], owner: object) -> MessageStream:
        """Answer all calls of a paused turn; the messages that follow."""
        self.paused_at = None
        self._deadline = Deadline(self._timeout)
        return self._reading(self._messages(answers), owner)

    def let_go(self) -> None:
        """Forget a paused turn whose calls the server keeps, and free the conversation."""
        self._over()

    async def _stop_reading(self) -> None:
        if not self.paused:
            await self.stop()

    def _pause(self) -> None:
        self._deadline.stop()
        self.owner = None
        self.paused_at = time.monotonic()

    async def _messages(
        self, answers: Sequence[ToolAnswer] | None = None
    ) -> AsyncGenerator[Message, None]:
        complete = False
        try:
            for message in await self._opening(answers):
                yield message
            while self._state.failure is None and self._stopping is None:
                next_batch = self._turn.batches().__anext__
                while self._stopping is None:
                    batch = await self._step(next_batch)
                    if batch is None:
                        break
                    for message in batch:
                        yield message
                results = await self._respond()
                if results is None:
                    break
                for result in results:
                    yield result
            complete = True
        finally:
            if not complete:
                await self.stop()
        for message in await self._close():
            yield message

    async def _opening(self, answers: Sequence[ToolAnswer] | None) -> Sequence[Message]:
        """What comes before the server says anything."""
        self._reading_began = True
        if asyncio.isfuture(self.owner):
            self.owner = running_task()  # which need not be the one that asked for the stream
        if answers is not None:
            return await self._answer(answers)
        await self._wait_in_line()
        return () if self._init is None else (self._init,)

    async def _respond(self) -> list[ToolResultMessage] | None:
        """Answer the calls that wait; ``None`` if the turn is over, or pauses here."""
        if not self._state.pending or self._state.failure is not None:
            return None
        if self._stopping is not None:
            return None
        if self._answerer is None:
            self._pause()
            return None
        return await self._answer()

    async def _step(self, next_batch: Callable[[], Awaitable[list[Message]]]) -> Any:
        """The next batch, or ``None`` when there is no more (or the turn just failed)."""
        try:
            self._deadline.enter()
            self._idle.clear()
            return await next_batch()
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError:
            if not self._deadline.absorbs_cancel():
                raise
            await self._fail_and_stop(self._deadline.error())
        except LettaError as error:
            await self._fail_and_stop(error)
        finally:
            self._idle.set()
            self._deadline.leave()
        return None

    async def _answer(self, answers: Sequence[ToolAnswer] | None = None) -> list[ToolResultMessage]:
        """Answer the pending calls; the results this side can report."""
        results: list[ToolResultMessage] = []
        try:
            self._deadline.enter()
            if answers is None:
                answers, results = await self._ask()
            self._idle.clear()
            await self._turn.answer(answers)
        except asyncio.CancelledError:
            if self._deadline.absorbs_cancel():
                await self._fail_and_stop(self._deadline.error())
            elif self._answering is not None and self._stopping is not None:
                self._state.fail(Failure("cancelled", self._stop_reason))
            else:
                raise
        except LettaError as error:
            await self._fail_and_stop(error)
        finally:
            self._answering = None
            self._idle.set()
            self._deadline.leave()
        return [result for result in results if self._state.tool_result(result)]

    async def _ask(self) -> tuple[list[ToolAnswer], list[ToolResultMessage]]:
        """Let the permission callback and the tools answer."""
        assert self._answerer is not None
        token = _answering.set((*_answering.get(), self))
        inside = inside_a_turn.set(True)
        answering = asyncio.ensure_future(
            self._answerer.answer(self._state.pending, self._state.details)
        )
        inside_a_turn.reset(inside)
        _answering.reset(token)
        self._answering = answering
        answered = await answering
        self._answering = None
        return answered

    async def _fail_and_stop(self, error: LettaError) -> None:
        self._deadline.leave()
        self._state.fail_with(error)
        await self._turn.stop()

    async def _close(self) -> list[Message]:
        if self.paused:
            return []
        if self._stopping is not None:
            self._state.fail(Failure("cancelled", self._stop_reason))
            await asyncio.shield(self._stopping)
        self._over()
        return self._state.finish(
            duration_ms=math.ceil((time.monotonic() - self._started) * 1000),
            agent_id=self.conversation.agent_id,
            conversation_id=self.conversation.conversation_id,
        )

    def _over(self) -> None:
        self._deadline.stop()
        if not self._done.is_set():
            self._done.set()
            if self._release is not None:
                self._release()

    def withdraw(self, reason: str) -> None:
        """Take its message back, if it is not sent yet; :meth:`stop` waits until that is done."""
        if self._beginning is not None and not self._beginning.done():
            self._stop_reason = reason
            self._beginning.cancel()

    async def stop(self, reason: str = "The turn was aborted.") -> None:
        """Stop the agent, wait until it has stopped, and free the conversation.

        Runs to its end even if the caller is cancelled. A stream that is still read afterwards
        ends with a result that says ``cancelled``.
        """
        if self.finished:
            return
        if self._stopping is None:
            self._stop_reason = reason
            self._stopping = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        if self._beginning is not None and not self.begun:
            await ended(self._beginning)
            if not self.begun:
                self._began(self._beginning)
                return
        self._turn.wanted = False
        try:
            if not self._idle.is_set():
                # Another task reads: let it get what comes next instead of reading beside it.
                await self._turn.cancel()
                with suppress(TimeoutError, asyncio.TimeoutError):
                    await within(_END_SECONDS, self._idle.wait())
                if not self._idle.is_set():
                    self._state.fail(Failure("cancelled", self._stop_reason))
                    await self._turn.release()
                    await self._idle.wait()
            if self._answering is not None:
                await ended(self._answering)
            await self._turn.stop()
        except LettaError:
            pass  # stopping is best effort: what is gone cannot be stopped
        finally:
            self._over()

    async def abort(self) -> None:
        """Ask the agent to stop. The stream then ends with a ``cancelled`` result."""
        if self.finished:
            return
        self.aborted = True
        if self._state.pending:  # it waits for us, so no run is active that could be cancelled
            await self.stop()
        else:
            await self._turn.cancel()
