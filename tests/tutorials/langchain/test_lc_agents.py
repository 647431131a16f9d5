"""Agents that call tools: with a memory, an object as the answer, a database, a store, a person."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import create_react_agent
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from tests.tutorials.control import call_all, calls, gives, line
from tests.tutorials.langchain.conftest import (
    WITH_PARALLEL_CALLS,
    WITH_RECORDING,
    Performed,
    performed_by,
    recorded,
)

THREAD: Any = {"configurable": {"thread_id": "1"}}


def ask(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text}]}


class Weather:
    """A tool, and how often it ran."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get_weather(self, city: str) -> str:
        """Say the weather of a city."""
        self.asked.append(city)
        return f"It is sunny in {city}."


def agent_with_memory(model: Any) -> Any:
    """Call two tools at once, then remember them in the next turn."""
    weather = Weather()
    agent = create_agent(
        model,
        [weather.get_weather],
        system_prompt="You speak of the weather.",
        checkpointer=InMemorySaver(),
    )
    agent.invoke(ask("How is it in Rome and in Oslo?"), THREAD)
    state = agent.invoke(ask("Where was that?"), THREAD)
    return [state, sorted(weather.asked)]


BOTH = call_all(("get_weather", {"city": "Rome"}), ("get_weather", {"city": "Oslo"}))


@WITH_PARALLEL_CALLS
def test_an_agent_with_a_memory(performed: Performed) -> None:
    script = [
        line("in Rome and in Oslo?", BOTH, knows="You speak of the weather."),
        line(["sunny in Rome", "sunny in Oslo"], "Both are sunny."),
        line("Where was that?", "Rome and Oslo.", knows=["sunny in Rome", "Both are sunny."]),
    ]
    state, asked = performed.same(agent_with_memory, script)
    assert asked == ["Oslo", "Rome"]
    kinds = ["human", "ai", "tool", "tool", "ai", "human", "ai"]
    assert [next(iter(message)) for message in state["messages"]] == kinds


@performed_by(recorded())
def test_one_call_at_a_time(performed: Performed) -> None:
    """The Letta API takes one call of an answer, unless the agent is told to call in parallel."""
    letta = [
        line("in Rome and in Oslo?", BOTH),
        line("sunny in Rome", calls("get_weather", city="Oslo")),
        line("sunny in Oslo", "Both are sunny."),
        line("Where was that?", "Rome and Oslo."),
    ]
    control = [letta[0], line(["sunny in Rome", "sunny in Oslo"], "Both are sunny."), letta[-1]]
    (expected, ran), (state, same) = performed.both(agent_with_memory, letta, control)
    assert [len(m.get("calls", ())) for m in expected["messages"] if "ai" in m] == [2, 0, 0]
    assert [len(m.get("calls", ())) for m in state["messages"] if "ai" in m] == [1, 1, 0, 0]
    assert ran == same == ["Oslo", "Rome"]


class Report(BaseModel):
    """The weather as data."""

    sky: str


# LangGraph's own agent is deprecated for LangChain's, and in many tutorials.
@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_an_object_after_the_final_answer(performed: Performed) -> None:
    def tutorial(model: Any) -> Any:
        weather = Weather()
        agent = create_react_agent(model, [weather.get_weather], response_format=Report)
        return [agent.invoke(ask("How is Rome?")), weather.asked]

    script = [
        line("How is Rome?", calls("get_weather", city="Rome")),
        line("sunny in Rome", "Rome is sunny."),
        gives("", "Report", sky="clear", knows="Rome is sunny."),
    ]
    state, asked = performed.same(tutorial, script)
    assert state["structured_response"] == {"Report": {"sky": "clear"}}
    assert asked == ["Rome"]


@WITH_RECORDING
def test_an_object_as_the_final_answer(performed: Performed) -> None:
    def tutorial(model: Any) -> Any:
        weather = Weather()
        agent = create_agent(model, [weather.get_weather], response_format=ToolStrategy(Report))
        return [agent.invoke(ask("How is Rome?")), weather.asked]

    script = [
        line("How is Rome?", calls("get_weather", city="Rome")),
        line("sunny in Rome", calls("Report", sky="clear")),
    ]
    state, asked = performed.same(tutorial, script)
    assert state["structured_response"] == {"Report": {"sky": "clear"}}
    assert asked == ["Rome"]


