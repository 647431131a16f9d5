"""Internal: constrain an answer: it calls a certain tool, or is JSON that fits a schema.

Neither the Letta API nor Letta Code has a ``tool_choice`` or a response format per request. So the
agent is told with the call what is wanted, the answer is checked, and an answer that does not meet
the constraints gets one chance to be mended in the same conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from letta_adapters.chat.request import ChatRequest, HistoryMessage
from letta_adapters.chat.response import Answer, ResponseReader
from letta_adapters.client.structured import (
    REPAIRS,
    describe_wish,
    find_fault,
    find_problem,
)
from letta_adapters.engine.assembler import parse_arguments
from letta_adapters.errors import InvalidInputError
from letta_adapters.messages import PendingToolCall, ToolCallMessage

Check = Callable[[Answer], str | None]


@dataclass(frozen=True, slots=True)
class Constraints:
    """Hold the conditions that an answer has to meet, and the texts that state them.

    Attributes:
        note: Text for the agent with this one call.
        standing: Text that the agent is told once and keeps to, as it does to system text.
        check: Function that returns the fault of an answer, or ``None``.
        final: Nobody will answer the tool calls, so the turn ends with them.
    """

    note: str = ""
    standing: str = ""
    check: Check | None = None
    final: bool = False

    def attempts(self, call: ChatRequest) -> Generator[ChatRequest, Answer, Answer]:
        """Yield the calls to make, take their answers, and return the answer to give.

        Args:
            call: The call as the application made it.
        """
        if (call.note, call.standing) != (self.note, self.standing):
            call = replace(call, note=self.note, standing=self.standing)
        answer = yield call
        for _ in range(REPAIRS):
            problem = self.check(answer) if self.check is not None else None
            if problem is None:
                break
            # The complaint goes on from the answer's marker, so the agent gets only the complaint.
            call = replace(call, entries=[*call.entries, *_complain(answer, problem)])
            before, answer = answer, (yield call)
            # The framework keeps one answer for all attempts: its marker has to fit the history
            # there, and its tokens are those of all.
            answer.as_span(before.end)
        return answer


def _complain(answer: Answer, problem: str) -> list[HistoryMessage]:
    """Return the answer and the complaint about it as further messages of the history."""
    end = answer.end
    said = HistoryMessage(
        "assistant", answer.text, marker=end.marker, tool_calls=_list_calls(answer)
    )
    if not end.pending:
        # Without open calls the agent takes a user's message. With them it takes only their
        # results, so the complaint comes as the result of each.
        return [said, HistoryMessage("user", problem)]
    return [
        said,
        *(
            HistoryMessage("tool", problem, tool_call_id=call.tool_call_id, is_error=True)
            for call in end.pending
        ),
    ]


def _list_calls(answer: Answer) -> tuple[PendingToolCall, ...]:
    return tuple(
        PendingToolCall(call.tool_call_id, call.tool_name, call.raw_arguments)
        for call in answer.end.pending
    )


def from_tool_choice(
    tools: Sequence[Mapping[str, Any]],
    choice: Any,
    *,
    parallel: bool | None = None,
    final: bool = False,
) -> tuple[list[Mapping[str, Any]], Constraints]:
    """Return the tools to offer and the constraints that a ``tool_choice`` stands for.

    Args:
        tools: The tools as JSON (``name``, ``description``, ``parameters``).
        choice: ``None`` or ``"auto"``: any or none of them; ``"none"``: no tool; ``"any"``,
            ``"required"`` or ``True``: at least one; a name, or OpenAI's dict with a name: that
            one.
        parallel: ``False`` asks for one call at a time.
        final: Nobody will answer the calls.

    Raises:
        InvalidInputError: There is no such tool.
    """
    one_by_one = "Call one tool at a time." if parallel is False and tools else ""
    if choice is None or choice == "auto" or choice is False:
        return list(tools), Constraints(standing=one_by_one, final=final)
    if choice == "none":
        return [], Constraints()
    names = [str(tool["name"]) for tool in tools]
    if not names:
        raise InvalidInputError(f"tool_choice={choice!r} needs tools to choose from.")
    if choice not in ("any", "required", True):
        name = _read_tool_name(choice)
        if name not in names:
            raise InvalidInputError(
                f"tool_choice={name!r} is none of the tools.", hint=f"They are: {', '.join(names)}."
            )
        # No request can force a tool, so the others are not even offered.
        tools = [tool for tool in tools if tool["name"] == name]
        names = [name]
    wanted = names[0] if len(names) == 1 else f"one of these tools: {', '.join(names)}"
    note = f"Answer by calling {wanted}. Do not answer with text."

    def check(answer: Answer) -> str | None:
        called = {call.tool_name for call in answer.reader.tool_calls}
        return None if called & set(names) else f"You did not call a tool. {note}"

    return list(tools), Constraints(note, one_by_one, check, final)


def _read_tool_name(choice: Any) -> str:
    """Return the tool's name in a ``tool_choice`` of OpenAI's or Anthropic's form."""
    if isinstance(choice, Mapping):
        function = choice.get("function")
        named = function.get("name") if isinstance(function, Mapping) else choice.get("name")
        return str(named or "")
    return str(choice)


