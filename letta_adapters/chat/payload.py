"""Internal: put new entries into the form they are sent in: answers, messages, labelled text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from letta_adapters.backends.base import ToolCallResponse
from letta_adapters.chat.context import ChatContext, Told
from letta_adapters.chat.request import HistoryMessage
from letta_adapters.errors import UnsupportedOptionError
from letta_adapters.messages import PendingToolCall, ToolCallMessage, broken_arguments
from letta_adapters.permissions import Allow, Deny, denials, normalise_decision

Content = str | list[dict[str, Any]]

# Accompanies the images of a message that is itself sent as plain text.
IMAGES_BESIDE: Final = "(Images of the message before.)"
NO_RESULT: Final = "The application gave no result for this call."
# What asks for the answer to a message that the agent holds already.
GO_ON: Final = "Please go on: my last message has not been answered yet."
# The application calls the agent again and says nothing new.
NEXT: Final = "Please go on."


@dataclass(frozen=True, slots=True)
class Payload:
    """Hold one request: answers to calls that wait, messages to store first, and the message."""

    content: Content | None
    answers: tuple[ToolCallResponse, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()

    def with_note(self, note: str) -> Payload:
        """Return the request with a note to the agent at its end.

        Results of tools stay the last that was said: a note that goes with them is no message of
        the user's.

        Args:
            note: The text; empty for none.
        """
        if not note:
            return self
        labelled = f"<instructions>\n{note}\n</instructions>"
        if self.content is None and self.answers:
            return replace(self, history=(*self.history, {"role": "system", "content": labelled}))
        said = [_text(self.content)] if isinstance(self.content, str) else self.content or []
        return replace(self, content=[*said, _text(labelled)])

    def with_content(self) -> Payload:
        """Return the request if it has any content; otherwise one that asks the agent to go on."""
        if self.content is not None or self.answers:
            return self
        # Instructions alone are no message to answer, so they become the message itself.
        if self.history:
            told = "\n\n".join(str(message["content"]) for message in self.history)
            return Payload([_text(f"<instructions>\n{told}\n</instructions>")])
        return Payload(NEXT)


def build_payload(
    context: ChatContext,
    waiting: Sequence[PendingToolCall],
    told: Told = (None, None),
    decided: Sequence[HistoryMessage] = (),
) -> Payload:
    """Return the request that brings what is new in the form this backend takes.

    Args:
        context: The call, on the route that it takes.
        waiting: The calls that wait on the server.
        told: Digests of the texts that the conversation was told last, where no marker names them.
        decided: Answers to calls that an earlier turn has left open.

    Raises:
        InvalidInputError: The answer to a question pretends to be a decision and is none.
        UnsupportedOptionError: A decision changes the arguments of a tool that the server runs.
    """
    route, note = context.route, context.request.note
    # The agent holds the message and never answered it: sending it again would double it.
    if route.lost:
        calls = write_arguments(context, waiting)
        return Payload(GO_ON, answer_calls(calls, decided, context.own_tools, left=True))
    system = context.instructions(told)
    if not context.backend.capabilities.messages_of_any_role:
        return as_message(route.send, system).with_note(note).with_content()
    calls = write_arguments(context, waiting)
    answers = _answer_all(context, calls, (*route.send, *decided), left=True)
    return as_request(route.send, system, answers).with_note(note).with_content()


def build_answers(
    context: ChatContext, waiting: Sequence[ToolCallMessage]
) -> tuple[ToolCallResponse, ...]:
    """Return the answers that let a paused turn go on, with what the agent has to be told.

    Args:
        context: The call that resumes the turn.
        waiting: The calls that the turn waits for.

    Raises:
        InvalidInputError: The answer to a question pretends to be a decision and is none.
    """
    answers = _answer_all(context, waiting, context.route.send)
    return add_instructions(answers, context.instructions())


def answer_ended(
    context: ChatContext,
    calls: Iterable[ToolCallMessage | PendingToolCall],
    entries: Sequence[HistoryMessage],
) -> tuple[ToolCallResponse, ...]:
    """Return the answers that were given to calls of a turn that ends with them.

    What was allowed is none of them: nothing of the turn runs any more.

    Args:
        context: The call that brings them.
        calls: The calls that wait.
        entries: The answers.
    """
    given = {entry.tool_call_id for entry in entries if not _allows(entry)}
    return _answer_all(context, [c for c in calls if c.tool_call_id in given], entries)


def _allows(entry: HistoryMessage) -> bool:
    return entry.decision is not None and isinstance(normalise_decision(entry.decision), Allow)


def write_arguments(
    context: ChatContext, calls: Sequence[PendingToolCall]
) -> list[PendingToolCall]:
    """Return the calls as the history has them, with the arguments that the model wrote."""
    written = {c.tool_call_id: c for entry in context.split.whole for c in entry.tool_calls}
    return [written.get(call.tool_call_id, call) for call in calls]


def _answer_all(
    context: ChatContext,
    calls: Sequence[ToolCallMessage | PendingToolCall],
    entries: Sequence[HistoryMessage],
    *,
    left: bool = False,
) -> tuple[ToolCallResponse, ...]:
    marker, own, edited = context.route.marker, context.own_tools, context.split.edited
    kinds: dict[str, bool] = {}
    # The marker tells the kind of its own calls; others may wait in its conversation as well.
    if marker is not None and marker.questions is not None:
        kinds = {id_: id_ in marker.questions for id_, _ in marker.pending}
    answers = answer_calls(calls, entries, own, kinds, edited, left=left)
    if not context.backend.capabilities.editable_server_tools:
        for call, answer in zip(calls, answers, strict=True):
            _refuse_edit(context.backend.name, call, answer)
    return answers


def _refuse_edit(
    backend: str, call: ToolCallMessage | PendingToolCall, answer: ToolCallResponse
) -> None:
    """Refuse to pass over an edit in silence: the server runs a tool with the model's own input."""
    if answer.updated_input in (None, call.tool_input):
        return
    raise UnsupportedOptionError(
        "updated_input",
        backend=backend,
        supported_by=("local", "remote"),
        reason=f"the server runs {call.tool_name!r} with the input the model gave. Allow or deny "
        "it as it is.",
    )


