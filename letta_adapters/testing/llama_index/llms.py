"""The conformance suite for LlamaIndex LLMs."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.callbacks.llama_debug import LlamaDebugHandler
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool

from letta_adapters.testing.llama_index.watching import watching
from letta_adapters.testing.scripted_model import ModelError, Reply, ToolUse

_PIXEL = (
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    b"rkJggg=="
)
_QUOTA = ModelError(429, "No quota left", "insufficient_quota", "insufficient_quota")
_USAGE = {"prompt_tokens": 100, "completion_tokens": 20}


@dataclass
class LLMSubject:
    """The LLM under test.

    Attributes:
        script: ``script(*replies)`` sets what the model behind the LLM says next (texts or
            ``Reply`` objects).
        make: ``make(**fields)`` returns an LLM for asynchronous calls on the test's event loop;
            ``callback_manager`` is among the fields.
        make_sync: The same for synchronous calls, if that is another one.
        usage: The tokens that the model reports for every answer.
        secret: A text that must not be shown.
    """

    script: Callable[..., None]
    make: Callable[..., Any]
    make_sync: Callable[..., Any] | None = None
    usage: Mapping[str, int] = field(default_factory=lambda: _USAGE)
    secret: str | None = None

    def sync(self, **fields: Any) -> Any:
        """Return an LLM for synchronous calls."""
        return (self.make_sync or self.make)(**fields)


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool.from_defaults(add)
ADA = '{"name": "Ada", "age": 36}'


def user(text: str) -> ChatMessage:
    """Return a user's message."""
    return ChatMessage(role=MessageRole.USER, content=text)


def make_add_call(id: str) -> ToolUse:
    """Return a call of the tool ``add``."""
    return ToolUse("add", {"a": 1, "b": 2}, id=id)


