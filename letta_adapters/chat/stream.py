"""Carry out one call: send the new part of a history and yield the agent's messages.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from letta_adapters._utils.loops import running_task
from letta_adapters._utils.waiting import ended
from letta_adapters.backends.base import Conversation, TurnSettings
from letta_adapters.chat import conversations, payload, replay
from letta_adapters.chat.cache import (
    HELD_SECONDS,
    PausedTurn,
    find_calls_in_work,
    get_cache,
    known_answers,
    recent,
)
from letta_adapters.chat.history import HistorySplit, digest_inputs, split_history
from letta_adapters.chat.marker import Marker
from letta_adapters.chat.request import (
    ID_PREFIX,
    ChatEvent,
    ChatRequest,
    HistoryMessage,
    check_request,
    make_digest,
)
from letta_adapters.chat.routing import Route, make_route, resolve_mismatch, retell
from letta_adapters.chat.tracker import ResponseTracker
from letta_adapters.client.client import slots_of
from letta_adapters.client.turn import MessageStream, Turn, TurnOptions
from letta_adapters.client.turn_slots import OutgoingMessage, TurnSlot
from letta_adapters.engine.otids import sent_as
from letta_adapters.errors import (
    ConversationBusyError,
    LettaError,
    NotFoundError,
    PendingApprovalError,
    WaitsForItselfError,
)
from letta_adapters.messages import PendingToolCall, StreamEvent

if TYPE_CHECKING:
    from letta_adapters.client.client import AsyncLettaClient

_GONE_ON: Final = "the conversation has gone on since that answer"
_GONE: Final = "the conversation it came from is gone"
# The longest time, in seconds, that the end of an answer waits for its model's name.
_NAME_SECONDS: Final = 2.0
# The longest time, in seconds, that a stored message may take until its turn shows as active, and
# the time between two looks.
_BEGIN_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 0.1
_IN_WORK: Final = "a tool that the conversation waits for is still at work"


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
        self._slots = slots_of(client)
        self._call = call
        self._owner = owner
        self._turn: Turn | None = None
        self._stream: MessageStream | None = None
        # The paused turn that this call resumed.
        self._before: PausedTurn | None = None
        # Where the call goes, while it may have to be sent once more because it was refused.
        self._refusable: tuple[HistorySplit, Route] | None = None
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
        ending = await self._prepare()
        asked = self._ask_for_model(ending)
        try:
            yield ending.start()
            for message in ending.replay:
                yield message
            # A turn pauses for tools and may be refused, so one call can take several streams.
            while self._stream is not None:
                async for message in self._stream:
                    if type(message) is StreamEvent or ending.takes(message):
                        yield message
                self._stream = await self._next_stream(ending)
            recent.ended(ending.asked, ending.conversation)
            if asked is not None:
                await asyncio.wait({asked}, timeout=_NAME_SECONDS)
            yield ending.end()
        finally:
            if asked is not None and not asked.done():
                await ended(asked)
            if self._call.ephemeral and not ending.pending:
                # Cleaning up is handed to the client, so that a cancelled caller does not cut it
                # off.
                await self._slots.finish(conversations.remove(self._client, ending.conversation))

    def _ask_for_model(self, ending: ResponseTracker) -> asyncio.Future[None] | None:
        """Ask, beside the turn, for the model's handle, by which callbacks count and price.

        Neither the stream nor the conversation tells which model answers (letta 0.16.8).
        """
        client, agent_id = self._client, ending.conversation.agent_id
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
        agent_id = await conversations.find_agent(client, call)
        entries = _restore_markers(call.entries, agent_id)
        # With one conversation for the whole thread, answers given at any place of it count as its
        # own.
        plan = split_history(entries, agent_id, None if call.scope == "thread" else call.place)
        route = self._left_alone(plan, await make_route(client, call, plan, agent_id))
        if route.conversation is None or route.fresh:
            return await self._send_there(plan, route, agent_id)
        # A turn paused in this process knows what it said and waits for: no need to ask the server.
        if (held := self._held(route.conversation)) is not None:
            ending = await self._of_held(plan, route, held, agent_id)
            if ending is not None:
                return ending
        # Held before looking: otherwise another call could change the conversation in between.
        async with self._slots.reserve(route.conversation, self._owner) as slot:
            found, reason = await self._look(route)
            # The same call was made before and answered: give that answer, send nothing twice.
            if found is not None and found.complete and not self._is_a_part(route, found):
                ending = ResponseTracker(client, call, plan, route)
                return ending.replays(found.messages, found.pending)
            if not reason:
                going_on = route if found is None else route.going_on()
                return await self._send_there(plan, going_on, agent_id, slot)
        return await self._send_there(plan, resolve_mismatch(call, plan, reason), agent_id)

    def _left_alone(self, plan: HistorySplit, route: Route) -> Route:
        """Return a route that denies no call which another caller of this process will answer.

        Raises:
            WaitsForItselfError: The application names a conversation that waits for what it does.
            ConversationBusyError: It names one that waits for somebody else.
        """
        where, place = route.conversation, self._call.place
        busy = find_calls_in_work(where) - route.result_ids if where is not None else frozenset()
        if not busy:
            return route
        # The history alone led there, so a fresh conversation may take its place.
        if not route.named:
            return resolve_mismatch(self._call, plan, _IN_WORK, occupied=True)
        if place is not None and place.serves & busy:
            raise WaitsForItselfError(
                "This call is part of the answer to a tool call, and names the conversation that "
                "waits for that answer.",
                accepted=False,
            )
        raise ConversationBusyError(
            "A tool that the conversation waits for is still at work.", accepted=False
        )

    async def _look(self, route: Route) -> tuple[replay.StoredAnswer | None, str]:
        """Return the stored answer to this very call, if there is one, and a reason not to go on.

        The reason is empty where the call can go on in the conversation.
        """
        where, marker = route.conversation, route.marker
        assert where is not None
        # Only a history that goes on from a marker can disagree with the conversation.
        bound = marker is not None and not route.forced
        if not bound and route.key is None:
            return None, ""
        # The Letta API lists what a run was sent when its step is stored, Letta Code at once.
        listed_late = self._client.backend.capabilities.whole_answers_only
        try:
            asks = listed_late and not recent.knows(where)
            if asks and not await self._has_run(route, where):
                return None, ""
            head = await replay.read_newest(self._client, where, 1) if bound else []
            if marker is not None and replay.is_head(marker, head):
                return None, ""
            found = await self._find(route, where)
            if found is not None and not listed_late:
                found = await self._once_over(route, where, found)
        except NotFoundError:
            if not bound:
                raise
            return None, _GONE
        return found, _GONE_ON if bound and found is None else ""

    async def _find(self, route: Route, where: Conversation) -> replay.StoredAnswer | None:
        """Look for this call among the messages that the conversation holds."""
        items = await replay.read_newest(self._client, where, replay.RECENT)
        found = replay.find_after_message(items, route.key) if route.key else None
        # Results that are stored are the whole call only if nothing is said after them.
        only_results = route.send[-1].role == "tool" if route.send else False
        if found is None and only_results and self._answers_are_ours(route):
            found = replay.find_after_results(items, route.result_ids)
        return found

    async def _once_over(
        self, route: Route, where: Conversation, found: replay.StoredAnswer | None
    ) -> replay.StoredAnswer | None:
        """Return this call as it is stored once no turn of it is active any more.

        Letta Code stores a message before it says that the turn is active, and the answer while it
        grows. So an idle conversation tells something only if an answer was there before it was
        asked about, and a message without one is looked at for a moment, unless this process has
        sent it: then it knows more.

        Args:
            route: The route of the call.
            where: The conversation.
            found: The call as it was stored a moment ago.
        """
        ours = recent.get(where.agent_id, route.key) is not None
        until = time.monotonic() + (0.0 if ours else _BEGIN_SECONDS)
        while found is not None:
            had_begun = bool(found.messages)
            await self._has_run(route, where)
            found = await self._find(route, where)
            said = found is not None and bool(found.messages)
            if had_begun or not (said or time.monotonic() < until):
                break
            if not said:
                await asyncio.sleep(_LOOK_SECONDS)
        return found

    async def _has_run(self, route: Route, where: Conversation) -> bool:
        """Wait for an earlier run of this call; return whether any ran since its last answer."""
        after = None if route.marker is None or route.forced else route.marker.run_id
        seconds = self._call.timeout
        return await replay.wait_for_runs(
            self._client, where, route.key, after=after, seconds=seconds
        )

    def _is_a_part(self, route: Route, found: replay.StoredAnswer) -> bool:
        """Return whether the stored answer is only the beginning that was cut off."""
        whole = self._client.backend.capabilities.whole_answers_only
        if whole or found.pending or route.conversation is None:
            return False
        return recent.was_cut_off(route.conversation.agent_id, route.key)

    def _answers_are_ours(self, route: Route) -> bool:
        """Return whether stored results of tool calls can be taken for the caller's.

        A call that an App Server gave up has a result too, which is not the caller's.
        """
        if self._client.backend.capabilities.durable_pending_calls:
            return True
        where = route.conversation
        return where is not None and recent.get(where.agent_id, route.key) == where

    # -- a turn that waits ------------------------------------------------------------------

    def _held(self, where: Conversation) -> PausedTurn | None:
        """Return the turn that is paused in this conversation, if it still is."""
        cache = get_cache(self._client)
        held = cache.held.get(where)
        if held is not None and not held.turn.paused:
            del cache.held[where]
            return None
        return held

    async def _of_held(
        self, plan: HistorySplit, route: Route, held: PausedTurn, agent_id: str
    ) -> ResponseTracker | None:
        """Go on with a turn that waits, if this call can; otherwise return ``None``."""
        if (said := held.since(route.key)) is not None:
            turn = held.turn
            ending = ResponseTracker(self._client, self._call, plan, route)
            return ending.replays(said, turn.pending, turn.details)
        if _can_resume(held, route, self._call) and not self._needs_anew(plan, route):
            return self._resume(plan, route, held)
        if self._call.ephemeral:
            return await self._send(plan, await self._anew(plan, held), agent_id)
        return None

    def _needs_anew(self, plan: HistorySplit, route: Route) -> bool:
        """Return whether a call brings instructions that its paused turn was begun without.

        In a conversation of its own, the first instructions would hold beside the new ones.
        """
        return self._call.ephemeral and bool(route.instructions(plan, self._call))

    async def _anew(self, plan: HistorySplit, held: PausedTurn) -> Route:
        """Give up a turn whose conversation was for it alone, and tell the history anew."""
        where = held.turn.conversation
        get_cache(self._client).held.pop(where, None)
        await held.turn.stop("The application goes on elsewhere.")
        await self._slots.finish(conversations.remove(self._client, where))
        return retell(self._call, plan)

    def _resume(self, plan: HistorySplit, route: Route, held: PausedTurn) -> ResponseTracker:
        """Answer the calls that a paused turn waits for and let it go on."""
        turn = held.turn
        del get_cache(self._client).held[turn.conversation]
        # Noted before anything is sent: if the answer is lost, the repeated call has to find it
        # here.
        recent.put(route.key, turn.conversation)
        questions = None if route.marker is None else route.marker.questions
        own = self._own_tools()
        answers = payload.answer_calls(turn.pending, route.send, own, questions, plan.edited)
        answers = payload.add_instructions(answers, route.instructions(plan, self._call))
        ending = ResponseTracker(self._client, self._call, plan, route, used=turn.usage)
        # Instructions travel behind a tool's result; decisions alone cannot carry them.
        if all(answer.returned is None for answer in answers):
            ending.told_nothing()
        self._tell_where(ending)
        self._turn = turn
        self._before = held
        self._stream = turn.resume(answers, self._owner)
        return ending

    async def _next_stream(self, ending: ResponseTracker) -> MessageStream | None:
        """Return the next stream of the call after one ended, or ``None`` at the end of the call.

        A stream ends with a result, with a refusal that can be mended, or with tool calls.
        """
        turn, failure = self._turn, ending.failure
        assert turn is not None
        if failure is not None:
            return await self._mended(ending, failure)
        if ending.result is not None:
            return None
        own = frozenset(self._own_tools())
        # Nobody can be asked about these calls, so they are denied with an explanation.
        if not self._call.ask_server_tools and own.isdisjoint(c.tool_name for c in turn.pending):
            return turn.resume(payload.answer_calls(turn.pending, (), own), self._owner)
        ending.waits(turn.pending, turn.details, turn.usage)
        if self._client.backend.capabilities.durable_pending_calls:
            # The Letta API stores calls that wait, so any process can answer them later. On an App
            # Server only this connection can, so the turn itself is kept.
            turn.let_go()
        else:
            tools = _digest_tools(self._call)
            held = PausedTurn.of(turn, ending.key, ending.seen, self._before, tools)
            for other in get_cache(self._client).hold(held):
                # Turns kept too long are stopped in the background: this call need not wait for
                # them.
                self._slots.finish_later(other.stop("Nobody answered its calls in time."))
        return None

    # -- the turn ---------------------------------------------------------------------------

    async def _send_there(
        self, plan: HistorySplit, route: Route, agent_id: str, slot: TurnSlot | None = None
    ) -> ResponseTracker:
        """Send what is new, in a fresh conversation if the history's own is gone."""
        try:
            return await self._send(plan, route, agent_id, slot)
        except NotFoundError:
            if route.marker is None or route.forced:
                raise
        # The runs of a deleted conversation may still be listed, so only sending shows that it is
        # gone.
        return await self._send(plan, resolve_mismatch(self._call, plan, _GONE), agent_id)

    async def _send(
        self, plan: HistorySplit, route: Route, agent_id: str, slot: TurnSlot | None = None
    ) -> ResponseTracker:
        """Create or set up the conversation, and begin the turn in it.

        Args:
            plan: The history, taken apart.
            route: Where it goes.
            agent_id: The agent.
            slot: The conversation, if it is held already. It is free again if this fails.
        """
        client, call = self._client, self._call
        if route.conversation is None:
            opened = await conversations.make(client, call, agent_id, plan.system, None)
            route = route.at(opened.conversation)
            conversations.note_made(client, call, opened)
        where = route.conversation
        assert where is not None
        async with slot or self._slots.reserve(where, self._owner) as slot:
            if not route.fresh:
                await conversations.set_up(client, call, where, known=route.has_settings(call))
            request = self._compose(plan, route, route.waiting)
            ending = ResponseTracker(client, call, plan, route)
            # The server may refuse the message at once or later in the stream; both can be mended
            # once.
            self._refusable = (plan, route)
            try:
                self._stream = await self._begin(ending, request, slot)
            except PendingApprovalError:
                self._stream = await self._begin_again(ending, plan, route)
        # Told by now, so that a call without a marker does not tell it again.
        get_cache(client).told[where] = (ending.system, ending.standing)
        return ending

    async def _begin(
        self, ending: ResponseTracker, request: payload.Payload, slot: TurnSlot
    ) -> MessageStream:
        """Begin the turn and return its stream.

        Args:
            ending: Collects the events' data; it names the conversation and the key.
            request: The message, with answers and history.
            slot: The conversation, which is held.
        """
        client, call = self._client, self._call
        settings = TurnSettings(
            include_partial_messages=call.partial,
            client_tools=list(call.tools),
            max_steps=call.max_steps,
            session=call.session,
            asks=call.asks,
            model=call.model if client.backend.capabilities.model_per_message else None,
        )
        timeout = call.timeout or client.backend.turn_timeout
        otid = _make_otid(ending.key, ending.conversation)
        message = OutgoingMessage(otid, request.content, request.answers, request.history)
        self._tell_where(ending)
        try:
            self._turn = await slot.start(message, TurnOptions(settings, timeout=timeout))
        except LettaError as error:
            # Nobody knows whether the message arrived: a repeated call has to ask the server first.
            if error.accepted is None:
                recent.lost(ending.key, ending.conversation)
            raise
        recent.begun(ending.key, ending.conversation)
        return self._turn.stream(self._owner)

    def _tell_where(self, ending: ResponseTracker) -> None:
        """Tell the caller where its message goes, before it may have been accepted there."""
        if self._call.on_send is not None:
            self._call.on_send(ending.conversation, ending.key)

    async def _mended(self, ending: ResponseTracker, failure: LettaError) -> MessageStream:
        """Send a message again that was surely refused, for a reason that can be helped.

        Raises:
            LettaError: The failure itself, where nothing helps or the message may have been
                accepted.
        """
        refused, able = self._refusable, self._client.backend.capabilities
        if failure.accepted is None:
            recent.lost(ending.key, ending.conversation)
        if refused is None:
            raise failure
        if able.durable_pending_calls and failure.code == "pending_approval":
            # Calls of an earlier turn wait for an answer.
            ending.failure = None
            return await self._begin_again(ending, *refused)
        wedged = failure.code == "conversation_busy" and self._call.conversation_id is None
        if wedged and not able.usable_after_a_cut:
            # An App Server holds a conversation for ever whose turn lost its connection.
            self._refusable = ending.failure = None
            ending.conversation = await conversations.move_to_fork(
                self._client, ending.conversation
            )
            async with self._slots.reserve(ending.conversation, self._owner) as slot:
                request = self._compose(*refused, refused[1].waiting)
                return await self._begin(ending, request, slot)
        raise failure

    async def _begin_again(
        self, ending: ResponseTracker, plan: HistorySplit, route: Route
    ) -> MessageStream:
        """Send a refused message together with answers to the calls that wait.

        The history may hold results of them although it no longer tells where they belong; the
        others are denied.
        """
        self._refusable = None
        async with self._slots.reserve(ending.conversation, self._owner) as slot:
            waiting = await self._client.backend.pending_calls(ending.conversation)
            request = self._compose(plan, route, waiting)
            return await self._begin(ending, request, slot)

    def _compose(
        self, plan: HistorySplit, route: Route, waiting: Sequence[PendingToolCall]
    ) -> payload.Payload:
        # The agent holds the message and never answered it; sending it again would double it.
        """Return the request that brings what is new in the form this backend takes.

        Args:
            plan: The history, taken apart.
            route: The conversation, and the messages that go there.
            waiting: The calls that wait on the server.
        """
        if route.lost:
            answers = payload.answer_calls(waiting, (), self._own_tools())
            return payload.Payload(payload.GO_ON, answers)
        where, call = route.conversation, self._call
        told = get_cache(self._client).told.get(where) if where is not None else None
        system = route.instructions(plan, call, told or (None, None))
        if not self._client.backend.capabilities.messages_of_any_role:
            return payload.as_message(route.send, system).with_note(call.note).with_content()
        # Take the calls from the history where it has them, with the arguments the model wrote.
        written = {call.tool_call_id: call for entry in plan.whole for call in entry.tool_calls}
        told_of = [written.get(call.tool_call_id, call) for call in waiting]
        questions = None if route.marker is None else route.marker.questions
        own = self._own_tools()
        answers = payload.answer_calls(told_of, route.send, own, questions, plan.edited)
        return payload.as_request(route.send, system, answers).with_note(call.note).with_content()

    def _own_tools(self) -> list[str]:
        return [str(tool["name"]) for tool in self._call.tools]


