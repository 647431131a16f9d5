"""Internal: one turn over the Letta API: its requests, event streams and lost connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from letta_adapters._utils.tasks import run_within
from letta_adapters.backends.base import Conversation, Delivery, ToolCallResponse, TurnSettings
from letta_adapters.backends.http_errors import BACKGROUND_UNAVAILABLE
from letta_adapters.backends.rest import recovery
from letta_adapters.backends.rest.conversations import (
    agent_param,
    clear,
    conversation_path,
    encode_approval,
    pending_calls,
)
from letta_adapters.backends.rest.http import STREAM_ERRORS, ByteStream, Http
from letta_adapters.engine.rest import RestTurn
from letta_adapters.engine.stop_reasons import Failure
from letta_adapters.errors import (
    LettaError,
    ServerError,
)
from letta_adapters.messages import Message

RESUME_ATTEMPTS: Final = 3
_RESUME_PAUSE: Final = 0.2
# Seconds an aborted run may take to end before its connection is given up.
_STOP_SECONDS: Final = 10.0
_CANCEL_ATTEMPTS: Final = 5
_CANCEL_PAUSE: Final = 0.2
_NOTHING_SHOWN: Final = "The run ended without a message."


class BackgroundRuns:
    """The choice whether turns run in the background (resumable), shared by a client's turns."""

    def __init__(self, wanted: bool) -> None:
        self.on = wanted