@pytest.mark.asyncio
class LLMConformance:
    """The suite for LLMs: subclass it and give it the fixture ``subject``.

    The package's docstring has an example.
    """

    @pytest.fixture
    def subject(self) -> LLMSubject:
        """Return the LLM under test."""
        raise NotImplementedError("Give your subclass the fixture `subject`.")

    # -- what it is -------------------------------------------------------------------------

    async def test_metadata_and_names(self, subject: LLMSubject) -> None:
        """Check that metadata is at hand: it is read several times for every query."""
        llm = subject.make()
        assert llm.metadata == llm.metadata
        assert llm.metadata.context_window > 0
        assert BaseLLM.__name__ in [cls.__name__ for cls in type(llm).__mro__]
        assert type(llm).class_name() == type(llm).class_name() != "base_component"

    async def test_nothing_shows_its_secret(self, subject: LLMSubject) -> None:
        """Check that neither the stored nor the logged form of the LLM shows its secret."""
        if subject.secret is None:
            pytest.skip("the subject names no secret")
        llm = subject.make()
        # All forms in which LlamaIndex stores or prints an LLM: its index store, its logs, its
        # spans.
        for shown in (str(llm.to_dict()), llm.to_json(), repr(llm), str(llm.to_payload())):
            assert subject.secret not in shown

    # -- the eight methods ------------------------------------------------------------------

    async def test_four_asynchronous_methods(self, subject: LLMSubject) -> None:
        """Check achat, acomplete, astream_chat and astream_complete."""
        subject.script(*["One two."] * 4)
        llm = subject.make()
        chat = await llm.achat([user("hi")])
        assert (chat.message.role, chat.message.content) == (MessageRole.ASSISTANT, "One two.")
        assert (await llm.acomplete("hi")).text == "One two."
        self.check_stream([chunk async for chunk in await llm.astream_chat([user("hi")])])
        texts = [chunk async for chunk in await llm.astream_complete("hi")]
        assert "".join(chunk.delta or "" for chunk in texts) == texts[-1].text == "One two."

    async def test_four_synchronous_methods(self, subject: LLMSubject) -> None:
        """Check chat, complete, stream_chat and stream_complete, inside a running event loop."""
        subject.script(*["One two."] * 4)
        llm = subject.sync()
        assert llm.chat([user("hi")]).message.content == "One two."
        assert llm.complete("hi").text == "One two."
        self.check_stream(list(llm.stream_chat([user("hi")])))
        texts = list(llm.stream_complete("hi"))
        assert "".join(chunk.delta or "" for chunk in texts) == texts[-1].text == "One two."

    def check_stream(self, chunks: list[ChatResponse]) -> None:
        """Check that the message grows, and that each delta is what is new in it."""
        text = ""
        for chunk in chunks:
            text += chunk.delta or ""
            assert (chunk.message.content or "") == text
        assert text == "One two."
        # An LLM that waits for the whole answer and sends it in one piece would pass all of the
        # above.
        assert len([chunk for chunk in chunks if chunk.delta]) > 1, "it came all at once"

    async def test_thoughts(self, subject: LLMSubject) -> None:
        """Check thoughts: a block of the message, and ``thinking_delta``, which agents read."""
        subject.script(*[Reply(text="One two.", reasoning="Hm hm.")] * 2)
        llm = subject.make()
        first, second = (await llm.achat([user("hi")])).message.blocks
        assert isinstance(first, ThinkingBlock)
        assert (first.content, second) == ("Hm hm.", TextBlock(text="One two."))
        chunks = [chunk async for chunk in await llm.astream_chat([user("hi")])]
        thoughts = [chunk.additional_kwargs.get("thinking_delta") for chunk in chunks]
        assert "".join(filter(None, thoughts)) == "Hm hm."

    async def test_a_whole_history(self, subject: LLMSubject) -> None:
        """Check a history with a system message, and with answers that another model gave."""
        subject.script("Third.")
        history = [
            ChatMessage(role=MessageRole.SYSTEM, content="Be brief."),
            user("one"),
            ChatMessage(role=MessageRole.ASSISTANT, content="First."),
            user("two"),
        ]
        # A caller goes on with the list that it passed, so it must be as it was.
        kept = copy.deepcopy(history)
        assert (await subject.make().achat(history)).message.content == "Third."
        assert history == kept, "the caller's history was changed"

    async def test_images(self, subject: LLMSubject) -> None:
        """Check a message with an image among its content."""
        subject.script("A dot.")
        blocks = [TextBlock(text="What is it?"), ImageBlock(image=_PIXEL)]
        message = ChatMessage(role=MessageRole.USER, blocks=blocks)
        assert (await subject.make().achat([message])).message.content == "A dot."

    # -- many calls -------------------------------------------------------------------------

    async def test_concurrent_calls(self, subject: LLMSubject) -> None:
        """Check that concurrent calls do not get each other's answers."""
        subject.script(*[Reply(f"Answer {n}.", when=f"question {n}") for n in range(3)])
        llm = subject.make()
        # Each reply fits one question, so an answer that went to another caller shows.
        answers = await asyncio.gather(*(llm.acomplete(f"question {n}") for n in range(3)))
        assert [str(answer) for answer in answers] == [f"Answer {n}." for n in range(3)]

    async def test_every_event_loop(self, subject: LLMSubject) -> None:
        """Check several event loops: LlamaIndex' synchronous code makes one for every query."""
        subject.script(*[f"Answer {n}." for n in range(3)])
        llm = subject.sync()

        def in_own_loop() -> str:
            return str(asyncio.run(llm.acomplete("hi")))

        answers = [await asyncio.to_thread(in_own_loop) for _ in range(3)]
        assert answers == ["Answer 0.", "Answer 1.", "Answer 2."]

    # -- tools and structure ----------------------------------------------------------------

    async def test_tools(self, subject: LLMSubject) -> None:
        """Check that a tool is called, its result is taken, and the answer comes."""
        subject.script(Reply(tool_calls=[make_add_call("add-1")]), "Three.")
        llm = subject.make()
        asked = await llm.achat_with_tools([ADD], "1 + 2?")
        (call,) = llm.get_tool_calls_from_response(asked)
        assert (call.tool_id, call.tool_name) == ("add-1", "add")
        assert call.tool_kwargs == {"a": 1, "b": 2}
        assert isinstance(asked.message.blocks[-1], ToolCallBlock)
        told = {"tool_call_id": call.tool_id}
        result = ChatMessage(role=MessageRole.TOOL, content="3", additional_kwargs=told)
        history = [user("1 + 2?"), asked.message, result]
        answer = await llm.achat_with_tools([ADD], chat_history=history)
        assert answer.message.content == "Three."
        with pytest.raises(ValueError, match="at least one tool call"):
            llm.get_tool_calls_from_response(answer)
        assert llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False) == []

    async def test_a_message_beside_a_history(self, subject: LLMSubject) -> None:
        """Check that ``user_msg`` may be a message, and goes after the unchanged history."""
        subject.script("Yes.")
        history = [user("one"), ChatMessage(role=MessageRole.ASSISTANT, content="First.")]
        kept = copy.deepcopy(history)
        answer = await subject.make().achat_with_tools(
            [ADD], user_msg=user("two"), chat_history=history
        )
        assert answer.message.content == "Yes."
        assert history == kept, "the caller's history was changed"

    async def test_streamed_tool_calls(self, subject: LLMSubject) -> None:
        """Check that the last chunk has the whole call, and the text."""
        subject.script(Reply(text="Let me add.", tool_calls=[make_add_call("add-2")]))
        llm = subject.make()
        chunks = [c async for c in await llm.astream_chat_with_tools([ADD], "1 + 2?")]
        assert llm.get_tool_calls_from_response(chunks[-1])[0].tool_kwargs == {"a": 1, "b": 2}
        assert chunks[-1].message.content == "Let me add."

    async def test_predict_and_call(self, subject: LLMSubject) -> None:
        """Check that the tool that the model chose is run."""
        subject.script(Reply(tool_calls=[make_add_call("add-3")]))
        assert str(await subject.make().apredict_and_call([ADD], "1 + 2?")) == "3"

    async def test_structured_output(self, subject: LLMSubject) -> None:
        """Check structured output by a prompt, and as a structured LLM."""
        answer = self.structured(subject)
        subject.script(answer, answer)
        llm = subject.make()
        found = await llm.astructured_predict(Person, PromptTemplate("Who is {who}?"), who="Ada")
        assert found == Person(name="Ada", age=36)
        response = await llm.as_structured_llm(Person).achat([user("Who?")])
        assert response.raw == found

    def structured(self, subject: LLMSubject) -> Any:
        """Return the model's answer when a :class:`Person` is asked for: JSON, or a tool call."""
        return ADA

    # -- who watches ------------------------------------------------------------------------

    async def test_one_event_a_call_and_exact_counts(self, subject: LLMSubject) -> None:
        """Check that a call counts once, with the reported tokens, streamed or not."""
        subject.script(*["One two."] * 4)
        counter, debug = TokenCountingHandler(), LlamaDebugHandler(print_trace_on_end=False)
        llm = subject.make(callback_manager=CallbackManager([counter, debug]))
        await llm.achat([user("hi")])
        await llm.acomplete("hi")
        [_ async for _ in await llm.astream_chat([user("hi")])]
        [_ async for _ in await llm.astream_complete("hi")]
        assert len(debug.get_event_pairs(CBEventType.LLM)) == 4
        assert counter.prompt_llm_token_count == 4 * subject.usage["prompt_tokens"]
        assert counter.completion_llm_token_count == 4 * subject.usage["completion_tokens"]

    async def test_one_instrumentation_event_a_call(self, subject: LLMSubject) -> None:
        """Check that each call has one start event and one end event."""
        subject.script("One two.", "One two.")
        llm = subject.make()
        with watching() as (_, events):
            await llm.acomplete("hi")
            [_ async for _ in await llm.astream_complete("hi")]
        names = [type(event).__name__ for event in events.seen]
        kinds = [n for n in names if n.startswith("LLM") and n.endswith(("StartEvent", "EndEvent"))]
        assert kinds == ["LLMCompletionStartEvent", "LLMCompletionEndEvent"] * 2

    async def test_leaving_a_stream_early_is_no_error(self, subject: LLMSubject) -> None:
        """Check that a caller may leave a stream early, and the next call works."""
        subject.script("One two three.", "Again.")
        debug = LlamaDebugHandler(print_trace_on_end=False)
        llm = subject.make(callback_manager=CallbackManager([debug]))
        stream = await llm.astream_chat([user("hi")])
        async for _ in stream:
            break
        # A loop that is left leaves the generator open until the garbage collector comes.
        await stream.aclose()
        (pair,) = debug.get_event_pairs(CBEventType.LLM)
        assert "exception" not in (pair[1].payload or {})
        assert (await llm.achat([user("hi")])).message.content == "Again."

    async def test_spans_of_streams_are_open_until_their_end(self, subject: LLMSubject) -> None:
        """Check that a stream's span ends with the stream."""
        subject.script("One two.", "One two.")
        llm = subject.make()
        with watching() as (spans, _):
            async for _chunk in await llm.astream_chat([user("hi")]):
                assert spans.named("astream_chat") == []
        assert [how for how, _ in spans.named("astream_chat")] == ["end"]

    async def test_failures_are_told(self, subject: LLMSubject) -> None:
        """Check that a failure, also of a stream, reaches the caller and the handlers."""
        subject.script(Reply(error=_QUOTA, repeat=True))
        debug = LlamaDebugHandler(print_trace_on_end=False)
        llm = subject.make(callback_manager=CallbackManager([debug]))
        with pytest.raises(Exception, match="quota"):
            await llm.achat([user("hi")])
        with pytest.raises(Exception, match="quota"):
            [_ async for _ in await llm.astream_chat([user("hi")])]
        pairs = debug.get_event_pairs(CBEventType.LLM)
        # The stream's failure counts, too: it comes after the call has returned, where it is easily
        # lost.
        assert ["exception" in (end.payload or {}) for _, end in pairs] == [True, True]
