"""Constraints on an answer: what the agent is told of them, and what becomes of its answer."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from letta_adapters import InvalidInputError
from letta_adapters.chat import ChatRequest, ResponseCompleted
from letta_adapters.chat.constraints import (
    ConstrainedRequest,
    Constraints,
    from_tool_choice,
    with_schema,
)
from letta_adapters.chat.response import Answer, ResponseReader
from letta_adapters.client.structured import find_json
from letta_adapters.messages import AssistantMessage, ToolCallMessage, ToolResultMessage
from tests.chat.builders import (
    AGENT,
    OTHER_TOOL,
    TOOL,
    answer,
    asking,
    call_message,
    marked,
    result,
    started,
    user,
)

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOLD_SCHEMA = '{"properties": {"a": {"type": "integer"}}, "type": "object"}'
REPEATED = ToolResultMessage("call-1", "3", tool_name="add")
CALL_ADD = "Answer by calling add. Do not answer with text."


def answered(text: str = "", *pending: ToolCallMessage, **marker: Any) -> Answer:
    """A whole answer, as its events give it."""
    reader = ResponseReader(["add", "find"])
    end = ResponseCompleted(marked(**marker), pending)
    events = [started(), AssistantMessage(text), *pending, end]
    return Answer(reader, tuple(part for event in events for part in reader.read(event)))


def validate(data: Any) -> None:
    if not isinstance(data.get("a"), int):
        raise ValueError("a must be a number")


def fault(constraints: Constraints, given: Answer) -> str | None:
    assert constraints.check is not None
    return constraints.check(given)


# -- tool_choice --------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [None, "auto", False])
def test_a_free_choice_constrains_nothing(choice: Any) -> None:
    tools, constraints = from_tool_choice([TOOL, OTHER_TOOL], choice)
    assert tools == [TOOL, OTHER_TOOL]
    assert constraints == Constraints()


def test_no_tool_is_offered_where_none_may_be_called() -> None:
    assert from_tool_choice([TOOL], "none", parallel=False) == ([], Constraints())


@pytest.mark.parametrize("choice", ["any", "required", True])
def test_any_tool_will_do_where_one_is_required(choice: Any) -> None:
    tools, constraints = from_tool_choice([TOOL, OTHER_TOOL], choice)
    assert tools == [TOOL, OTHER_TOOL]
    assert constraints.note == (
        "Answer by calling one of these tools: add, find. Do not answer with text."
    )
    assert fault(constraints, answered("", call_message(name="find"))) is None
    assert fault(constraints, answered("No.")) == f"You did not call a tool. {constraints.note}"


@pytest.mark.parametrize(
    "choice",
    [
        "add",
        {"type": "function", "function": {"name": "add"}},
        {"type": "tool", "name": "add"},
    ],
)
def test_a_named_tool_is_the_only_one_offered(choice: Any) -> None:
    tools, constraints = from_tool_choice([TOOL, OTHER_TOOL], choice)
    assert tools == [TOOL]
    assert constraints.note == CALL_ADD
    assert fault(constraints, answered("", call_message())) is None
    assert fault(constraints, answered("3")) == f"You did not call a tool. {CALL_ADD}"


def test_a_tool_that_the_server_ran_is_not_the_call_that_was_wanted() -> None:
    _, constraints = from_tool_choice([TOOL], "add")
    reader = ResponseReader(["add"])
    for event in (call_message(), ResponseCompleted(marked())):
        reader.read(event)
    assert fault(constraints, Answer(reader)) == f"You did not call a tool. {CALL_ADD}"


@pytest.mark.parametrize("choice", ["divide", {"type": "function"}, {}])
def test_a_choice_that_is_none_of_the_tools_is_refused(choice: Any) -> None:
    with pytest.raises(InvalidInputError, match="none of the tools") as caught:
        from_tool_choice([TOOL, OTHER_TOOL], choice)
    assert "add, find" in str(caught.value)


@pytest.mark.parametrize("choice", ["any", "required", True, "add"])
def test_a_choice_without_tools_is_refused(choice: Any) -> None:
    with pytest.raises(InvalidInputError, match="needs tools"):
        from_tool_choice([], choice)


@pytest.mark.parametrize("choice", [None, "any"])
def test_one_call_at_a_time_is_told_once(choice: Any) -> None:
    assert (
        from_tool_choice([TOOL], choice, parallel=False)[1].standing == "Call one tool at a time."
    )
    assert from_tool_choice([TOOL], choice, parallel=True)[1].standing == ""
    assert from_tool_choice([], None, parallel=False)[1].standing == ""


# -- data as arguments of a tool ----------------------------------------------------------------


def of_tool() -> Constraints:
    return with_schema(from_tool_choice([TOOL], "add")[1], SCHEMA, validate, tool="add")


def test_arguments_that_fit_are_taken() -> None:
    assert fault(of_tool(), answered("", call_message())) is None


def test_nobody_answers_a_call_that_is_the_data() -> None:
    constrained = ConstrainedRequest(ChatRequest(entries=[user("one")]), of_tool())
    assert constrained.leaves_calls(answered("", call_message()))
    assert not constrained.leaves_calls(answered("3"))
    assert not ConstrainedRequest(ChatRequest(entries=[user("one")])).leaves_calls(
        answered("", call_message())
    )


def test_arguments_that_do_not_fit_are_refused() -> None:
    given = answered("", ToolCallMessage("call-1", "add", {"a": "x"}, '{"a": "x"}'))
    assert fault(of_tool(), given) == "That does not fit: a must be a number. Call add again."


def test_arguments_that_are_no_json_are_refused() -> None:
    said = fault(of_tool(), answered("", call_message(raw='{"a": 1,')))
    assert said is not None
    assert '{"a": 1,' in said
    assert said.endswith("Call add again.")


def test_a_call_that_was_not_made_is_refused_before_its_arguments() -> None:
    assert fault(of_tool(), answered("3")) == f"You did not call a tool. {CALL_ADD}"


# -- data as text -------------------------------------------------------------------------------


def test_the_agent_is_told_the_schema_with_the_call() -> None:
    constraints = with_schema(Constraints(), SCHEMA, validate, tool=None)
    assert constraints.note == (
        "Answer with one JSON object that fits this JSON schema, and with nothing else: "
        f"{TOLD_SCHEMA}"
    )
    assert constraints.standing == ""


def test_without_a_schema_any_object_is_asked_for() -> None:
    constraints = with_schema(Constraints(), {}, lambda data: None, tool=None)
    assert constraints.note == "Answer with one JSON object and with nothing else."
    assert fault(constraints, answered('{"b": 2}')) is None


@pytest.mark.parametrize(
    "text", ['{"a": 1}', '```json\n{"a": 1}\n```', 'Here it is:\n{"a": 1}\nAnything else?']
)
def test_data_is_found_in_the_text_around_it(text: str) -> None:
    assert fault(with_schema(Constraints(), SCHEMA, validate, tool=None), answered(text)) is None


def test_text_that_is_no_json_is_refused() -> None:
    constraints = with_schema(Constraints(), SCHEMA, validate, tool=None)
    said = fault(constraints, answered("three"))
    assert said is not None
    assert said.startswith("That is no JSON: ")
    assert said.endswith(constraints.note)


def test_text_that_does_not_fit_is_refused() -> None:
    constraints = with_schema(Constraints(), SCHEMA, validate, tool=None)
    said = fault(constraints, answered('{"a": "x"}'))
    assert said == f"That does not fit: a must be a number. {constraints.note}"


def test_beside_tools_the_schema_is_told_once_and_for_the_end() -> None:
    before = from_tool_choice([TOOL], None, parallel=False)[1]
    constraints = with_schema(before, SCHEMA, validate, tool=None, beside=True)
    assert constraints.note == ""
    assert constraints.standing == (
        "Call one tool at a time. When you have what you need: answer with one JSON object that "
        f"fits this JSON schema, and with nothing else: {TOLD_SCHEMA}"
    )


def test_beside_tools_an_answer_that_calls_one_is_not_checked_yet() -> None:
    constraints = with_schema(Constraints(), SCHEMA, validate, tool=None, beside=True)
    assert fault(constraints, answered("", call_message())) is None
    assert fault(constraints, answered("three")) is not None


@pytest.mark.parametrize(
    ("text", "schema", "found"),
    [
        ('x {"a": {"b": 1}} y', None, '{"a": {"b": 1}}'),
        ("x [1, [2]] y", {"type": "array"}, "[1, [2]]"),
        ("```json\n7```", {"type": "integer"}, "\n7"),
        ("7", {"type": ["integer", "null"]}, "7"),
        ("no object", None, "no object"),
        ("} no object {", None, "} no object {"),
    ],
)
def test_json_is_cut_out_of_an_answer(text: str, schema: Any, found: str) -> None:
    assert find_json(text, schema) == found


# -- one chance to mend -------------------------------------------------------------------------


def outcome(
    attempts: Generator[ChatRequest, Answer, Answer], given: Answer
) -> ChatRequest | Answer:
    """The next call to make, or the answer to give."""
    try:
        return attempts.send(given)
    except StopIteration as done:
        value: Answer = done.value
        return value


def test_the_call_is_made_with_the_texts_of_its_constraints() -> None:
    call = ChatRequest(entries=[user("one")], agent_id=AGENT)
    first = next(Constraints(note="Hurry.", standing="Be brief.").attempts(call))
    assert (first.note, first.standing) == ("Hurry.", "Be brief.")
    assert list(first.entries) == [user("one")]


def test_a_good_answer_is_the_only_one() -> None:
    attempts = of_tool().attempts(ChatRequest(entries=[user("one")]))
    next(attempts)
    good = answered("", call_message())
    assert outcome(attempts, good) is good


def test_an_answer_with_a_fault_gets_a_complaint_as_the_users_message() -> None:
    attempts = of_tool().attempts(ChatRequest(entries=[user("one")]))
    next(attempts)
    again = outcome(attempts, answered("3", head=("otid-1",)))
    assert isinstance(again, ChatRequest)
    assert [(entry.role, entry.text) for entry in again.entries] == [
        ("user", "one"),
        ("assistant", "3"),
        ("user", f"You did not call a tool. {CALL_ADD}"),
    ]
    assert again.entries[1].marker == marked(head=("otid-1",))
    assert again.note == CALL_ADD


def test_an_answer_whose_calls_wait_gets_the_complaint_as_their_results() -> None:
    attempts = of_tool().attempts(ChatRequest(entries=[user("one")]))
    next(attempts)
    calls = [call_message(raw='{"a": "x"}'), call_message("call-2", "find")]
    again = outcome(attempts, answered("", *calls))
    assert isinstance(again, ChatRequest)
    complaint = "That does not fit: a must be a number. Call add again."
    results = [
        (entry.role, entry.text, entry.tool_call_id, entry.is_error) for entry in again.entries[2:]
    ]
    assert results == [
        ("tool", complaint, "call-1", True),
        ("tool", complaint, "call-2", True),
    ]
    made = [(call.tool_call_id, call.raw_arguments) for call in again.entries[1].tool_calls]
    assert made == [("call-1", '{"a": "x"}'), ("call-2", '{"a": 1}')]


def test_there_is_one_chance_only() -> None:
    attempts = of_tool().attempts(ChatRequest(entries=[user("one")]))
    next(attempts)
    assert isinstance(outcome(attempts, answered("3")), ChatRequest)
    second = answered("Still 3.")
    assert outcome(attempts, second) is second


def test_the_framework_sees_one_answer_to_the_first_question() -> None:
    attempts = of_tool().attempts(ChatRequest(entries=[user("one")]))
    next(attempts)
    first = {"inputs": ("digest-of-one",), "previous": "conv-1#otid-0", "head": ("otid-1",)}
    outcome(attempts, answered("3", **first))
    second = {"inputs": ("digest-of-complaint",), "previous": "conv-1#otid-1", "head": ("otid-2",)}
    given = outcome(attempts, answered("", call_message(), **second))
    assert isinstance(given, Answer)
    marker = given.end.marker
    assert (marker.inputs, marker.previous) == (("digest-of-one",), "conv-1#otid-0")
    assert marker.head == ("otid-2",)


def test_a_whole_answer_needs_no_fragments() -> None:
    constrained = ConstrainedRequest(ChatRequest(entries=[user("one")], partial=True))
    assert next(constrained.attempts()).partial is False
    assert next(constrained.attempts(whole=False)).partial is True


def test_a_reader_of_a_call_passes_over_the_results_that_the_call_brings() -> None:
    call = ChatRequest(entries=[user("one"), asking([user("one")]), result("3")], tools=[TOOL])
    reader = ConstrainedRequest(call).reader()
    assert reader.read(REPEATED) == ()
    # Without such a result in the history the same one is the server's own.
    other = ConstrainedRequest(
        ChatRequest(entries=[user("one"), answer("First.")], tools=[TOOL])
    ).reader()
    assert [kind for kind, _ in other.read(REPEATED)] == ["server_call", "server_result"]
