"""Messages go through JSON, and whatever else reads dataclasses, with their type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from letta_adapters import (
    AssistantMessage,
    ErrorMessage,
    ImageContent,
    InitMessage,
    InvalidInputError,
    LoopStatusMessage,
    Message,
    MessagePage,
    QueueUpdateMessage,
    ReasoningMessage,
    ResultMessage,
    RetryMessage,
    StreamEvent,
    SystemMessage,
    TextContent,
    ToolCallMessage,
    ToolProgressMessage,
    ToolResultMessage,
    UnknownMessage,
    Usage,
    UserMessage,
    message_from_dict,
)

# One of each kind, with every optional field filled.
EXAMPLES: list[Message] = [
    InitMessage("agent-1", "conv-1", "session-1", "rest", "letta/x", ("Read", "Bash")),
    UserMessage("Hi", ({"type": "text", "text": "Hi"},), "m-1", "o-1", 1, "run-1"),
    SystemMessage("You are Ada.", "m-0", "o-0", 0, "run-1"),
    AssistantMessage("Hello 😀", "m-2", "o-2", 2, "run-1"),
    ReasoningMessage("Hm.", "m-3", "o-3", 3, "run-1", "signed", "model", True),
    ToolCallMessage("c-1", "add", {"a": [1, {"b": None}]}, '{"a": ...', True, "m", "o", 4, "r"),
    ToolResultMessage("c-1", "3", True, "add", ("out",), ("err",), "m", "o", 5, "r", "Trace"),
    ToolProgressMessage("c-1", "add", "Half done", 1, 2.5, 3),
    StreamEvent({"message_type": "assistant_message", "content": [{"text": "H"}]}, 7),
    ErrorMessage("It broke.", "rate_limited", "llm_rate_limit", "error", "more", "run-1"),
    RetryMessage("overloaded", 1, 3, 1000, "run-1"),
    ResultMessage(
        False, None, "error", Usage(1, 2, 3, 4, 5, 6, 7, 8), 9, "agent-1", "conv-1", ("r-1", "r-2"),
        "rate_limited", "wait", True,
    ),
    QueueUpdateMessage(({"id": "q-1", "content": "x"},), ({"id": "q-0"},)),
    LoopStatusMessage("WAITING_ON_INPUT", ("r-1",), ("c-1",)),
    UnknownMessage({"message_type": "news", "deep": {"er": [1]}}),
]  # fmt: skip
TAGS = [
    "init",
    "user",
    "system",
    "assistant",
    "reasoning",
    "tool_call",
    "tool_result",
    "tool_progress",
    "stream_event",
    "error",
    "retry",
    "result",
    "queue_update",
    "loop_status",
    "unknown",
]


def by_type(message: Message) -> str:
    return message.type


def test_there_is_an_example_of_every_kind() -> None:
    assert [type(m) for m in EXAMPLES] == list(dict.fromkeys(type(m) for m in EXAMPLES))
    assert {type(m) for m in EXAMPLES} == set(get_args(Message))
    assert [m.type for m in EXAMPLES] == TAGS


@pytest.mark.parametrize("message", EXAMPLES, ids=by_type)
def test_a_message_that_went_through_json_is_the_same_message(message: Message) -> None:
    line = json.dumps(message.to_dict())
    back = message_from_dict(json.loads(line))
    assert back == message
    assert type(back) is type(message)
    # The fields that do not count for equality travel too.
    assert back.to_dict() == message.to_dict()
    assert json.loads(line)["type"] == message.type


@pytest.mark.parametrize("message", EXAMPLES, ids=by_type)
def test_asdict_and_pydantic_keep_the_type(message: Message) -> None:
    assert asdict(message)["type"] == message.type
    adapter: TypeAdapter[Message] = TypeAdapter(Message)
    dumped = json.loads(adapter.dump_json(message))
    assert dumped["type"] == message.type
    assert adapter.validate_python(dumped) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=by_type)
def test_the_type_can_be_read_from_the_class_and_is_not_in_the_repr(message: Message) -> None:
    assert type(message).type == message.type
    assert "type=" not in repr(message).partition("(")[2].partition(",")[0]


def test_what_to_dict_returns_is_a_copy() -> None:
    raw = {"message_type": "news", "list": [1]}
    message = UnknownMessage(raw)
    message.to_dict()["raw"]["list"].append(2)
    assert message.raw == {"message_type": "news", "list": [1]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"content": "no type"}, "None is no type of message"),
        ({"type": "nonsense"}, "'nonsense' is no type of message"),
        ({"type": ["assistant"], "content": "x"}, "is no type of message"),
        ({"type": "assistant"}, "content is missing or wrong"),
        ({"type": "assistant", "content": 7}, "content is missing or wrong"),
        ({"type": "assistant", "content": "x", "contents": "y"}, "has no contents"),
        ({"type": "result", "success": True}, "usage"),
        ("assistant", "not from str"),
        (None, "not from NoneType"),
    ],
)
def test_what_is_no_message_is_refused_and_named(data: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match="message") as caught:
        message_from_dict(data)
    assert said in caught.value.message


def test_a_refusal_does_not_repeat_the_conversation() -> None:
    with pytest.raises(InvalidInputError) as caught:
        message_from_dict({"type": "assistant", "content": ["our secret"]})
    assert "our secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_page_is_written_with_its_order_and_its_messages() -> None:
    raw: list[dict[str, Any]] = [{"id": "m-1", "message_type": "assistant_message"}]
    page = MessagePage((AssistantMessage("Hi", "m-1"),), raw, "m-1", True, order="desc")
    plain = json.loads(json.dumps(page.to_dict()))
    assert plain["order"] == "desc"
    assert plain["messages"][0]["type"] == "assistant"
    assert plain["raw"] == raw
    assert message_from_dict(plain["messages"][0]) == page.messages[0]


@pytest.mark.parametrize("part", [TextContent("Hi"), ImageContent(url="https://example.org/a.png")])
def test_parts_of_a_message_keep_their_type(part: TextContent | ImageContent) -> None:
    fields: Mapping[str, Any] = asdict(part)
    assert fields["type"] == part.type == type(part).type
