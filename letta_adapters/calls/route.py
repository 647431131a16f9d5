"""Where a call goes, and what it takes there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from letta_adapters._locks import process_lock
from letta_adapters.backends.base import Conversation
from letta_adapters.calls import places
from letta_adapters.calls.entries import Entry, digest_of
from letta_adapters.calls.marker import Marker
from letta_adapters.calls.memo import recent
from letta_adapters.calls.model import Call
from letta_adapters.calls.rule import Plan, call_key
from letta_adapters.calls.scope import THREAD_PREFIX, name_of, tasks
from letta_adapters.errors import HistoryMismatchError
from letta_adapters.messages import PendingToolCall

if TYPE_CHECKING:
    from letta_adapters.client import AsyncLettaClient


@dataclass(frozen=True, slots=True)
class Route:
    """``conversation`` is ``None`` while it has to be made.

    ``marker``: the one it goes on from. ``key``: what the call is known by when it is repeated.
    ``named``: the application itself says that the call goes there. ``forced``: go there whatever
    the conversation holds by now. ``fresh``: it holds nothing yet. ``lost``: the agent has the
    input and never answered it; ``asked`` is then the key it was sent under. ``forked``: why a
    fresh conversation was taken instead of another one.
    """

    send: tuple[Entry, ...]
    conversation: Conversation | None = None
    marker: Marker | None = None
    key: str | None = None
    named: bool = False
    forced: bool = False
    fresh: bool = False
    lost: bool = False
    asked: str | None = None
    forked: str = ""

    @property
    def result_ids(self) -> frozenset[str]:
        """The tool calls that what is sent answers."""
        return frozenset(entry.tool_call_id for entry in self.send if entry.role == "tool")

    @property
    def waiting(self) -> list[PendingToolCall]:
        """The calls that wait on the server, as far as the history tells."""
        if self.marker is None or self.lost:
            return []
        return [PendingToolCall(id_, name) for id_, name in self.marker.pending]

    def at(self, conversation: Conversation) -> Route:
        """The conversation was made."""
        return replace(self, conversation=conversation, fresh=True)

    def going_on(self) -> Route:
        """What was to be sent is stored there, without an answer."""
        return replace(self, lost=True, key=None, asked=self.key)

    def instructions(
        self, plan: Plan, call: Call, told: tuple[str | None, str | None] = (None, None)
    ) -> str:
        """What the agent has to be told (again), as system text is told.

        ``told``: digests of what it was told last, where no marker says so.
        """
        if self.marker is not None:
            told = (self.marker.system, self.marker.standing)
        system = "" if self.fresh and call.agent_free else plan.system
        texts = zip((system, call.standing), told, strict=True)
        return "\n\n".join(text for text, known in texts if text and digest_of(text) != known)

    def has_settings(self, call: Call) -> bool:
        """Was the conversation made, or last used, with these model settings?"""
        return self.marker is not None and self.marker.settings == settings_digest(call)


def settings_digest(call: Call) -> str | None:
    """What a marker says of the call's model settings."""
    return digest_of(dict(call.settings)) if call.settings else None


async def make_route(client: AsyncLettaClient, call: Call, plan: Plan, agent_id: str) -> Route:
    """Apply the history rule; an explicit argument wins over a marker.

    Raises:
        HistoryMismatchError: with ``on_mismatch="error"``.
    """
    known = plan.marker is not None and any(entry.known for entry in plan.new)
    if known and not plan.mismatch and plan.marker is not None:
        return _after_a_failure(plan, plan.marker)
    first = _is_first(call, agent_id)
    if call.conversation_id is not None:
        return _named(call, plan, Conversation(agent_id, call.conversation_id))
    # A conversation for one call lasts until its tools are answered.
    if plan.marker is not None and (plan.marker.pending or not call.ephemeral):
        if plan.mismatch:
            return mismatched(call, plan, plan.mismatch)
        where = Conversation(agent_id, plan.marker.conversation_id)
        key = _key(call, plan, plan.new, "")
        return Route(plan.new, where, plan.marker, key)
    if not call.ephemeral and (name := _name(call, first=first)):
        return await _of_name(client, call, plan, agent_id, name)
    key = _key(call, plan, plan.whole, "")
    again = None if call.ephemeral else recent.get(agent_id, key)
    if again is None and call.begun is not None:
        again = Conversation(agent_id, call.begun)
    return Route(plan.whole, again, key=key)