def answer_calls(
    calls: Iterable[ToolCallMessage | PendingToolCall],
    entries: Sequence[HistoryMessage],
    own_tools: Iterable[str],
    questions: Mapping[str, bool] | None = None,
    edited: Mapping[str, str] | None = None,
    *,
    left: bool = False,
) -> tuple[ToolCallResponse, ...]:
    """Return answers to all of these calls; one that no entry answers gets an explanation.

    Args:
        calls: The calls that wait.
        entries: The new messages, which may hold their results.
        own_tools: Names of the caller's tools.
        questions: Whether a call asks for a permission, by its id, as far as that is known: only
            then its answer is a decision. Else it is one if its tool is not among ``own_tools``
            (which the caller may offer now, or may have offered when the agent called them).
        edited: The arguments of the calls that were run with others than the agent's.
        left: True if an earlier turn, perhaps of another process, has left them open.

    Raises:
        InvalidInputError: The answer to a question pretends to be a decision and is none.
    """
    given = {entry.tool_call_id: entry for entry in entries if entry.role == "tool"}
    names = frozenset(own_tools)

    def own(call: ToolCallMessage | PendingToolCall) -> bool:
        asks = (questions or {}).get(call.tool_call_id)
        return call.tool_name in names if asks is None else not asks

    answers = (_answer(call, given.get(call.tool_call_id), own(call), left=left) for call in calls)
    return tuple(
        _tell_arguments(answer, (edited or {}).get(answer.tool_call_id)) for answer in answers
    )


def _tell_arguments(answer: ToolCallResponse, arguments: str | None) -> ToolCallResponse:
    """Return the answer with the arguments it is the result of, where the agent wrote others."""
    if arguments is None or answer.returned is None:
        return answer
    said = f"[The application ran this call with other arguments: {arguments}]"
    if isinstance(answer.returned, str):
        return replace(answer, returned=f"{said}\n{answer.returned}")
    return replace(answer, returned=[_text(said), *answer.returned])


def add_instructions(
    answers: Sequence[ToolCallResponse], text: str
) -> tuple[ToolCallResponse, ...]:
    """Return the answers with instructions behind the last result; nothing else can bring them."""
    made = list(answers)
    at = max((i for i, answer in enumerate(made) if answer.returned is not None), default=None)
    if at is None or not text:
        return tuple(made)
    given = made[at].returned
    parts = [_text(given)] if isinstance(given, str) else list(given or ())
    labelled = _text(f"<instructions>\n{text}\n</instructions>")
    made[at] = replace(made[at], returned=[*parts, labelled])
    return tuple(made)


def _answer(
    call: ToolCallMessage | PendingToolCall, entry: HistoryMessage | None, own: bool, *, left: bool
) -> ToolCallResponse:
    """Return the answer to one call: a result, or a decision where the call is a question."""
    id_, name = call.tool_call_id, call.tool_name
    if entry is None:
        problem = broken_arguments(name, call.raw_arguments)
        if own:
            return ToolCallResponse(id_, name, returned=problem or NO_RESULT, is_error=True)
        if left:
            # No denial, which would be told as the user's: somebody else may have been asked.
            return ToolCallResponse.make_unanswered(call, denials.LEFT_OPEN)
        return ToolCallResponse.make_failed(call, denials.NOBODY_ASKED)
    if entry.fact:
        # Nobody decided anything: a denial would be told as the user's.
        return ToolCallResponse(id_, name, returned=entry.text, is_error=True)
    if not own and entry.decision is None:
        # What answers is no decision but, say, a framework's word that it has no such tool: the
        # user has refused nothing.
        return ToolCallResponse.make_failed(call, entry.text or denials.NOBODY_ASKED)
    if not own:
        return _read_decision(id_, name, entry)
    content = entry.content if isinstance(entry.content, str) else list(entry.content)
    return ToolCallResponse(id_, name, returned=content, is_error=entry.is_error)


