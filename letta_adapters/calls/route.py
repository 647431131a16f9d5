"""Where a call goes, and what it takes there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from letta_adapters.backends.base import Conversation
from letta_adapters.calls import places
from letta_adapters.calls.entries import Entry, digest_of
from letta_adapters.calls.marker import Marker
from letta_adapters.calls.memo import recent
from letta_adapters.calls.model import Call
from letta_adapters.calls.rule import Plan, call_key
from letta_adapters.errors import HistoryMismatchError, InvalidInputError
from letta_adapters.messages import PendingToolCall

if TYPE_CHECKING:
    from letta_adapters.client import AsyncLettaClient


@dataclass(frozen=True, slots=True)
class Route:
    """``conversation`` is ``None`` while it has to be made, with this ``summary``.

    ``marker``: the one it goes on from. ``key``: what the call is known by when it is repeated.
    ``forced``: go there whatever the conversation holds by now. ``lost``: the agent has the input
    and never answered it; ``asked`` is then the key it was sent under. ``forked``: why a fresh
    conversation was taken instead of another one.
    """

    send: tuple[Entry, ...]
    conversation: Conversation | None = None
    marker: Marker | None = None
    key: str | None = None
    summary: str | None = None
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

    def tells_system(self, plan: Plan, call: Call, told: str | None) -> bool:
        """Does the agent have to be told the system text (again)? ``told``: what it was last."""
        if not plan.system or (self.fresh and call.agent_free):
            return False
        known = told if self.marker is None else self.marker.system
        return known != digest_of(plan.system)

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
        InvalidInputError: nothing is to be sent.
    """
    known = plan.marker is not None and any(entry.known for entry in plan.new)
    if known and not plan.mismatch and plan.marker is not None:
        return _after_a_failure(plan, plan.marker)
    if call.conversation_id is not None:
        return _named(call, plan, Conversation(agent_id, call.conversation_id))
    # A conversation for one call lasts until its tools are answered.
    if plan.marker is not None and (plan.marker.pending or not call.ephemeral):
        if plan.mismatch:
            return mismatched(call, plan, plan.mismatch)
        where = Conversation(agent_id, plan.marker.conversation_id)
        key = _key(call, plan, plan.new, "")
        return Route(plan.new, where, plan.marker, key)
    if not call.ephemeral and call.thread_id:
        return await _of_thread(client, call, plan, agent_id, call.thread_id)
    key = _key(call, plan, plan.whole, "")
    again = None if call.ephemeral else recent.get(agent_id, key)
    return Route(plan.whole, again, key=key)


def _after_a_failure(plan: Plan, marker: Marker) -> Route:
    """Part of what is new is there already: the conversation went on, if only by that."""
    send = tuple(entry for entry in plan.new if not entry.known)
    where = Conversation(marker.agent_id, marker.conversation_id)
    return Route(send, where, marker, forced=True, lost=not send)


def _named(call: Call, plan: Plan, where: Conversation) -> Route:
    marker = plan.marker
    if marker is not None and marker.conversation_id != where.conversation_id:
        marker = None
    given = plan.since_reply if marker is None else plan.new
    send = tuple(entry for entry in given if not entry.known)
    if given and not send:
        return Route(send, where, marker, forced=True, lost=True)
    if not send:
        raise InvalidInputError(
            "The history ends with an assistant's message: there is nothing new to send.",
            hint="Add a user's message.",
        )
    key = _key(call, plan, send, "")
    return Route(send, where, marker, key, forced=True)


async def _of_thread(
    client: AsyncLettaClient, call: Call, plan: Plan, agent_id: str, thread_id: str
) -> Route:
    found = await places.find_thread(client, agent_id, thread_id)
    if found is None:
        summary = places.THREAD_PREFIX + thread_id
        key = _key(call, plan, plan.whole, summary)
        return Route(plan.whole, key=key, summary=summary)
    send = plan.since_reply or plan.whole
    # The first call of a thread sent the whole history, so its repetition is known by that.
    return Route(send, found, key=_key(call, plan, send, places.THREAD_PREFIX + thread_id))


def mismatched(call: Call, plan: Plan, reason: str) -> Route:
    """The history is not the conversation's: what ``on_mismatch`` says about it."""
    marker = plan.marker
    if call.on_mismatch == "error":
        raise HistoryMismatchError(f"The history cannot be continued: {reason}.")
    if call.on_mismatch == "continue" and marker is not None:
        where = Conversation(marker.agent_id, marker.conversation_id)
        return Route(plan.new, where, forced=True, forked=reason)
    key = _key(call, plan, plan.whole, "fork")
    return Route(plan.whole, key=key, forked=reason)


def _key(call: Call, plan: Plan, send: tuple[Entry, ...], where: str) -> str | None:
    tools = digest_of([dict(tool) for tool in call.tools])
    return call_key(send, (where, digest_of(plan.system), tools, call.note))