def with_schema(
    constraints: Constraints,
    schema: Mapping[str, Any],
    validate: Callable[[Any], object],
    *,
    tool: str | None,
    beside: bool = False,
) -> Constraints:
    """Return the constraints for data that fits a schema, as arguments of ``tool`` or as JSON text.

    Args:
        constraints: The constraints to build on.
        schema: JSON schema of the data; empty for any JSON object.
        validate: Raises ``ValueError`` (pydantic's is one) for data of another shape.
        tool: Name of the tool whose arguments are the data; ``None``: the answer's text is.
        beside: The agent may call tools before it answers: the wish is then told once, as system
            text is, and an answer that calls a tool is not checked yet.
    """
    if tool is not None:
        # The constraint that the tool is called comes first: only a call that was made has
        # arguments to check.
        before = constraints.check

        def check_call(answer: Answer) -> str | None:
            problem = before(answer) if before is not None else None
            if problem is not None:
                return problem
            call = next(c for c in answer.reader.tool_calls if c.tool_name == tool)
            if call.problem:
                return f"{call.problem} Call {tool} again."
            return find_problem(validate, dict(call.tool_input), f"Call {tool} again.")

        return replace(constraints, check=check_call, final=True)

    note = describe_wish(schema)

    def check_text(answer: Answer) -> str | None:
        if beside and answer.end.pending:
            return None
        return find_fault(answer.text, schema, validate, note)

    if beside:
        # As a note with every call, the wish would make the agent answer before it has used its
        # tools.
        told = f"When you have what you need: {note[0].lower()}{note[1:]}"
        standing = f"{constraints.standing} {told}".strip()
        return replace(constraints, standing=standing, check=check_text)
    return Constraints(note, check=check_text)


@dataclass(frozen=True, slots=True)
class ConstrainedRequest:
    """Hold a call, the constraints its answer has to meet, and the texts that end the answer.

    Attributes:
        request: The call of the agent.
        constraints: The conditions that the answer has to meet.
        stop: Texts that end the answer.
    """

    request: ChatRequest
    constraints: Constraints = field(default_factory=Constraints)
    stop: Sequence[str] | None = None

    def take(self, request: ChatRequest) -> ConstrainedRequest:
        """Return the same constraints on another call."""
        return replace(self, request=request)

    def leaves_calls(self, answer: Answer) -> bool:
        """Return whether the turn waits for results that nobody will give.

        Args:
            answer: The answer that ends with tool calls, or does not.
        """
        return self.constraints.final and bool(answer.end.pending)

    def attempts(self, *, whole: bool = True) -> Generator[ChatRequest, Answer, Answer]:
        """Yield calls to make until the answer meets the constraints, and return that answer.

        Args:
            whole: Ask for whole messages only, without token-level fragments.
        """
        return self.constraints.attempts(
            replace(self.request, partial=False) if whole else self.request
        )

    def reader(self, call: ChatRequest | None = None) -> ResponseReader:
        """Return a reader for the events of the call.

        Args:
            call: The attempt to read; ``None``: the call itself.
        """
        call = call or self.request
        return ResponseReader(
            (str(t["name"]) for t in call.tools), _find_answered(call.entries), self.stop
        )


def _find_answered(entries: Sequence[HistoryMessage]) -> list[ToolCallMessage]:
    """Return the tool calls whose results stand at the end of the history."""
    # Collect results from the end of the history back to the answer that made the calls.
    ids = set()
    for entry in reversed(entries):
        if entry.role == "tool":
            ids.add(entry.tool_call_id)
        elif entry.marker is not None or entry.tool_calls:  # not a note somebody else put there
            return [
                ToolCallMessage(
                    call.tool_call_id,
                    call.tool_name,
                    parse_arguments(call.raw_arguments),
                    call.raw_arguments,
                )
                for call in entry.tool_calls
                if call.tool_call_id in ids
            ]
    return []
