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
from typing import Any, Final

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

# The turns whose tools and callbacks the current code is part of.
_answering: ContextVar[tuple[Turn, ...]] = ContextVar("letta_answering", default=())


def serves(conversation: Conversation) -> bool:
    """Return whether this is called by a tool or a callback of a turn of that conversation."""
    return any(turn.conversation == conversation for turn in _answering.get())


class MessageStream(AsyncIterator[Message]):
    """The messages of one turn, in order, ending with its ``ResultMessage``.

    Leaving the loop early stops the agent: at once when the stream is closed (``aclose()``, ``async
    with``) or no longer referenced, at the latest with the session's next ``send()``.
    """

    __slots__ = ("_messages", "_next", "_stop")

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


class Turn:
    """An accepted turn. Holds its conversation until it is over.

    Without an ``answerer`` it pauses at calls that wait for an answer: its stream ends there,
    without a result, and goes on with :meth:`resume` (or the turn is given up with :meth:`stop`).
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
        release: Callable[[], None],
    ) -> None:
        self._turn = backend_turn
        self._state = backend_turn.state
        self.conversation = conversation
        self._answerer = answerer
        self._init = init
        self._release = release
        self._timeout = timeout
        self._deadline = Deadline(timeout)
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
        # The task or thread that sent it, then the one that reads it: see AsyncSession.send.
        self.owner = owner

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

    def left_behind(self, sender: object) -> bool:
        """Has nobody but the sender an interest in the turn?"""
        owner = self.owner
        if owner is sender or owner is None:
            return True
        if isinstance(owner, asyncio.Task):
            return owner.done()
        return isinstance(owner, Thread) and not owner.is_alive()

    def waits_for_caller(self) -> bool:
        """Is this called by a tool or a callback of the turn, which goes on when it returns?"""
        return self in _answering.get()

    def stream(self, owner: object) -> MessageStream:
        """The turn's messages; once. ``owner`` is the task or thread that reads them."""
        self.streamed = True
        self.owner = owner
        return MessageStream(self._messages(), self._stop_reading)

    def resume(self, answers: Sequence[ToolAnswer], owner: object) -> MessageStream:
        """Answer all calls of a paused turn; the messages that follow."""
        self.paused_at = None
        self.owner = owner
        self._deadline = Deadline(self._timeout)
        return MessageStream(self._messages(answers), self._stop_reading)

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
        if answers is not None:
            return await self._answer(answers)
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
            self._release()

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
        if self._state.pending:  # it waits for us, so no run is active that could be cancelled
            await self.stop()
        else:
            await self._turn.cancel()