def sql_agent(model: Any) -> Any:
    """Look into a database: its tables, their columns, a query that fails, and one that works."""
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute("create table track (title text, seconds integer)")
    database.executemany("insert into track values (?, ?)", [("Blue", 200), ("Red", 310)])
    ran: list[str] = []

    def list_tables() -> str:
        """List the tables."""
        ran.append("list_tables")
        found = database.execute("select name from sqlite_master where type = 'table'")
        return ", ".join(name for (name,) in found)

    def describe(table: str) -> str:
        """Say how a table is made."""
        ran.append("describe")
        found = database.execute("select sql from sqlite_master where name = ?", [table])
        return str(found.fetchone()[0])

    def query(sql: str) -> str:
        """Run a query; its rows, or what is wrong with it."""
        ran.append("query")
        try:
            return str(database.execute(sql).fetchall())
        except sqlite3.Error as error:
            return f"Error: {error}"

    agent = create_agent(
        model, [list_tables, describe, query], system_prompt="Answer from the database."
    )
    state = agent.invoke(ask("Which track is the longest?"))
    database.close()
    return [state, ran]


@WITH_RECORDING
def test_an_sql_agent(performed: Performed) -> None:
    wrong = "select name from track order by seconds desc limit 1"
    right = wrong.replace("name", "title")
    script = [
        line("Which track is the longest?", calls("list_tables"), knows="from the database"),
        line("track", calls("describe", table="track")),
        line("seconds integer", calls("query", sql=wrong)),
        line("no such column: name", calls("query", sql=right)),
        line("Red", "Red is the longest."),
    ]
    state, ran = performed.same(sql_agent, script)
    assert state["messages"][-1] == {"ai": "Red is the longest."}
    assert ran == ["list_tables", "describe", "query", "query"]


def long_term_memory(model: Any) -> Any:
    """Keep facts in a store that all threads of a user share."""
    store = InMemoryStore()

    def remember(key: str, fact: str, runtime: ToolRuntime) -> str:
        """Keep a fact about the user."""
        assert runtime.store is not None
        runtime.store.put(("facts", "ada"), key, {"fact": fact})
        return "Kept."

    def recall(key: str, runtime: ToolRuntime) -> str:
        """Look a fact up."""
        assert runtime.store is not None
        found = runtime.store.get(("facts", "ada"), key)
        return found.value["fact"] if found else "Nothing."

    agent = create_agent(model, [remember, recall], checkpointer=InMemorySaver(), store=store)
    states = [
        agent.invoke(ask(text), {"configurable": {"thread_id": thread}})
        for thread, text in [("monday", "I like tea."), ("friday", "What do I drink?")]
    ]
    return [states, [item.value for item in store.search(("facts", "ada"))]]


def test_a_long_term_store(performed: Performed) -> None:
    script = [
        line("I like tea.", calls("remember", key="drink", fact="likes tea")),
        line("Kept.", "Noted."),
        line("What do I drink?", calls("recall", key="drink")),
        line("likes tea", "Tea."),
    ]
    states, kept = performed.same(long_term_memory, script)
    assert kept == [{"fact": "likes tea"}]
    assert [state["messages"][-1] for state in states] == [{"ai": "Noted."}, {"ai": "Tea."}]


