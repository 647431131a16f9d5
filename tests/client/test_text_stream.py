"""``text_stream`` yields the answer's text alone, and a turn's time limit is checked first."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters import (
    AssistantMessage,
    InvalidInputError,
    LettaError,
    ReasoningMessage,
    ResultMessage,
    StreamEvent,
    Usage,
)
from letta_adapters.engine.deltas import TextReader
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

PARTIAL = {"include_partial_messages": True}


def fragment(text: str, otid: str, kind: str = "assistant_message") -> StreamEvent:
    field = "content" if kind == "assistant_message" else "reasoning"
    return StreamEvent({"message_type": kind, "otid": otid, field: text})


def test_a_text_that_came_in_fragments_is_not_said_again_when_it_is_complete() -> None:
    reader = TextReader()
    messages: list[Any] = [
        fragment("Hm.", "o-1", "reasoning_message"),
        ReasoningMessage("Hm.", otid="o-1"),
        fragment("Hel", "o-2"),
        fragment("lo", "o-2"),
        AssistantMessage("Hello", otid="o-2"),
        AssistantMessage(" again", otid="o-3"),
        ResultMessage(True, "Hello again", "end_turn", Usage(), 1),
    ]
    assert [text for m in messages if (text := reader.read(m))] == ["Hel", "lo", " again"]


def test_a_failed_turn_is_raised_where_its_text_ends() -> None:
    failed = ResultMessage(False, None, "error", Usage(), 1, error_code="rate_limited")
    with pytest.raises(LettaError) as caught:
        TextReader().read(failed)
    assert caught.value.code == "rate_limited"


@pytest.mark.parametrize("options", [{}, PARTIAL], ids=["whole", "partial"])
def test_the_text_of_a_turn_with_a_tool(options: dict[str, Any]) -> None:
    call = Reply("Let me see.", tool_calls=[ToolUse("look", {})], reasoning="Hm.")
    fake = FakeLetta(call, "It is sunny.")

    def look() -> str:
        """Look out of the window."""
        return "sun"

    with fake.client() as client, client.create_session(tools=[look], **options) as session:
        session.send("How is it?")
        texts = list(session.text_stream())
        assert "".join(texts) == "Let me see.It is sunny."
        assert (len(texts) > 2) == bool(options)


async def test_the_text_of_a_turn_asynchronously() -> None:
    fake = FakeLetta("Hello Ada.")
    async with fake.async_client() as client, client.create_session(**PARTIAL) as session:
        await session.send("I am Ada.")
        assert "".join([text async for text in session.text_stream()]) == "Hello Ada."


def test_without_a_message_there_is_no_text_and_the_call_itself_says_so() -> None:
    with FakeLetta().client() as client, client.create_session() as session:
        with pytest.raises(InvalidInputError, match="send"):
            session.text_stream()
        session.send("Hello!")
        # The one who leaves the text leaves the turn, and the session goes on.
        for _ in session.text_stream():
            break
        assert session.run_turn("again").success


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5", True])
def test_a_time_limit_that_is_none_is_refused_before_anything_is_sent(timeout: Any) -> None:
    fake = FakeLetta()
    with fake.client() as client, client.create_session() as session:
        with pytest.raises(InvalidInputError, match="greater than 0"):
            session.run_turn("hello", timeout=timeout)
    assert fake.said == []
