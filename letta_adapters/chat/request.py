"""Define a call of an agent and the events it yields.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, TypeAlias

from letta_adapters.backends.base import Conversation
from letta_adapters.chat.marker import Marker
from letta_adapters.chat.messages import HistoryMessage
from letta_adapters.chat.scope import Place, Scope
from letta_adapters.messages import Message, ToolCallMessage, Usage
from letta_adapters.options import SessionOptions

# The id of a framework's message is this prefix and the id of the answer.
ID_PREFIX: Final = "letta-"
OnMismatch = Literal["fork", "continue", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """Describe one call of an agent.

    Args:
        entries: The whole history as the framework gave it, oldest first.
        tools: Client-side tools (``name``, ``description``, ``parameters``): the turn pauses when
            the agent calls one, and a later call's ``tool`` entries resume it.
        agent_id: The agent; ``None``: the backend's default agent.
        conversation_id: Go on in this conversation whatever the history says.
        thread_id: Any name: without a marker in the history the call goes to the conversation of
            that name (found, or made).
        place: Where in the application the call is made, as far as its framework tells. It names a
            conversation where ``thread_id`` does not.
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
        note: Text for the agent with this call alone; no part of the history.
        standing: Text that the agent is told once, to keep to from then on.
        ask_server_tools: Hand out permission questions about the server's own tools as well;
            otherwise they are denied with an explanation.
        session: Further options of the conversation (permission mode, cwd, ...).
        begun: A conversation that an earlier attempt of this call made, and that holds nothing of
            it: used instead of another fresh one.
        on_send: Called with the conversation and the key of the message just before it is sent.
            Whoever keeps them can ask later whether the conversation holds it
            (:func:`~letta_adapters.chat.replay.holds`). Called in the client's thread.
        name_model: Name the model that answered; it is asked for beside the turn where it is not
            known.
        asks: Hand out a question about every tool that the server runs, also where the session's
            mode would let it run.
    """

    entries: Sequence[HistoryMessage]
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
class ResponseStarted:
    """Report, as the first event, where the call goes.

    Attributes:
        id: Names the answer; it is the same when the call is repeated.
        agent_id: The agent; ``""`` in a conversation without one.
        conversation_id: The conversation.
        backend: The name of the backend.
        model: The model's handle, if it is known by now.
        replayed: The agent had this input already, and the answer it gave then follows.
        forked: The reason for a fresh conversation, if one had to be taken instead of another.
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
class ResponseCompleted:
    """Report, as the last event, how a call ended that did not fail.

    Attributes:
        marker: Where the answer was given, and to which messages.
        pending: Calls that wait for the caller: client-side tools, and permission questions
            (``requires_approval`` calls that are none of the caller's tools).
        stop_reason: Why the turn stopped.
        usage: The tokens used; ``None`` for a replayed answer.
        run_ids: The server's runs of the turn.
        model: The model's handle, if it is known.
        replayed: The answer was given before, to the same call.
        details: The server's data about those permission questions, by tool call id.
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
        """Return the agent that answered; ``""`` in a conversation without an agent."""
        return self.marker.agent_id

    @property
    def conversation_id(self) -> str:
        """Return the conversation it answered in."""
        return self.marker.conversation_id


ChatEvent: TypeAlias = ResponseStarted | ResponseCompleted | Message
