"""Internal: define a call of an agent: its history, its place, its checks, and its events.

No class of a framework occurs here.

A call that cannot be made is refused before any I/O, whichever framework makes it.
"""

from __future__ import annotations

import hashlib
import json
import operator
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal, TypeAlias

from letta_adapters._utils.bounded import Bounded
from letta_adapters._utils.checks import AGENT, check_id, is_duration
from letta_adapters.backends.base import Conversation
from letta_adapters.chat.marker import Marker
from letta_adapters.content import sendable_text
from letta_adapters.errors import InvalidInputError
from letta_adapters.messages import (
    Message,
    PendingToolCall,
    RecoveredCall,
    ToolCallMessage,
    Usage,
)
from letta_adapters.options import ReasoningEffort, SessionOptions
from letta_adapters.tools.client_side import check_tool_names
from letta_adapters.tracing.spans import get_context

# The id of a framework's message is this prefix and the id of the answer.
ID_PREFIX: Final = "letta-"
OnMismatch = Literal["fork", "continue", "error"]
Scope = Literal["thread", "node", "fresh"]
SCOPES: Final = ("thread", "node", "fresh")
_DIGEST_CHARS: Final = 12


@dataclass(frozen=True, slots=True)
class HistoryMessage:
    """Hold one message of a history.

    Attributes:
        role: ``"system"``, ``"user"``, ``"assistant"`` or ``"tool"``.
        content: Text, or parts in Letta's wire form (``{"type": "text", ...}``, ``{"type": "image",
            ...}``; :func:`letta_adapters.content.to_wire` makes them).
        id: The framework's id of the message, if it stays the same when the call is repeated.
        name: The name of the speaker, if the framework gives one.
        marker: The marker of an assistant message that one of our agents gave.
        tool_calls: The tool calls of an assistant message.
        tool_call_id: The call that a ``tool`` entry answers with its content.
        is_error: The tool failed, and the content says how.
        decision: On a ``tool`` entry for a call that asks whether the server's own tool may run:
            anything that ``normalise_decision`` takes. For any other call only its ``interrupt``
            has a meaning.
        known: The conversation holds the message already (its turn failed after it was accepted),
            so it is not sent again.
        summary: A framework put this message in the place of earlier ones, which it sums up.
        fact: A ``tool`` entry reports the fate of a call that its run left open. It is no decision,
            whoever asked.
        ends: The turn ends with this answer of a ``tool`` entry, which no model reads: as with a
            decision whose ``interrupt`` is true, where nobody has decided.
        kept: Digest of the message as the framework stores it, if this copy is decorated (with a
            state prompt, with a memory's content): the next history shows it without the
            decoration.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str | Sequence[Mapping[str, Any]] = ""
    id: str | None = None
    name: str | None = None
    marker: Marker | None = None
    tool_calls: tuple[PendingToolCall, ...] = ()
    tool_call_id: str = ""
    is_error: bool = False
    decision: object = None
    known: bool = False
    summary: bool = False
    fact: bool = False
    ends: bool = False
    kept: str | None = None

    @property
    def text(self) -> str:
        """Return the text of the content."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(p.get("text") or "") for p in self.content if p.get("type") == "text")

    @property
    def others(self) -> list[Mapping[str, Any]]:
        """Return the parts of the content that are no text."""
        if isinstance(self.content, str):
            return []
        return [part for part in self.content if part.get("type") != "text"]

    def digest(self) -> str:
        """Return a digest that two entries share if they are the same message.

        Ids and names do not count.
        """
        # The framework stores the undecorated message, and the next history is compared with that.
        if self.kept is not None:
            return self.kept
        # Ids are left out: a framework may give a message and its calls other ids when it reloads
        # them.
        calls = [(call.tool_name, call.raw_arguments) for call in self.tool_calls]
        return make_digest(self.role, self.text, self.others, self.tool_call_id, calls)


# An encoder of its own, as `json.dumps` makes a new one for each call with options.
_encode_sorted: Final = json.JSONEncoder(sort_keys=True, default=str).encode


def make_digest(*values: Any) -> str:
    """Return a short digest of JSON values."""
    text = _encode_sorted(values)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARS]


def digest_arguments(raw: str) -> str:
    """Return a digest of a call's arguments, whatever the order and spacing of their JSON.

    Args:
        raw: The arguments as JSON text; text that cannot be read is digested as it stands.
    """
    try:
        return make_digest(json.loads(raw or "{}"))
    except (ValueError, RecursionError):
        # How deep a JSON text may be nested depends on how deep the calls around this one are.
        return make_digest(raw)


