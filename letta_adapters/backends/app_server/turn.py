"""Internal: one turn over the App Server, from its message to its end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Protocol

from letta_adapters._utils.files import is_full, on_thread
from letta_adapters.backends.app_server import conversations, frames
from letta_adapters.backends.app_server.connection import Connection, Inbox
from letta_adapters.backends.app_server.frames import Frame
from letta_adapters.backends.app_server.link import Traffic
from letta_adapters.backends.app_server.vision import Vision
from letta_adapters.backends.base import (
    Conversation,
    Delivery,
    DeniedRounds,
    ToolCallResponse,
    TurnSettings,
)
from letta_adapters.engine.app_server import UNSEEN, AppTurn, Judge, Verdict
from letta_adapters.engine.stop_reasons import Failure
from letta_adapters.errors import (
    ConflictError,
    LettaError,
    ProtocolError,
    StreamTruncatedError,
    TurnFailedError,
    UnsupportedImageError,
)
from letta_adapters.images import OMITTED, has_images, with_bytes
from letta_adapters.messages import AssistantMessage, Message, ToolCallMessage, ToolResultMessage
from letta_adapters.options import SessionOptions
from letta_adapters.permissions import denials

# A turn that runs shows itself at once. A message whose id the server knows is accepted, and
# ignored.
_SILENCE_SECONDS: Final = 15.0
# Seconds an aborted turn may take to end. While the model has not said its first word the server
# waits for it, which can be minutes: then the turn is given up here and ends there by itself.
_END_SECONDS: Final = 3.0
# Seconds between two looks whether the server of a silent turn can still store anything.
_LOOK_SECONDS: Final = 10.0
_NOTHING_SHOWN: Final = "The turn ended without a message."
_QUESTIONS: Final = ("control_request", "external_tool_call_request")
# What a frame has that says which calls will be asked about.
_ASKED: Final = "user_input_tool_call_ids"
# The codes of failures after which the turn may go on where it runs.
_CUT: Final = ("stream_truncated", "protocol_error")
_UNASKED: Final = (
    "Letta Code ran {names} without asking, although it was told to ask about every tool. "
    "The turn was stopped."
)
_REPEATED: Final = Failure(
    "conflict", "The server has a message with this otid already and did not run it again."
)


def _nothing() -> None:
    """Do nothing."""


def _lacks_image(message: Message) -> bool:
    said = isinstance(message, AssistantMessage | ToolResultMessage)
    return said and OMITTED in str(getattr(message, "content", ""))


class Home(Protocol):
    """The methods of its backend that a turn needs."""

    settle_timeout: float
    vision: Vision

    @property
    def traffic(self) -> Traffic: ...
    async def prepare(self, conversation: Conversation, settings: TurnSettings) -> Connection: ...
    def allowed(self, conversation: Conversation, call: ToolCallMessage, *, keep: bool) -> None: ...
    def ran_unasked(self, conversation: Conversation, names: Sequence[str]) -> bool: ...
    def stray(self, conversation: Conversation, frame: Frame) -> None: ...
    def sent(self, client_message_id: str) -> None: ...
    def shared(self, conversation: Conversation, client_message_id: str) -> bool: ...
    async def unqueue(self, conversation: Conversation, client_message_id: str) -> bool: ...
    async def settle(
        self, conversation: Conversation, client_message_id: str, seconds: float
    ) -> Delivery: ...


class AppServerTurn:
    """One turn; implements :class:`~letta_adapters.backends.base.BackendTurn`."""

    def __init__(
        self,
        home: Home,
        conversation: Conversation,
        settings: TurnSettings,
        *,
        judge: Judge = lambda *_: Verdict(),
        select: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        names = [str(tool["name"]) for tool in settings.client_tools]
        self.state = AppTurn(
            include_partial_messages=settings.include_partial_messages,
            client_tools=names,
            judge=judge,
            include_status_messages=bool(
                settings.session and settings.session.include_status_messages
            ),
        )
        self.wanted = True
        self._home = home
        self._conversation = conversation
        self._settings = settings
        self._select = select
        self._otid = ""
        self._connection: Connection | None = None
        self._inbox: Inbox | None = None
        # Results of client-side tools that the server has not asked for yet.
        self._ready: dict[str, ToolCallResponse] = {}
        self._deadline: float | None = None
        self._aborted = False
        self._silent = True
        self._rounds = DeniedRounds((settings.session or SessionOptions()).max_denied_rounds)
        self._uncount: Callable[[], None] = _nothing
        self._shows_images = False
        # True if a tool's result showed an image to a model that cannot see it.
        self._unseen = False

    # -- the message ------------------------------------------------------------------------

    async def start(
        self,
        content: Any,
        otid: str,
        *,
        answers: Sequence[ToolCallResponse] = (),
        history: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Send the user's message; raise the typed error if the server refused it."""
        assert not answers and not history, "the App Server takes user messages only"
        self._otid = otid
        # Before it is sent: its turn may run, and ask, although this start is given up.
        self._home.sent(otid)
        # Fetched before the turn counts as begun, because that may take seconds.
        content = await with_bytes(content)
        self._shows_images = has_images(content)
        self._uncount = await self._home.traffic.begin_turn()
        try:
            await self._send(content, otid)
        except BaseException:
            await self.release()
            raise

    async def _send(self, content: Any, otid: str) -> None:
        connection = await self._home.prepare(self._conversation, self._settings)
        if self._shows_images:
            await self._home.vision.check(connection, self._conversation)
        frame = frames.user_message(self._conversation, content, otid, self._select())
        self._connection = connection
        self.state.on_api = connection.on_api
        # Before the message is sent, as its turn may begin at once.
        self._inbox = connection.subscribe(self._conversation)
        try:
            accepted = await connection.request(frame)
        except LettaError as error:
            if error.accepted is None:
                await self._explain(error)
            raise
        self._skip_to_acceptance()
        self.state.accepted(otid, queued=accepted.get("disposition") == "queued")

    def _skip_to_acceptance(self) -> None:
        """Drop frames from before the server took the message: they belong to an earlier turn."""
        assert self._inbox is not None
        while (frame := self._inbox.take()) is not None:
            if frame.get("type") == "input_accepted":
                return
            if frame.get("type") in _QUESTIONS:
                self._home.stray(self._conversation, frame)

    async def _explain(self, error: LettaError) -> None:
        """Find out whether a message without an answer was accepted, and put it into the error."""
        delivery = Delivery(None)
        with suppress(LettaError):
            delivery = await self._home.settle(
                self._conversation, self._otid, self._home.settle_timeout
            )
        delivery.put_into(error)

    # -- the answer -------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """True while the server can still be told anything about this turn."""
        return self._inbox is not None and self._inbox.lost is None

    async def batches(self) -> AsyncIterator[list[Message]]:
        """Yield messages as they come; see :class:`~letta_adapters.backends.base.BackendTurn`."""
        state = self.state
        while not (state.over or state.pending):
            inbox = self._inbox
            assert inbox is not None
            left = self._seconds_left()
            if await inbox.wait(_LOOK_SECONDS if left is None else left):
                self._silent = False
                messages = await self._take(inbox)
            elif state.ending and self._deadline is None:
                messages = state.end_unsaid()
            else:
                messages = await self._look() if left is None else self._give_up()
            if self._unseen or (self._shows_images and any(map(_lacks_image, messages))):
                self.state.fail(UNSEEN)
            if messages:
                yield messages
        if state.over and (messages := await self._finished()):
            yield messages

    async def _look(self) -> list[Message]:
        """Look whether the server can go on, when nothing came for a while.

        A turn whose end it cannot store never ends (``letta`` 0.34.12).
        """
        connection = self._connection
        stored = None if connection is None else connection.state
        if stored is None or not is_full(stored.folder):
            return []
        self.state.fail(Failure("disk_full", f"The disk that holds {stored.folder} is full."))
        with suppress(LettaError):
            await self.cancel()
        return self.state.cut()

    async def _take(self, inbox: Inbox) -> list[Message]:
        """Return the messages of all frames that are here, up to a question or the end."""
        state = self.state
        messages: list[Message] = []
        while not (state.over or state.pending):
            frame = inbox.take()
            if frame is None:
                if inbox.lost is not None:
                    messages += self._cut_off(inbox.lost)
                break
            question = frame.get("type") in _QUESTIONS
            if question and state.queued:
                self._home.stray(self._conversation, frame)
                continue
            # Judging a call may look at files, and a disk would keep the event loop waiting.
            delta = frame.get("delta")
            judges = question or (isinstance(delta, Mapping) and _ASKED in delta)
            messages += await on_thread(state.feed, frame) if judges else state.feed(frame)
            if question:
                await self._answer_known()
            if state.unasked:
                await self._stop_unasked()
            if state.unseen and not self._aborted:
                # The agent goes on without the image that it was asked about.
                with suppress(LettaError):
                    await self.cancel()
        return messages

    async def _answer_known(self) -> None:
        """Answer without asking: calls decided beforehand, results that are ready."""
        assert self._connection is not None
        grants, refusals = self.state.grants, self.state.refusals
        if await self._insists(granted=bool(grants), refused=bool(refusals)):
            return
        with suppress(LettaError):  # a connection that is gone ends the inbox as well
            while grants:
                frame = frames.approval(self._conversation, grants.pop(), None)
                await self._connection.send(frame)
            while refusals:
                request_id, reason = refusals.pop()
                frame = frames.denial(self._conversation, request_id, reason)
                await self._connection.send(frame)
            await self._send_ready()

    async def _insists(self, *, granted: bool, refused: bool) -> bool:
        """End the turn if the agent goes on calling tools that are refused; return if it did."""
        try:
            if granted or refused:
                self._rounds.see(self.state.run_id, denied=not granted)
        except TurnFailedError as error:
            self.state.fail_with(error)
            with suppress(LettaError):
                await self.cancel()
            return True
        return False

    async def _stop_unasked(self) -> None:
        """End the turn if a tool runs that nobody was asked about and that must not be."""
        names, self.state.unasked = self.state.unasked, ()
        if self._home.ran_unasked(self._conversation, names):
            text = _UNASKED.format(names=", ".join(sorted(set(names))) or "a tool")
            self.state.fail(Failure("ran_unasked", text))
            with suppress(LettaError):
                await self.cancel()

    async def _send_ready(self) -> None:
        assert self._connection is not None
        external = self.state.external
        for call_id in [i for i in external if i in self._ready]:
            request_id = external.pop(call_id)
            await self._connection.send(frames.tool_response(request_id, self._ready.pop(call_id)))

    def _cut_off(self, lost: LettaError) -> list[Message]:
        error: LettaError
        if isinstance(lost, ProtocolError):
            error = ProtocolError(lost.message, hint=lost.hint, accepted=True)
        else:
            error = StreamTruncatedError(
                f"The connection was lost in the middle of the turn ({lost.message.rstrip('.')}).",
                accepted=True,
            )
        self.state.fail_with(error)
        return self.state.cut()

    async def answer(self, answers: Sequence[ToolCallResponse]) -> None:
        """Answer all pending calls; a result the server did not ask for yet is kept for it."""
        assert self._connection is not None
        state = self.state
        # Before the server is told: a tool that is allowed may change the directory at once.
        self._note(answers)
        await self._look_at_images(answers)
        for answer in answers:
            request_id = state.permissions.get(answer.tool_call_id)
            if request_id is None:
                self._ready[answer.tool_call_id] = answer
                continue
            try:
                await self._connection.request(
                    frames.approval(self._conversation, request_id, answer)
                )
            except ConflictError:
                continue  # not asked any more: somebody else answered, or the turn ends
        state.resolve(answer.tool_call_id for answer in answers)
        await self._send_ready()

    async def _look_at_images(self, answers: Sequence[ToolCallResponse]) -> None:
        """Notice a result that shows an image; the tool has run, so the turn goes on and fails."""
        if not any(has_images(answer.returned) for answer in answers):
            return
        self._shows_images = True
        assert self._connection is not None
        try:
            await self._home.vision.check(self._connection, self._conversation)
        except UnsupportedImageError:
            self._unseen = True

    def _note(self, answers: Sequence[ToolCallResponse]) -> None:
        """Tell the backend which calls are allowed; an edited one was not allowed as it is."""
        calls = {call.tool_call_id: call for call in self.state.pending}
        for answer in answers:
            call = calls.get(answer.tool_call_id)
            if answer.approve and call is not None:
                keep = bool(answer.suggestion_ids) and answer.updated_input is None
                self._home.allowed(self._conversation, call, keep=keep)

    # -- the end ----------------------------------------------------------------------------

    async def _finished(self) -> list[Message]:
        await self.release()
        if self.wanted and self.state.silent:
            return await self._look_for_the_answer()
        if self.wanted and self.state.failure is not None:
            await self._find_out()
        return []

    async def _look_for_the_answer(self) -> list[Message]:
        """Read the stored messages of a turn that ended well and showed nothing.

        The message is stored at once, or with its answer: so without it the turn was lost, and
        with it alone the model really said nothing.
        """
        state, connection = self.state, self._connection
        assert connection is not None
        try:
            items = await conversations.since(connection, self._conversation, self._otid)
        except LettaError as error:
            state.fail(Failure("server_error", f"{_NOTHING_SHOWN} Looking for it failed: {error}"))
            return []
        if items is None:
            state.fail(
                Failure("server_error", f"{_NOTHING_SHOWN} The server stored nothing of it.")
            )
            state.input_stored = False
            return []
        return state.take_stored(items)

    async def _find_out(self) -> None:
        """Add to the failure its meaning and the fate of the message."""
        state = self.state
        assert state.failure is not None
        stored = None if self._connection is None else self._connection.state
        torn = None if stored is None else stored.explain(state.failure.message)
        if torn is not None:
            state.failure = replace(state.failure, code=torn.code, message=torn.message)
        if state.failure.code in _CUT:
            with suppress(LettaError):
                delivery = await self._home.settle(
                    self._conversation, self._otid, self._home.settle_timeout
                )
                state.input_stored = delivery.stored
                state.explain(delivery.explain())
        elif state.on_api and state.input_stored and self._connection is not None:
            # A Letta API keeps nothing of a turn whose first step failed.
            with suppress(LettaError):
                found = conversations.is_stored(self._connection, self._conversation, self._otid)
                state.input_stored, _ = await found

    def _seconds_left(self) -> float | None:
        if self._deadline is not None:
            return max(0.0, self._deadline - time.monotonic())
        if self.state.ending:
            return _END_SECONDS
        return _SILENCE_SECONDS if self._silent and not self.state.queued else None

    def _give_up(self) -> list[Message]:
        """End a turn that was aborted and did not end in time, or that never began."""
        if not self._aborted:
            self.state.fail(_REPEATED)
        self.state.fail(Failure("cancelled", "The turn was cancelled.", stop_reason="cancelled"))
        return self.state.cut()

    async def cancel(self) -> None:
        """Abort the turn, and answer the questions it waits for: otherwise it would not end.

        Only this turn is given up: a message that waits behind somebody else's turn is taken out of
        the queue, and a turn that says somebody else's message as well goes on.
        """
        connection = self._connection
        if connection is None or self.state.over or self._aborted:
            return
        # Noted before anything waits, so that only one abort is sent.
        self._aborted = True
        runs = not self.state.queued or await self._home.unqueue(self._conversation, self._otid)
        alone = not self._home.shared(self._conversation, self._otid)
        # A turn that is shared goes on, so its end is not waited for.
        self._deadline = time.monotonic() + (_END_SECONDS if alone or not runs else 0.0)
        if self._inbox is not None:
            # Whoever waits for a frame still has the time limit from before.
            self._inbox.poke()
        if not runs:
            return
        runtime = frames.encode_runtime(self._conversation)
        if alone:
            # Frames are handled in order: the answers below must not start another model call.
            await connection.send({"type": "abort_message", "runtime": runtime})
            # An abort puts the messages that wait behind the turn on hold: those of other clients.
            await connection.send({"type": "resume_queue", "runtime": runtime})
        external = self.state.external
        # A turn that waits for a client-side tool does not end before it has a result.
        while external:
            _, request_id = external.popitem()
            await connection.send(frames.tool_failure(request_id, denials.TURN_STOPPED))

    async def stop(self, why: str | None = None, answers: Sequence[ToolCallResponse] = ()) -> None:
        """Abort, wait until the turn has ended (for a bounded time), give the inbox back.

        Calls that wait end with the turn here, whatever the reason: the server says that the user
        interrupted it.
        """
        with suppress(LettaError):
            await self.cancel()
        state = self.state
        inbox = self._inbox
        while inbox is not None and not state.over:
            # These questions end with the turn, and nobody will answer them.
            state.resolve(tuple(state.permissions))
            if not await inbox.wait(self._seconds_left()):
                break
            await self._take(inbox)
        await self.release()

    async def release(self) -> None:
        """Give the inbox back; a :meth:`batches` that waits on it fails."""
        self._uncount()
        inbox = self._inbox
        if inbox is not None and self._connection is not None:
            self._connection.unsubscribe(self._conversation, inbox)
            inbox.lose(StreamTruncatedError("The turn was given up."))
