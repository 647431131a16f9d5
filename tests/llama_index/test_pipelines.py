"""Query engines, synthesizers, chat engines, ingestion: what each asks of ``LettaLLM``, exactly.

On the real embedded runtime: every call that is counted here was answered by an agent, and the
model behind it was asked exactly as often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.extractors import TitleExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import CitationQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step
from pydantic import BaseModel

from letta_adapters import LettaClient
from letta_adapters.llama_index import LettaLLM
from letta_adapters.testing.scripted_model import Reply, ScriptedModel

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.usefixtures("thread_s_event_loop"),
]

ANSWER = "It is sunny."
ADA = '{"name": "Ada", "age": 36}'
SU, U, SUAU = ["system", "user"], ["user"], ["system", "user", "assistant", "user"]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class Asked(LettaLLM):
    """Notes which of its methods is called, and with which roles."""

    _calls: list[tuple[str, list[str]]] = PrivateAttr(default_factory=list)

    @property
    def calls(self) -> list[tuple[str, list[str]]]:
        return self._calls

    def _note(self, method: str, messages: Sequence[ChatMessage] = ()) -> None:
        self._calls.append((method, [message.role.value for message in messages]))

    def chat(self, messages: Any, **kwargs: Any) -> Any:
        self._note("chat", messages)
        return super().chat(messages, **kwargs)

    async def achat(self, messages: Any, **kwargs: Any) -> Any:
        self._note("achat", messages)
        return await super().achat(messages, **kwargs)

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        self._note("stream_chat", messages)
        return super().stream_chat(messages, **kwargs)

    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        self._note("astream_chat", messages)
        return await super().astream_chat(messages, **kwargs)

    def complete(self, *args: Any, **kwargs: Any) -> Any:
        self._note("complete")
        return super().complete(*args, **kwargs)

    async def acomplete(self, *args: Any, **kwargs: Any) -> Any:
        self._note("acomplete")
        return await super().acomplete(*args, **kwargs)


@pytest.fixture
def llm(embedded: LettaClient, embedded_agent: str, embedded_model: ScriptedModel) -> Asked:
    embedded_model.clear()
    embedded_model.script(*[Reply(ANSWER)] * 9)
    return Asked(agent_id=embedded_agent, client=embedded)


@pytest.fixture
def model(embedded_model: ScriptedModel) -> ScriptedModel:
    return embedded_model


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> VectorStoreIndex:
    monkeypatch.setattr(Settings, "_embed_model", MockEmbedding(embed_dim=4))
    texts = ["The sun shines in Rome.", "It rains in Oslo."]
    return VectorStoreIndex.from_documents([Document(text=text) for text in texts])


def nodes(count: int) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=f"Fact {n}."), score=1.0) for n in range(count)]


def check(llm: Asked, model: ScriptedModel, *expected: tuple[str, list[str]]) -> None:
    """Exactly these calls, and the agent's model was asked once for each."""
    assert llm.calls == list(expected)
    assert len(model.requests) == len(expected)


# -- query engines ------------------------------------------------------------------------------


def test_a_query_engine(llm: Asked, model: ScriptedModel, index: VectorStoreIndex) -> None:
    assert str(index.as_query_engine(llm=llm).query("Rome?")) == ANSWER
    check(llm, model, ("chat", SU))
    assert "The sun shines in Rome." in str(model.requests[-1].messages[-1]["content"])


async def test_an_asynchronous_query(
    llm: Asked, model: ScriptedModel, index: VectorStoreIndex
) -> None:
    assert str(await index.as_query_engine(llm=llm).aquery("Rome?")) == ANSWER
    check(llm, model, ("achat", SU))


def test_a_streaming_query(llm: Asked, model: ScriptedModel, index: VectorStoreIndex) -> None:
    response: Any = index.as_query_engine(llm=llm, streaming=True).query("Rome?")
    assert list(response.response_gen) == ["It ", "is ", "sunny.", ""]
    check(llm, model, ("stream_chat", SU))


async def test_a_streaming_asynchronous_query(
    llm: Asked, model: ScriptedModel, index: VectorStoreIndex
) -> None:
    response: Any = await index.as_query_engine(llm=llm, streaming=True).aquery("Rome?")
    texts = [text async for text in response.async_response_gen()]
    assert "".join(texts) == ANSWER
    check(llm, model, ("astream_chat", SU))


def test_a_citation_query_engine(llm: Asked, model: ScriptedModel, index: VectorStoreIndex) -> None:
    response = CitationQueryEngine.from_args(index, llm=llm).query("Rome?")
    assert str(response) == ANSWER
    assert response.source_nodes
    check(llm, model, ("chat", U))


def test_a_query_with_a_shape(llm: Asked, model: ScriptedModel, index: VectorStoreIndex) -> None:
    model.script(ADA)
    response: Any = index.as_query_engine(llm=llm, output_cls=Person).query("Who?")
    assert response.response == Person(name="Ada", age=36)
    check(llm, model, ("chat", SU))


# -- synthesizers -------------------------------------------------------------------------------


