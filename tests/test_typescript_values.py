"""Values in the form of the TypeScript SDKs work or are refused by name; none is lost silently."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from letta_adapters import (
    AssistantMessage,
    InvalidInputError,
    StreamEvent,
    StreamTextDelta,
    extract_stream_text_delta,
    tool,
)
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.model_protocol import Reply, ToolUse

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
}
TEXT = {"type": "text", "text": "Sunny."}
WHOLE = {"message_type": "assistant_message", "content": "Hi"}
THOUGHT = {"message_type": "reasoning_message", "reasoning": "Hm"}


# -- fragments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "kind", "text"),
    [
        (WHOLE, "assistant", "Hi"),
        ({**WHOLE, "content": [{"type": "text", "text": "Hi"}]}, "assistant", "Hi"),
        ({**WHOLE, "content": {"type": "text", "text": "Hi"}}, "assistant", "Hi"),
        (THOUGHT, "reasoning", "Hm"),
        (
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}},
            "assistant",
            "Hi",
        ),
        ({"type": "content_block_delta", "delta": {"reasoning": "Hm"}}, "reasoning", "Hm"),
    ],
)
def test_text_of_a_fragment_in_every_form(event: dict[str, Any], kind: Any, text: str) -> None:
    expected = StreamTextDelta(kind, text)
    assert extract_stream_text_delta(StreamEvent(event)) == expected
    assert extract_stream_text_delta(StreamEvent(event).to_dict()) == expected
    # In TypeScript the function takes the event alone.
    assert extract_stream_text_delta(event) == expected


@pytest.mark.parametrize(
    "message",
    [
        None,
        "Hi",
        {},
        AssistantMessage("Hi"),
        AssistantMessage("Hi").to_dict(),
        StreamEvent({"type": "content_block_start", "content_block": {"type": "text"}}),
        StreamEvent({"type": "content_block_delta", "delta": {"text": ""}}),
        StreamEvent({"type": "content_block_delta", "delta": None}),
        {"type": "stream_event", "event": None},
        {"message_type": "tool_call_message"},
        {"message_type": ["assistant_message"]},
    ],
)
def test_no_text_where_there_is_no_fragment_of_one(message: Any) -> None:
    assert extract_stream_text_delta(message) is None


# -- results of tools ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "content", "is_error"),
    [
        ({"content": [TEXT]}, [TEXT], False),
        ({"content": [TEXT], "details": {"a": 1}}, [TEXT], False),
        ({"content": [TEXT], "isError": False}, [TEXT], False),
        ({"content": [TEXT], "isError": True}, [TEXT], True),
        ({"content": [TEXT], "is_error": True, "details": None}, [TEXT], True),
        ({"content": "No such city.", "isError": True}, "No such city.", True),
        ({"content": [], "isError": True}, "", True),
        (
            {"content": [TEXT, {"type": "image", "data": PNG, "mimeType": "image/png"}]},
            [TEXT, IMAGE],
            False,
        ),
        ([{"type": "image", "data": PNG, "mimeType": "image/png"}], [IMAGE], False),
        ({"content": [{"type": "text", "text": ""}]}, "", False),
        # Data that only has the same word in it.
        ({"content": "a page"}, '{"content":"a page"}', False),
        ({"content": [1]}, '{"content":[1]}', False),
        ({"content": [TEXT], "isError": "no"}, None, False),
        ({"content": [TEXT], "isError": True, "is_error": False}, None, False),
        ({"content": [TEXT], "title": "a page"}, None, False),
    ],
)
async def test_result_of_a_tool_in_the_sdk_s_form(
    returned: Any, content: Any, is_error: bool
) -> None:
    result = await tool(lambda: returned, name="weather").run({})
    assert result.is_error is is_error
    if content is None:
        assert isinstance(result.content, str)
        assert '"Sunny."' in result.content
    else:
        assert result.content == content


def test_a_failure_in_the_sdk_s_form_reaches_the_agent_as_one() -> None:
    letta = FakeLetta(Reply(tool_calls=[ToolUse("weather", {})]), "It failed.")

    def weather() -> dict[str, Any]:
        """Return the weather."""
        return {"content": [{"type": "text", "text": "No network."}], "isError": True}

    with letta.client() as client, client.create_session(None, tools=[weather]) as session:
        session.send("Sunny?")
        results = [m for m in session.stream() if m.type == "tool_result"]
    assert [(r.content, r.is_error) for r in results] == [("No network.", True)]


def test_a_tool_as_an_object_with_its_function_is_refused() -> None:
    given = {"name": "weather", "label": "Weather", "parameters": {}, "execute": lambda _, a: a}
    with pytest.raises(InvalidInputError, match=r"'execute'.*tool\(fn, name="):
        tool(given)
