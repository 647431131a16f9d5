"""A page of stored messages holds typed messages, the user's own included."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from letta_adapters.engine.rest import RestTurn
from letta_adapters.engine.stored import (
    StoredPage,
    check_cursor,
    make_page,
    read_item,
    read_page,
    without_reminders,
)
from letta_adapters.engine.transcript import Transcript
from letta_adapters.errors import ProtocolError
from letta_adapters.messages import (
    AssistantMessage,
    ReasoningMessage,
    SystemMessage,
    ToolCallMessage,
    ToolResultMessage,
    UnknownMessage,
    UserMessage,
)

IDS: dict[str, Any] = {"id": "message-1", "otid": "o-1", "seq_id": None, "run_id": "run-1"}
REMINDER = "<system-reminder>The time is now.</system-reminder>\n"
ALERT = json.dumps({"type": "system_alert", "message": "Compacted."})


def stored(kind: str, **fields: Any) -> dict[str, Any]:
    return {"message_type": kind, "date": "2026-01-01T00:00:00Z", **IDS, **fields}


def call(name: str, arguments: Any = "{}", id_: str = "c-1") -> dict[str, Any]:
    return {"name": name, "arguments": arguments, "tool_call_id": id_}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (stored("user_message", content="Hi"), [UserMessage("Hi", (), **IDS)]),
        (stored("system_message", content="Be Ada."), [SystemMessage("Be Ada.", **IDS)]),
        (stored("assistant_message", content="Hello"), [AssistantMessage("Hello", **IDS)]),
        (
            stored("assistant_message", content=[{"type": "text", "text": "Hello"}]),
            [AssistantMessage("Hello", **IDS)],
        ),
        (
            stored("reasoning_message", reasoning="Hm.", signature="s", source="reasoner_model"),
            [ReasoningMessage("Hm.", **IDS, signature="s", source="reasoner_model")],
        ),
        (
            stored("hidden_reasoning_message", hidden_reasoning="blob", state="redacted"),
            [ReasoningMessage("blob", **IDS, redacted=True)],
        ),
        (
            stored("tool_call_message", tool_call=call("add", '{"a": 1}')),
            [ToolCallMessage("c-1", "add", {"a": 1}, '{"a": 1}', False, **IDS)],
        ),
        (
            stored("approval_request_message", tool_calls=[call("a"), call("b", id_="c-2")]),
            [
                ToolCallMessage("c-1", "a", {}, "{}", True, **IDS),
                ToolCallMessage("c-2", "b", {}, "{}", True, **IDS),
            ],
        ),
        (
            stored(
                "tool_return_message", name="add", status="error", tool_return="no",
                tool_call_id="c-1", stdout=["x"], stderr=None,
            ),
            [ToolResultMessage("c-1", "no", True, "add", ("x",), (), **IDS)],
        ),
        (
            stored(
                "approval_response_message",
                approvals=[
                    {"type": "tool", "tool_call_id": "c-1", "tool_return": "3", "status": "ok"},
                    {"type": "approval", "tool_call_id": "c-2", "approve": False, "reason": "No."},
                ],
            ),
            [
                ToolResultMessage("c-1", "3", **IDS),
                ToolResultMessage("c-2", "No.", is_error=True, **IDS),
            ],
        ),
    ],
)  # fmt: skip
def test_each_kind_has_its_class(item: dict[str, Any], expected: list[Any]) -> None:
    assert list(read_item(item)) == expected


def test_text_that_letta_put_in_front_is_not_what_the_user_said() -> None:
    (message,) = read_item(stored("user_message", content=REMINDER + "Hi"))
    assert isinstance(message, UserMessage)
    assert message.content == "Hi"


def test_the_parts_of_a_users_message_keep_its_images() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    parts = [{"type": "text", "text": "What is it?"}, image]
    assert list(read_item(stored("user_message", content=parts))) == [
        UserMessage("What is it?", tuple(parts), **IDS)
    ]


@pytest.mark.parametrize(
    "item",
    [
        stored("user_message", content=ALERT),
        stored("user_message", content=REMINDER),
        stored("event_message", event_type="compaction"),
        stored("from_the_future", content="?"),
        stored("user_message", content=7),
        stored("assistant_message", content={"text": "x"}),
        stored("tool_call_message", tool_call="add"),
        stored("approval_response_message", approvals=[{"approve": True, "tool_call_id": "c"}]),
        stored("tool_return_message", tool_return="no id"),
        {"content": "no type"},
    ],
)
def test_what_nobody_said_or_can_be_read_is_kept_whole(item: dict[str, Any]) -> None:
    assert list(read_item(item)) == [UnknownMessage(item)]


def test_newest_first_is_oldest_first_turned_round() -> None:
    # The objects of one stored message keep the order they were said in, in either list.
    question = stored("user_message", content="Add.", id="message-1")
    thought = stored("reasoning_message", reasoning="Hm.", id="message-2")
    calls = stored(
        "tool_call_message", tool_calls=[call("a"), call("b", id_="c-2")], id="message-2"
    )
    asc = read_page([question, thought, calls], "asc")
    desc = read_page([thought, calls, question], "desc")
    assert [m.type for m in asc] == ["user", "reasoning", "tool_call", "tool_call"]
    assert tuple(reversed(desc)) == asc


def test_a_users_message_in_a_stream_is_the_users() -> None:
    turn = RestTurn()
    echo = {"message_type": "user_message", **IDS, "content": "Hi"}
    alert = echo | {"content": ALERT}
    lines = b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in (echo, alert))
    assert turn.feed(lines) == [UserMessage("Hi", (), **IDS), UnknownMessage(alert)]


@pytest.mark.parametrize(
    ("order", "before", "after"), [("desc", "message-2", None), ("asc", None, "message-2")]
)
def test_a_page_leads_on_in_its_own_direction(
    order: Literal["asc", "desc"], before: str | None, after: str | None
) -> None:
    page = make_page(StoredPage([{"id": "message-1"}], order, "message-2", True))
    assert (page.next_before, page.next_after, page.has_more) == (before, after, True)


def test_a_page_that_begins_again_with_its_cursor_is_an_error() -> None:
    check_cursor("message-1", ["message-2"])
    check_cursor(None, ["message-1"])
    with pytest.raises(ProtocolError, match="loop"):
        check_cursor("message-1", ["message-1", "message-2"])


def test_a_users_message_of_a_stream_is_a_row_of_the_users() -> None:
    transcript = Transcript()
    (row,) = transcript.apply(UserMessage("Hi", (), **IDS))
    assert (row.kind, row.key, row.text) == ("user", "o-1", "Hi")
    # What is stored under the same name is the same row.
    transcript.rebase([stored("user_message", content="Hi")])
    assert transcript.rows == (row,)


def test_a_part_without_text_is_no_reminder() -> None:
    parts = [{"type": "text", "text": None}, {"type": "text", "text": REMINDER}]
    assert without_reminders(stored("user_message", content=parts)) == stored(
        "user_message", content=parts[:1]
    )