def test_refine(llm: Asked, model: ScriptedModel) -> None:
    made = get_response_synthesizer(llm=llm, response_mode="refine")
    assert str(made.synthesize("Rome?", nodes(6))) == ANSWER
    check(llm, model, ("chat", SU), *[("chat", U)] * 5)


def test_accumulate(llm: Asked, model: ScriptedModel) -> None:
    made = get_response_synthesizer(llm=llm, response_mode="accumulate")
    assert str(made.synthesize("Rome?", nodes(6))).count(ANSWER) == 6
    check(llm, model, *[("chat", SU)] * 6)


@pytest.mark.parametrize(
    ("mode", "roles"),
    [
        ("compact", SU),
        ("tree_summarize", SU),
        ("simple_summarize", SU),
        ("compact_accumulate", SU),
        ("generation", U),
    ],
)
def test_one_call(llm: Asked, model: ScriptedModel, mode: Any, roles: list[str]) -> None:
    made = get_response_synthesizer(llm=llm, response_mode=mode)
    assert ANSWER in str(made.synthesize("Rome?", nodes(6)))
    check(llm, model, ("chat", roles))


def test_synthesizers_that_make_event_loops(llm: Asked, model: ScriptedModel) -> None:
    """``use_async`` runs an event loop of its own for every query."""
    made = get_response_synthesizer(llm=llm, response_mode="accumulate", use_async=True)
    for _ in range(2):
        assert str(made.synthesize("Rome?", nodes(3))).count(ANSWER) == 3
    check(llm, model, *[("achat", SU)] * 6)


# -- structure ----------------------------------------------------------------------------------


def test_structured_predict(llm: Asked, model: ScriptedModel) -> None:
    model.script(ADA)
    found = llm.structured_predict(Person, PromptTemplate("Who is {who}?"), who="Ada")
    assert found == Person(name="Ada", age=36)
    check(llm, model, ("chat", U))


def test_a_structured_llm(llm: Asked, model: ScriptedModel) -> None:
    model.script(ADA)
    response = llm.as_structured_llm(Person).chat([ChatMessage(role="user", content="Who?")])
    assert response.raw == Person(name="Ada", age=36)
    check(llm, model, ("chat", U))


async def test_streamed_structure(llm: Asked, model: ScriptedModel) -> None:
    model.script(ADA, ADA)
    prompt = PromptTemplate("Who is {who}?")
    assert list(llm.stream_structured_predict(Person, prompt, who="A"))[-1].name == "Ada"
    stream = await llm.astream_structured_predict(Person, prompt, who="A")
    assert [item async for item in stream][-1].age == 36
    check(llm, model, ("stream_chat", U), ("astream_chat", U))


# -- chat engines -------------------------------------------------------------------------------


def chat_engine(index: VectorStoreIndex, llm: Asked, mode: Any) -> Any:
    # The default memory opens an SQLite database that it never closes.
    memory = ChatMemoryBuffer.from_defaults()
    return index.as_chat_engine(chat_mode=mode, llm=llm, memory=memory)


def test_a_context_chat_engine(llm: Asked, model: ScriptedModel, index: VectorStoreIndex) -> None:
    engine = chat_engine(index, llm, "context")
    engine.chat("Rome?")
    assert str(engine.chat("And now?")) == ANSWER
    check(llm, model, ("chat", SU), ("chat", SUAU))


def test_a_condensing_chat_engine(
    llm: Asked, model: ScriptedModel, index: VectorStoreIndex
) -> None:
    engine = chat_engine(index, llm, "condense_plus_context")
    engine.chat("Rome?")
    assert str(engine.chat("And now?")) == ANSWER
    check(llm, model, ("chat", SU), ("complete", []), ("chat", SUAU))


def test_a_streaming_chat_engine(llm: Asked, model: ScriptedModel, index: VectorStoreIndex) -> None:
    engine = chat_engine(index, llm, "context")
    assert "".join(engine.stream_chat("Rome?").response_gen) == ANSWER
    check(llm, model, ("stream_chat", SU))


# -- ingestion and workflows --------------------------------------------------------------------


async def test_ingestion(llm: Asked, model: ScriptedModel) -> None:
    steps = [SentenceSplitter(), TitleExtractor(llm=llm, show_progress=False)]
    pipeline = IngestionPipeline(transformations=steps)
    documents = [Document(text=f"About {city}.") for city in ("Rome", "Oslo")]
    made = await pipeline.arun(documents=documents)
    assert [node.metadata["document_title"] for node in made] == [ANSWER] * 2
    check(llm, model, *[("achat", U)] * 4)


async def test_a_workflow(llm: Asked, model: ScriptedModel) -> None:
    class Ask(Workflow):
        """Asks three times at once."""

        @step
        async def ask(self, ev: StartEvent) -> StopEvent:
            answers = await asyncio.gather(*(llm.acomplete(q) for q in ev.questions))
            return StopEvent(result=[str(answer) for answer in answers])

    result = await Ask(timeout=30).run(questions=["a", "b", "c"])
    assert result == [ANSWER] * 3
    check(llm, model, *[("acomplete", [])] * 3)
