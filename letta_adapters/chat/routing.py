"""Internal: choose the conversation that a call goes to, and the messages it takes there.

Here a history that does not fit its conversation forks, continues or fails, as ``on_mismatch``
says; that it does not fit is found by :mod:`~letta_adapters.chat.history`. A conversation belongs
to the place that keeps its history: a name that a call merely inherits (the ``thread_id`` of a
graph, inside one of its tools) names no conversation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from letta_adapters._utils.locks import process_lock
from letta_adapters.backends.base import Conversation
from letta_adapters.chat import conversations
from letta_adapters.chat.cache import find_calls_in_work, known_answers, recent, tasks
from letta_adapters.chat.context import ChatContext, Route
from letta_adapters.chat.conversations import THREAD_PREFIX
from letta_adapters.chat.history import HistorySplit, make_call_key, split_history
from letta_adapters.chat.marker import Marker
from letta_adapters.chat.request import ChatRequest, HistoryMessage, Place, Scope, make_digest
from letta_adapters.errors import ConversationBusyError, HistoryMismatchError, WaitsForItselfError

if TYPE_CHECKING:
    from letta_adapters.client.client import AsyncLettaClient

_IN_WORK: Final = "a tool that the conversation waits for is still at work"


async def make_context(client: AsyncLettaClient, call: ChatRequest) -> ChatContext:
    """Take a call's history apart, and choose its route.

    Args:
        client: The client.
        call: The call, checked.

    Raises:
        HistoryMismatchError: The history does not fit, and ``on_mismatch="error"`` says to fail.
        InvalidInputError: The history has nothing to send.
        WaitsForItselfError: The application names a conversation that waits for what it does.
        ConversationBusyError: It names one that waits for somebody else.
        UnsupportedOptionError: The server runs a tool without asking the call's callback.
    """
    agent_id = await conversations.find_agent(client, call)
    # Before a conversation is looked up or made: a refusal leaves nothing behind.
    await conversations.check_asks(client, call, agent_id)
    entries = known_answers.restore_markers(call.entries, agent_id)
    # With one conversation for the whole thread, answers given at any place of it count as its own.
    split = split_history(entries, agent_id, None if call.scope == "thread" else call.place)
    route = await _make_route(client, call, split, agent_id)
    return _spare_calls_in_work(ChatContext(client.backend, agent_id, call, split, route))


async def _make_route(
    client: AsyncLettaClient, call: ChatRequest, plan: HistorySplit, agent_id: str
) -> Route:
    """Choose the route, and look up or create the conversation where the choice leaves it open."""
    # Asked for every call, also those that go on by a marker: asking notes the first of each task.
    first = not _is_stored_in_part(plan) and _is_first(call, agent_id)
    route = choose_route(call, plan, agent_id, first=first)
    if route.name:
        return await _look_up(client, call, plan, route, agent_id)
    if route.repeated:
        # A repeated call whose answer was lost has no marker; it is found where it went before.
        before = None if call.ephemeral else recent.get(agent_id, route.key)
        return replace(route, conversation=before or route.conversation)
    return route


def choose_route(
    call: ChatRequest, plan: HistorySplit, agent_id: str, *, first: bool = False
) -> Route:
    """Apply the history rule, without any look-up; an explicit argument wins over a marker.

    Args:
        call: The call.
        plan: The history, taken apart.
        agent_id: The agent.
        first: It is the first call of its task, whose history its node keeps.

    Returns:
        The route. One with a ``name`` has no conversation yet and is the one for the case that
        there is such a conversation; one that is ``repeated`` leads to a conversation of its own,
        unless an earlier attempt tells another.

    Raises:
        HistoryMismatchError: The history does not fit, and ``on_mismatch="error"`` says to fail.
    """
    if plan.marker is not None and _is_stored_in_part(plan):
        return _route_after_failure(plan, plan.marker)
    if call.conversation_id is not None:
        return _route_to_given(call, plan, Conversation(agent_id, call.conversation_id))
    # A conversation for one call lasts until its tools are answered.
    if plan.marker is not None and (plan.marker.pending or not call.ephemeral):
        if plan.mismatch:
            return resolve_mismatch(call, plan, plan.mismatch)
        where = Conversation(agent_id, plan.marker.conversation_id)
        return Route(plan.new, where, plan.marker, _make_key(call, plan, plan.new, ""))
    if not call.ephemeral and (name := _find_name(call, first=first)):
        return _route_to_name(call, plan, name)
    begun = Conversation(agent_id, call.begun) if call.begun is not None else None
    return Route(plan.whole, begun, key=_make_key(call, plan, plan.whole, ""), repeated=True)


def _is_stored_in_part(plan: HistorySplit) -> bool:
    """Return whether the conversation that the history fits holds some of its new messages."""
    if plan.marker is None or plan.mismatch:
        return False
    return any(entry.known for entry in plan.new)


def _is_first(call: ChatRequest, agent_id: str) -> bool:
    """Return whether it is the first call of its task, whose history its node keeps.

    A call that goes on by its marker may be the first too; what the node asks besides is not.
    """
    if call.place is None or not call.place.keeps or call.aside or call.scope is not None:
        return False
    told = [str(tool.get("name")) for tool in call.tools]
    return tasks.is_first(agent_id, call.place, call.entries, f"{call.note} {told}")


def _find_name(call: ChatRequest, *, first: bool) -> str | None:
    """Return the name of the conversation that the call belongs to, or ``None``."""
    if call.thread_id:
        return THREAD_PREFIX + call.thread_id
    return name_conversation(call.place, call.scope, first=first)


def _route_after_failure(plan: HistorySplit, marker: Marker) -> Route:
    """Return the route of a call whose new messages are partly stored already.

    The conversation went on by at least those, so its marker's head is not looked for.
    """
    send = tuple(entry for entry in plan.new if not entry.known)
    where = Conversation(marker.agent_id, marker.conversation_id)
    if any(entry.known and entry.role == "tool" for entry in plan.new):
        marker = replace(marker, pending=())  # those calls have their answers
    return Route(send, where, marker, forced=True, lost=not send)


def _route_to_given(call: ChatRequest, plan: HistorySplit, where: Conversation) -> Route:
    """Return the route to the conversation that the application names."""
    marker = plan.marker
    if marker is not None and marker.conversation_id != where.conversation_id:
        # The marker is of another conversation: it tells nothing about what this one holds.
        marker = None
    given = plan.last_turn if marker is None else plan.new
    send = tuple(entry for entry in given if not entry.known)
    if given and not send:
        # All of it is stored already: the agent only has to be asked for the answer.
        return Route(send, where, marker, forced=True, lost=True)
    key = _make_key(call, plan, send, "")
    return Route(send, where, marker, key, named=True, forced=True)


def _route_to_name(call: ChatRequest, plan: HistorySplit, name: str) -> Route:
    """Return the route to the conversation of a name that the application or its place gives."""
    # A summary stands for messages that the conversation holds in full, so it is not sent.
    send = tuple(entry for entry in plan.last_turn if not entry.summary) or plan.last_turn
    # The first call of a thread sent the whole history, so its repetition is known by that.
    named = bool(call.thread_id) or call.scope == "thread"
    return Route(send, key=_make_key(call, plan, send, name), named=named, name=name)


async def _look_up(
    client: AsyncLettaClient, call: ChatRequest, plan: HistorySplit, route: Route, agent_id: str
) -> Route:
    """Find or create the one conversation of a name, also when ten calls start at once."""
    name = route.name
    async with process_lock((agent_id, name)):
        found = await conversations.find_named(client, agent_id, name)
        if found is None:
            found, made = await conversations.make_named(client, call, agent_id, plan.system, name)
            if made:
                key = _make_key(call, plan, plan.whole, name)
                return replace(route.at(found), send=plan.whole, key=key)
    return replace(route, conversation=found)


def name_conversation(place: Place | None, scope: Scope | None, *, first: bool) -> str | None:
    """Return the name of the conversation that belongs to a place; ``None``: a fresh one.

    Args:
        place: Where the call is made.
        scope: The application's wish, if it has one.
        first: It is the first call of its task, and no question on the side.
    """
    if place is None or place.thread is None or scope == "fresh":
        return None
    if scope == "thread" or not place.node:
        # The whole thread has one conversation. Outside of graphs this is the default too, unless
        # the call merely inherits the thread.
        return THREAD_PREFIX + place.thread if place.keeps or scope else None
    if scope == "node" or (first and place.keeps):
        # A thread's name may hold a slash: two places must not come to one name.
        thread = place.thread.replace("%", "%25").replace("/", "%2F")
        return f"{THREAD_PREFIX}{thread}/{place.node}"
    return None


def _spare_calls_in_work(context: ChatContext) -> ChatContext:
    """Return the context on a route that denies no call which this process is answering."""
    route, place = context.route, context.request.place
    where = route.conversation
    busy = find_calls_in_work(where) - route.result_ids if where is not None else frozenset()
    if not busy:
        return context
    # The history alone led there, so a fresh conversation may take its place.
    if not route.named:
        fork = resolve_mismatch(context.request, context.split, _IN_WORK, occupied=True)
        return context.take(fork)
    if place is not None and place.serves & busy:
        raise WaitsForItselfError(
            "This call is part of the answer to a tool call, and names the conversation that "
            "waits for that answer.",
            accepted=False,
        )
    raise ConversationBusyError(
        "A tool that the conversation waits for is still at work.", accepted=False
    )


def resolve_mismatch(
    call: ChatRequest, plan: HistorySplit, reason: str, *, occupied: bool = False
) -> Route:
    """Return the route for a history that does not fit, as ``on_mismatch`` decides.

    Args:
        call: The call.
        plan: The history, taken apart.
        reason: Why it does not fit.
        occupied: Nothing can be sent to the conversation now, so it cannot be continued either.

    Raises:
        HistoryMismatchError: ``on_mismatch="error"``.
    """
    marker = plan.marker
    if call.on_mismatch == "error":
        raise HistoryMismatchError(f"The history cannot be continued: {reason}.")
    if call.on_mismatch == "continue" and marker is not None and not occupied:
        where = Conversation(marker.agent_id, marker.conversation_id)
        return Route(plan.new, where, forced=True, forked=reason)
    return replace(retell(call, plan), forked=reason)


def retell(call: ChatRequest, plan: HistorySplit) -> Route:
    """Return the route that tells the whole history in a fresh conversation."""
    return Route(plan.whole, key=_make_key(call, plan, plan.whole, "fork"))


def _make_key(
    call: ChatRequest, plan: HistorySplit, send: tuple[HistoryMessage, ...], where: str
) -> str | None:
    """Return the call's key, or ``None`` if it cannot be known again; see :func:`make_call_key`."""
    tools = make_digest([dict(tool) for tool in call.tools])
    context = [where, make_digest(plan.system), tools, call.note]
    if call.place is not None and call.place.identity:
        context.append(call.place.identity)
    if not send and plan.marker is not None:
        context.append(plan.marker.key)  # asked to go on, after this answer
    return make_call_key(send or plan.whole[-1:], context)
