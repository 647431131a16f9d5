"""What goes wrong, comes twice, or runs at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_tool_call
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableParallel
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt
from typing_extensions import TypedDict

from tests.langchain.graphs.conftest import asynchronous_nodes
from tests.tutorials.control import call_all, calls, line
from tests.tutorials.langchain.conftest import Performed

THREAD: Any = {"configurable": {"thread_id": "1"}}


def ask(text: str) -> Any:
    return {"messages": [HumanMessage(text)]}


def repeated_node(model: Any) -> Any:
    """Let a node fail after the model has answered, and be tried again."""
    tries: list[str] = []

    def answer(state: MessagesState) -> Any:
        said = model.invoke(state["messages"])
        tries.append(str(said.text))
        if len(tries) == 1:
            raise ConnectionError("the database is away")
        return {"messages": [said]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer, retry_policy=RetryPolicy(initial_interval=0, jitter=False))
    app = graph.add_edge(START, "answer").compile(checkpointer=InMemorySaver())
    return [app.invoke(ask("Tell me."), THREAD), tries]


def stopped_node(model: Any) -> Any:
    """Ask a person after the model has answered: the node begins anew when it goes on."""

    def answer(state: MessagesState) -> Any:
        said = model.invoke(state["messages"])
        return {"messages": [said]} if interrupt(str(said.text)) == "yes" else {}

    graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer")
    app = graph.compile(checkpointer=InMemorySaver())
    stopped = app.invoke(ask("Tell me."), THREAD)
    asked = stopped["__interrupt__"][0].value
    return [app.invoke(Command(resume="yes"), THREAD), [asked]]


@pytest.mark.parametrize("tutorial", [repeated_node, stopped_node])
def test_a_node_that_begins_anew(performed: Performed, tutorial: Any) -> None:
    """An agent is not asked twice; another model may give another answer than was shown."""
    first, second = line("Tell me.", "One."), line("Tell me.", "Two.")
    control, letta = performed.both(tutorial, [first], [first, second])
    assert letta[0]["messages"] == [{"human": "Tell me."}, {"ai": "One."}]
    assert control[0]["messages"] == [{"human": "Tell me."}, {"ai": "Two."}]
    assert letta[1][0] == control[1][0] == "One."


def tool_errors(model: Any) -> Any:
    """Tell the model what went wrong in a tool, in words of one's own."""
    ran: list[str] = []

    @tool
    def divide(a: int, b: int) -> str:
        """Divide two numbers."""
        ran.append(f"{a}/{b}")
        return str(a // b)

    @wrap_tool_call
    def explain(request: Any, handler: Any) -> Any:
        try:
            return handler(request)
        except ZeroDivisionError:
            id_ = request.tool_call["id"]
            return ToolMessage("Not by nought.", tool_call_id=id_, status="error")

    agent = create_agent(model, [divide], middleware=[explain])
    return [agent.invoke(ask("What is 6 by 0?")), ran]


def test_a_tool_that_fails(performed: Performed) -> None:
    script = [
        line("What is 6 by 0?", calls("divide", a=6, b=0)),
        line("Not by nought.", calls("divide", a=6, b="two")),
        line("b", calls("divide", a=6, b=2)),
        line("3", "It cannot be done; by 2 it is 3."),
    ]
    state, ran = performed.same(tool_errors, script)
    assert ran == ["6/0", "6/2"]
    assert [m.get("status") for m in state["messages"] if "tool" in m] == ["error", "error", None]


@asynchronous_nodes
def test_several_users_at_once(performed: Performed) -> None:
    def tutorial(model: Any) -> Any:
        agent = create_agent(model, [], checkpointer=InMemorySaver())

        async def chat(name: str) -> Any:
            config: Any = {"configurable": {"thread_id": name}}
            await agent.ainvoke(ask(f"I am {name}."), config)
            pieces = [
                part.text
                async for part, _ in agent.astream(
                    ask(f"Who is {name}?"), config, stream_mode="messages"
                )
            ]
            return ["".join(pieces), (await agent.aget_state(config)).values["messages"]]

        async def all_of_them() -> Any:
            return await asyncio.gather(*map(chat, ("Ada", "Grace", "Mary")))

        return asyncio.run(all_of_them())

    names = ("Ada", "Grace", "Mary")
    script = [line(f"I am {name}.", f"Hello {name}.", anytime=True) for name in names]
    script += [
        line(f"Who is {name}?", f"You, {name}.", knows=f"I am {name}.", anytime=True)
        for name in names
    ]
    said = performed.same(tutorial, script)
    assert [text for text, _ in said] == [f"You, {name}." for name in names]


class Kinds(TypedDict, total=False):
    """A topic, and what was made of it."""

    topic: str
    made: dict[str, str]


def at_the_same_time(model: Any) -> Any:
    """Ask two things at the same time in one node, in every turn of a thread."""

    def chain(kind: str) -> Any:
        return (
            ChatPromptTemplate.from_template(f"A {kind} on {{topic}}.") | model | StrOutputParser()
        )

    both = RunnableParallel(joke=chain("joke"), poem=chain("poem"))

    def write(state: Kinds) -> Kinds:
        return {"made": both.invoke({"topic": state["topic"]})}

    graph = StateGraph(Kinds).add_node(write).add_edge(START, "write")
    app = graph.compile(checkpointer=InMemorySaver())
    return [app.invoke({"topic": topic}, THREAD)["made"] for topic in ("cats", "dogs")]


def test_two_questions_in_one_node(performed: Performed) -> None:
    script = [
        line(f"A {kind} on {topic}.", f"{kind}: {topic}", anytime=True)
        for topic in ("cats", "dogs")
        for kind in ("joke", "poem")
    ]
    assert performed.same(at_the_same_time, script) == [
        {"joke": "joke: cats", "poem": "poem: cats"},
        {"joke": "joke: dogs", "poem": "poem: dogs"},
    ]


def helpers_at_once(model: Any) -> Any:
    """Let an agent ask two helpers, which are agents over the same model, in one answer."""

    def helper(name: str) -> Any:
        agent = create_agent(model, [], system_prompt=f"You are {name}.", name=name)

        @tool(name, description=f"Ask {name}.")
        def ask_it(question: str) -> str:
            return str(agent.invoke(ask(question))["messages"][-1].text)

        return ask_it

    lead = create_agent(
        model, [helper("botanist"), helper("geologist")], checkpointer=InMemorySaver()
    )
    lead.invoke(ask("What grows on granite?"), THREAD)
    return lead.invoke(ask("Thank you. Who helped?"), THREAD)


def test_helpers_that_are_asked_at_once(performed: Performed) -> None:
    both = call_all(
        ("botanist", {"question": "What grows?"}), ("geologist", {"question": "What is granite?"})
    )
    script = [
        line("What grows on granite?", both),
        line("What grows?", "Moss.", knows="You are botanist.", anytime=True),
        line("What is granite?", "Stone.", knows="You are geologist.", anytime=True),
        line(["Moss.", "Stone."], "Moss, on stone."),
        line("Who helped?", "Both did.", knows="Moss, on stone."),
    ]
    state = performed.same(helpers_at_once, script)
    assert state["messages"][-1] == {"ai": "Both did."}
