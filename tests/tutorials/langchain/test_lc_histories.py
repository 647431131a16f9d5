"""Histories that a program edits: summed up, shortened, made up, cleaned before they are sent."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    PIIMiddleware,
    after_model,
)
from langchain.agents.structured_output import ToolStrategy
from langchain.tools import InjectedToolCallId
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.output_parsers import PydanticToolsParser
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.types import Command, interrupt
from pydantic import BaseModel, Field

from tests.langchain.graphs.conftest import asynchronous_nodes
from tests.tutorials.control import call_all, calls, line
from tests.tutorials.langchain.conftest import Performed

THREAD: Any = {"configurable": {"thread_id": "1"}}


def ask(text: str) -> Any:
    return {"messages": [HumanMessage(text)]}


class Summed(MessagesState, total=False):
    """Messages, and what was said before them."""

    summary: str


def summing_up(model: Any) -> Any:
    """Replace old messages by a summary, which goes into the system prompt."""

    def answer(state: Summed) -> Any:
        told = [SystemMessage(f"Before: {state['summary']}")] if state.get("summary") else []
        return {"messages": [model.invoke([*told, *state["messages"]])]}

    def sum_up(state: Summed) -> Any:
        summary = model.invoke([*state["messages"], HumanMessage("Sum this up.")])
        gone = [RemoveMessage(str(m.id)) for m in state["messages"][:-2]]
        return {"summary": str(summary.text), "messages": gone}

    def next_step(state: Summed) -> Literal["sum_up", "__end__"]:
        return "sum_up" if len(state["messages"]) > 4 else "__end__"

    graph = StateGraph(Summed).add_node(answer).add_node(sum_up)
    graph.add_edge(START, "answer").add_conditional_edges("answer", next_step)
    app = graph.add_edge("sum_up", END).compile(checkpointer=InMemorySaver())
    for text in ("I am Ada.", "I like tea.", "And rain.", "Who am I?"):
        state = app.invoke(ask(text), THREAD)
    return state


def test_a_summary_of_ones_own(performed: Performed) -> None:
    script = [
        line("I am Ada.", "Hello."),
        line("I like tea.", "Noted."),
        line("And rain.", "Noted too."),
        line("Sum this up.", "Ada likes tea.", knows=["I am Ada.", "And rain."]),
        line("Who am I?", "Ada.", knows=["Before: Ada likes tea.", "And rain."]),
    ]
    state = performed.same(summing_up, script)
    assert state["summary"] == "Ada likes tea."
    assert len(state["messages"]) == 4


def deleting(model: Any) -> Any:
    """Keep the last two messages of the state."""

    def answer(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    def forget(state: MessagesState) -> Any:
        return {"messages": [RemoveMessage(str(m.id)) for m in state["messages"][:-2]]}

    graph = StateGraph(MessagesState).add_node(answer).add_node(forget)
    graph.add_edge(START, "answer").add_edge("answer", "forget")
    app = graph.compile(checkpointer=InMemorySaver())
    return [app.invoke(ask(text), THREAD) for text in ("one", "two", "three")]


def test_messages_that_are_deleted(performed: Performed) -> None:
    script = [line("one", "1"), line("two", "2", knows="one"), line("three", "3", knows="two")]
    states = performed.same(deleting, script)
    assert states[-1]["messages"] == [{"human": "three"}, {"ai": "3"}]


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_a_history_that_a_hook_shortens(performed: Performed) -> None:
    def tutorial(model: Any) -> Any:
        def shorten(state: Any) -> Any:
            kept = trim_messages(
                state["messages"],
                strategy="last",
                token_counter=len,
                max_tokens=6,
                start_on="human",
                end_on=("human", "tool"),
            )
            return {"llm_input_messages": kept}

        @tool
        def count(text: str) -> str:
            """Count the letters of a text."""
            return str(len(text))

        agent = create_react_agent(
            model, [count], pre_model_hook=shorten, checkpointer=InMemorySaver()
        )
        for text in ("How long is sea?", "And ocean?", "Which is longer?"):
            state = agent.invoke(ask(text), THREAD)
        return state

    script = [
        line("How long is sea?", calls("count", text="sea")),
        line("3", "Three."),
        line("And ocean?", calls("count", text="ocean"), knows="Three."),
        line("5", "Five."),
        line("Which is longer?", "Ocean.", knows="Five."),
    ]
    state = performed.same(tutorial, script)
    assert len(state["messages"]) == 10


class Add(BaseModel):
    """Add two numbers."""

    a: int
    b: int


class Multiply(BaseModel):
    """Multiply two numbers."""

    a: int
    b: int


def few_shot(model: Any) -> Any:
    """Show the model calls that were never made, and parse those that it makes."""
    shown = [
        SystemMessage("Use the tools."),
        HumanMessage("What is 2 plus 3?", name="example"),
        AIMessage("", tool_calls=[{"name": "Add", "args": {"a": 2, "b": 3}, "id": "1"}]),
        ToolMessage("5", tool_call_id="1"),
        AIMessage("It is 5."),
    ]
    chain = model.bind_tools([Add, Multiply]) | PydanticToolsParser(tools=[Add, Multiply])
    return [
        chain.invoke([*shown, HumanMessage(text)])
        for text in ("4 plus 5, and 6 times 7?", "8 times 9?")
    ]


def test_calls_as_examples(performed: Performed) -> None:
    both = call_all(("Add", {"a": 4, "b": 5}), ("Multiply", {"a": 6, "b": 7}))
    script = [
        line("4 plus 5", both, knows=["Use the tools.", "2 plus 3", "It is 5."]),
        line("8 times 9", calls("Multiply", a=8, b=9)),
    ]
    assert performed.same(few_shot, script) == [
        [{"Add": {"a": 4, "b": 5}}, {"Multiply": {"a": 6, "b": 7}}],
        [{"Multiply": {"a": 8, "b": 9}}],
    ]


class Birthday(MessagesState, total=False):
    """What a person has confirmed."""

    birthday: str


def human_assistance(model: Any) -> Any:
    """Ask a person from inside a tool, and let the tool write what it learned into the state."""
    asked: list[str] = []

    @tool
    def confirm(birthday: str, call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Let a person confirm a birthday."""
        asked.append(birthday)
        said = interrupt({"is it": birthday})
        told = ToolMessage(f"Confirmed: {said}", tool_call_id=call_id)
        return Command(update={"birthday": said, "messages": [told]})

    def answer(state: Birthday) -> Any:
        return {"messages": [model.bind_tools([confirm]).invoke(state["messages"])]}

    graph = StateGraph(Birthday).add_node(answer).add_node("tools", ToolNode([confirm]))
    graph.add_edge(START, "answer").add_conditional_edges("answer", tools_condition)
    app = graph.add_edge("tools", "answer").compile(checkpointer=InMemorySaver())
    stopped = app.invoke(ask("When was Ada born?"), THREAD)
    waits_for = app.get_state(THREAD).next
    state = app.invoke(Command(resume="10 December"), THREAD)
    return [stopped["__interrupt__"][0].value, waits_for, state, asked]