def reviewed_calls(model: Any) -> Any:
    """Let a person go on with a call, change its arguments, or answer instead of it."""
    weather = Weather()
    bound = model.bind_tools([weather.get_weather])

    def answer(state: MessagesState) -> Any:
        return {"messages": [bound.invoke(state["messages"])]}

    def review(state: MessagesState) -> Any:
        said = state["messages"][-1]
        assert isinstance(said, AIMessage)
        call = said.tool_calls[0]
        decision = interrupt({"name": call["name"], "args": call["args"]})
        if decision["do"] == "go on":
            return Command(goto="run")
        if decision["do"] == "change":
            changed = {
                "role": "ai",
                "content": said.content,
                "tool_calls": [{**call, "args": decision["args"]}],
                "id": said.id,  # the same id replaces the message
            }
            return Command(goto="run", update={"messages": [changed]})
        told = ToolMessage(decision["say"], tool_call_id=call["id"], name=call["name"])
        return Command(goto="answer", update={"messages": [told]})

    def run(state: MessagesState) -> Any:
        said = state["messages"][-1]
        assert isinstance(said, AIMessage)
        return {
            "messages": [
                ToolMessage(weather.get_weather(**call["args"]), tool_call_id=call["id"])
                for call in said.tool_calls
            ]
        }

    def next_step(state: MessagesState) -> str:
        said = state["messages"][-1]
        return "review" if isinstance(said, AIMessage) and said.tool_calls else "__end__"

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_node("review", review, destinations=("run", "answer"))
    graph.add_node("run", run)
    graph.add_edge(START, "answer")
    graph.add_conditional_edges("answer", next_step, ["review", "__end__"])
    graph.add_edge("run", "answer")
    app = graph.compile(checkpointer=InMemorySaver())

    decisions = [
        {"do": "go on"},
        {"do": "change", "args": {"city": "Rome, Italy"}},
        {"do": "answer", "say": "Ask in Celsius."},
    ]
    seen = []
    for number, decision in enumerate(decisions):
        config: Any = {"configurable": {"thread_id": f"review-{number}"}}
        asked = app.invoke(ask(f"Question {number}: Rome?"), config)
        state = app.invoke(Command(resume=decision), config)
        seen.append([asked["__interrupt__"][0].value, state["messages"]])
    return [seen, weather.asked]


@WITH_RECORDING
def test_calls_that_a_person_reviews(performed: Performed) -> None:
    """An agent keeps the call that it made: it reads in the result what was run instead."""
    script = [
        line("Question 0", calls("get_weather", city="Rome")),
        line("sunny in Rome.", "Sunny."),
        line("Question 1", calls("get_weather", city="Rome")),
        line("sunny in Rome, Italy.", "Sunny there."),
        line("Question 2", calls("get_weather", city="Rome")),
        line("Ask in Celsius.", "In Celsius, then."),
    ]
    told = line(["with other arguments", "sunny in Rome, Italy."], "Sunny there.")
    control, letta = performed.both(reviewed_calls, [*script[:3], told, *script[4:]], script)
    assert letta == control
    seen, asked = letta
    assert asked == ["Rome", "Rome, Italy"]
    assert [said[-1] for _, said in seen] == [
        *({"ai": text} for text in ("Sunny.", "Sunny there.", "In Celsius, then."))
    ]


def streams(model: Any) -> Any:
    """Watch an agent: its states, its updates, its tokens, and what a tool says meanwhile."""
    weather = Weather()

    def look_up(city: str, runtime: ToolRuntime) -> str:
        """Look the weather up."""
        runtime.stream_writer({"looking": city})
        return weather.get_weather(city)

    agent = create_agent(model, [look_up])
    seen: dict[str, Any] = {}
    for mode in ("values", "updates", "custom"):
        seen[mode] = list(agent.stream(ask("Rome?"), stream_mode=mode))
    tokens = [
        (about["langgraph_node"], part.text)
        for part, about in agent.stream(ask("Rome?"), stream_mode="messages")
    ]
    seen["said"] = "".join(text for node, text in tokens if node == "model")
    seen["pieces"] = [text for node, text in tokens if node == "model" and text]
    seen["tools"] = [text for node, text in tokens if node == "tools"]
    mixed = agent.stream(ask("Rome?"), stream_mode=["updates", "custom"])
    seen["mixed"] = [mode for mode, _ in mixed]
    return [seen, weather.asked]


def test_streams(performed: Performed) -> None:
    once = [
        line("Rome?", calls("look_up", city="Rome")),
        line("sunny in Rome.", "It is sunny there."),
    ]
    seen, asked = performed.same(streams, once * 5)
    assert asked == ["Rome"] * 5
    assert seen["custom"] == [{"looking": "Rome"}]
    assert seen["pieces"] == ["It ", "is ", "sunny ", "there."]
    assert seen["mixed"] == ["updates", "custom", "updates", "updates"]