class RestBackendTurn:
    """One turn; implements :class:`~letta_adapters.backends.base.BackendTurn`."""

    def __init__(
        self,
        http: Http,
        conversation: Conversation,
        settings: TurnSettings,
        background: BackgroundRuns,
        settle_timeout: float,
    ) -> None:
        self.state = RestTurn(include_partial_messages=settings.include_partial_messages)
        self.wanted = True
        self._http = http
        self._conversation = conversation
        self._settings = settings
        self._background = background
        self._settle_timeout = settle_timeout
        self._otid = ""
        self._stream: ByteStream | None = None
        # True while a request of this turn may be at work on the server.
        self._active = False
        self._cancelled = False
        self._answered = False
        self._resumes_left = RESUME_ATTEMPTS

    @property
    def connected(self) -> bool:
        """Always true, as every request has a connection of its own."""
        return True

    async def start(
        self,
        content: Any,
        otid: str,
        *,
        answers: Sequence[ToolCallResponse] = (),
        history: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Send message and answers in one request; raise the typed error if it is refused."""
        messages: list[dict[str, Any]] = []
        if answers:
            self._answered = True
            self.state.recall({answer.tool_call_id: answer.tool_name for answer in answers})
            messages.append(
                {"type": "approval", "approvals": [encode_approval(a) for a in answers]}
            )
        messages += ({"type": "message", **message} for message in history)
        if content is not None:
            self._otid = otid
            messages.append({"type": "message", "role": "user", "content": content, "otid": otid})
        try:
            self._stream = await self._post(messages)
        except LettaError as error:
            # Nobody knows whether it arrived: the server is asked before the caller is told.
            if error.accepted is None and self._otid:
                await self._explain(error)
            elif error.accepted is None:
                await self._look_for_answers(error)
            raise

    async def answer(self, answers: Sequence[ToolCallResponse]) -> None:
        """Answer all pending calls in one request, as the server demands."""
        approvals = [encode_approval(answer) for answer in answers]
        self._answered = True
        await self.release()
        try:
            self._stream = await self._post([{"type": "approval", "approvals": approvals}])
        except LettaError as error:
            if error.accepted is None:
                await self._look_for_answers(error)
            raise
        self.state.begin_segment()

    async def _look_for_answers(self, error: LettaError) -> None:
        """Find out whether answers without a reply were accepted: then the calls no longer wait."""
        with suppress(LettaError):
            # First nothing must be at work: answers that are just being taken seem to wait still.
            await self._quiet_down(None, 0.0)
            waiting = await pending_calls(self._http, self._conversation)
            error.accepted = not waiting

    async def _quiet_down(self, run_id: str | None, seconds: float) -> Delivery:
        delivery = await recovery.settle(
            self._http, self._conversation, self._otid, run_id=run_id, seconds=seconds
        )
        if not self._otid and delivery.stored is not None:
            return replace(delivery, stored=await self._is_stored())
        return delivery

    async def _is_stored(self) -> bool:
        """Return whether the conversation holds this turn's message, or else its answers."""
        if self._otid:
            return await recovery.is_stored(self._http, self._conversation, self._otid)
        return not await pending_calls(self._http, self._conversation)

    async def _post(self, messages: list[dict[str, Any]]) -> ByteStream:
        path = conversation_path(self._conversation, "/messages")
        body = self._body(messages)
        self._active = True
        # Each request is a run of its own, which nobody has cancelled yet.
        self._cancelled = False
        try:
            return await self._accept(path, body)
        except LettaError as error:
            # Only what was surely refused is not at work on the server.
            self._active = error.accepted is None
            raise

    async def _accept(self, path: str, body: dict[str, Any]) -> ByteStream:
        if self._background.on:
            try:
                return await self._http.stream(path, body | {"background": True})
            except ServerError as error:
                if error.code != BACKGROUND_UNAVAILABLE:
                    raise
                # It was refused before anything was stored, so the same request is not a
                # repetition.
                self._background.on = False
        return await self._http.stream(path, body)

    def _body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": messages,
            "streaming": True,
            "stream_tokens": self._settings.include_partial_messages,
            "include_pings": True,
            **agent_param(self._conversation),
        }
        if self._settings.client_tools:
            # The server forgets them between requests.
            body["client_tools"] = list(self._settings.client_tools)
        if self._settings.model is not None:
            body["override_model"] = self._settings.model
        if self._settings.max_steps is not None:
            body["max_steps"] = self._settings.max_steps
        return body

    async def _explain(self, error: LettaError) -> None:
        """Find out whether a message without a reply was accepted, and put it into the error."""
        delivery = await self._quiet_down(None, self._settle_timeout)
        delivery.put_into(error)

    async def batches(self) -> AsyncIterator[list[Message]]:
        """Yield messages as they come; see :class:`~letta_adapters.backends.base.BackendTurn`."""
        state = self.state
        feed = state.feed
        while True:
            stream = self._stream
            assert stream is not None
            next_chunk = stream.next_chunk
            lost: Exception | None = None
            try:
                while not state.segment_over:
                    messages = feed(await next_chunk())
                    if messages:
                        yield messages
                await stream.drain()
            except StopAsyncIteration as end:
                lost = end
            except STREAM_ERRORS as cause:
                lost = cause
            if lost is None or not await self._resume():
                break
        # A stream that broke after its stop reason has lost nothing of the turn.
        if isinstance(lost, STREAM_ERRORS) and state.stop.value is None:
            state.fail_with(stream.error(lost))
        # Without a stop reason the run may well go on.
        self._active = state.stop.value is None
        await self.release()
        messages = state.end_segment()
        if messages:
            yield messages
        messages = await self._settled()
        self._active = False
        if messages:
            yield messages

    async def _settled(self) -> list[Message]:
        """Find out facts only the server knows: the calls it kept, or the fate of the message."""
        if self.state.failure is not None:
            if self.wanted:
                await self._settle()
        elif self.state.paused:
            return self.state.confirm_pending(await self._really_pending())
        elif self.state.silent and self.wanted:
            return await self._look_for_the_answer()
        return []

    async def _look_for_the_answer(self) -> list[Message]:
        """Read the stored messages of a run whose stream ended well and showed nothing.

        A step stores its input and its answer together. So an input without an answer means that
        the model really said nothing; nothing at all means that the step was lost (seen from a
        server whose database had no connection left: ping, ``end_turn``, usage, ``[DONE]``).
        """
        state = self.state
        if state.run_id is None:
            return []
        try:
            items = await self._http.read(f"/v1/runs/{state.run_id}/messages", {"order": "asc"})
        except LettaError as error:
            state.fail(Failure("server_error", f"{_NOTHING_SHOWN} Looking for it failed: {error}"))
            return []
        if items:
            return state.take_stored(items)
        state.fail(Failure("server_error", f"{_NOTHING_SHOWN} The server stored nothing of it."))
        with suppress(LettaError):
            state.input_stored = await self._is_stored()
        return []

    async def _really_pending(self) -> list[str]:
        """Return the calls that are really pending.

        With parallel calls off the server keeps one call, and the stream may show more.
        """
        shown = [call.tool_call_id for call in self.state.paused]
        # A single call is surely kept; only of several can one be missing.
        if len(shown) > 1:
            kept = await pending_calls(self._http, self._conversation)
            return [call.tool_call_id for call in kept if call.tool_call_id in shown] or shown
        return shown

    async def _resume(self) -> bool:
        """Go on with a background run after the last event seen; ``False`` if impossible."""
        state = self.state
        if state.segment_over or state.stop.value is not None or not self.wanted:
            return False
        # A foreground run replays nothing, and without a number there is no place to go on at.
        if not self._background.on or state.run_id is None or state.last_seq_id is None:
            return False
        await self.release()
        # Few attempts in all: a server that breaks every stream must not hold the turn for ever.
        while self._resumes_left > 0:
            self._resumes_left -= 1
            try:
                self._stream = await self._http.stream(
                    recovery.run_path(state.run_id, "/stream"),
                    {"starting_after": state.last_seq_id, "include_pings": True},
                )
            except LettaError:
                await asyncio.sleep(_RESUME_PAUSE * (RESUME_ATTEMPTS - self._resumes_left))
                continue
            state.begin_segment(resumed=True)
            return True
        return False

    async def _settle(self) -> None:
        """Leave nothing running after a failure, and find out whether the message was stored."""
        state = self.state
        assert state.failure is not None
        code = state.failure.code
        if code in ("stream_truncated", "timeout_after_acceptance", "protocol_error"):
            # Only a lost connection leaves a healthy run behind that deserves to finish.
            seconds = self._settle_timeout if code == "stream_truncated" else 0.0
            delivery = await self._quiet_down(state.run_id, seconds)
            state.input_stored = delivery.stored
            state.explain(delivery.explain())
        elif code in ("pending_approval", "conversation_busy"):
            # Both are refusals, which store nothing, so that nobody has to look.
            state.input_stored = False
        else:
            with suppress(LettaError):
                state.input_stored = await self._is_stored()

    def _calls_may_wait(self) -> bool:
        """Return whether the server may wait for answers that this turn will not give."""
        stop_reason = self.state.stop.value
        return stop_reason in (None, "requires_approval") or self._answered

    async def _clear_pending(self, why: str, answers: Sequence[ToolCallResponse]) -> None:
        """Answer the calls that wait, those that nobody has decided about with ``why``."""
        with suppress(LettaError):
            waiting = await pending_calls(self._http, self._conversation)
            if waiting:
                await clear(self._http, self._conversation, waiting, why, answers)

    async def cancel(self) -> None:
        """Ask the server to cancel the run; one that was just accepted may not exist yet."""
        for _ in range(_CANCEL_ATTEMPTS):
            if not self._active or self.state.stop.value is not None:
                return
            if self._cancelled or await recovery.cancel(self._http, self._conversation):
                self._cancelled = True
                return
            await asyncio.sleep(_CANCEL_PAUSE)

    async def stop(self, why: str | None = None, answers: Sequence[ToolCallResponse] = ()) -> None:
        """Cancel the run, wait until it is over, release the connection.

        Calls that wait stay as they are without ``why``: the conversation keeps them, and any
        process can answer them.
        """
        # If the server is gone or hangs there is nothing left that could be stopped.
        with suppress(LettaError, asyncio.TimeoutError):
            await run_within(2 * _STOP_SECONDS, self._end_run(why, answers))
        await self.release()

    async def _end_run(self, why: str | None, answers: Sequence[ToolCallResponse]) -> None:
        if self._active:
            if self._stream is None:
                await self._cancel_unborn()
            else:
                if not self._cancelled:
                    await recovery.cancel(self._http, self._conversation)
                # Read and not closed: the stop reason at its end says that the run is over.
                await run_within(_STOP_SECONDS, self._exhaust())
            # The run may go on without its stream, and has to be ended by its id.
            if self._stream is None or self.state.stop.value is None:
                await recovery.finish_run(self._http, self._conversation, self.state.run_id, 0.0)
            self._active = False
        if why is not None and self._calls_may_wait():
            await self._clear_pending(why, answers)

    async def _cancel_unborn(self) -> None:
        """Cancel the run of a request that got no answer yet and may begin at any moment."""
        for _ in range(_CANCEL_ATTEMPTS):
            if await recovery.cancel(self._http, self._conversation):
                return
            if not self._answered and await recovery.is_stored(
                self._http, self._conversation, self._otid
            ):
                return
            await asyncio.sleep(_CANCEL_PAUSE)

    async def _exhaust(self) -> None:
        stream = self._stream
        if stream is None:
            return
        try:
            while not self.state.segment_over:
                self.state.feed(await stream.next_chunk())
        except (StopAsyncIteration, *STREAM_ERRORS):
            self.state.segment_over = True

    async def release(self) -> None:
        """Give the connection up; this does not stop the agent."""
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None
