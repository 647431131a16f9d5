"""Do the least that an adapter of a framework can do, with raw httpx: what bounds the adapters.

Each floor builds only the objects that its framework requires for the same events, checks nothing,
remembers nothing, and stops no agent. What it costs, no adapter with these objects gets below.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

import httpx
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from llama_index.core.agent.workflow import AgentOutput, BaseWorkflowAgent
from llama_index.core.agent.workflow.workflow_events import AgentStream
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, TextBlock
from llama_index.core.llms import MockLLM

from benchmarks.clients import _BODY, _path

_ASSISTANT = "assistant_message"
# The events that are written without giving their consumer a turn, as in the adapter.
_BACKLOG = 16


def read_texts(client: httpx.Client, conversation: str) -> Iterator[str]:
    """Yield the texts of a turn as :func:`benchmarks.clients.raw_lines` reads them."""
    with client.stream("POST", _path(conversation), json=_BODY) as response:
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line[6:])
            if event["message_type"] == _ASSISTANT:
                yield event["content"]


async def aread_texts(client: httpx.AsyncClient, conversation: str) -> AsyncIterator[str]:
    """Yield the same texts asynchronously."""
    async with client.stream("POST", _path(conversation), json=_BODY) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line[6:])
            if event["message_type"] == _ASSISTANT:
                yield event["content"]


class FloorChatModel(BaseChatModel):
    """A LangChain model that knows where its answer is, and no more.

    Attributes:
        answer: Returns a whole answer.
        texts: Returns the texts of a streamed one.
    """

    answer: Callable[[], str] | None = None
    texts: Callable[[], Iterable[str]] | None = None

    @property
    def _llm_type(self) -> str:
        return "floor"

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        assert self.answer is not None
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.answer()))])

    def _stream_chat_model_events(self, messages: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Yield the events of LangChain's v3 protocol, as plain dicts."""
        assert self.texts is not None
        yield {"event": "message-start", "role": "ai", "id": "floor", "metadata": {}}
        block = {"type": "text", "text": ""}
        yield {"event": "content-block-start", "index": 0, "content": block}
        said = []
        for text in self.texts():
            said.append(text)
            delta = {"type": "text-delta", "text": text}
            yield {"event": "content-block-delta", "index": 0, "delta": delta}
        block = {"type": "text", "text": "".join(said)}
        yield {"event": "content-block-finish", "index": 0, "content": block}
        yield {"event": "message-finish", "metadata": {}}


def respond(texts: Iterable[str]) -> Iterator[ChatResponse]:
    """Yield LlamaIndex' response for each text; its message has all text so far."""
    said = ""
    for text in texts:
        said += text
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=[TextBlock(text=said)])
        yield ChatResponse(message=message, delta=text)


class FloorAgent(BaseWorkflowAgent):
    """A LlamaIndex agent that writes an event for each text of one answer, and no more.

    Attributes:
        texts: Returns the texts.
    """

    texts: Callable[[], AsyncIterator[str]]

    @classmethod
    def reading(cls, texts: Callable[[], AsyncIterator[str]]) -> FloorAgent:
        """Return the agent of these texts."""
        return cls(texts=texts, llm=MockLLM(), tools=[])

    async def take_step(self, ctx: Any, llm_input: Any, tools: Any, memory: Any) -> AgentOutput:
        """Write the events, and return the answer."""
        said, written = "", 0
        async for text in self.texts():
            said += text
            ctx.write_event_to_stream(
                AgentStream.model_construct(
                    delta=text, response=said, current_agent_name=self.name, tool_calls=[]
                )
            )
            written += 1
            if written % _BACKLOG == 0:
                await asyncio.sleep(0)
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=[TextBlock(text=said)])
        return AgentOutput(response=message, tool_calls=[], current_agent_name=self.name)

    async def handle_tool_call_results(self, ctx: Any, results: Sequence[Any], memory: Any) -> None:
        """Do nothing: there are no tools."""

    async def finalize(self, ctx: Any, output: AgentOutput, memory: Any) -> AgentOutput:
        """Return the output as it is."""
        return output
