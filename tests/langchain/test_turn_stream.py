"""A whole turn as events of the v3 protocol: LettaRunnable's own, and inside LangGraph."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_protocol import MessagesData
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream

from letta_adapters import LettaError
from letta_adapters.testing.scripted_model import ModelError, Reply, ScriptedModel, ToolUse
from tests.langchain.test_runnable import (
    Make,
    bash,
    get_weather,
    graph_of,
    make,
    script,
    script_of_the_trace,
    weather,
)

__all__ = ["make", "script"]

# LangChain says so of its v3 protocol, once in a process.
pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)

TRACE = [
    "message-start",
    *["content-block-start", "content-block-delta", "content-block-delta", "content-block-finish"],
    *["content-block-start", "content-block-finish", "tool-started Bash"],
    *["content-block-start", "content-block-finish", "tool-started Bash"],
    *["content-block-start", "content-block-finish", "tool-finished"],
    *["content-block-start", "content-block-finish", "tool-finished"],
    *["content-block-start", "content-block-delta", "content-block-finish"],
    *["content-block-start", "content-block-finish"],
    "message-finish",
    *["tool-started get_weather", "tool-finished"],
    "message-start",
    *["content-block-start", "content-block-delta", "content-block-delta", "content-block-finish"],
    "message-finish",
]


def named(event: dict[str, Any]) -> str:
    return f"{event['event']} {event.get('tool_name', '')}".strip()


def answers(events: list[Any]) -> list[list[MessagesData]]:
    """The message events, one list for each answer."""
    made: list[list[Any]] = []
    for event in events:
        if event["event"] == "message-start":
            made.append([])
        if not event["event"].startswith("tool-"):
            made[-1].append(event)
    return made


def test_every_event_of_a_turn(make: Make, script: Any) -> None:
    script_of_the_trace(script)
    agent = make(tools=[get_weather], session_options={"allowed_tools": ["Bash"]})
    with agent.stream_events("go", version="v3") as stream:
        events = list(stream)
    assert [named(event) for event in events] == TRACE
    for answer in answers(events):
        assert_valid_event_stream(answer)
    finished = [event for event in events if event["event"] == "tool-finished"]
    assert ["one" in str(finished[0]["output"]), finished[2]["output"]] == [True, "sunny in Rome"]
    assert [type(message).__name__ for message in stream.output["messages"]] == [
        "AIMessage",
        "ToolMessage",
        "AIMessage",
    ]


async def test_every_event_of_an_asynchronous_turn(make: Make, script: Any) -> None:
    script_of_the_trace(script)
    agent = make(tools=[get_weather], session_options={"allowed_tools": ["Bash"]})
    stream = await agent.astream_events("go", version="v3")
    async with stream:
        events = [event async for event in stream]
    assert [named(event) for event in events] == TRACE
    for answer in answers(events):
        assert_valid_event_stream(answer)
    assert (await stream.output)["messages"][-1].text == "All done."


def test_each_answer_is_a_stream(make: Make, script: Any) -> None:
    script(Reply(text="One two", tool_calls=[weather("Rome", "w1")]), "three four")
    stream = make(tools=[get_weather]).stream_events("go", version="v3")
    texts = [list(message.text) for message in stream.messages]
    assert ["".join(text) for text in texts] == ["One two", "three four"]
    assert [len(text) for text in texts] == [2, 2]
    assert [m.output.text for m in stream.messages] == ["One two", "three four"]
    assert len(list(stream)) == len(list(stream)), "what was seen can be read again"


async def test_each_asynchronous_answer_is_a_stream(make: Make, script: Any) -> None:
    script(Reply(text="One two", tool_calls=[weather("Rome", "w1")]), "three four")
    stream = await make(tools=[get_weather], output="text").astream_events("go", version="v3")
    texts = [[token async for token in message.text] async for message in stream.messages]
    assert texts == [["One ", "two"], ["three ", "four"]]
    assert await stream.output == "three four"


@pytest.mark.parametrize("output", ["message", "text"])
def test_the_result_is_what_invoke_gives(make: Make, script: Any, output: Any) -> None:
    script("Fine.")
    result = make(output=output).stream_events("How are you?", version="v3").output
    assert (result.text if isinstance(result, AIMessage) else result) == "Fine."


def test_a_failed_tool_is_an_event(make: Make, script: Any) -> None:
    def explode(why: str) -> str:
        """Fails."""
        raise ValueError(why)

    script(Reply(tool_calls=[ToolUse("explode", {"why": "no"}, id="e1")]), "Oh.")
    events = list(make(tools=[explode]).stream_events("go", version="v3"))
    failed = [event for event in events if event["event"] == "tool-error"]
    assert [(e["tool_call_id"], e["message"]) for e in failed] == [("e1", "ValueError: no")]


def test_a_turn_that_fails(make: Make, script: Any) -> None:
    quota = ModelError(429, "No quota left", "insufficient_quota", "insufficient_quota")
    script(Reply(error=quota))
    stream = make().stream_events("go", version="v3")
    with pytest.raises(LettaError):
        list(stream)
    with pytest.raises(LettaError):
        _ = stream.output


async def test_an_asynchronous_turn_that_fails(make: Make, script: Any) -> None:
    quota = ModelError(429, "No quota left", "insufficient_quota", "insufficient_quota")
    script(Reply(error=quota))
    stream = await make().astream_events("go", version="v3")
    with pytest.raises(LettaError, match="quota"):
        await stream.output
    with pytest.raises(LettaError, match="quota"):
        _ = [event async for event in stream]
    script(Reply(error=quota))
    messages = (await make().astream_events("go", version="v3")).messages
    with pytest.raises(LettaError, match="quota"):
        async for message in messages:
            await message


async def test_the_result_alone(make: Make, script: Any) -> None:
    script("Fine.", "Fine.")
    stream = await make(output="text").astream_events("How are you?", version="v3")
    assert await stream.output == "Fine."
    assert len([message async for message in stream.messages]) == 1
    left = await make(output="text").astream_events("How are you?", version="v3")
    await left.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await left.output


def test_leaving_early_stops_the_agent(
    make: Make, script: Any, embedded_model: ScriptedModel, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    script(
        Reply(text="a " * 200, token_delay=0.05, tool_calls=[bash(f"touch {mark}", "b1")]), "never"
    )
    agent = make(session_options={"cwd": tmp_path, "permission_mode": "unrestricted"})
    with agent.stream_events("go", version="v3") as stream:
        for event in stream:
            if event["event"] == "content-block-delta":
                break
    asked = len(embedded_model.requests)
    with pytest.raises(RuntimeError, match="closed"):
        _ = stream.output
    time.sleep(0.5)
    assert (len(embedded_model.requests), mark.exists()) == (asked, False)


async def test_leaving_early_stops_the_agent_asynchronously(make: Make, script: Any) -> None:
    script(Reply(text="a " * 200, token_delay=0.05), "Here again.")
    agent = make(thread_id="left-early-v3", output="text")
    async with await agent.astream_events("go", version="v3") as stream:
        async for event in stream:
            if event["event"] == "content-block-delta":
                break
    assert await asyncio.wait_for(agent.ainvoke("again"), 10) == "Here again."


def test_other_versions(make: Make) -> None:
    with pytest.raises(NotImplementedError, match="v3"):
        make().stream_events("go", version="v2")


def test_tokens_of_a_graphs_own_v3_stream(make: Make, script: Any) -> None:
    script_of_the_trace(script)
    agent = make(tools=[get_weather], session_options={"allowed_tools": ["Bash"]})
    run = graph_of(agent).stream_events({"messages": "go"}, version="v3")
    texts = [list(message.text) for message in run.messages]
    assert texts == [["Now"], ["All ", "done."]]
    assert run.output["messages"][-1].text == "All done."


async def test_tokens_of_a_graphs_own_asynchronous_v3_stream(make: Make, script: Any) -> None:
    script_of_the_trace(script)
    graph = graph_of(make(tools=[get_weather], session_options={"allowed_tools": ["Bash"]}))
    run = await graph.astream_events({"messages": "go"}, version="v3")
    texts = [[token async for token in message.text] async for message in run.messages]
    assert texts == [["Now"], ["All ", "done."]]
