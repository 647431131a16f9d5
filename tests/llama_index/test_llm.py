"""``LettaLLM``: what any LlamaIndex LLM must do, and what a stateful one must, on both backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    DocumentBlock,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.tools import FunctionTool

from letta_adapters import InvalidInputError, UnsupportedOptionError, errors
from letta_adapters.llama_index import LettaLLM
from letta_adapters.testing.llama_index import LLMConformance, LLMSubject
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.llama_index.conftest import World

USER = [ChatMessage(role=MessageRole.USER, content="hi")]
KEY = "test-key-that-is-secret"


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool.from_defaults(add)


class TestLettaLLM(LLMConformance):
    """What any LLM must do."""

    @pytest.fixture
    def subject(self, world: World) -> LLMSubject:
        return LLMSubject(world.script, world.llm, world.sync_llm, secret="test-key")


# -- what a stateful one must do ----------------------------------------------------------------


async def test_calls_do_not_see_each_other(world: World) -> None:
    world.script("First.", "Second.")
    llm = world.llm()
    first, second = [await llm.achat([user(text)]) for text in ("one", "two")]
    assert first.raw["conversation_id"] != second.raw["conversation_id"]


async def test_a_named_conversation_goes_on(world: World) -> None:
    world.script("First.", "Second.", "Third.")
    start = await world.client_create()
    llm = world.llm(conversation_id=start)
    first = await llm.achat([user("one")])
    history = [user("one"), first.message, user("two")]
    await llm.achat(history)
    await llm.acomplete("three")
    assert await world.said(start) == ["one", "two", "three"]


# -- tools and structure ------------------------------------------------------------------------


async def test_tools_pause_the_turn_and_results_resume_it(world: World) -> None:
    world.script(Reply(tool_calls=[ToolUse("add", {"a": 1, "b": 2}, id="add-1")]), "Three.")
    llm = world.llm()
    asked = await llm.achat_with_tools([ADD], "1 + 2?")
    (call,) = llm.get_tool_calls_from_response(asked)
    assert (call.tool_id, call.tool_name, call.tool_kwargs) == ("add-1", "add", {"a": 1, "b": 2})
    assert isinstance(asked.message.blocks[-1], ToolCallBlock)
    result = ChatMessage(
        role=MessageRole.TOOL, content="3", additional_kwargs={"tool_call_id": call.tool_id}
    )
    history = [user("1 + 2?"), asked.message, result]
    answer = await llm.achat_with_tools([ADD], chat_history=history)
    assert answer.message.content == "Three."
    assert answer.raw["conversation_id"] == asked.raw["conversation_id"]


async def test_a_required_tool(world: World) -> None:
    world.script("I will not.", Reply(tool_calls=[ToolUse("add", {"a": 1, "b": 2})]))
    llm = world.llm()
    response = await llm.achat_with_tools([ADD], "1 + 2?", tool_required=True)
    assert llm.get_tool_calls_from_response(response)


# -- without a backend --------------------------------------------------------------------------


def test_serialization_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LettaLLM(agent_id="agent-1", api_key=KEY, base_url="http://letta.test")
    monkeypatch.setenv("LETTA_API_KEY", KEY)  # where it is loaded it comes from the environment
    again = LettaLLM.from_dict(llm.to_dict())
    assert again.agent_id == "agent-1"
    assert llm.class_name() == "letta_llm"
    for shown in (str(llm.to_dict()), repr(llm), llm.to_json(), str(llm.to_payload())):
        assert KEY not in shown


def test_metadata_needs_no_server() -> None:
    about = LettaLLM(base_url="http://127.0.0.1:9", context_window=1000).metadata
    assert (about.context_window, about.is_chat_model) == (1000, True)
    assert about.is_function_calling_model


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda llm: llm.chat([]), InvalidInputError),
        (lambda llm: llm.chat(USER, logprobs=True), InvalidInputError),
        (lambda llm: llm.chat([ChatMessage(role="user", blocks=[_document()])]), InvalidInputError),
        (lambda llm: llm.complete("hi"), errors.ConnectionFailedError),
    ],
    ids=["empty", "unknown argument", "document", "no server"],
)
def test_bad_calls(call: Callable[[LettaLLM], Any], error: type[Exception]) -> None:
    llm = LettaLLM(agent_id="agent-1", base_url="http://127.0.0.1:9", max_retries=0)
    with pytest.raises(error):
        call(llm)


def _document() -> DocumentBlock:
    return DocumentBlock(data=b"JVBERi0=", document_mimetype="application/pdf")


def test_what_a_backend_cannot_do() -> None:
    with pytest.raises(UnsupportedOptionError, match="agent_free"):
        LettaLLM(agent_free=True, base_url="http://letta.test").complete("hi")
