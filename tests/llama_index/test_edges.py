"""Odd messages, odd tools, and what the agent runs itself, in LlamaIndex' terms."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    CitableBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import FunctionTool

from letta_adapters import InvalidInputError, LettaClient, ToolContext, UnsupportedOptionError
from letta_adapters.llama_index import LettaAgent, LettaLLM, LettaMemory
from letta_adapters.llama_index.messages import to_entries, to_wire_tools
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
USER = ChatMessage(role=MessageRole.USER, content="hi")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_tool_context_is_refused_where_the_workflow_runs_tools() -> None:
    def work(name: str, context: ToolContext) -> str:
        """Works."""
        return name

    # LlamaIndex does not look up annotations that are text, as they are in this module.
    work.__annotations__ = {"name": str, "context": ToolContext, "return": str}
    with FakeLetta().client() as client, pytest.raises(ValueError, match="write_event_to_stream"):
        LettaAgent(client=client, tools=[work])


async def test_what_the_agent_ran_itself_is_told(
    embedded: LettaClient, embedded_agent: str, embedded_model: ScriptedModel, tmp_path: Path
) -> None:
    use = ToolUse("Bash", {"command": "echo seen", "description": "a test"}, id="told-1")
    options = {"permission_mode": "unrestricted", "cwd": tmp_path}
    llm = LettaLLM(agent_id=embedded_agent, client=embedded, session_options=options)
    embedded_model.clear()
    for streamed in (False, True):
        embedded_model.script(Reply(reasoning="Hm.", tool_calls=[use]), "Done.")
        if streamed:
            response = [chunk async for chunk in await llm.astream_chat([USER])][-1]
        else:
            response = await llm.achat([USER])
        called, returned = response.raw["server_tools"]
        assert (called["tool_name"], called["tool_kwargs"]["command"]) == ("Bash", "echo seen")
        assert ("seen" in returned["output"], returned["is_error"]) == (True, False)
        assert [b for b in response.message.blocks if isinstance(b, ToolCallBlock)] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # LlamaIndex' own
async def test_session_options_that_the_letta_api_has_not_are_refused(
    letta_fake: FakeLetta,
) -> None:
    options = {"permission_mode": "strict"}
    llm = LettaLLM(client=letta_fake.client(), session_options=options)
    with pytest.raises(UnsupportedOptionError, match="permission_mode"):
        llm.complete("hi")
    agent = LettaAgent(client=letta_fake.client(), session_options=options)
    with pytest.raises(UnsupportedOptionError, match="permission_mode"):
        await agent.run("hi")
    assert letta_fake.said == []


async def test_a_repeated_call_of_a_conversation(
    embedded: LettaClient, embedded_agent: str, embedded_model: ScriptedModel
) -> None:
    """The same message, known by its id, is answered from what is stored."""
    embedded_model.clear()
    embedded_model.script(Reply(reasoning="Hm.", text="Only once."))
    place = str(embedded.conversations.create(embedded_agent)["id"])
    llm = LettaLLM(agent_id=embedded_agent, client=embedded, conversation_id=place)
    message = ChatMessage(role=MessageRole.USER, content="say", additional_kwargs={"id": "say-1"})
    first = llm.chat([message])
    chunks = list(llm.stream_chat([message]))
    assert chunks[-1].message.content == first.message.content == "Only once."
    assert len(embedded_model.requests) == 1


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(role=MessageRole.USER, blocks=[AudioBlock(audio=b"AA==")]),
        ChatMessage(role=MessageRole.USER, blocks=[ImageBlock()]),
    ],
    ids=["audio", "no image"],
)
def test_messages_without_a_place(message: ChatMessage) -> None:
    with pytest.raises(InvalidInputError):
        to_entries([message])


def test_messages_of_every_kind() -> None:
    image = ImageBlock(url="https://example.com/a.png")
    blocks: list[Any] = [ThinkingBlock(content="hm"), TextBlock(text="see"), image]
    (entry,) = to_entries([ChatMessage(role=MessageRole.USER, blocks=blocks)])
    assert "https://example.com/a.png" in str(entry.content)
    assert "hm" not in str(entry.content)
    tool = ChatMessage(role=MessageRole.TOOL, content="3", additional_kwargs={"tool_call_id": "c1"})
    (entry,) = to_entries([tool])
    assert (entry.role, entry.tool_call_id, entry.content) == ("tool", "c1", "3")


def test_what_is_no_tool() -> None:
    with pytest.raises(InvalidInputError, match="tool"):
        to_wire_tools(["add"])

    def add(a: int) -> int:
        """Add."""
        return a

    (wire,) = to_wire_tools([FunctionTool.from_defaults(add)])
    assert (wire["name"], "a" in wire["parameters"]["properties"]) == ("add", True)


def test_a_memory() -> None:
    memory = LettaMemory.from_defaults()
    memory.put(USER)
    assert (memory.get(), memory.get_all()) == ([USER], [USER])
    again = LettaMemory.from_dict(memory.to_dict())
    assert [message.content for message in again.get_all()] == ["hi"]
    memory.set([])
    memory.put(USER)
    memory.reset()
    assert memory.get_all() == []


def showing(blocks: Any) -> Any:
    def show() -> Any:
        """Show it."""
        return blocks

    return FunctionTool.from_defaults(show)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # LlamaIndex' own
async def test_an_image_that_a_tool_returns_reaches_the_agent(letta_fake: FakeLetta) -> None:
    client = letta_fake.client()
    letta_fake.script(Reply(tool_calls=[ToolUse("show", {}, id="show-1")]), "I see.")
    tool = showing([TextBlock(text="here"), ImageBlock(image=PNG)])
    agent = LettaAgent(agent_id=client.create_agent(name="a"), client=client, tools=[tool])
    assert str(await agent.run("show me")) == "I see."
    (answer,) = letta_fake.requests[-1]["messages"][0]["approvals"]
    text, image = answer["tool_return"]
    assert text == {"type": "text", "text": "here"}
    assert image["source"]["data"] == base64.b64encode(PNG).decode()


async def test_an_image_of_a_tool_is_shown_with_a_history_that_is_told_anew(
    letta_fake: FakeLetta,
) -> None:
    client = letta_fake.client()
    llm = LettaLLM(agent_id=client.create_agent(name="a"), client=client)
    asked = ToolCallBlock(tool_call_id="c1", tool_name="show", tool_kwargs={})
    result = ChatMessage(
        role=MessageRole.TOOL,
        blocks=[ImageBlock(image=PNG)],
        additional_kwargs={"tool_call_id": "c1"},
    )
    history = [USER, ChatMessage(role=MessageRole.ASSISTANT, blocks=[asked]), result]
    for messages in (history, [*history, USER]):
        llm.chat(messages)
        sent = json.dumps(letta_fake.requests[-1]["messages"])
        assert base64.b64encode(PNG).decode() in sent


@pytest.mark.parametrize("role", [MessageRole.SYSTEM, MessageRole.ASSISTANT])
def test_text_of_a_citable_block_is_told_and_an_image_there_is_refused(role: MessageRole) -> None:
    cited = CitableBlock(title="t", source="s", content=[TextBlock(text="FACT")])
    (entry,) = to_entries([ChatMessage(role=role, blocks=[cited, TextBlock(text=" end")])])
    assert entry.text == "FACT end"
    with pytest.raises(InvalidInputError, match=f"{role.value}.*image"):
        to_entries([ChatMessage(role=role, blocks=[ImageBlock(image=PNG)])])


def test_what_is_no_text_or_image_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidInputError, match="audio") as caught:
        to_entries([ChatMessage(role=MessageRole.USER, blocks=[AudioBlock(audio=b"AA==")])])
    assert "document" not in str(caught.value)


async def test_a_setting_that_no_call_takes_is_refused_with_the_truth(
    letta_fake: FakeLetta,
) -> None:
    llm = LettaLLM(client=letta_fake.client())
    with pytest.raises(InvalidInputError, match=r"'top_p'.*temperature and max_tokens"):
        llm.complete("hi", top_p=0.5)
    assert letta_fake.requests == []


@pytest.mark.parametrize("make", [LettaLLM, LettaAgent])
async def test_a_session_s_own_option_is_refused(letta_fake: FakeLetta, make: Any) -> None:
    with pytest.raises(ValueError, match="for sessions alone"):
        make(client=letta_fake.client(), session_options={"can_use_tool": lambda *_: False})
    assert letta_fake.requests == []
