"""Internal: carry out one call: send the new part of a history and yield the agent's messages."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from typing import TYPE_CHECKING, Final

from letta_adapters._utils.tasks import end_task, running_task
from letta_adapters.backends.base import Conversation, TurnSettings
from letta_adapters.chat import conversations
from letta_adapters.chat.cache import (
    HELD_SECONDS,
    PausedTurn,
    get_cache,
    recent,
)
from letta_adapters.chat.context import ChatContext
from letta_adapters.chat.endings import find_ending, list_last_answers
from letta_adapters.chat.open_calls import decide_open_calls
from letta_adapters.chat.payload import (
    answer_calls,
    answer_ended,
    build_answers,
    build_payload,
)
from letta_adapters.chat.replay import GONE, find_answer
from letta_adapters.chat.request import (
    ChatEvent,
    ChatRequest,
    check_request,
    make_digest,
)
from letta_adapters.chat.routing import make_context, resolve_mismatch, retell
from letta_adapters.chat.tracker import ResponseTracker
from letta_adapters.client.client import get_slots
from letta_adapters.client.message_stream import MessageStream
from letta_adapters.client.record import Told
from letta_adapters.client.turn import Turn
from letta_adapters.client.turn_options import TurnOptions
from letta_adapters.client.turn_slots import OutgoingMessage, TurnSlot
from letta_adapters.engine.otids import make_otid
from letta_adapters.errors import (
    LettaError,
    NotFoundError,
    PendingApprovalError,
)
from letta_adapters.messages import PendingToolCall, StreamEvent, Usage
from letta_adapters.permissions import denials
from letta_adapters.tracing.spans import Around, attached

if TYPE_CHECKING:
    from letta_adapters.client.client import AsyncLettaClient

_log: Final = logging.getLogger("letta_adapters.chat")

# The longest time, in seconds, that the end of an answer waits for its model's name.
_NAME_SECONDS: Final = 2.0


class ChatStream(AsyncIterator[ChatEvent]):
    """Yield the events of a call: :class:`ResponseStarted`, messages, :class:`ResponseCompleted`.

    It belongs to the client's event loop. Closing it before its end stops the agent. A turn that
    failed raises its :class:`~letta_adapters.errors.LettaError`.

    Args:
        client: The client; it belongs to the running event loop.
        call: The call.
        owner: The thread or task that makes the call; ``None``: the running task.
    """

    def __init__(self, client: AsyncLettaClient, call: ChatRequest, owner: object = None) -> None:
        self._client = client
        self._slots = get_slots(client)
        self._call = call
        self._owner = owner
        self._turn: Turn | None = None
        self._stream: MessageStream | None = None
        # The paused turn that this call resumed.
        self._before: PausedTurn | None = None
        # The message may be sent once more if it is refused.
        self._can_mend = False
        # The conversation that was made for this call alone.
        self._made: Conversation | None = None
        self._events = self._run()
        self._next = self._events.__anext__

    def __aiter__(self) -> ChatStream:
        return self

    def __anext__(self) -> Awaitable[ChatEvent]:
        return self._next()

    async def aclose(self) -> None:
        """Stop the agent if the call is not over."""
        if self._turn is not None and not self._turn.paused:
            await self._turn.stop()
        # Another task may still be inside the generator, and closing it then raises RuntimeError;
        # the stopped turn ends it by itself.
        if not getattr(self._events, "ag_running", False):
            await self._events.aclose()

    # -- where to ---------------------------------------------------------------------------

    async def _run(self) -> AsyncGenerator[ChatEvent, None]:
        """Yield all events of the call and clean up after it."""
        try:
            tracker = await self._prepare()
        except BaseException as error:
            self._leave_nothing(error)
            raise
        asked = self._ask_for_model(tracker)
        try:
            yield tracker.start()
            for message in tracker.replay:
                yield message
            # A turn pauses for tools and may be refused, so one call can take several streams.
            while self._stream is not None:
                async for message in self._stream:
                    if type(message) is StreamEvent or tracker.takes(message):
                        yield message
                self._stream = await self._next_stream(tracker)
            recent.ended(tracker.asked, tracker.conversation)
            if asked is not None:
                await asyncio.wait({asked}, timeout=_NAME_SECONDS)
            yield tracker.end()
        finally:
            if asked is not None and not asked.done():
                await end_task(asked)
            if self._call.ephemeral and not tracker.pending:
                # Handed to the client: the caller has the answer and need not wait for a request.
                conversations.remove_later(self._client, tracker.conversation)

    def _leave_nothing(self, error: BaseException) -> None:
        """Remove the conversation that was made for a call whose turn never began.

        Made again, the call gets another one: this one would stay on the server for ever.

        Args:
            error: What ended the call. It may have been accepted, unless this says otherwise.
        """
        unsent = isinstance(error, LettaError) and error.accepted is False
        unwanted = unsent or self._call.ephemeral
        # Whoever is told where a message goes uses its conversation again.
        if unwanted and self._made is not None and self._call.on_send is None:
            conversations.remove_later(self._client, self._made)

    def _ask_for_model(self, tracker: ResponseTracker) -> asyncio.Future[None] | None:
        """Ask, beside the turn, for the model's handle, by which callbacks count and price.

        Neither the stream nor the conversation tells which model answers (letta 0.16.8).
        """
        client, agent_id = self._client, tracker.conversation.agent_id
        wanted = self._call.name_model and not self._call.model and agent_id
        if not wanted or client.handles.knows(agent_id):
            return None

        async def ask() -> None:
            try:
                await conversations.find_model(client, agent_id)
            except LettaError:
                client.handles.note(agent_id, None)  # an answer can do without it

        return asyncio.ensure_future(ask())

    async def _prepare(self) -> ResponseTracker:
        """Find the conversation, look at what it holds, and send what is new."""
        client = self._client
        self._slots.check_usable()
        call = self._call = check_request(self._call)
        conversations.check_call(client, call)
        if self._owner is None:
            self._owner = running_task()
        context = await make_context(client, call)
        if (ending := find_ending(list_last_answers(call.entries))) is not None:
            await self._end_turn(context)
            raise ending
        where = context.route.conversation
        if where is None or context.route.fresh:
            return await self._send_there(context)
        # A turn paused in this process knows what it said and waits for: no need to ask the server.
        if (paused := self._find_paused(where)) is not None:
            tracker = await self._return_to(context, paused)
            if tracker is not None:
                return tracker
        # Held before looking: otherwise another call could change the conversation in between.
        async with self._slots.reserve(where, self._owner) as slot:
            found = await find_answer(client, context)
            # The same call was made before and answered: give that answer, send nothing twice.
            if found.answer is not None:
                tracker = self._track(context)
                return tracker.replays(found.answer.messages, found.answer.pending)
            if not found.mismatch:
                route = context.route.going_on() if found.stored else context.route
                return await self._send_there(context.take(route), slot)
        return await self._send_elsewhere(context, found.mismatch)

    def _track(self, context: ChatContext, used: Usage | None = None) -> ResponseTracker:
        return ResponseTracker(context, self._client.handles.get, used=used)

    # -- a turn that waits ------------------------------------------------------------------

    def _find_paused(self, where: Conversation) -> PausedTurn | None:
        """Return the turn that is paused in this conversation, if it still is."""
        cache = get_cache(self._client)
        paused = cache.held.get(where)
        if paused is not None and not paused.turn.paused:
            del cache.held[where]
            return None
        return paused

    async def _return_to(self, context: ChatContext, paused: PausedTurn) -> ResponseTracker | None:
        """Go on with a turn that waits, if this call can; otherwise return ``None``."""
        if (said := paused.since(context.route.key)) is not None:
            turn = paused.turn
            return self._track(context).replays(said, turn.pending, turn.details)
        ephemeral = self._call.ephemeral
        # In a conversation of its own, the first instructions would hold beside new ones.
        anew = ephemeral and bool(context.instructions())
        if _can_resume(paused, context) and not anew:
            return self._resume(context, paused)
        if ephemeral:
            return await self._send(await self._give_up(context, paused))
        return None

    async def _give_up(self, context: ChatContext, paused: PausedTurn) -> ChatContext:
        """Give up a turn whose conversation was for it alone, to tell the history anew."""
        where = paused.turn.conversation
        get_cache(self._client).held.pop(where, None)
        await paused.turn.stop("The application goes on elsewhere.")
        conversations.remove_later(self._client, where)
        return context.take(retell(context.request, context.split))

    async def _end_turn(self, context: ChatContext) -> None:
        """End the turn whose calls the history answers, without a model call."""
        where, answers = context.route.conversation, list_last_answers(context.request.entries)
        if where is None or context.route.fresh:
            return
        if (paused := self._find_paused(where)) is not None:
            del get_cache(self._client).held[where]
            made = answer_ended(context, paused.turn.pending, answers)
            await paused.turn.stop(denials.TURN_ENDED, ends_calls=True, answers=made)
        elif context.backend.capabilities.durable_pending_calls:
            async with self._slots.reserve(where, self._owner):
                backend = self._client.backend
                waiting = await backend.pending_calls(where)
                if waiting:
                    made = answer_ended(context, waiting, answers)
                    await backend.clear(where, waiting, denials.TURN_ENDED, made)
        if self._call.ephemeral:
            conversations.remove_later(self._client, where)

    def _resume(self, context: ChatContext, paused: PausedTurn) -> ResponseTracker:
        """Answer the calls that a paused turn waits for and let it go on."""
        turn = paused.turn
        del get_cache(self._client).held[turn.conversation]
        # Noted before anything is sent: if the answer is lost, the repeated call has to find it
        # here.
        recent.put(context.route.key, turn.conversation)
        answers = build_answers(context, turn.pending)
        tracker = self._track(context, turn.usage)
        # Instructions travel behind a tool's result; decisions alone cannot carry them.
        if all(answer.returned is None for answer in answers):
            tracker.told_nothing()
        self._tell_where(tracker)
        self._turn = turn
        self._before = paused
        with attached(self._call.trace):
            self._stream = turn.resume(answers, self._owner)
        return tracker

    async def _next_stream(self, tracker: ResponseTracker) -> MessageStream | None:
        """Return the next stream of the call after one ended, or ``None`` at the end of the call.

        A stream ends with a result, with a refusal that can be mended, or with tool calls.
        """
        turn, failure, context = self._turn, tracker.failure, tracker.context
        assert turn is not None
        if failure is not None:
            return await self._mend(tracker, failure)
        if tracker.result is not None:
            return None
        own = context.own_tools
        # Nobody can be asked about these calls, so they are ended with an explanation.
        if not self._call.ask_server_tools and own.isdisjoint(c.tool_name for c in turn.pending):
            with attached(self._call.trace):
                return turn.resume(answer_calls(turn.pending, (), own), self._owner)
        tracker.waits(turn.pending, turn.details, turn.usage)
        if context.backend.capabilities.durable_pending_calls:
            # The Letta API stores calls that wait, so any process can answer them later. On an App
            # Server only this connection can, so the turn itself is kept.
            turn.let_go()
        else:
            tools = _digest_tools(self._call)
            paused = PausedTurn.of(turn, tracker.key, tracker.seen, self._before, tools)
            for other in get_cache(self._client).hold(paused):
                # Turns kept too long are stopped in the background: this call need not wait for
                # them.
                self._slots.finish_later(other.stop("Nobody answered its calls in time."))
        return None

    # -- the turn ---------------------------------------------------------------------------

    async def _send_there(
        self, context: ChatContext, slot: TurnSlot | None = None
    ) -> ResponseTracker:
        """Send what is new, in a fresh conversation if the history's own is gone."""
        try:
            return await self._send(context, slot)
        except NotFoundError:
            if context.route.marker is None or context.route.forced:
                raise
        # The runs of a deleted conversation may still be listed, so only sending shows that it is
        # gone.
        return await self._send(context.take(resolve_mismatch(self._call, context.split, GONE)))

    async def _send_elsewhere(self, context: ChatContext, reason: str) -> ResponseTracker:
        """Send the call where ``on_mismatch`` says, as it cannot go on in its conversation."""
        route = resolve_mismatch(self._call, context.split, reason)
        return await self._send_there(context.take(route))

    async def _send(self, context: ChatContext, slot: TurnSlot | None = None) -> ResponseTracker:
        """Create or set up the conversation, and begin the turn in it.

        Args:
            context: The call.
            slot: The conversation, if it is held already. It is free again if this fails.
        """
        client = self._client
        opened = await conversations.open_conversation(client, context)
        if opened is not context:
            self._made = opened.conversation
        context = opened
        tracker = self._track(context)
        where = tracker.conversation
        if context.route.forked:
            known = {"agent_id": where.agent_id, "conversation_id": where.conversation_id}
            _log.info("Another conversation: %s.", context.route.forked, extra=known)
        async with slot or self._slots.reserve(where, self._owner) as slot:
            await conversations.set_up(client, context)
            # The server may refuse the message at once or later in the stream; both can be mended
            # once.
            self._can_mend = True
            try:
                self._stream = await self._begin(tracker, slot, context.route.waiting)
            except PendingApprovalError:
                self._stream = await self._begin_again(tracker)
        # Told by now, so that a call without a marker does not tell it again.
        get_cache(client).told[where] = (tracker.system, tracker.standing)
        return tracker

    async def _begin(
        self, tracker: ResponseTracker, slot: TurnSlot, waiting: Sequence[PendingToolCall]
    ) -> MessageStream:
        """Begin the turn and return its stream.

        Args:
            tracker: Collects the events' data; it names the conversation and the key.
            slot: The conversation, which is held.
            waiting: The calls that wait on the server, and are answered with the message.
        """
        client, call, context = self._client, self._call, tracker.context
        told = get_cache(client).told.get(context.conversation, (None, None))
        timeout = call.timeout or client.backend.turn_timeout
        decided = await decide_open_calls(client.backend, context, waiting, timeout)
        payload = build_payload(context, waiting, told, decided.entries)
        settings = TurnSettings(
            include_partial_messages=call.partial,
            client_tools=list(call.tools),
            max_steps=call.max_steps,
            session=call.session,
            asks=call.asks is not None,
            # A message's own model would be used without the conversation's settings.
            model=call.model
            if context.backend.capabilities.model_per_message and not call.tuned
            else None,
        )
        otid = _make_otid(tracker.key, tracker.conversation)
        message = OutgoingMessage(otid, payload.content, payload.answers, payload.history)
        self._tell_where(tracker)
        tracker.recovered = decided.recovered
        try:
            options = TurnOptions(
                settings,
                timeout=timeout,
                told=Told(around=Around(True, call.tools_shown, call.trace)),
            )
            self._turn = await slot.start(message, options)
        except LettaError as error:
            # Nobody knows whether the message arrived: a repeated call has to ask the server first.
            if error.accepted is None:
                recent.lost(tracker.key, tracker.conversation)
            raise
        recent.begun(tracker.key, tracker.conversation)
        return self._turn.stream(self._owner)

    def _tell_where(self, tracker: ResponseTracker) -> None:
        """Tell the caller where its message goes, before it may have been accepted there."""
        if self._call.on_send is not None:
            self._call.on_send(tracker.conversation, tracker.key)

    async def _mend(self, tracker: ResponseTracker, failure: LettaError) -> MessageStream:
        """Send a message again that was surely refused, for a reason that can be helped.

        Raises:
            LettaError: The failure itself, where nothing helps or the message may have been
                accepted.
        """
        context, able = tracker.context, tracker.context.backend.capabilities
        if failure.accepted is None:
            recent.lost(tracker.key, tracker.conversation)
        if not self._can_mend:
            raise failure
        if able.durable_pending_calls and failure.code == "pending_approval":
            # Calls of an earlier turn wait for an answer.
            tracker.failure = None
            return await self._begin_again(tracker)
        wedged = failure.code == "conversation_busy" and self._call.conversation_id is None
        if wedged and not able.usable_after_a_cut:
            # An App Server holds a conversation for ever whose turn lost its connection.
            self._can_mend, tracker.failure = False, None
            where = await conversations.move_to_fork(self._client, tracker.conversation)
            tracker.conversation = where
            async with self._slots.reserve(where, self._owner) as slot:
                return await self._begin(tracker, slot, context.route.waiting)
        raise failure

    async def _begin_again(self, tracker: ResponseTracker) -> MessageStream:
        """Send a refused message together with answers to the calls that wait.

        The history may hold results of them although it no longer tells where they belong; about
        the others the application is asked, if it can be.
        """
        self._can_mend = False
        async with self._slots.reserve(tracker.conversation, self._owner) as slot:
            waiting = await self._client.backend.pending_calls(tracker.conversation)
            return await self._begin(tracker, slot, waiting)


def _make_otid(key: str | None, where: Conversation) -> str:
    """Return the message's id on the wire; the same call has the same one again."""
    return make_otid(key, where.agent_id, where.conversation_id) if key else str(uuid.uuid4())


def _digest_tools(call: ChatRequest) -> frozenset[str]:
    """Return digests of the client-side tools that the call offers."""
    return frozenset(make_digest(dict(tool)) for tool in call.tools)


def _can_resume(held: PausedTurn, context: ChatContext) -> bool:
    """Return whether the entries answer the turn's calls, and the server will still take them.

    A turn keeps the tools it was begun with: a call that offers others needs another one.
    """
    route = context.route
    if not _digest_tools(context.request) <= held.tools:
        return False
    waited = time.monotonic() - (held.turn.paused_at or 0.0)
    if waited > HELD_SECONDS or not held.turn.connected:
        return False
    pending = {call.tool_call_id for call in held.turn.pending}
    return bool(route.result_ids & pending) and all(e.role == "tool" for e in route.send)
