"""What knows where calls are made costs nothing at the tokens of an answer."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from letta_adapters.langchain import ChatLetta
from letta_adapters.langchain.runs import Runs, runs
from tests.langchain.graphs.conftest import World

WORDS = "One two three four five six seven eight nine ten."


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What LangChain asks of the handler about a model's run: once for each event of the run."""
    asked: list[str] = []

    def look(_: Runs) -> bool:
        asked.append("ignore_llm")
        return True

    monkeypatch.setattr(Runs, "ignore_llm", property(look))
    return asked


def invoke(model: ChatLetta) -> str:
    return str(model.invoke("Hello").text)


async def ainvoke(model: ChatLetta) -> str:
    return str((await model.ainvoke("Hello")).text)


def stream(model: ChatLetta) -> str:
    return "".join(str(chunk.content) for chunk in model.stream("Hello"))


async def astream(model: ChatLetta) -> str:
    return "".join([str(chunk.content) async for chunk in model.astream("Hello")])


def events(model: ChatLetta) -> str:
    return str(model.stream_events("Hello", version="v3").text)


async def aevents(model: ChatLetta) -> str:
    return str(await (await model.astream_events("Hello", version="v3")).text)


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_the_run_of_a_model_is_not_watched(world: World, looks: list[str]) -> None:
    for read in (invoke, ainvoke, stream, astream, events, aevents):
        world.script(WORDS)
        said = read(world.model())
        assert (said if isinstance(said, str) else await said) == WORDS
    assert not looks


async def test_nor_is_one_inside_a_graph(world: World, looks: list[str]) -> None:
    model = world.model()

    def answer(state: MessagesState) -> Any:
        return {"messages": [HumanMessage("".join(c.content for c in model.stream("Hello")))]}

    async def aanswer(state: MessagesState, config: RunnableConfig) -> Any:
        parts = [str(chunk.content) async for chunk in model.astream("Hello", config)]
        return {"messages": [HumanMessage("".join(parts))]}

    for node in (answer, aanswer):
        world.script(WORDS)
        app = StateGraph(MessagesState).add_node("chat", node).add_edge(START, "chat").compile()
        asked = await app.ainvoke({"messages": [HumanMessage("Hello")]})
        assert asked["messages"][-1].content == WORDS
    assert not looks


async def test_a_reader_and_what_a_call_does_are_watched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = world.model()
    seen = []

    def watched() -> None:
        seen.append(runs in CallbackManager.configure().handlers)

    class Inside(BaseCallbackHandler):
        run_inline = True

        def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
            watched()

    world.script(WORDS, WORDS)
    for _ in model.stream("Hello", {"callbacks": [Inside()]}):
        watched()
    async for _ in model.astream("Hello", {"callbacks": [Inside()]}):
        watched()
    watched()
    assert len(seen) > 20
    assert all(seen)


async def test_a_tracer_may_stand_before_the_stream(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those do that replace LangChain's methods: theirs is an iterator, and no generator."""
    stream, astream = BaseChatModel.stream, BaseChatModel.astream

    class Watched:
        def __init__(self, made: Any) -> None:
            self.made = made

        def __iter__(self) -> Any:
            return self

        def __aiter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return next(self.made)

        async def __anext__(self) -> Any:
            return await anext(self.made)

    monkeypatch.setattr(BaseChatModel, "stream", lambda *a, **k: Watched(stream(*a, **k)))
    monkeypatch.setattr(BaseChatModel, "astream", lambda *a, **k: Watched(astream(*a, **k)))
    world.script(WORDS, WORDS)
    model = world.model()
    assert "".join(str(chunk.content) for chunk in model.stream("Hello")) == WORDS
    parts = [str(chunk.content) async for chunk in model.astream("Hello")]
    assert "".join(parts) == WORDS
