"""A tool call whose arguments are no JSON object is run by nobody, on any path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks

from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

CUT_OFF = '{"a": 1, '
BROKEN = [CUT_OFF, '{"a": "some', "[1]", "nonsense", '"text"', '{"a": 1}}']


def delete_files(path: str = "/", a: int = 0) -> str:
    """Delete the files below a path."""
    raise AssertionError(f"{path} was deleted")


def broken(raw: str = CUT_OFF) -> Reply:
    return Reply(tool_calls=[ToolUse("delete_files", raw, id="call-1")])


def approvals(letta: FakeLetta) -> list[dict[str, Any]]:
    """What the last request told the agent of its calls."""
    found = [m for m in letta.requests[-1]["messages"] if m.get("type") == "approval"]
    return [dict(answer) for message in found for answer in message["approvals"]]


@pytest.mark.parametrize("raw", BROKEN)
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "v3"])
async def test_a_model_shows_the_call_as_invalid(letta_fake: FakeLetta, raw: str, way: str) -> None:
    letta_fake.script(broken(raw))
    model = ChatLetta(client=letta_fake.client()).bind_tools([delete_files])
    message = await _message(model, way)
    assert message.tool_calls == []
    (call,) = message.invalid_tool_calls
    assert (call["name"], call["id"]) == ("delete_files", "call-1")
    # LangChain mends what it is given in pieces, so those say it as a JSON string.
    assert call["args"] == (json.dumps(raw) if "stream" in way else raw)


async def _message(model: Any, way: str) -> AIMessage:
    if way == "invoke":
        return model.invoke("go")
    if way == "ainvoke":
        return await model.ainvoke("go")
    if way == "v3":
        return model.stream_events("go", version="v3").output
    chunks = list(model.stream("go")) if way == "stream" else [c async for c in model.astream("go")]
    return add_ai_message_chunks(chunks[0], *chunks[1:])


@pytest.mark.parametrize("raw", BROKEN)
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "v3"])
async def test_a_runnable_tells_the_agent_and_asks_nobody(
    letta_fake: FakeLetta, raw: str, way: str
) -> None:
    letta_fake.script(broken(raw), "I will try again.")
    asked: list[Any] = []
    agent = LettaRunnable(
        client=letta_fake.client(),
        tools=[delete_files],
        can_use_tool=lambda name, given, context: asked.append(given) or True,
    )
    if way == "invoke":
        messages = agent.invoke("go")["messages"]
    elif way == "ainvoke":
        messages = (await agent.ainvoke("go"))["messages"]
    elif way == "stream":
        messages = [m for part in agent.stream("go") for m in part["messages"]]
    else:
        messages = agent.stream_events("go", version="v3").output["messages"]
    assert [m.type for m in messages] == ["ai", "tool", "ai"]
    assert messages[1].status == "error"
    assert raw in messages[1].content
    assert asked == []
    (told,) = approvals(letta_fake)
    assert (told["tool_call_id"], told["status"]) == ("call-1", "error")
    assert raw in told["tool_return"]


def test_a_good_call_beside_it_is_run(letta_fake: FakeLetta) -> None:
    calls = [
        ToolUse("delete_files", CUT_OFF, id="call-1"),
        ToolUse("look", {"city": "Rome"}, id="call-2"),
    ]

    def look(city: str) -> str:
        """Look at a city."""
        return f"sunny in {city}"

    letta_fake.script(Reply(tool_calls=calls), "Sunny.")
    agent = LettaRunnable(client=letta_fake.client(), tools=[delete_files, look])
    agent.invoke("go")
    told = {answer["tool_call_id"]: answer for answer in approvals(letta_fake)}
    assert told["call-2"]["tool_return"] == "sunny in Rome"
    assert told["call-1"]["status"] == "error"


@pytest.mark.parametrize("arguments", ["", "null", "{}", " { } "])
def test_a_call_without_arguments_is_a_call(letta_fake: FakeLetta, arguments: str) -> None:
    def ping() -> str:
        """Ping."""
        return "pong"

    letta_fake.script(Reply(tool_calls=[ToolUse("ping", arguments, id="call-1")]), "Done.")
    out = LettaRunnable(client=letta_fake.client(), tools=[ping]).invoke("go")
    assert [m.type for m in out["messages"]] == ["ai", "tool", "ai"]
    assert out["messages"][1].content == "pong"


def test_a_model_whose_invalid_call_nobody_answers_hears_of_it_with_the_next_message(
    letta_fake: FakeLetta,
) -> None:
    letta_fake.script(broken(), "I will try again.")
    model = ChatLetta(client=letta_fake.client()).bind_tools([delete_files])
    first = model.invoke([HumanMessage("go")])
    again = model.invoke([HumanMessage("go"), first, HumanMessage("And now?")])
    assert again.text == "I will try again."
    assert CUT_OFF in approvals(letta_fake)[0]["tool_return"]


def test_an_agent_of_langchain_runs_nothing(letta_fake: FakeLetta) -> None:
    """LangChain's own loop ends at an invalid call, and answers it with the next message."""
    letta_fake.script(broken(), "I will try again.")
    agent: Any = create_agent(ChatLetta(client=letta_fake.client()), [delete_files])
    out = agent.invoke({"messages": [HumanMessage("go")]})
    again = agent.invoke({"messages": [*out["messages"], HumanMessage("And now?")]})
    assert again["messages"][-1].text == "I will try again."
    assert approvals(letta_fake)[0]["status"] == "error"