@dataclass(frozen=True, slots=True)
class Place:
    """Describe the place of one call, as far as its framework tells.

    Attributes:
        thread: The thread it runs in.
        node: The node of a graph, with those it is nested in; ``""`` outside of graphs.
        agent: The name of the agent that the node is of.
        task: The one execution of the node, the same again when it is resumed.
        attempt: Differs between attempts of one task.
        within: The part of the node that this call alone belongs to (a branch, a tool's run, a
            middleware); ``""`` for the node itself.
        keeps: The place keeps a history over the turns of its thread.
        serves: The tool calls whose answers this call is part of.
    """

    thread: str | None = None
    node: str = ""
    agent: str = ""
    task: str = ""
    attempt: str | None = None
    within: str = ""
    keeps: bool = True
    serves: frozenset[str] = frozenset()

    def made(self, marker: Marker) -> bool | None:
        """Return whether the answer was given at this place; ``None`` if its marker is silent."""
        if not self.node:
            return True
        if not marker.node:
            return None
        here = (self.node, self.agent, self.within) == (marker.node, marker.agent, marker.within)
        # A thread that one of the two does not know cannot tell the places apart.
        return here and (None in (self.thread, marker.thread) or self.thread == marker.thread)

    @property
    def identity(self) -> str:
        """Return a digest that tells calls of one content at different places of a graph apart."""
        return make_digest(self.node, self.agent, self.within) if self.node else ""


