"""A tool call whose arguments are no JSON object is run by nobody: the agent is told."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.tools import FunctionTool

from letta_adapters import LettaError, TurnFailedError
from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.faults._turns import until

# LlamaIndex' own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CUT_OFF = '{"a": 1, '


def delete_files(path: str = "/", a: int = 0) -> str:
    """Delete the files below a path."""
    raise AssertionError(f"{path} was deleted")


def look(city: str) -> str:
    """Look at a city."""
    return f"sunny in {city}"


def broken(id: str = "call-1") -> ToolUse:
    return ToolUse("delete_files", CUT_OFF, id=id)


def approvals(letta: FakeLetta) -> dict[str, dict[str, Any]]:
    """What the last request told the agent of its calls, by id."""
    found = [m for m in letta.requests[-1]["messages"] if m.get("type") == "approval"]
    return {answer["tool_call_id"]: answer for m in found for answer in m["approvals"]}


def agent_of(letta: FakeLetta) -> LettaAgent:
    tools = [FunctionTool.from_defaults(fn) for fn in (delete_files, look)]
    return LettaAgent(client=letta.client(), tools=tools)


async def test_the_agent_is_told_and_the_run_goes_on(letta_fake: FakeLetta) -> None:
    letta_fake.script(Reply(tool_calls=[broken()]), "I will try again.")
    response = await agent_of(letta_fake).run("go")
    assert str(response) == "I will try again."
    told = approvals(letta_fake)["call-1"]
    assert told["status"] == "error"
    assert CUT_OFF in told["tool_return"]


async def test_a_good_call_beside_it_is_run(letta_fake: FakeLetta) -> None:
    calls = [broken(), ToolUse("look", {"city": "Rome"}, id="call-2")]
    letta_fake.script(Reply(tool_calls=calls), "Sunny.")
    response = await agent_of(letta_fake).run("go")
    assert str(response) == "Sunny."
    told = approvals(letta_fake)
    assert told["call-1"]["status"] == "error"
    assert told["call-2"]["tool_return"] == "sunny in Rome"


async def test_an_agent_that_does_not_stop_ends_the_run(letta_fake: FakeLetta) -> None:
    letta_fake.script(Reply(tool_calls=[ToolUse("delete_files", CUT_OFF)], repeat=True))
    with pytest.raises(LettaError, match="no JSON object"):
        await agent_of(letta_fake).run("go")
    assert len(letta_fake.requests) == 3


# -- an LLM whose caller runs the tools ---------------------------------------------------------


NO_OBJECT = ['{"a": 1, ', "[1]", '"all"']


def llm_of(letta: FakeLetta) -> tuple[LettaLLM, list[FunctionTool]]:
    client = letta.client()
    llm = LettaLLM(agent_id=client.create_agent(name="a"), client=client)
    return llm, [FunctionTool.from_defaults(fn) for fn in (delete_files, look)]


@pytest.mark.parametrize("raw", NO_OBJECT)
@pytest.mark.parametrize("streamed", [False, True])
def test_no_selection_of_it_names_a_tool(letta_fake: FakeLetta, raw: str, streamed: bool) -> None:
    letta_fake.script(Reply(tool_calls=[ToolUse("delete_files", raw, id="call-1")]))
    llm, tools = llm_of(letta_fake)
    if streamed:
        *_, response = llm.stream_chat_with_tools(tools, user_msg="go")
    else:
        response = llm.chat_with_tools(tools, user_msg="go")
    (selection,) = llm.get_tool_calls_from_response(response)
    assert selection.tool_kwargs == {}
    assert selection.tool_name not in ("delete_files", "look")
    assert raw.strip() in selection.tool_name


@pytest.mark.parametrize("raw", NO_OBJECT)
async def test_predict_and_call_lets_the_agent_mend_it(letta_fake: FakeLetta, raw: str) -> None:
    bad = Reply(tool_calls=[ToolUse("delete_files", raw)])
    good = Reply(tool_calls=[ToolUse("look", {"city": "Rome"})])
    llm, tools = llm_of(letta_fake)
    letta_fake.script(bad, good)
    assert str(llm.predict_and_call(tools, "go")) == "sunny in Rome"
    letta_fake.script(bad, good)
    assert str(await llm.apredict_and_call(tools, "go")) == "sunny in Rome"


async def test_predict_and_call_runs_nothing_that_stays_broken(letta_fake: FakeLetta) -> None:
    llm, tools = llm_of(letta_fake)
    for _ in range(2):
        letta_fake.script(Reply(tool_calls=[broken()]), Reply(tool_calls=[broken("call-2")]))
        with pytest.raises(TurnFailedError, match="no JSON object"):
            await llm.apredict_and_call(tools, "go")
    # Conversations are removed in the background, so that nobody waits for it.
    await until(lambda: not letta_fake._conversations)
