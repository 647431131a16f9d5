"""``LettaLLM``: what any LlamaIndex LLM must do, and what a stateful one must, on both backends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.callbacks.llama_debug import LlamaDebugHandler
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler
from pydantic import BaseModel

from letta_adapters import InvalidInputError, UnsupportedOptionError, errors
from letta_adapters.llama_index import LettaLLM
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


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def check_usage(response: Any) -> None:
    counts = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    assert counts.items() <= response.raw["usage"].items()
    assert counts.items() <= response.additional_kwargs.items()
    assert response.additional_kwargs["stop_reason"] == "end_turn"


# -- the eight methods --------------------------------------------------------------------------


async def test_four_asynchronous_methods(world: World) -> None:
    world.script(*[Reply(text="One two.", reasoning="Hm.") for _ in range(4)])
    llm = world.llm()
    chat = await llm.achat(USER)
    assert [type(block) for block in chat.message.blocks] == [ThinkingBlock, TextBlock]
    assert chat.message.content == "One two."
    check_usage(chat)
    complete = await llm.acomplete("hi")
    assert complete.text == "One two."
    check_usage(complete)
    chunks = [chunk async for chunk in await llm.astream_chat(USER)]
    check_stream(chunks)
    texts = [chunk async for chunk in await llm.astream_complete("hi")]
    assert "".join(chunk.delta or "" for chunk in texts) == texts[-1].text == "One two."
    check_usage(texts[-1])


async def test_four_synchronous_methods(world: World) -> None:
    world.script(*[Reply(text="One two.", reasoning="Hm.") for _ in range(4)])
    llm = world.sync_llm()
    chat = llm.chat(USER)
    assert chat.message.content == "One two."
    check_usage(chat)
    assert llm.complete("hi").text == "One two."
    check_stream(list(llm.stream_chat(USER)))
    texts = list(llm.stream_complete("hi"))
    assert "".join(chunk.delta or "" for chunk in texts) == texts[-1].text == "One two."


def check_stream(chunks: list[ChatResponse]) -> None:
    """Cumulative messages, incremental deltas, everything on the last one."""
    text = ""
    for chunk in chunks:
        text += chunk.delta or ""
        assert (chunk.message.content or "") == text
    assert text == "One two."
    thoughts = [c.additional_kwargs.get("thinking_delta") for c in chunks]
    assert "".join(filter(None, thoughts)) == "Hm."
    assert [chunk for chunk in chunks if chunk.raw] == [chunks[-1]]
    check_usage(chunks[-1])


# -- state --------------------------------------------------------------------------------------


async def test_calls_do_not_see_each_other(world: World) -> None:
    world.script("First.", "Second.")
    llm = world.llm()
    first, second = [await llm.achat([user(text)]) for text in ("one", "two")]
    assert first.raw["conversation_id"] != second.raw["conversation_id"]


async def test_a_whole_history_is_told(world: World) -> None:
    world.script("Third.")
    history = [
        ChatMessage(role=MessageRole.SYSTEM, content="Be brief."),
        user("one"),
        ChatMessage(role=MessageRole.ASSISTANT, content="First."),
        user("two"),
    ]
    assert (await world.llm().achat(history)).message.content == "Third."


async def test_a_named_conversation_goes_on(world: World) -> None:
    world.script("First.", "Second.", "Third.")
    start = await world.client_create()
    llm = world.llm(conversation_id=start)
    first = await llm.achat([user("one")])
    history = [user("one"), first.message, user("two")]
    await llm.achat(history)
    await llm.acomplete("three")
    assert await world.said(start) == ["one", "two", "three"]


async def test_concurrent_calls(world: World) -> None:
    world.script(*[Reply(f"Answer {n}.", when=f"question {n}") for n in range(3)])
    llm = world.llm()
    answers = await asyncio.gather(*(llm.acomplete(f"question {n}") for n in range(3)))
    assert [str(answer) for answer in answers] == [f"Answer {n}." for n in range(3)]


async def test_every_event_loop(world: World) -> None:
    world.script(*[f"Answer {n}." for n in range(3)])
    llm = world.sync_llm()

    def in_own_loop() -> str:
        return str(asyncio.run(llm.acomplete("hi")))

    answers = [await asyncio.to_thread(in_own_loop) for _ in range(3)]
    assert answers == ["Answer 0.", "Answer 1.", "Answer 2."]


async def test_leaving_a_stream_early_is_no_error(world: World) -> None:
    world.script("One two three.", "Again.")
    llm = world.llm()
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm.callback_manager = CallbackManager([debug])
    stream = await llm.astream_chat(USER)
    async for _ in stream:
        break
    await stream.aclose()
    (pair,) = debug.get_event_pairs(CBEventType.LLM)
    assert "exception" not in pair[1].payload
    assert (await llm.achat(USER)).message.content == "Again."


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
    with pytest.raises(ValueError, match="at least one tool call"):
        llm.get_tool_calls_from_response(answer)
    assert llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False) == []


async def test_streamed_tool_calls(world: World) -> None:
    world.script(Reply(text="Let me add.", tool_calls=[ToolUse("add", {"a": 1, "b": 2})]))
    llm = world.llm()
    chunks = [c async for c in await llm.astream_chat_with_tools([ADD], "1 + 2?")]
    assert llm.get_tool_calls_from_response(chunks[-1])[0].tool_kwargs == {"a": 1, "b": 2}
    assert chunks[-1].message.content == "Let me add."


async def test_predict_and_call(world: World) -> None:
    world.script(Reply(tool_calls=[ToolUse("add", {"a": 1, "b": 2})]))
    response = await world.llm().apredict_and_call([ADD], "1 + 2?")
    assert str(response) == "3"


async def test_a_required_tool(world: World) -> None:
    world.script("I will not.", Reply(tool_calls=[ToolUse("add", {"a": 1, "b": 2})]))
    llm = world.llm()
    response = await llm.achat_with_tools([ADD], "1 + 2?", tool_required=True)
    assert llm.get_tool_calls_from_response(response)


async def test_structured_output(world: World) -> None:
    ada = '{"name": "Ada", "age": 36}'
    world.script(ada, ada)
    llm = world.llm()
    found = await llm.astructured_predict(Person, PromptTemplate("Who is {who}?"), who="Ada")
    assert found == Person(name="Ada", age=36)
    response = await llm.as_structured_llm(Person).achat(USER)
    assert response.raw == found


async def test_images(world: World) -> None:
    world.script("A dot.")
    pixel = (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
        "rkJggg=="
    )
    blocks = [TextBlock(text="What is it?"), ImageBlock(image=pixel.encode())]
    message = ChatMessage(role=MessageRole.USER, blocks=blocks)
    assert (await world.llm().achat([message])).message.content == "A dot."


# -- observability ------------------------------------------------------------------------------


async def test_one_event_a_call_and_exact_counts(world: World) -> None:
    world.script(*["One two."] * 4)
    counter, debug = TokenCountingHandler(), LlamaDebugHandler(print_trace_on_end=False)
    llm = world.llm()
    llm.callback_manager = CallbackManager([counter, debug])
    await llm.achat(USER)
    await llm.acomplete("hi")
    [_ async for _ in await llm.astream_chat(USER)]
    [_ async for _ in await llm.astream_complete("hi")]
    assert len(debug.get_event_pairs(CBEventType.LLM)) == 4
    assert counter.prompt_llm_token_count == 400
    assert counter.completion_llm_token_count == 80


async def test_instrumentation_events(world: World) -> None:
    world.script("One two.", "One two.")
    names: list[str] = []

    class Handler(BaseEventHandler):
        @classmethod
        def class_name(cls) -> str:
            return "Handler"

        def handle(self, event: Any, **_: Any) -> None:
            names.append(type(event).__name__)
            assert KEY not in str(event)

    root: Any = get_dispatcher()
    handler = Handler()
    root.add_event_handler(handler)
    try:
        llm = world.llm()
        [_ async for _ in await llm.astream_chat(USER)]
        await llm.acomplete("hi")
    finally:
        root.event_handlers.remove(handler)
    assert names[0] == "LLMChatStartEvent"
    assert set(names[1:-3]) == {"LLMChatInProgressEvent"}
    assert names[-3:] == ["LLMChatEndEvent", "LLMCompletionStartEvent", "LLMCompletionEndEvent"]


# -- without a backend --------------------------------------------------------------------------


def test_serialization_without_secrets() -> None:
    llm = LettaLLM(agent_id="agent-1", api_key=KEY, base_url="http://letta.test")
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