def test_a_person_who_is_asked_by_a_tool(performed: Performed) -> None:
    script = [
        line("When was Ada born?", calls("confirm", birthday="December")),
        line("Confirmed: 10 December", "On 10 December."),
    ]
    question, waits_for, state, asked = performed.same(human_assistance, script)
    assert (question, waits_for) == ({"is it": "December"}, ["tools"])
    assert state["birthday"] == "10 December"
    assert asked == ["December", "December"]  # LangGraph runs the tool again from its beginning


class Rating(BaseModel):
    """A rating."""

    stars: int = Field(ge=1, le=5)


def test_an_object_that_does_not_fit_at_first(performed: Performed) -> None:
    def tutorial(model: Any) -> Any:
        agent = create_agent(model, [], response_format=ToolStrategy(Rating))
        return agent.invoke(ask("Rate it."))["structured_response"]

    script = [line("Rate it.", calls("Rating", stars=9)), line("", calls("Rating", stars=5))]
    assert performed.same(tutorial, script) == {"Rating": {"stars": 5}}


def guardrails(model: Any) -> Any:
    """Take addresses out of what is said, and let a second call judge the answer."""

    @after_model
    def judge(state: Any, runtime: Any) -> Any:
        verdict = model.invoke([HumanMessage(f"Safe? {state['messages'][-1].text}")])
        if "no" in str(verdict.text).lower():
            return {"messages": [AIMessage("I cannot say.", id=state["messages"][-1].id)]}
        return None

    agent = create_agent(
        model,
        [],
        middleware=[PIIMiddleware("email", apply_to_input=True), judge],
        checkpointer=InMemorySaver(),
    )
    for text in ("Write to ada@example.com.", "And what is the password?", "What did I ask?"):
        state = agent.invoke(ask(text), THREAD)
    return state


