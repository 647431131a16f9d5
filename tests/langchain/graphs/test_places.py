"""Which conversation a node's call goes to, and what exactly it holds afterwards."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel

from letta_adapters.langchain import ChatLetta, LettaRunnable
from tests.langchain.graphs.conftest import World


def ask(text: str) -> Any:
    return {"messages": [HumanMessage(text)]}


def last(state: Any) -> str:
    return str(state["messages"][-1].text)


def chat_of(model: Any, saver: Any, name: str = "chat") -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node(name, lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, name)
    return graph.compile(checkpointer=saver)


def test_a_node_keeps_one_conversation_over_its_turns(world: World, saver: InMemorySaver) -> None:
    app = chat_of(world.model(), saver)
    world.script("First.", "Second.")
    assert last(app.invoke(ask("one"), world.config())) == "First."
    world.as_another_process()
    assert last(app.invoke(ask("two"), world.config())) == "Second."
    assert world.holds() == {"T/chat": ["one", "two"]}


def test_a_node_without_a_history_has_one_too(world: World, saver: InMemorySaver) -> None:
    model = world.model()

    class State(TypedDict):
        question: str
        answer: str

    def answer(state: State) -> Any:
        return {"answer": str(model.invoke(f"Context. {state['question']}").text)}

    graph = StateGraph(State).add_node("rag", answer).add_edge(START, "rag")
    app = graph.compile(checkpointer=saver)
    world.script("First.", "Second.")
    assert app.invoke({"question": "one"}, world.config())["answer"] == "First."
    assert app.invoke({"question": "two"}, world.config())["answer"] == "Second."
    assert world.holds() == {"T/rag": ["Context. one", "Context. two"]}


def test_a_chain_as_a_node_is_that_node(world: World, saver: InMemorySaver) -> None:
    chain = RunnableLambda(lambda s: s["messages"]) | world.model() | (lambda m: {"messages": [m]})
    graph = StateGraph(MessagesState).add_node("chat", chain).add_edge(START, "chat")
    app = graph.compile(checkpointer=saver)
    world.script("First.", "Second.")
    app.invoke(ask("one"), world.config())
    assert last(app.invoke(ask("two"), world.config())) == "Second."
    assert world.holds() == {"T/chat": ["one", "two"]}


class Where(BaseModel):
    """Where to go."""

    to: str


@pytest.mark.parametrize("structured", [False, True])
def test_a_router_does_not_speak_in_the_conversation_of_the_answer(
    world: World, saver: InMemorySaver, structured: bool
) -> None:
    model = world.model()
    routing: Any = model.with_structured_output(Where, method="json_schema")

    def route(state: MessagesState) -> Any:
        question = f"Route: {state['messages'][-1].text}"
        assert (routing if structured else model).invoke(question)
        return {}

    graph = StateGraph(MessagesState)
    graph.add_node("router", route)
    graph.add_node("chat", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "router").add_edge("router", "chat")
    app = graph.compile(checkpointer=saver)
    world.script('{"to": "a"}', "First.", '{"to": "b"}', "Second.")
    assert last(app.invoke(ask("one"), world.config())) == "First."
    assert last(app.invoke(ask("two"), world.config())) == "Second."
    held = world.holds()
    assert held.pop("T/chat") == ["one", "two"]
    if structured:  # each question is on its own
        assert [text[0].split("<")[0] for text in held.values()] == ["Route: one", "Route: two"]
    else:
        assert held == {"T/router": ["Route: one", "Route: two"]}


def test_an_edge_that_asks_has_a_place_of_its_own(world: World, saver: InMemorySaver) -> None:
    model = world.model()

    def route(state: MessagesState) -> str:
        model.invoke(f"Route: {state['messages'][-1].text}")
        return "chat"

    graph = StateGraph(MessagesState)
    graph.add_node("chat", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_conditional_edges(START, route, ["chat"])
    world.script("chat", "First.")
    app = graph.compile(checkpointer=saver)
    assert last(app.invoke(ask("one"), world.config())) == "First."
    assert world.holds() == {"T/__start__": ["Route: one"], "T/chat": ["one"]}


def test_the_first_call_of_a_node_is_the_node_s(world: World, saver: InMemorySaver) -> None:
    model = world.model()

    def chat(state: MessagesState) -> Any:
        answer = model.invoke(state["messages"])
        model.invoke(f"Is this good: {answer.text}")
        return {"messages": [answer]}

    app = StateGraph(MessagesState).add_node("chat", chat).add_edge(START, "chat")
    compiled = app.compile(checkpointer=saver)
    world.script("First.", "Yes.", "Second.", "Yes.")
    compiled.invoke(ask("one"), world.config())
    assert last(compiled.invoke(ask("two"), world.config())) == "Second."
    assert world.holds() == {
        "T/chat": ["one", "two"],
        "?": ["Is this good: First."],
        "??": ["Is this good: Second."],
    }


def test_a_batch_in_a_node_is_as_many_conversations(fake_world: World) -> None:
    world = fake_world
    model = world.model()
    graph = StateGraph(MessagesState)
    graph.add_node("chat", lambda _: {"messages": [model.batch(["x", "y", "z"])[0]]})
    graph.add_edge(START, "chat")
    graph.compile(checkpointer=InMemorySaver()).invoke(ask("one"), world.config())
    held = world.holds()
    assert sorted(text for texts in held.values() for text in texts) == ["x", "y", "z"]
    assert len(held) == 3


class Documents(TypedDict):
    documents: list[str]
    notes: Annotated[list[str], operator.add]


def test_branches_do_not_see_each_other(world: World, saver: InMemorySaver) -> None:
    model = world.model()
    graph = StateGraph(Documents)
    graph.add_node("read", lambda s: {"notes": [str(model.invoke(s["document"]).text)]})
    graph.add_conditional_edges(
        START, lambda s: [Send("read", {"document": d}) for d in s["documents"]], ["read"]
    )
    app = graph.compile(checkpointer=saver)
    app.invoke({"documents": ["first", "second"]}, world.config())
    app.invoke({"documents": ["third", "fourth"]}, world.config())
    held = sorted(world.holds().values())
    assert held == [["first"], ["fourth"], ["second"], ["third"]]


def test_equal_branches_are_as_many_questions(fake_world: World) -> None:
    """Self-consistency: the same message, with its id, to several branches."""
    world = fake_world
    model = world.model()

    class State(TypedDict):
        messages: list[Any]
        drafts: Annotated[list[str], operator.add]

    graph = StateGraph(State)
    graph.add_node("draft", lambda s: {"drafts": [str(model.invoke(s["messages"]).text)]})
    graph.add_conditional_edges(START, lambda s: [Send("draft", s)] * 3, ["draft"])
    world.script("A.", "B.", "C.")
    given = {"messages": [HumanMessage("one", id="m1")], "drafts": []}
    state = graph.compile(checkpointer=InMemorySaver()).invoke(given, world.config())
    assert sorted(state["drafts"]) == ["A.", "B.", "C."]


@pytest.mark.parametrize("called", [False, True])
def test_a_sub_graph_has_its_own(world: World, saver: InMemorySaver, called: bool) -> None:
    inner = chat_of(world.model(), None)
    graph = StateGraph(MessagesState)
    if called:
        graph.add_node("sub", lambda s: {"messages": inner.invoke(s)["messages"][-1:]})
    else:
        graph.add_node("sub", inner)
    graph.add_edge(START, "sub")
    app = graph.compile(checkpointer=saver)
    world.script("First.", "Second.")
    app.invoke(ask("one"), world.config())
    world.as_another_process()
    assert last(app.invoke(ask("two"), world.config())) == "Second."
    assert world.holds() == {"?": ["one", "two"]}


def test_the_functional_api(world: World, saver: InMemorySaver) -> None:
    model = world.model()

    @task
    def outline(text: str) -> str:
        return str(model.invoke(f"Outline {text}").text)

    @entrypoint(checkpointer=saver)
    def essay(text: str) -> str:
        return str(model.invoke(f"Write {outline(text).result()}").text)

    world.script("O1", "W1", "O2", "W2")
    assert essay.invoke("one", world.config()) == "W1"
    assert essay.invoke("two", world.config()) == "W2"
    assert world.holds() == {
        "T/essay": ["Write O1", "Write O2"],
        "?": ["Outline one"],
        "??": ["Outline two"],
    }


def test_a_node_that_is_tried_again_asks_once(world: World, saver: InMemorySaver) -> None:
    model = world.model()
    failures = [ValueError("once"), None]

    def chat(state: MessagesState) -> Any:
        answer = model.invoke(state["messages"])
        if (error := failures.pop(0)) is not None:
            raise error
        return {"messages": [answer]}

    graph = StateGraph(MessagesState)
    policy = RetryPolicy(initial_interval=0.01, retry_on=ValueError)
    graph.add_node("chat", chat, retry_policy=policy)
    graph.add_edge(START, "chat")
    world.script("First.", "Never.")
    app = graph.compile(checkpointer=saver)
    assert last(app.invoke(ask("one"), world.config())) == "First."
    assert world.holds() == {"T/chat": ["one"]}


def test_a_node_that_is_resumed_asks_once(world: World, saver: InMemorySaver) -> None:
    """With a prompt that says what time it is, so the resumed call is not quite the same."""
    model = world.model()
    times = iter(["at noon", "at night"])

    def chat(state: MessagesState) -> Any:
        draft = model.invoke(f"Write {next(times)}.")
        return {"messages": [f"{draft.text} {interrupt('good?')}"]}

    graph = StateGraph(MessagesState).add_node("chat", chat).add_edge(START, "chat")
    app = graph.compile(checkpointer=saver)
    world.script("Draft.", "Later draft.")
    app.invoke(ask("one"), world.config())
    assert last(app.invoke(Command(resume="Yes."), world.config())) == "Later draft. Yes."
    assert world.holds() == {"T/chat": ["Write at noon.", "Write at night."]}


def test_time_travel_branches_off(world: World, saver: InMemorySaver) -> None:
    app = chat_of(world.model(), saver)
    world.script("First.", "Second.", "Other.")
    app.invoke(ask("one"), world.config())
    app.invoke(ask("two"), world.config())
    states = list(app.get_state_history(world.config()))
    after_one = next(s for s in states if len(s.values.get("messages", ())) == 2 and not s.next)
    state = app.invoke(ask("TWO"), after_one.config)
    assert last(state) == "Other."
    assert state["messages"][-1].response_metadata["forked"]
    held = world.holds()
    assert held["T/chat"] == ["one", "two"]
    assert "TWO" in held["?"][-1]


def test_two_nodes_of_one_agent_have_two_conversations(world: World, saver: InMemorySaver) -> None:
    """One LettaRunnable in two nodes: the second is called when nobody but the first has spoken."""
    agent = LettaRunnable(model=world.model())
    graph = StateGraph(MessagesState).add_node("draft", agent).add_node("review", agent)
    graph.add_edge(START, "draft").add_edge("draft", "review").add_edge("review", END)
    app = graph.compile(checkpointer=saver)
    world.script("Draft 1.", "Review 1.", "Draft 2.", "Review 2.")
    app.invoke(ask("one"), world.config())
    state = app.invoke(ask("two"), world.config())
    assert [str(m.text) for m in state["messages"]] == [
        *("one", "Draft 1.", "Review 1.", "two", "Draft 2.", "Review 2.")
    ]
    held = world.holds()
    assert set(held) == {"T/draft", "T/review"}
    draft, review = " | ".join(held["T/draft"]), " | ".join(held["T/review"])
    assert [draft.count(text) for text in ("one", "two")] == [1, 1]
    assert [review.count(text) for text in ("one", "Draft 1.", "two", "Draft 2.")] == [1, 1, 1, 1]


# -- what the application says -------------------------------------------------------------------


def test_one_conversation_for_the_whole_thread(world: World, saver: InMemorySaver) -> None:
    """What earlier versions did: ``thread:<id>`` for every node."""
    model = world.model(scope="thread")
    graph = StateGraph(MessagesState)
    graph.add_node("plan", lambda s: {"messages": [model.invoke("Plan.")]})
    graph.add_node("chat", lambda s: {"messages": [model.invoke("Do.")]})
    graph.add_edge(START, "plan").add_edge("plan", "chat")
    world.script("P.", "D.")
    graph.compile(checkpointer=saver).invoke(ask("one"), world.config())
    assert world.holds() == {"T": ["Plan.", "Do."]}


def test_every_call_of_a_node_in_its_conversation(world: World, saver: InMemorySaver) -> None:
    model = world.model(scope="node")

    def chat(_: MessagesState) -> Any:
        model.invoke("Think.")
        return {"messages": [model.invoke("Say.")]}

    graph = StateGraph(MessagesState).add_node("chat", chat).add_edge(START, "chat")
    graph.compile(checkpointer=saver).invoke(ask("one"), world.config())
    assert world.holds() == {"T/chat": ["Think.", "Say."]}


def test_no_conversation_of_the_thread(world: World, saver: InMemorySaver) -> None:
    fresh = LettaRunnable(agent_id=world.agent_id, client=world.client, scope="fresh")
    graph = StateGraph(MessagesState).add_node("chat", fresh).add_edge(START, "chat")
    app = graph.compile(checkpointer=saver)
    app.invoke(ask("one"), world.config())
    app.invoke(ask("two"), world.config())
    assert world.holds() == {"?": ["one", "two"]}  # its own history goes on


def test_a_scope_may_be_given_with_the_call(fake_world: World) -> None:
    world = fake_world
    model = world.model()

    def chat(state: MessagesState) -> Any:
        model.invoke("Aside.", scope="fresh")
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("chat", chat).add_edge(START, "chat")
    graph.compile(checkpointer=InMemorySaver()).invoke(ask("one"), world.config())
    assert world.holds() == {"T/chat": ["one"], "?": ["Aside."]}


def test_another_scope_is_refused(fake_world: World) -> None:
    model = fake_world.model()
    with pytest.raises(ValueError, match="scope"):
        model.invoke("x", scope="room")
    with pytest.raises(ValueError, match="scope"):
        ChatLetta(client=fake_world.client, scope="room")


def test_a_call_that_names_a_thread_against_its_graph_is_meant_so(fake_world: World) -> None:
    world = fake_world
    model = world.model()
    other: Any = {"configurable": {"thread_id": "notes"}}

    def chat(state: MessagesState) -> Any:
        model.invoke("For the notes.", other)
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("chat", chat).add_edge(START, "chat")
    graph.compile(checkpointer=InMemorySaver()).invoke(ask("one"), world.config())
    assert world.holds()["notes"] == ["For the notes."]


def test_a_conversation_that_a_graph_was_given_is_its_nodes_alone(fake_world: World) -> None:
    world = fake_world
    model = world.model()
    named = model.invoke("zero").response_metadata["conversation_id"]

    def chat(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("chat", chat).add_edge(START, "chat")
    graph.add_node("fan", lambda s: model.invoke("branch") and {})
    graph.add_conditional_edges("chat", lambda s: [Send("fan", s)], ["fan"])
    config: Any = {"configurable": {"thread_id": world.thread, "conversation_id": named}}
    graph.compile(checkpointer=InMemorySaver()).invoke(ask("one"), config)
    assert world.said(named) == ["zero", "one"]
