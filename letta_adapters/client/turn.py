"""Internal: one turn as its reader sees it: requests, tool calls and time limits come together."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import suppress
from threading import Thread
from typing import Any, Final, Protocol
from weakref import ReferenceType, ref

from letta_adapters._utils.tasks import Deadline, end_task, run_within, running_task
from letta_adapters.backends.base import (
    BackendTurn,
    Conversation,
    ToolCallResponse,
)
from letta_adapters.client.message_stream import MessageStream
from letta_adapters.client.record import SILENT, TurnRecord
from letta_adapters.client.tool_calls import (
    Answered,
    EndsTurnError,
    PostponedError,
    let_answer,
)
from letta_adapters.client.turn_options import MakeInit, TurnOptions
from letta_adapters.engine.stop_reasons import Failure
from letta_adapters.errors import LettaError
from letta_adapters.messages import (
    Message,
    ToolCallMessage,
    ToolResultMessage,
    Usage,
)
from letta_adapters.permissions import denials

# Seconds that another reader of the stream gets to see the end of a turn that was stopped.
_END_SECONDS: Final = 10.0
# Seconds between two looks of a turn that waits in line whether the turn in its way can ever end.
_LOOK_SECONDS: Final = 1.0


class Keeper(Protocol):
    """The owner of a turn: the session that has sent it."""

    @property
    def closed(self) -> bool:
        """True once the owner was closed."""


class Turn:
    """An accepted turn, which holds its conversation until it is over.

    Without a ``handler`` it pauses at calls that wait for an answer: its stream ends there,
    without a result, and goes on with :meth:`resume` (or the turn is given up with :meth:`stop`).

    A turn that waits in line (:meth:`wait`) is not sent yet; its stream waits for it to begin. It
    waits here and not in the server's queue, which would join all waiting messages into one turn.
    """

    def __init__(
        self,
        backend_turn: BackendTurn,
        conversation: Conversation,
        options: TurnOptions,
        *,
        owner: object,
        release: Callable[[], None] | None,
    ) -> None:
        self._turn = backend_turn
        self._state = backend_turn.state
        self.conversation = conversation
        self.options = options
        self.record: TurnRecord = SILENT  # what is told of it, once it is sent
        self._handler = options.handler
        self._facts = options.facts
        self._init = options.init
        self._results = options.results
        # True once it was sent and accepted. Before that it holds nothing that could be released.
        self.begun = release is not None
        self._release = release
        self._timeout = options.timeout
        self._deadline = Deadline(options.timeout if self.begun else None)
        self._started = time.monotonic()
        self._done = asyncio.Event()
        # Set while no task waits for the next batch.
        self._idle = asyncio.Event()
        self._idle.set()
        self._answering: asyncio.Task[Answered] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._stop_reason = "The turn was aborted."
        # The time.monotonic() at which it began to wait for the caller's answers.
        self.paused_at: float | None = None
        self.streamed = False
        self._read: ReferenceType[MessageStream] | None = None
        self._reading_began = False
        # The task or thread that sent it, later the one that reads it: see AsyncSession.send.
        self.owner = owner
        # Returns the session it belongs to; ``None`` for a turn that is read by whoever has sent
        # it.
        self.keeper: Callable[[], Keeper | None] | None = None
        # For a turn that waits, or has waited: its message as the queue shows it, the task that
        # sends it once the conversation is free, and a function that stops what is in its way.
        self.item: Mapping[str, Any] = {}
        self._beginning: asyncio.Future[None] | None = None
        self._make_way: Callable[[Turn], Awaitable[None]] | None = None
        self.on_its_way = False
        self.aborted = False

    @property
    def finished(self) -> bool:
        """True once the turn is over and its conversation free."""
        return self._done.is_set()

    @property
    def paused(self) -> bool:
        """True while it waits for :meth:`resume`."""
        return self.paused_at is not None and not self.finished

    @property
    def pending(self) -> tuple[ToolCallMessage, ...]:
        """The calls that wait for an answer."""
        return self._state.pending

    @property
    def details(self) -> Mapping[str, Mapping[str, Any]]:
        """The server's details of its permission questions, by tool call id."""
        return self._state.details

    @property
    def usage(self) -> Usage:
        """The tokens it has used so far."""
        return self._state.usage

    @property
    def connected(self) -> bool:
        """True while the server can still be told anything about it."""
        return self._turn.connected

    @property
    def unread(self) -> bool:
        """True if it is not over, and nobody has begun to read its stream or given it up."""
        return not (self.finished or self._reading_began or self.given_up(None))

    @property
    def unsent(self) -> bool:
        """True if it was given up, or refused, before it began."""
        return self.finished and not self.begun and self._state.input_stored is False

    def given_up(self, by: object) -> bool:
        """Return whether nobody is interested in the turn's end.

        That is so when its stream was dropped or its reader has ended, when nobody has asked for
        its stream and its session is closed or gone, and when it was aborted before. A turn that
        was merely sent is not given up, as somebody may still read it.

        Args:
            by: The task or thread that is about to wait for another turn of the conversation, and
                so does not read on in a turn that it has half read. ``None`` for a message that
                waits in line.
        """
        # It waits for answers, and nobody who could give them waits beside it.
        if self.owner is None:
            return True
        # It has a stream: the question is whether somebody will go on reading that.
        if self._read is not None:
            moved_on = self._reading_began and by is not None and self.owner is by
            dropped = self._read() is None or moved_on or self._owner_ended()
            return dropped and self._idle.is_set()
        # It has no stream and no session: only its sender could ask for one.
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
        """Return whether nobody but the sender has an interest in the turn."""
        return self.owner is sender or self.owner is None or self._owner_ended()

    def stream(self, owner: object) -> MessageStream:
        """Return the stream of the turn's messages; there is only one.

        Args:
            owner: The task or thread that reads it.
        """
        self.streamed = True
        return self._reading(self._messages(), owner)

    def _reading(self, messages: AsyncGenerator[Message, None], owner: object) -> MessageStream:
        self.owner = owner
        made = MessageStream(messages, self._stop_reading)
        # Weak, so that a stream which its reader drops is collected, which stops the agent.
        self._read = ref(made)
        return made

    def wait(
        self,
        item: Mapping[str, Any],
        beginning: asyncio.Future[None],
        make_way: Callable[[Turn], Awaitable[None]],
    ) -> None:
        """Put the turn in line, to be sent when its conversation is free.

        Args:
            item: The message as the queue shows it: ``id``, ``content``, ...
            beginning: The task that calls :meth:`begin` when it is this turn's time. It is
                cancelled if the turn is given up before.
            make_way: Called again and again while the turn's reader waits. It stops a turn that the
                reader has given up, and raises if the wait would never end.
        """
        self.item = item
        self._beginning = beginning
        self._make_way = make_way
        beginning.add_done_callback(self._began)

    def begin(
        self, backend_turn: BackendTurn, init: MakeInit | None, release: Callable[[], None]
    ) -> None:
        """Take note that the turn's message was accepted."""
        self._turn = backend_turn
        self._state = backend_turn.state
        self._init = init
        self._release = release
        self._deadline = Deadline(self._timeout)
        self._started = time.monotonic()
        self.begun = True

    def _began(self, beginning: asyncio.Future[None]) -> None:
        """Take note that the wait in line is over: the turn has begun, or will never begin."""
        if self.begun or self.finished:
            return
        error = None if beginning.cancelled() else beginning.exception()
        if isinstance(error, LettaError):
            self._state.fail_with(error)
            self._state.input_stored = error.accepted
        elif error is None:
            self._state.fail(Failure("cancelled", self._stop_reason))
            # A message whose request was under way may have arrived before it was cancelled.
            self._state.input_stored = None if self.on_its_way else False
        self._done.set()

    async def _wait_in_line(self) -> None:
        """Wait until the turn has begun, or can never begin."""
        beginning, make_way = self._beginning, self._make_way
        if beginning is None or make_way is None:
            return
        # The reader may give up the turn in the way at any moment, and nothing tells of that.
        while not beginning.done():
            if await self._in_vain(make_way):
                await end_task(beginning)
            else:
                await asyncio.wait({beginning}, timeout=_LOOK_SECONDS)
        self._began(beginning)
        # A refusal by the server is the turn's result; any other exception is a fault of ours.
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

    def resume(self, answers: Sequence[ToolCallResponse], owner: object) -> MessageStream:
        """Answer all calls of a paused turn, and return the stream of the messages that follow."""
        self.paused_at = None
        self.record = self.record.go_on(self._state.usage)
        self._deadline = Deadline(self._timeout)
        return self._reading(self._messages(answers), owner)

    def let_go(self) -> None:
        """Forget a paused turn whose calls the server keeps, and free the conversation."""
        self._over()

    async def _stop_reading(self) -> None:
        # A stream that ends at a pause is read to its end: the turn goes on with the answers.
        if not self.paused:
            await self.stop()

    def _pause(self) -> None:
        self._deadline.stop()
        self.owner = None
        self.paused_at = time.monotonic()
        self.record.end(self._state, stopped=False, paused=True)

    async def _messages(
        self, answers: Sequence[ToolCallResponse] | None = None
    ) -> AsyncGenerator[Message, None]:
        complete = False
        try:
            for message in await self._opening(answers):
                yield message
            # A turn is a row of requests: each ends at tool calls, whose answers begin the next
            # one.
            while self._state.failure is None and self._stopping is None:
                next_batch = self.record.watch(self._turn.batches().__anext__)
                while (batch := await self._step(next_batch)) is not None:
                    for message in batch:
                        yield message
                if not self._goes_on():
                    break
                answered = False
                while not answered:
                    # What tools report while they run, and in the end what they returned.
                    told = await self._answer()
                    answered = self._answering is None
                    for message in told:
                        yield message
            complete = True
        finally:
            # Closed early, dropped or cancelled: nobody reads on, so the agent has to stop.
            if not complete:
                await self.stop()
        for message in await self._close():
            yield message

    async def _opening(self, answers: Sequence[ToolCallResponse] | None) -> Sequence[Message]:
        """Return the messages that come before the server says anything."""
        self._reading_began = True
        if asyncio.isfuture(self.owner):
            self.owner = running_task()  # which need not be the one that asked for the stream
        if answers is not None:
            return await self._answer(answers)
        await self._wait_in_line()
        first: list[Message] = [*await self._introduce(), *self.options.reports]
        # The server may repeat such a result; each is shown once.
        first += (result for result in self._results if self._state.tool_result(result))
        return first

    async def _introduce(self) -> list[Message]:
        """Return the message that introduces the agent, if it is time for it."""
        if self._facts is None:
            return []
        passed = time.monotonic() - self._started
        left = None if self._timeout is None else self._timeout - passed
        opened = await self._facts.settle(left)
        return [] if self._init is None else [self._init(opened)]

    def _goes_on(self) -> bool:
        """Return whether calls wait that this side answers now; the turn may also pause here."""
        waits = self._state.pending and self._state.failure is None and self._stopping is None
        if waits and self._handler is None:
            self._pause()
            return False
        return bool(waits)

    async def _step(self, next_batch: Callable[[], Awaitable[list[Message]]]) -> Any:
        """Return the next batch of messages; ``None`` at the end, or if the turn just failed."""
        if self._stopping is not None:
            return None
        try:
            self._deadline.enter()
            self._idle.clear()
            return await next_batch()
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError:
            # Cancelled by the time limit the turn ends with an error; otherwise its reader is
            # cancelled.
            if not self._deadline.absorbs_cancel():
                raise
            await self._fail_and_stop(self._deadline.error())
        except LettaError as error:
            await self._fail_and_stop(error)
        finally:
            self._idle.set()
            self._deadline.leave()
        return None

    async def _answer(self, answers: Sequence[ToolCallResponse] | None = None) -> Sequence[Message]:
        """Answer the pending calls.

        Returns:
            What tools have reported, if they still run: then this has to be called again. In the
            end the results that this side can report.
        """
        results: Sequence[ToolResultMessage] = ()
        runs = False
        try:
            self._deadline.enter()
            if answers is None:
                answering = self._answering or self._ask()
                if reports := await self._read_reports(answering):
                    runs = True
                    return reports
                # stop() has ended the tools, or the server was told to stop since the last report.
                if self._stopping is not None:
                    self._state.fail(Failure("cancelled", self._stop_reason))
                    return ()
                answered = answering.result()
                self._answering = None
                answers, results = answered.answers, answered.results
            self._idle.clear()
            with self.record.inside():
                await self._turn.answer(answers)
        except asyncio.CancelledError:
            if not self._deadline.absorbs_cancel():
                raise
            await self._fail_and_stop(self._deadline.error())
        except EndsTurnError as end:
            await self._fail_and_stop(end.error, denials.TURN_ENDED, end.answers)
        except PostponedError:
            self._fail_as_detached()
            await self._turn.release()
        except LettaError as error:
            await self._fail_and_stop(error)
        finally:
            if not runs:
                self._answering = None
            self._idle.set()
            self._deadline.leave()
        # The server may have reported a result already; each is shown once.
        return [result for result in results if self._state.tool_result(result)]

    def _ask(self) -> asyncio.Task[Answered]:
        """Let the permission callback and the tools answer."""
        assert self._handler is not None
        asking = self._handler.answer(self._state.pending, self._state.details)
        with self.record.inside():
            self._answering = let_answer(self, asking)
        return self._answering

    async def _read_reports(self, answering: asyncio.Future[Any]) -> Sequence[Message]:
        """Return what the tools have reported; nothing once they have answered."""
        return () if self._handler is None else await self._handler.reports.read(answering)

    async def _fail_and_stop(
        self, error: LettaError, why: str | None = None, answers: Sequence[ToolCallResponse] = ()
    ) -> None:
        """End the turn with an error.

        Args:
            error: The error.
            why: The reason for which this ends calls that wait; ``None`` leaves them as they are,
                unless the turn's time is up.
            answers: Decisions about some of them.
        """
        self._deadline.leave()
        self._state.fail_with(error)
        # The time may be up between two reports, when the tools still run.
        if self._answering is not None:
            await end_task(self._answering)
        if why is None and self._deadline.expired:
            why = self._deadline.error().message
        await self._turn.stop(why, answers)

    def _fail_as_detached(self) -> None:
        """Note that the turn goes on, or waits, without anybody of this process."""
        pending = self._state.pending
        named = ", ".join(f"{call.tool_name} ({call.tool_call_id})" for call in pending)
        told = f"Calls wait for session.respond(): {named}." if named else "It may go on."
        self._state.fail(
            Failure(
                "detached",
                f"The turn was left as it is. {told}",
                stop_reason="requires_approval" if pending else "detached",
            )
        )
        # A step that asks is stored, and with it the message.
        self._state.input_stored = True if pending else None
        self._turn.wanted = False

    async def _close(self) -> list[Message]:
        if self.paused:
            return []
        if self._stopping is not None:
            # A server that is asked to stop may send a normal end all the same.
            self._state.fail(Failure("cancelled", self._stop_reason))
            await asyncio.shield(self._stopping)
        elif self.aborted:
            # The step that was cancelled may have asked before.
            await self._turn.stop(self._stop_reason)
        self._over()
        where = self.conversation if self._facts is None else self._facts.known.conversation
        return self._state.finish(
            duration_ms=math.ceil((time.monotonic() - self._started) * 1000),
            agent_id=where.agent_id,
            conversation_id=where.conversation_id,
        )

    def _over(self) -> None:
        self._deadline.stop()
        if not self._done.is_set():
            self._done.set()
            self.record.end(self._state, stopped=self._stopping is not None)
            if self._release is not None:
                self._release()

    def withdraw(self, reason: str) -> None:
        """Take the message back if it is not sent yet; :meth:`stop` waits until that is done."""
        if self._beginning is not None and not self._beginning.done():
            self._stop_reason = reason
            self._beginning.cancel()

    async def stop(
        self,
        reason: str = "The turn was aborted.",
        *,
        ends_calls: bool = False,
        answers: Sequence[ToolCallResponse] = (),
    ) -> None:
        """Stop the agent, wait until it has stopped, and free the conversation.

        It runs to its end even if the caller is cancelled. A stream that is still read afterwards
        ends with a result that says ``cancelled``.

        Args:
            reason: The reason, for the result.
            ends_calls: End the calls that wait, as the application has given the turn up. Otherwise
                they stay where conversations keep them: nobody has decided about them.
            answers: Decisions that were taken about some of them all the same.
        """
        if self.finished:
            return
        if self._stopping is None:
            self._stop_reason = reason
            why = reason if ends_calls else None
            self._stopping = asyncio.ensure_future(self._stop(why, answers))
        await asyncio.shield(self._stopping)

    async def _stop(self, why: str | None, answers: Sequence[ToolCallResponse]) -> None:
        # Accepted while it is taken back, it runs and has to be stopped like any other.
        if self._beginning is not None and not self.begun:
            await end_task(self._beginning)
            if not self.begun:
                self._began(self._beginning)
                return
        self._turn.wanted = False
        try:
            if not self._idle.is_set():
                # Another task reads: let it get what comes next instead of reading beside it.
                await self._turn.cancel()
                with suppress(TimeoutError, asyncio.TimeoutError):
                    await run_within(_END_SECONDS, self._idle.wait())
                # The server did not end the turn in time: cut the connection, which ends the
                # reader's wait.
                if not self._idle.is_set():
                    self._state.fail(Failure("cancelled", self._stop_reason))
                    await self._turn.release()
                    await self._idle.wait()
            if self._answering is not None:
                await end_task(self._answering)
            await self._turn.stop(why, answers)
        except LettaError:
            pass  # stopping is best effort: what is gone cannot be stopped
        finally:
            self._over()

    async def abort(self) -> None:
        """Ask the agent to stop; the stream then ends with a ``cancelled`` result."""
        if self.finished:
            return
        self.aborted = True
        self.record.note("The turn is told to stop.")
        if self._state.pending:  # it waits for us, so no run is active that could be cancelled
            await self.stop(ends_calls=True)
        else:
            await self._turn.cancel()

    async def detach(self) -> None:
        """Leave the turn and its calls as they are, and free the conversation on this side.

        The agent goes on, if it is at work. The stream ends with a result that says ``detached``.
        Only where conversations keep their calls (``durable_pending_calls``).
        """
        if self.finished:
            return
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._detach())
        await asyncio.shield(self._stopping)

    async def _detach(self) -> None:
        self._fail_as_detached()
        try:
            if self._answering is not None:
                await end_task(self._answering)
            await self._turn.release()
            # Answers that are on their way arrive, and their stream is given up as well.
            await self._idle.wait()
            await self._turn.release()
        finally:
            self._over()
