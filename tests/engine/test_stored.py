"""What a conversation holds reads as its stream did, whoever reads it."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters.engine.assembler import Assembler
from letta_adapters.engine.stored import (
    newest_first,
    read_item,
    read_messages,
    read_user,
    shows_its_order,
    turn_round,
)
from letta_adapters.messages import (
    AssistantMessage,
    ReasoningMessage,
    ToolCallMessage,
    ToolResultMessage,
    UnknownMessage,
)

IDS: dict[str, Any] = {"id": "message-1", "otid": "otid-1", "run_id": "run-1"}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"message_type": "assistant_message", "content": [{"type": "text", "text": "Hello."}]},
            AssistantMessage("Hello.", **IDS),
        ),
        (
            {"message_type": "reasoning_message", "reasoning": "Hm.", "signature": "s"},
            ReasoningMessage("Hm.", signature="s", **IDS),
        ),
        (
            {"message_type": "hidden_reasoning_message", "hidden_reasoning": "b64"},
            ReasoningMessage("b64", redacted=True, **IDS),
        ),
        (
            {
                "message_type": "approval_request_message",
                "tool_call": {"tool_call_id": "call-1", "name": "look", "arguments": '{"a": 1}'},
            },
            ToolCallMessage("call-1", "look", {"a": 1}, '{"a": 1}', True, **IDS),
        ),
        (
            {
                "message_type": "tool_return_message",
                "tool_call_id": "call-1",
                "name": "look",
                "tool_return": "seen",
                "status": "error",
                "stdout": ["one", "two"],
            },
            ToolResultMessage("call-1", "seen", True, "look", ("one", "two"), **IDS),
        ),
    ],
    ids=lambda value: value["message_type"] if isinstance(value, dict) else "",
)
def test_an_item_is_read_as_the_message_it_was(item: dict[str, Any], message: object) -> None:
    assert read_messages(item | IDS) == [message]


def test_several_calls_and_their_results_keep_their_order_and_their_names() -> None:
    called = {
        "message_type": "tool_call_message",
        "tool_calls": [
            {"tool_call_id": "call-1", "name": "look", "arguments": "{}"},
            {"tool_call_id": "call-2", "name": "find", "arguments": "not JSON"},
        ],
    }
    returned = {
        "message_type": "tool_return_message",
        "name": "look",
        "tool_returns": [
            {"tool_call_id": "call-2", "tool_return": "found"},
            {"tool_call_id": "call-1", "tool_return": "seen"},
        ],
    }
    assert read_messages(called | IDS) == [
        ToolCallMessage("call-1", "look", {}, "{}", **IDS),
        ToolCallMessage("call-2", "find", {}, "not JSON", **IDS),
    ]
    names = {"call-1": "look", "call-2": "find"}
    assert read_messages(returned | IDS, names) == [
        ToolResultMessage("call-2", "found", False, "find", **IDS),
        ToolResultMessage("call-1", "seen", False, "look", **IDS),
    ]


@pytest.mark.parametrize("kind", ["tool_call_message", "approval_request_message"])
@pytest.mark.parametrize("call_ids", [("c-1", "c-2"), ("c-1", "c-1"), ("c-1", None), (None,)])
def test_whole_calls_read_as_the_assembler_reads_them(
    kind: str, call_ids: tuple[str | None, ...]
) -> None:
    halves = ('{"a":', " 1}")
    calls = [
        {"tool_call_id": one, "name": "look", "arguments": halves[n]}
        for n, one in enumerate(call_ids)
    ]
    item = {"message_type": kind, "tool_calls": calls, **IDS}
    assembler, out = Assembler(), []
    assembler.call(item, out, approval=kind == "approval_request_message")
    assembler.flush(out)
    assert read_messages(item) == [*out, *assembler.open_calls()]


@pytest.mark.parametrize("kind", ["user_message", "system_message", "summary_message", None])
def test_what_the_agent_did_not_say_is_no_message_of_a_stream(kind: str | None) -> None:
    assert read_messages({"message_type": kind, "content": "Hello."} | IDS) == []


def test_a_page_is_turned_round_by_messages_and_not_by_items() -> None:
    page = [{"id": "b", "n": 1}, {"id": "b", "n": 2}, {"id": "a", "n": 3}]
    assert [item["n"] for item in turn_round(page)] == [3, 1, 2]


def test_a_page_in_the_wrong_order_is_put_right() -> None:
    asked = {"id": "a", "run_id": "r", "message_type": "user_message", "date": "1"}
    answered = {"id": "b", "run_id": "r", "message_type": "assistant_message", "date": "1"}
    assert newest_first([asked, answered]) == [answered, asked]
    assert newest_first([answered, asked]) == [answered, asked]


def test_a_reminder_in_front_is_not_what_the_user_said() -> None:
    reminder = "<system-reminder>It is late.</system-reminder>"
    own = "I wrote <system-reminder>this</system-reminder> myself."
    assert read_user(f"{reminder}\n{own}") == ("user", own)
    assert read_user(reminder) == ("user", None)
    assert read_user("<system-alert>Go on.</system-alert>") == ("event", "Go on.")


ODD: list[Any] = [True, 5, [], ["x"], {}, [{}], [{"type": "text", "text": 5}], {"a": {}}]


@pytest.mark.parametrize("kind", ODD, ids=repr)
def test_an_item_whose_kind_cannot_be_read_is_unknown(kind: Any) -> None:
    item = {"message_type": kind, "content": "Hello."} | IDS
    assert list(read_item(item)) == [UnknownMessage(item)]


@pytest.mark.parametrize("field", ["reason", "tool_return"])
def test_an_answer_that_cannot_be_read_is_unknown(field: str) -> None:
    for value in (5, ["x"], [{"type": "text", "text": 5}]):
        answer = {"type": "tool", "tool_call_id": "c", "approve": False, field: value}
        item = {"message_type": "approval_response_message", "approvals": [answer]} | IDS
        assert list(read_item(item)) == [UnknownMessage(item)]


@pytest.mark.parametrize("run", ODD, ids=repr)
def test_a_run_that_cannot_be_read_does_not_tell_the_order_of_a_page(run: Any) -> None:
    said = [{"message_type": kind, "run_id": run} for kind in ("assistant_message", "user_message")]
    assert newest_first(said) == said
    assert not shows_its_order(said)