class AskingAgents:
    """Remember for one runnable which agents ask about all of their tools. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: Bounded[tuple[str | None, str | None], bool] = Bounded()

    def knows(self, agent_id: str | None, conversation_id: str | None) -> bool:
        """Return whether the agent, or the agent of the conversation, was found to ask."""
        with self._lock:
            return self._known.get((agent_id, conversation_id), False)

    def note(self, agent_id: str | None, conversation_id: str | None) -> None:
        """Note that the agent asks about all of its tools."""
        with self._lock:
            self._known[agent_id, conversation_id] = True

    def __reduce__(self) -> tuple[type[AskingAgents], tuple[()]]:
        # A copy of the runnable, perhaps in another process, looks for itself.
        return AskingAgents, ()

    def __repr__(self) -> str:
        # Frameworks write the arguments of a call into traces, and make keys of caches of them.
        return "AskingAgents()"


@dataclass(frozen=True, slots=True)
class OpenAnswer:
    """Answer a call that an earlier turn has left open.

    Attributes:
        entry: The answer, as the ``tool`` entry of a history.
        allowed: The call may run, or has run.
    """

    entry: HistoryMessage
    allowed: bool


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
            otherwise they are ended with an explanation.
        session: Further options of the conversation (permission mode, cwd, ...).
        begun: A conversation that an earlier attempt of this call made, and that holds nothing of
            it: used instead of another fresh one.
        on_send: Called with the conversation and the key of the message just before it is sent.
            Whoever keeps them can ask later whether the conversation holds it
            (:func:`~letta_adapters.chat.replay.holds`). Called in the client's thread.
        name_model: Name the model that answered; it is asked for beside the turn where it is not
            known.
        asks: Hand out a question about every tool that the server runs, also where the session's
            mode would let it run. It remembers the agents that were found to ask.
        trace: Where OpenTelemetry is on, the context whose current span the call belongs to.
        tools_shown: The framework has spans of its own for the tools that the server runs.
        on_open: Decides about calls that an earlier turn has left open: awaited with the call's
            context and those calls, it returns an answer to each by its id. Without it they are
            ended. What it raises ends this call, of which nothing is sent then.
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
    asks: AskingAgents | None = None
    trace: Any = field(default_factory=get_context, compare=False, repr=False)
    tools_shown: bool = field(default=False, compare=False)
    on_open: Callable[..., Coroutine[Any, Any, Mapping[str, OpenAnswer]]] | None = None

    @property
    def tuned(self) -> bool:
        """Return whether the conversation is to have settings of its own for its model."""
        return bool(self.settings) or self.session.reasoning_effort is not None


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
        recovered: Calls that an earlier turn, perhaps of another process, had left open, and their
            fate: those that nobody was asked about were ended without being run.
        decided: The number of questions in a replayed answer that have got their decisions.
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
    recovered: tuple[RecoveredCall, ...] = ()
    decided: int = 0

    @property
    def agent_id(self) -> str:
        """Return the agent that answered; ``""`` in a conversation without an agent."""
        return self.marker.agent_id

    @property
    def conversation_id(self) -> str:
        """Return the conversation it answered in."""
        return self.marker.conversation_id


ChatEvent: TypeAlias = ResponseStarted | ResponseCompleted | Message


# Options of the loop that a session runs by itself, and what an adapter has in their place.
_ASK: Final = (
    "Use LettaRunnable(can_use_tool=...), an interrupt of LangGraph, or a LettaAgent's events."
)
_OF_SESSIONS: Final[Mapping[str, str]] = {
    "tools": "Give them to bind_tools(), or to the LettaRunnable or LettaAgent.",
    "mcp_servers": "Make tools of them with your framework's own package for MCP.",
    "can_use_tool": _ASK,
    "ask_timeout": _ASK,
    "ask_timeout_answer": _ASK,
    "include_partial_messages": "Stream the answer, and its tokens come one by one.",
    "max_steps": "Give max_steps to the adapter itself.",
    "turn_timeout": "Give timeout to the adapter itself.",
    "max_denied_rounds": "Limit the rounds of the framework's loop.",
    "recovery_attempts": "Leave it out: an adapter settles calls that are open by itself.",
}


def read_session(
    options: Mapping[str, Any], reasoning_effort: ReasoningEffort | None
) -> SessionOptions:
    """Return the options of a call's conversation, checked.

    Args:
        options: Those of ``create_session``.
        reasoning_effort: The effort, which adapters take beside the model.

    Raises:
        InvalidInputError: An option is wrong, is of no use to an adapter, or there are two efforts.
    """
    for name in options.keys() & _OF_SESSIONS.keys():
        raise InvalidInputError(
            f"session_options[{name!r}] is for sessions alone: an adapter does nothing with it.",
            hint=_OF_SESSIONS[name],
        )
    if reasoning_effort is None:
        return SessionOptions(**options)
    if options.get("reasoning_effort") not in (None, reasoning_effort):
        raise InvalidInputError(
            "reasoning_effort differs from the one in session_options.", hint="Give one of them."
        )
    return SessionOptions(**{**options, "reasoning_effort": reasoning_effort})


def refuse_per_call(adapter: str, name: str, hint: str) -> InvalidInputError:
    """Return the refusal of a call's argument that nothing takes.

    Args:
        adapter: The class that was called.
        name: The argument.
        hint: What to do instead.
    """
    if name == "reasoning_effort":
        hint = (
            f"A turn has no effort of its own: {adapter}(reasoning_effort=...) is for all calls of "
            "one object, agents.update(agent_id, reasoning_effort=...) for the agent."
        )
    return InvalidInputError(f"{adapter} does nothing with {name!r}.", hint=hint)


def check_request(call: ChatRequest) -> ChatRequest:
    """Return the call as it can be made, or refuse it.

    The results of tools are cleaned of characters that UTF-8 cannot hold (an odd file name in one
    is nobody's mistake); anywhere else such characters are refused.

    Raises:
        InvalidInputError: The call names nobody (``agent_id=""``), gives no time or no steps, has
            two tools of one name or a tool name that no model takes, or has text that cannot be
            sent.
    """
    if call.agent_id is not None:
        check_id(call.agent_id, "an agent id (agent_id)", AGENT)
    if call.conversation_id is not None:
        check_id(call.conversation_id, "a conversation id (conversation_id)")
    thread = _find_thread(call)
    if thread is not None and not thread.strip():
        raise InvalidInputError("thread_id is empty: it names no conversation.")
    if call.timeout is not None and not is_duration(call.timeout):
        raise InvalidInputError(f"timeout must be seconds greater than 0, not {call.timeout!r}.")
    if call.max_steps is not None and call.max_steps < 1:
        raise InvalidInputError(f"max_steps must be at least 1, not {call.max_steps!r}.")
    if call.model is not None and not call.model.strip():
        raise InvalidInputError("model is empty: it names no model.", hint="Leave it out.")
    check_tool_names([str(tool["name"]) for tool in call.tools])
    # Cleaned before the check below, which would refuse a tool's result for its odd characters.
    entries = [clean_result(entry) if entry.role == "tool" else entry for entry in call.entries]
    for where, text in _list_texts(call, entries):
        # Most texts are ASCII, and a call has many.
        if not text.isascii():
            sendable_text(text, where)
    same = all(map(operator.is_, entries, call.entries))
    return call if same else replace(call, entries=entries)


def _find_thread(call: ChatRequest) -> str | None:
    """Return the thread's name as the application or the framework gives it."""
    if call.thread_id is not None or call.place is None:
        return call.thread_id
    return call.place.thread


def _list_texts(call: ChatRequest, entries: Iterable[HistoryMessage]) -> Iterator[tuple[str, str]]:
    """Yield each text that would be sent, after the name that an error uses for it."""
    yield "thread_id", _find_thread(call) or ""
    yield "The model's name", call.model or ""
    yield "The note", call.note
    for tool in call.tools:
        for text in _list_strings(tool):
            yield f"The tool {tool['name']!r}", text
    for entry in entries:
        where = f"A message of the history (role {entry.role!r})"
        yield where, entry.text
        yield where, entry.name or ""
        for called in entry.tool_calls:
            yield where, called.raw_arguments


def _list_strings(value: object) -> Iterator[str]:
    """Yield every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _list_strings(key)
            yield from _list_strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _list_strings(item)


def clean_result(entry: HistoryMessage) -> HistoryMessage:
    """Return a tool's result without the characters that UTF-8 cannot hold."""
    if isinstance(entry.content, str):
        # Most text is ASCII, which needs no copy of it.
        return (
            entry if entry.content.isascii() else replace(entry, content=_clean_text(entry.content))
        )
    parts: list[Mapping[str, Any]] = [
        {**part, "text": _clean_text(str(part["text"]))} if part.get("type") == "text" else part
        for part in entry.content
    ]
    return replace(entry, content=parts)


def _clean_text(text: str) -> str:
    # Lone surrogates are what a Python string can hold and UTF-8 cannot.
    return text.encode("utf-8", "replace").decode("utf-8")