def test_guardrails(performed: Performed) -> None:
    script = [
        line("Write to [REDACTED_EMAIL].", "Written."),
        line("Safe? Written.", "Yes."),
        line("what is the password?", "It is tea."),
        line("Safe? It is tea.", "No."),
        line("What did I ask?", "For a password.", knows="password"),
        line("Safe? For a password.", "Yes."),
    ]
    state = performed.same(guardrails, script)
    assert [next(iter(m.values())) for m in state["messages"]] == [
        *("Write to [REDACTED_EMAIL].", "Written.", "And what is the password?"),
        *("I cannot say.", "What did I ask?", "For a password."),
    ]


def context_editing(model: Any) -> Any:
    """Clear old results of tools from what is sent."""

    @tool
    def look_up(word: str) -> str:
        """Look a word up."""
        return f"{word} is a word of {len(word)} letters. " * 20

    agent = create_agent(
        model,
        [look_up],
        middleware=[ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=200, keep=1)])],
        checkpointer=InMemorySaver(),
    )
    agent.invoke(ask("Look up sea, ocean and lake."), THREAD)
    return agent.invoke(ask("Which was the last?"), THREAD)


def test_results_that_are_cleared(performed: Performed) -> None:
    script = [
        line("Look up sea", calls("look_up", word="sea")),
        line("sea is a word", calls("look_up", word="ocean")),
        line("ocean is a word", calls("look_up", word="lake")),
        line("lake is a word", "Done."),
        line("Which was the last?", "Lake.", knows="lake is a word"),
    ]
    state = performed.same(context_editing, script)
    assert len(state["messages"]) == 10


def events(model: Any) -> Any:
    """Follow an agent by its events."""

    @tool
    def weather(city: str) -> str:
        """Say the weather."""
        return f"Sunny in {city}."

    async def follow() -> Any:
        agent = create_agent(model, [weather])
        seen = []
        async for event in agent.astream_events(ask("Rome?"), version="v2"):
            kind, data = event["event"], event["data"]
            if kind == "on_chat_model_stream" and data["chunk"].text:
                seen.append([kind, data["chunk"].text])
            elif kind in ("on_chat_model_start", "on_chat_model_end", "on_tool_start"):
                seen.append([kind])
            elif kind == "on_tool_end":
                seen.append([kind, data["output"].content])
        return seen

    return asyncio.run(follow())


@asynchronous_nodes
def test_events(performed: Performed) -> None:
    script = [
        line("Rome?", calls("weather", city="Rome")),
        line("Sunny in Rome.", "It is sunny."),
    ]
    seen = performed.same(events, script)
    assert seen[-5:-1] == [
        ["on_chat_model_start"],
        *(["on_chat_model_stream", text] for text in ("It ", "is ", "sunny.")),
    ]