def _is_first(call: Call, agent_id: str) -> bool:
    """Is it the first call of its task, which its node's history is of?

    Also a call that goes on by its marker is: what the node asks besides is not.
    """
    if call.place is None or not call.place.keeps or call.aside or call.scope is not None:
        return False
    told = [str(tool.get("name")) for tool in call.tools]
    return tasks.is_first(agent_id, call.place, call.entries, f"{call.note} {told}")


def _name(call: Call, *, first: bool) -> str | None:
    if call.thread_id:
        return THREAD_PREFIX + call.thread_id
    return name_of(call.place, call.scope, first=first)


def _after_a_failure(plan: Plan, marker: Marker) -> Route:
    """Part of what is new is there already: the conversation went on, if only by that."""
    send = tuple(entry for entry in plan.new if not entry.known)
    where = Conversation(marker.agent_id, marker.conversation_id)
    if any(entry.known and entry.role == "tool" for entry in plan.new):
        marker = replace(marker, pending=())  # those calls have their answers
    return Route(send, where, marker, forced=True, lost=not send)


def _named(call: Call, plan: Plan, where: Conversation) -> Route:
    marker = plan.marker
    if marker is not None and marker.conversation_id != where.conversation_id:
        marker = None
    given = plan.last_turn if marker is None else plan.new
    send = tuple(entry for entry in given if not entry.known)
    if given and not send:
        return Route(send, where, marker, forced=True, lost=True)
    key = _key(call, plan, send, "")
    return Route(send, where, marker, key, named=True, forced=True)


async def _of_name(
    client: AsyncLettaClient, call: Call, plan: Plan, agent_id: str, name: str
) -> Route:
    """Find the conversation of that name, or make it: it is one, also when ten start at once."""
    named = bool(call.thread_id) or call.scope == "thread"
    async with process_lock((agent_id, name)):
        found = await places.find_named(client, agent_id, name)
        if found is None:
            found, made = await places.make_named(client, call, agent_id, plan.system, name)
            if made:
                key = _key(call, plan, plan.whole, name)
                return Route(plan.whole, found, key=key, named=named, fresh=True)
    # What a summary tells in short, the conversation holds.
    send = tuple(entry for entry in plan.last_turn if not entry.summary) or plan.last_turn
    # The first call of a thread sent the whole history, so its repetition is known by that.
    return Route(send, found, key=_key(call, plan, send, name), named=named)


def mismatched(call: Call, plan: Plan, reason: str, *, occupied: bool = False) -> Route:
    """The history is not the conversation's: what ``on_mismatch`` says about it.

    ``occupied``: nothing can be sent there now, so it cannot be continued either.
    """
    marker = plan.marker
    if call.on_mismatch == "error":
        raise HistoryMismatchError(f"The history cannot be continued: {reason}.")
    if call.on_mismatch == "continue" and marker is not None and not occupied:
        where = Conversation(marker.agent_id, marker.conversation_id)
        return Route(plan.new, where, forced=True, forked=reason)
    return replace(retold(call, plan), forked=reason)


def retold(call: Call, plan: Plan) -> Route:
    """The whole history is told in a fresh conversation."""
    return Route(plan.whole, key=_key(call, plan, plan.whole, "fork"))


def _key(call: Call, plan: Plan, send: tuple[Entry, ...], where: str) -> str | None:
    tools = digest_of([dict(tool) for tool in call.tools])
    context = [where, digest_of(plan.system), tools, call.note]
    if call.place is not None and call.place.identity:
        context.append(call.place.identity)
    if not send and plan.marker is not None:
        context.append(plan.marker.key)  # asked to go on, after this answer
    return call_key(send or plan.whole[-1:], context)
