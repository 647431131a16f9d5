"""Where people put a model or an agent: histories, middleware, subgraphs, other people's tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.messages import HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy

from letta_adapters import LettaClient
from letta_adapters.chat import Marker, ResponseCompleted, ResponseStarted
from letta_adapters.chat.response import ResponseReader
from letta_adapters.langchain import ChatLetta
from letta_adapters.langchain.chunks import ChunkMaker
from letta_adapters.messages import QueueUpdateMessage
from letta_adapters.testing.scripted_model import ModelError, Reply, ScriptedModel, ToolUse
from tests.langchain.test_runnable import (
    Make,
    bash,
    get_weather,
    graph_of,
    make,
    script,
    thread,
    weather,
)

__all__ = ["make", "script"]

MakeModel = Callable[..., ChatLetta]


@pytest.fixture
def model(embedded: LettaClient, embedded_agent: str, embedded_model: ScriptedModel) -> MakeModel:
    embedded_model.clear()

    def made(**fields: Any) -> ChatLetta:
        return ChatLetta(agent_id=embedded_agent, client=embedded, **fields)

    return made


def users(embedded_model: ScriptedModel) -> list[str]:
    """What users said, in the last request that the agent's model got."""
    messages = embedded_model.requests[-1].messages
    return [str(m["content"]) for m in messages if m["role"] == "user"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_history_that_is_kept_by_langchain(
    model: MakeModel, script: Any, embedded_model: ScriptedModel
) -> None:
    script("Hello Ada.", "You are Ada.")
    history = InMemoryChatMessageHistory()
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Be kind."), MessagesPlaceholder("past"), ("user", "{question}")]
    )
    chain = RunnableWithMessageHistory(
        prompt | model(),
        lambda _: history,
        input_messages_key="question",
        history_messages_key="past",
    )
    config: Any = {"configurable": {"session_id": "ada"}}
    chain.invoke({"question": "I am Ada."}, config)
    answer = chain.invoke({"question": "Who am I?"}, config)
    assert answer.text == "You are Ada."
    assert [message.type for message in history.messages] == ["human", "ai"] * 2
    said = "\n".join(users(embedded_model))
    assert [said.count(text) for text in ("I am Ada.", "Who am I?", "Hello Ada.")] == [1, 1, 0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_history_around_a_whole_agent(make: Make, script: Any) -> None:
    script(Reply(tool_calls=[weather("Rome", "w1")]), "Sunny.", "Still sunny.")
    history = InMemoryChatMessageHistory()
    agent = RunnableWithMessageHistory(
        make(tools=[get_weather]),
        lambda _: history,
        input_messages_key="messages",
        output_messages_key="messages",
    )
    config: Any = {"configurable": {"session_id": "rome"}}
    agent.invoke({"messages": [HumanMessage("Rome?")]}, config)
    agent.invoke({"messages": [HumanMessage("And now?")]}, config)
    assert [message.type for message in history.messages] == [
        *["human", "ai", "tool", "ai"],
        *["human", "ai"],
    ]
    places = {m.response_metadata["conversation_id"] for m in history.messages if m.type == "ai"}
    assert len(places) == 1


@pytest.mark.parametrize(
    ("decision", "ran"),
    [
        ({"type": "approve"}, ["Rome"]),
        ({"type": "reject", "message": "Not Rome."}, []),
        ({"type": "edit", "edited_action": {"name": "look", "args": {"city": "Oslo"}}}, ["Oslo"]),
    ],
    ids=["approve", "reject", "edit"],
)
def test_a_person_decides_in_middleware(
    model: MakeModel,
    embedded_model: ScriptedModel,
    script: Any,
    decision: dict[str, Any],
    ran: list[str],
) -> None:
    seen: list[str] = []

    def look(city: str) -> str:
        """Look at a city."""
        seen.append(city)
        return f"sunny in {city}"

    script(Reply(tool_calls=[ToolUse("look", {"city": "Rome"}, id="hitl-1")]), "Well.")
    agent: Any = create_agent(
        model(),
        tools=[look],
        middleware=[HumanInTheLoopMiddleware(interrupt_on={"look": True})],
        checkpointer=InMemorySaver(),
    )
    config = thread(f"hitl {decision['type']}")
    paused = agent.invoke({"messages": "Rome?"}, config)
    assert paused["__interrupt__"]
    done = agent.invoke(Command(resume={"decisions": [decision]}), config)
    assert (done["messages"][-1].text, seen) == ("Well.", ran)
    results = [m for m in embedded_model.requests[-1].messages if m["role"] == "tool"]
    assert len(results) == 1
    expected = "Not Rome." if not ran else f"sunny in {ran[0]}"
    assert expected in str(results[0]["content"])
    assert len(users(embedded_model)) == 1


def test_middleware_that_tries_again_does_not_say_it_twice(
    model: MakeModel, script: Any, embedded_model: ScriptedModel
) -> None:
    quota = ModelError(429, "No quota left", "insufficient_quota", "insufficient_quota")
    script(Reply(error=quota), "Now.")
    retrying = ModelRetryMiddleware(
        max_retries=1, initial_delay=0, on_failure="error", retry_on=lambda _: True
    )
    agent: Any = create_agent(model(), tools=[], middleware=[retrying])
    answer = agent.invoke({"messages": "Only once, please."})["messages"][-1]
    assert answer.text == "Now."
    assert "\n".join(users(embedded_model)).count("Only once, please.") == 1


def test_middleware_that_asks_another_model(
    model: MakeModel, script: Any, embedded_model: ScriptedModel
) -> None:
    quota = ModelError(429, "No quota left", "insufficient_quota", "insufficient_quota")
    script(Reply(error=quota), "The second.")
    fallback = ModelFallbackMiddleware(model(model="lmstudio/scripted-two"))
    agent: Any = create_agent(model(), tools=[], middleware=[fallback])
    assert agent.invoke({"messages": "hi"})["messages"][-1].text == "The second."
    assert embedded_model.requests[-1].body["model"] == "scripted-two"


def test_a_summary_of_what_the_agent_remembers_is_not_said_to_it(
    model: MakeModel, script: Any, embedded_model: ScriptedModel
) -> None:
    script("One.", "Two.", "A SUMMARY.", "Three.")
    agent: Any = create_agent(
        model(),
        tools=[],
        middleware=[
            SummarizationMiddleware(model=model(), trigger=("messages", 5), keep=("messages", 1))
        ],
        checkpointer=InMemorySaver(),
    )
    config = thread("summarized")
    for question in ("first", "second"):
        agent.invoke({"messages": question}, config)
    done = agent.invoke({"messages": "third"}, config)
    assert done["messages"][-1].text == "Three."
    told = "\n".join(users(embedded_model))
    assert "A SUMMARY." not in told
    assert told.count("third") == 1


def test_a_graph_inside_a_graph(make: Make, script: Any, tmp_path: Path) -> None:
    file = tmp_path / "made"
    script(Reply(tool_calls=[bash(f"touch {file}", "b1")]), "Touched.", "Remembered.")
    builder = StateGraph(MessagesState)
    builder.add_node("inner", graph_of(make()))
    builder.add_edge(START, "inner")
    graph = builder.compile(checkpointer=InMemorySaver())
    config = thread("inside")
    assert graph.invoke({"messages": "go"}, config)["__interrupt__"]
    done = graph.invoke(Command(resume=True), config)
    assert (done["messages"][-1].text, file.exists()) == ("Touched.", True)
    again = graph.invoke({"messages": "again"}, config)["messages"]
    places = {m.response_metadata["conversation_id"] for m in again if m.type == "ai"}
    assert (again[-1].text, len(places)) == ("Remembered.", 1)


def test_a_node_that_runs_again_does_not_say_it_twice(
    make: Make, script: Any, embedded_model: ScriptedModel
) -> None:
    script("Once.")
    tries: list[int] = []

    def fails_first(state: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("the node failed after the agent had answered")
        return state

    builder = StateGraph(MessagesState)
    builder.add_node(
        "agent",
        make() | RunnableLambda(fails_first),
        retry_policy=RetryPolicy(max_attempts=2, initial_interval=0),
    )
    builder.add_edge(START, "agent")
    graph = builder.compile()
    asked = len(embedded_model.requests)
    done = graph.invoke({"messages": [HumanMessage("Say it.")]})
    assert (done["messages"][-1].text, len(tries)) == ("Once.", 2)
    assert len(embedded_model.requests) == asked + 1


async def test_what_is_no_answer_is_a_custom_event(make: Make, script: Any) -> None:
    broken = ModelError(500, "try again")
    script(Reply(error=broken), Reply(reasoning="Hm.", text="Fine."))
    events = [e async for e in make().astream_events("hi", version="v2")]
    custom = {e["name"]: e["data"] for e in events if e["event"] == "on_custom_event"}
    assert custom["letta_reasoning"] == {"reasoning": "Hm."}
    assert custom["letta_retry"]["attempt"] == 1


def test_a_batch_keeps_to_its_limit(make: Make, script: Any) -> None:
    script(*[Reply(f"Answer {n}.", when=f"question {n}.") for n in range(6)])
    questions = [f"question {n}." for n in range(6)]
    answers = make(output="text").batch(questions, {"max_concurrency": 3})
    assert answers == [f"Answer {n}." for n in range(6)]


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_the_state_of_the_loop_is_a_custom_event(make: Make, script: Any) -> None:
    """Told of when it is asked for, and no part of the answer."""
    script(*["Fine."] * 4)
    agent = make(session_options={"include_status_messages": True})
    seen: list[tuple[str, Any]] = []

    class Watch(BaseCallbackHandler):
        def on_custom_event(self, name: str, data: Any, **_: Any) -> None:
            seen.append((name, data))

    given: Any = {"callbacks": [Watch()]}
    answers = [agent.invoke("a", given), await agent.ainvoke("b", given)]
    answers.append(agent.stream_events("c", given, version="v3").output)
    answers.append(await (await agent.astream_events("d", given, version="v3")).output)
    assert [answer["messages"][-1].text for answer in answers] == ["Fine."] * 4
    assert answers[0]["messages"][-1].content == "Fine."
    statuses = [data["status"] for name, data in seen if name == "letta_loop_status"]
    assert statuses.count("PROCESSING_API_RESPONSE") >= 4


def test_a_queue_is_a_note_of_the_message() -> None:
    queue = QueueUpdateMessage(({"id": "q-1", "content": "wait"},))
    reader = ResponseReader()
    end = ResponseCompleted(Marker("local", "agent-1", "conv-1", ()))
    events: list[Any] = [ResponseStarted("1", "agent-1", "conv-1", "local"), queue, end]
    maker = ChunkMaker(reader)
    chunks = [chunk.message for event in events for chunk in maker.feed(event)]
    whole = add_ai_message_chunks(*chunks, *[c.message for c in maker.finish()])
    assert whole.content == ""
    (note,) = whole.response_metadata["letta_notes"]
    assert (note["type"], note["items"][0]["content"]) == ("letta_queue", "wait")