def _read_decision(id_: str, name: str, entry: HistoryMessage) -> ToolCallResponse:
    """Return an entry's decision about whether the server's tool may run."""
    decision = normalise_decision(entry.decision)
    if isinstance(decision, Deny):
        return ToolCallResponse(id_, name, reason=decision.message or denials.BY_USER)
    changed, save = decision.updated_input, decision.save
    return ToolCallResponse(
        id_,
        name,
        approve=True,
        reason=decision.message,
        updated_input=changed,
        suggestion_ids=save,
    )


def as_request(
    entries: Sequence[HistoryMessage], system: str, answers: Sequence[ToolCallResponse] = ()
) -> Payload:
    """Return a request for the Letta API, which stores messages of any role.

    Tool results that answer nothing that waits there become text.
    """
    answered = {answer.tool_call_id for answer in answers}
    rest = [e for e in entries if e.role != "tool" or e.tool_call_id not in answered]
    history: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    if not rest:
        return Payload(None, tuple(answers), tuple(history))
    # The turn needs a message of the user's to answer: the last entry, if it is one; otherwise the
    # entries behind the last such message, told as text.
    if rest[-1].role == "user":
        last: Content = rest[-1].content if isinstance(rest[-1].content, str) else _parts(rest[-1])
        history += as_messages(rest[:-1])
    else:
        at = max((i for i, entry in enumerate(rest) if entry.role == "user"), default=-1)
        history += as_messages(rest[: at + 1])
        others = _others(rest[at + 1 :])
        told = as_text(rest[at + 1 :])
        last = [_text(told or IMAGES_BESIDE), *others] if others else told
    return Payload(last, tuple(answers), tuple(history))


def as_message(entries: Sequence[HistoryMessage], system: str) -> Payload:
    """Return a request for an App Server, which takes user messages only.

    Everything else becomes labelled text.
    """
    tail = [entry for entry in entries[-1:] if entry.role == "user"]
    before = list(entries[: len(entries) - len(tail)])
    parts: list[dict[str, Any]] = []
    if system:
        parts.append(_text(f"<instructions>\n{system}\n</instructions>"))
    if before and all(entry.role == "tool" for entry in before):
        parts.append(_text(as_text(before)))
    elif before:
        parts.append(_text(f"<conversation-so-far>\n{as_text(before)}\n</conversation-so-far>"))
    parts += _others(before)
    if not parts and tail and isinstance(tail[0].content, str):
        return Payload(tail[0].content)
    for entry in tail:
        parts += _parts(entry)
    return Payload(parts or None)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _others(entries: Iterable[HistoryMessage]) -> list[dict[str, Any]]:
    """Return the images in entries that become text."""
    return [dict(part) for entry in entries for part in entry.others]


def _parts(entry: HistoryMessage) -> list[dict[str, Any]]:
    if isinstance(entry.content, str):
        return [_text(entry.content)]
    return [dict(part) for part in entry.content]


def as_text(entries: Iterable[HistoryMessage]) -> str:
    """Return entries as a transcript, for a server that takes no history as messages."""
    return "\n".join(line for entry in entries for line in _format_lines(entry))


def _format_lines(entry: HistoryMessage) -> list[str]:
    if entry.role == "tool":
        kind = "Error" if entry.is_error else "Result"
        return [f"{kind} of the tool call {entry.tool_call_id}: {entry.text}"]
    speaker = "User" if entry.role == "user" else "Assistant"
    named = f"{speaker} ({entry.name})" if entry.name else speaker
    lines = [f"{named}: {entry.text}"] if entry.text else []
    lines += (
        f"{named} called the tool {call.tool_name} ({call.tool_call_id}) with {call.raw_arguments}"
        for call in entry.tool_calls
    )
    return lines


def as_messages(entries: Iterable[HistoryMessage]) -> list[dict[str, Any]]:
    """Return entries as messages of the Letta API, which stores ``user`` and ``assistant`` text.

    It takes no tool calls and tool results from outside (0.16.8), so these become text.
    """
    made: list[dict[str, Any]] = []
    for entry in entries:
        if entry.role == "user" and not isinstance(entry.content, str):
            message: dict[str, Any] = {"role": "user", "content": list(entry.content)}
        elif entry.role == "user":
            message = {"role": "user", "content": entry.content}
        else:
            # Tool calls and results become text of the same speaker: a result is told as the
            # user's.
            plain = entry.role == "assistant" and not entry.tool_calls
            text = entry.text if plain else "\n".join(_format_lines(entry))
            message = {"role": "user" if entry.role == "tool" else "assistant", "content": text}
        if entry.name:
            message["name"] = entry.name
        if message["content"]:  # the server refuses an empty one
            made.append(message)
        if entry.role != "user" and entry.others:
            # Images stand in a user's message only.
            beside = {"type": "text", "text": IMAGES_BESIDE}
            made.append({"role": "user", "content": [beside, *entry.others]})
    return made
