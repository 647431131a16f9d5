"""Internal: what an AG-UI client asks for, read from what it has sent; nothing of it is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ag_ui.core import ResumeEntry, RunAgentInput, TextPart, ToolMessage, UserMessage
from pydantic import ValidationError

from letta_adapters.errors import InvalidInputError
from letta_adapters.permissions import Allow, Deny
from letta_adapters.tools import ToolResult
from letta_adapters.tools.result import clean_text
from letta_adapters.web.approvals import read_decision
from letta_adapters.web.commands import check_id

_MAX_NAMED: Final = 20
# Of all lists of a run together. Each entry that is wrong costs the check of the models much time.
_MAX_PARTS: Final = 10_000
# Beside the text of the user: whoever makes the page, or gets into it, writes these.
_UNUSED: Final = ("context", "state", "forwarded_props")
_DISMISSED: Final = "The question was dismissed without an answer; the user has not refused it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A client's answer to one call; ``dismissed`` if it has closed the question."""

    tool_call_id: str
    decision: Allow | Deny
    dismissed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A run that a client asks for: a message, answers, or neither: to see what is there.

    ``offers`` are the tools that the page has, as far as the application lets it have them.
    ``results`` are what tools have returned, as the client says: by the id of the call.
    """

    thread_id: str
    run_id: str
    text: str | None
    key: str | None
    answers: tuple[Answer, ...]
    offers: frozenset[str]
    results: Mapping[str, ToolMessage]
    unused: tuple[str, ...]


def read_asked(body: bytes, max_characters: int, tools: frozenset[str] = frozenset()) -> Asked:
    """Return what a client asks for.

    Of the messages only the last one counts if it is the user's, or the last ones that are results
    of tools: Letta has the conversation itself, and a client could make one up.

    Args:
        body: The JSON of a ``RunAgentInput`` (AG-UI 1.0).
        max_characters: The length of a word to the agent.
        tools: The names of the tools that a page may have.

    Raises:
        InvalidInputError: It is none, or has an answer that is not clear.
    """
    run = _parse(body)
    thread_id, run_id = check_id(run.thread_id), check_id(run.run_id)
    if not thread_id or not run_id:
        raise InvalidInputError("`threadId` and `runId` must not be empty.")
    last = run.messages[-1] if run.messages else None
    said = last if isinstance(last, UserMessage) else None
    answers = _read_answers(run.resume or (), max_characters)
    if answers and said is not None:
        raise InvalidInputError(
            "A run has answers or a message, and not both.",
            hint="Answer first; send the message when the agent has finished.",
        )
    # These go back to the client, which could have sent very many and very long ones.
    extra = [name[:100] for name in run.model_extra or ()]
    unused = [name for name in _UNUSED if getattr(run, name)] + extra
    had = [tool.name for tool in run.tools or ()]
    unused += [f"tools.{name[:100]}" for name in had if name not in tools]
    return Asked(
        thread_id=thread_id,
        run_id=run_id,
        text=None if said is None else _read_text(said),
        # A front end that repeats a run repeats the message's id, so it is sent once.
        key=None if said is None else said.id or None,
        answers=answers,
        offers=tools.intersection(had),
        results=_find_results(run.messages),
        unused=tuple(unused[:_MAX_NAMED]),
    )


def _parse(body: bytes) -> RunAgentInput:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInputError("The body is no JSON.") from None
    if _count_parts(data) > _MAX_PARTS:
        raise InvalidInputError(
            f"The run has more than {_MAX_PARTS} messages, parts and tools.",
            hint="Leave old messages out: Letta has them.",
        )
    try:
        return RunAgentInput.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part)[:50] for part in first["loc"][:6])
        raise InvalidInputError(
            f"The body is no RunAgentInput: {where}: {first['msg'][:200]}",
            hint="See the protocol AG-UI, version 1.0.",
        ) from None
    except RecursionError:
        raise InvalidInputError("The body is nested too deeply.") from None


def _count_parts(run: object) -> int:
    lists = [_list(run, name) for name in ("messages", "tools", "context", "resume")]
    within = [_list(item, name) for item in lists[0] for name in ("content", "toolCalls")]
    return sum(len(found) for found in (*lists, *within))


def _list(data: object, name: str) -> list[object]:
    found = data.get(name) if isinstance(data, dict) else None
    return found if isinstance(found, list) else []


def _read_text(message: UserMessage | ToolMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    if not all(isinstance(part, TextPart) for part in message.content):
        raise InvalidInputError("A message here is a text, without images or files.")
    return "".join(part.text for part in message.content if isinstance(part, TextPart))


def _find_results(messages: Sequence[Any]) -> dict[str, ToolMessage]:
    """Return the results that stand at the end of the messages; the last of each call."""
    found: dict[str, ToolMessage] = {}
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        found.setdefault(message.tool_call_id, message)
    return dict(reversed(found.items()))


def read_result(message: ToolMessage, max_characters: int) -> ToolResult:
    """Return the result of a tool that ran in the page.

    Args:
        message: The client's message.
        max_characters: The length that it may have.

    Raises:
        InvalidInputError: It is too long, or no text.
    """
    parts = [_read_text(message), message.error or ""]
    text = clean_text("\n".join(part for part in parts if part))
    if len(text) > max_characters:
        raise InvalidInputError(f"A tool's result is longer than {max_characters} characters.")
    return ToolResult(text, is_error=bool(message.error))


def _read_answers(entries: Sequence[ResumeEntry], max_characters: int) -> tuple[Answer, ...]:
    answers = tuple(_read_answer(entry, max_characters) for entry in entries)
    ids = {answer.tool_call_id for answer in answers}
    if len(ids) < len(answers):
        raise InvalidInputError("`resume` answers one interrupt twice.")
    return answers


def _read_answer(entry: ResumeEntry, max_characters: int) -> Answer:
    id_ = check_id(entry.interrupt_id)
    if not id_:
        raise InvalidInputError("`interruptId` must not be empty.")
    if entry.status == "cancelled":
        return Answer(tool_call_id=id_, decision=Deny(_DISMISSED), dismissed=True)
    payload = entry.payload
    if not isinstance(payload, Mapping) or payload.keys() - {"approved", "message"}:
        raise InvalidInputError(
            "The payload of an answer is not clear, so that it allows nothing.",
            hint='Send {"approved": true}, or {"approved": false, "message": "..."}.',
        )
    given: dict[str, Any] = {"allow": payload.get("approved")}
    if payload.get("message") is not None:
        given["message"] = payload["message"]
    decision = read_decision(given, max_characters)
    return Answer(tool_call_id=id_, decision=decision, dismissed=False)
