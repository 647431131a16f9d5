"""A call, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, TypeAlias

from letta_adapters.backends.base import Conversation
from letta_adapters.calls.entries import Entry
from letta_adapters.calls.marker import Marker
from letta_adapters.calls.scope import Place, Scope
from letta_adapters.messages import Message, ToolCallMessage, Usage
from letta_adapters.options import SessionOptions

# What a framework's message is called: this, and the name of the answer.
ID_PREFIX: Final = "letta-"
OnMismatch = Literal["fork", "continue", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an agent.

    Args:
        entries: The whole history as the framework gave it, oldest first.
        tools: Client-side tools (``name``, ``description``, ``parameters``): the turn pauses when
            the agent calls one, and a later call's ``tool`` entries resume it.
        agent_id: The agent; ``None``: the backend's default agent.
        conversation_id: Go on in this conversation whatever the history says.
        thread_id: Any name: without a marker in the history the call goes to the conversation of
            that name (found, or made).
        place: Where in the application the call is made, as far as its framework tells. It names
            a conversation where ``thread_id`` does not.
        scope: Which conversation belongs to the place, where the application says so.
        aside: A question that the application asks for itself, and keeps no history of.
        ephemeral: Use a fresh conversation and delete it afterwards where the backend can.
        agent_free: A conversation with no agent at all (Letta Code).
        model: Another model for this call.
        settings: ``temperature`` and ``max_tokens``, for the conversations that are made.
        max_steps: Limit of model calls (the Letta API).
        partial: Yield token-level ``StreamEvent`` messages too.
        timeout: Seconds the turn may take.
        on_mismatch: What to do when the history does not fit the conversation it came from.
        note: What to tell the agent with this call alone; no part of the history.
        standing: What to tell it once, to keep to from then on.
        ask_server_tools: Hand out permission questions about the server's own tools as well;
            otherwise they are denied with an explanation.
        session: Further options of the conversation (permission mode, cwd, ...).
        begun: A conversation that an earlier attempt of this call made, and that holds nothing of
            it: used instead of another fresh one.
        on_send: Told where the message goes and under which key, just before it does. Whoever
            keeps that can ask later whether the conversation holds it
            (:func:`~letta_adapters.calls.stored.holds`). Called in the client's thread.
        name_model: Say which model answered; it is asked for beside the turn where nobody told it.
        asks: Hand out a question about every tool that the server runs, also where the session's
            mode would let it run.
    """

    entries: Sequence[Entry]
    tools: Sequence[Mapping[str, Any]] = ()
    agent_id: str | None = None
    conversation_id: str | None = None
    thread_id: str | None = None
    place: Place | None = None
    scope: Scope | None = None
    aside: bool = False
    ephemeral: bool = False
    agent_free: bool = False
    model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    max_steps: int | None = None
    partial: bool = True
    timeout: float | None = None
    on_mismatch: OnMismatch = "fork"
    note: str = ""
    standing: str = ""
    ask_server_tools: bool = True
    session: SessionOptions = field(default_factory=SessionOptions)
    begun: str | None = None
    on_send: Callable[[Conversation, str | None], None] | None = None
    name_model: bool = False
    asks: bool = False


@dataclass(frozen=True, slots=True)
class CallStart:
    """First event: where the call goes.

    ``id``: names the answer; the same again when the call is repeated. ``replayed``: the agent had
    this input already, and what follows is what it answered then. ``forked``: why a fresh
    conversation was taken, if one was.
    """

    type: ClassVar[Literal["call_start"]] = "call_start"
    id: str
    agent_id: str
    conversation_id: str
    backend: str
    model: str | None = None
    replayed: bool = False
    forked: str = ""


@dataclass(frozen=True, slots=True)
class CallEnd:
    """Last event of a call that did not fail.

    ``pending``: calls that wait for the caller: client-side tools, and permission questions
    (``requires_approval`` calls that are none of the caller's tools). ``details``: what the server
    says of those questions, by tool call id. ``usage`` is ``None`` for a replayed answer.
    """

    type: ClassVar[Literal["call_end"]] = "call_end"
    marker: Marker
    pending: tuple[ToolCallMessage, ...] = ()
    stop_reason: str = "end_turn"
    usage: Usage | None = None
    run_ids: tuple[str, ...] = ()
    model: str | None = None
    replayed: bool = False
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def agent_id(self) -> str:
        """Who answered; ``""`` in a conversation without an agent."""
        return self.marker.agent_id

    @property
    def conversation_id(self) -> str:
        """Where it was answered."""
        return self.marker.conversation_id


CallEvent: TypeAlias = CallStart | CallEnd | Message
