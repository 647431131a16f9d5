"""What differs from another LLM by design; docs/llama-index.md names each, with its reason."""

from typing import Any

import pydantic
import pytest
from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context

from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.tutorials.llama_index.basics import BREAD, SOUP, Menu
from tests.tutorials.llama_index.conftest import Letta
from tests.tutorials.llama_index.stage import (
    Stage,
    Tutorial,
    calls,
    control,
    perform,
    script,
    tutorial,
    with_agent,
    with_llm,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called"),
    pytest.mark.filterwarnings("ignore:Skipping serialization of known unserializable key"),
    pytest.mark.usefixtures("thread_s_event_loop"),
]


def ours(tutorial: Tutorial, letta: Letta, make: Any = with_llm) -> dict[str, Any]:
    """Play it with a Letta."""
    letta.script(*script(tutorial.lines, by_function=False))
    return perform(tutorial, make(letta.client, letta.new_agent))


@tutorial("Hello Grace.", "You are Grace.")
async def a_context_alone(stage: Stage) -> Any:
    """Two runs with one context, and the memory that an agent has by default."""
    agent = stage.agent()
    ctx = Context(agent)
    await agent.run("I am Grace.", ctx=ctx)
    await agent.run("Who am I?", ctx=ctx)
    memory = await ctx.store.get("memory")
    return [message.content for message in memory.get_all()]


def test_an_agent_remembers_where_llama_index_loses_its_memory(
    letta_in_memory: Letta, control_model: ScriptedModel
) -> None:
    said = ["I am Grace.", "Hello Grace.", "Who am I?", "You are Grace."]
    assert ours(a_context_alone, letta_in_memory, with_agent)["result"] == said
    theirs = control(a_context_alone, control_model)["result"]
    known = [said] if pydantic.VERSION < "2.14" else [said, said[2:]]
    assert theirs in known


@tutorial(calls("Menu", restaurant="Chez Max", dishes=[SOUP, BREAD]))
def a_streamed_program(stage: Stage) -> Any:
    """The objects that a program streams, as far as they are known."""
    program = FunctionCallingProgram.from_defaults(
        output_cls=Menu, prompt_template_str="A menu for Chez Max, please.", llm=stage.llm()
    )
    parts = list(program.stream_call())
    return {"sizes": sorted({len(part.dishes or ()) for part in parts}), "last": parts[-1]}


def test_the_arguments_of_a_function_come_whole(
    letta_in_memory: Letta, control_model: ScriptedModel
) -> None:
    made = ours(a_streamed_program, letta_in_memory)["result"]
    theirs = control(a_streamed_program, control_model)["result"]
    assert made["last"] == theirs["last"]
    assert (made["sizes"], theirs["sizes"]) == ([0, 2], [0, 1, 2])


CUT = Reply(tool_calls=[ToolUse("delete", '{"path": "/tmp/x', id="cut")])


@tutorial(CUT)
def a_call_that_is_cut_off(stage: Stage) -> Any:
    """What an application would run."""

    def delete(path: str = "/") -> str:
        """Delete files."""
        return path

    llm, tool = stage.llm(), FunctionTool.from_defaults(delete)
    response = llm.chat_with_tools([tool], user_msg="Tidy up.")
    (call,) = llm.get_tool_calls_from_response(response)
    return [call.tool_name == "delete", call.tool_kwargs]


def test_a_call_that_is_cut_off_names_no_tool(
    letta_in_memory: Letta, control_model: ScriptedModel
) -> None:
    assert ours(a_call_that_is_cut_off, letta_in_memory)["result"] == [False, {}]
    named, arguments = control(a_call_that_is_cut_off, control_model)["result"]
    assert named and "/tmp/x" not in arguments.values()  # it would delete something else


@tutorial("Hello.")
def several_blocks(stage: Stage) -> Any:
    """A message of two texts, after a system message."""
    blocks = [TextBlock(text="One"), TextBlock(text="two")]
    asked = [
        ChatMessage(role="system", content="Be kind."),
        ChatMessage(role="user", blocks=blocks),
    ]
    return stage.llm().chat(asked).message.content


def test_texts_are_joined_as_llama_index_shows_them(
    letta_code: Letta, control_model: ScriptedModel
) -> None:
    assert ours(several_blocks, letta_code) == control(several_blocks, control_model)
    assert letta_code.requests is not None
    assert "One\ntwo" in letta_code.requests()[-1].last_user_text
    assert "Onetwo" in control_model.requests[-1].last_user_text


def test_letta_code_is_told_instructions_by_the_user(
    letta_code: Letta, control_model: ScriptedModel
) -> None:
    ours(several_blocks, letta_code)
    assert letta_code.requests is not None
    told = letta_code.requests()[-1]
    assert "<instructions>\nBe kind.\n</instructions>" in told.last_user_text
    assert "Be kind." not in str([m for m in told.messages if m["role"] == "system"])