def _restore_markers(entries: Iterable[HistoryMessage], agent_id: str) -> list[HistoryMessage]:
    """Return the history with the markers that a framework dropped put back.

    Args:
        entries: The history.
        agent_id: The agent, whose answers are looked for.
    """
    made: list[HistoryMessage] = []
    before: Marker | None = None
    since: list[HistoryMessage] = []
    for entry in entries:
        if entry.role == "assistant" and entry.marker is None:
            name = (entry.id or "").removeprefix(ID_PREFIX)
            names = (name, *(call.tool_call_id for call in entry.tool_calls))
            known = known_answers.find(agent_id, names)
            # Neither the message's id nor a call's is known, so its text and predecessor have to
            # do.
            if known is None and before is not None:
                known = known_answers.follower(before, digest_inputs(since)[0], entry.text)
            entry = replace(entry, marker=known)
        made.append(entry)
        if entry.marker is not None and entry.marker.agent_id == agent_id:
            before, since = entry.marker, []
        elif entry.role != "system":
            since.append(entry)
    return made


def _make_otid(key: str | None, where: Conversation) -> str:
    """Return the message's id on the wire; the same call has the same one again."""
    return sent_as(key, where.agent_id, where.conversation_id) if key else str(uuid.uuid4())


def _digest_tools(call: ChatRequest) -> frozenset[str]:
    """Return digests of the client-side tools that the call offers."""
    return frozenset(make_digest(dict(tool)) for tool in call.tools)


def _can_resume(held: PausedTurn, route: Route, call: ChatRequest) -> bool:
    """Return whether the entries answer the turn's calls, and the server will still take them.

    A turn keeps the tools it was begun with: a call that offers others needs another one.
    """
    if not _digest_tools(call) <= held.tools:
        return False
    waited = time.monotonic() - (held.turn.paused_at or 0.0)
    if waited > HELD_SECONDS or not held.turn.connected:
        return False
    pending = {call.tool_call_id for call in held.turn.pending}
    return bool(route.result_ids & pending) and all(e.role == "tool" for e in route.send)
