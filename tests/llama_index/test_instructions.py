"""An agent's LLM is asked again by somebody else while it waits for tools: what it is told then."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool

from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.llama_index.conftest import World

SEARCH = Reply(tool_calls=[ToolUse("search", {"query": "bees"}, id="find-bees")])


def search(query: str) -> str:
    """Search."""
    return "Bees dance."


def write(text: str) -> str:
    """Write."""
    return "written"


@pytest.fixture
def shown(embedded_model: Any) -> Any:
    """What the model saw last."""

    def read() -> str:
        return str(embedded_model.requests[-1].body)

    return read


@pytest.fixture
def local(embedded: Any, embedded_agent: str, embedded_model: Any) -> World:
    embedded_model.clear()
    return World(embedded, embedded, embedded_agent, embedded_model.script)


def system(text: str) -> ChatMessage:
    return ChatMessage(role="system", content=text)


def history_of(answer: Any) -> list[ChatMessage]:
    extra = {"tool_call_id": "find-bees", "name": "search"}
    return [
        ChatMessage(role="user", content="Write about bees."),
        answer.message,
        ChatMessage(role="tool", content="Bees dance.", additional_kwargs=extra),
    ]


def test_another_agent_gets_its_own_instructions_and_tools(local: World, shown: Any) -> None:
    """A hand-off: two agents of a workflow over one LLM."""
    local.script(SEARCH, "Done.")
    llm = local.sync_llm()
    searching, writing = FunctionTool.from_defaults(search), FunctionTool.from_defaults(write)
    asked = [system("You search."), ChatMessage(role="user", content="Write about bees.")]
    first = llm.chat_with_tools([searching], chat_history=asked)
    history = [system("You write."), *history_of(first)]
    second = llm.chat_with_tools([writing], chat_history=history)
    assert second.message.content == "Done."
    assert "You write." in shown() and "'write'" in shown() and "Bees dance." in shown()
    assert "You search." not in shown() and "'search'," not in shown().partition("'tools'")[2]


def test_the_same_agent_goes_on_where_it_waits(local: World, embedded_model: Any) -> None:
    local.script(SEARCH, "Done.")
    llm = local.sync_llm()
    tools = [FunctionTool.from_defaults(search)]
    asked = [system("You search."), ChatMessage(role="user", content="Write about bees.")]
    first = llm.chat_with_tools(tools, chat_history=asked)
    llm.chat_with_tools(tools, chat_history=[system("You search."), *history_of(first)])
    roles = [message["role"] for message in embedded_model.requests[-1].messages]
    assert roles[-2:] == ["assistant", "tool"]


async def test_a_named_conversation_is_told_new_instructions_with_the_result(
    local: World, embedded_model: Any
) -> None:
    local.script(SEARCH, "Done.")
    llm = local.llm(conversation_id=await local.client_create())
    tools = [FunctionTool.from_defaults(search)]
    asked = [system("It is nine."), ChatMessage(role="user", content="Write about bees.")]
    first = await llm.achat_with_tools(tools, chat_history=asked)
    await llm.achat_with_tools(tools, chat_history=[system("It is ten."), *history_of(first)])
    last = embedded_model.requests[-1].messages[-1]
    assert last["role"] == "tool"
    assert "Bees dance." in str(last["content"]) and "It is ten." in str(last["content"])


async def test_a_named_conversation_is_offered_new_tools(local: World, shown: Any) -> None:
    local.script(SEARCH, "Done.")
    where = await local.client_create()
    llm = local.llm(conversation_id=where)
    asked = [ChatMessage(role="user", content="Write about bees.")]
    first = await llm.achat_with_tools([FunctionTool.from_defaults(search)], chat_history=asked)
    history = history_of(first)
    second = await llm.achat_with_tools([FunctionTool.from_defaults(write)], chat_history=history)
    assert second.raw["conversation_id"] == where
    assert "'write'" in shown() and "Bees dance." in shown()
    assert (await local.said(where))[0].endswith("Write about bees.")
