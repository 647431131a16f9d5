"""Workflows: the program says what comes next, and the model fills the steps."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.tutorials.control import gives, line
from tests.tutorials.langchain.conftest import WITH_RECORDING, Performed

THREAD: Any = {"configurable": {"thread_id": "1"}}


class Texts(TypedDict, total=False):
    """Three texts that are written at the same time, and all of them."""

    topic: str
    joke: str
    poem: str
    story: str
    all: str


def parallel(model: Any) -> Any:
    """Write three texts in three nodes at the same time, and put them together."""

    def writer(kind: str) -> Any:
        def write(state: Texts) -> Any:
            return {kind: str(model.invoke(f"Write a {kind} about {state['topic']}.").text)}

        return write

    def join(state: Texts) -> Texts:
        return {"all": " / ".join([state["joke"], state["poem"], state["story"]])}

    graph = StateGraph(Texts)
    graph.add_node("join", join)
    for kind in ("joke", "poem", "story"):
        graph.add_node(f"write_{kind}", writer(kind))
        graph.add_edge(START, f"write_{kind}")
        graph.add_edge(f"write_{kind}", "join")
    app = graph.compile(checkpointer=InMemorySaver())
    return [app.invoke({"topic": topic}, THREAD)["all"] for topic in ("cats", "dogs")]


@WITH_RECORDING
def test_parallel_nodes(performed: Performed) -> None:
    script = [
        line(f"a {kind} about {topic}.", f"{topic} {kind}", anytime=True)
        for topic in ("cats", "dogs")
        for kind in ("joke", "poem", "story")
    ]
    assert performed.same(parallel, script) == [
        "cats joke / cats poem / cats story",
        "dogs joke / dogs poem / dogs story",
    ]


class Topics(BaseModel):
    """What a report is about."""

    topics: list[str]


class ReportState(TypedDict, total=False):
    """A report in the making."""

    subject: str
    topics: list[str]
    sections: Annotated[list[str], operator.add]
    report: str


class Section(TypedDict):
    """What one worker gets."""

    topic: str


def map_reduce(model: Any) -> Any:
    """Plan the sections of a report, write each in a branch, and choose a title."""

    def plan(state: ReportState) -> Any:
        made = model.with_structured_output(Topics).invoke(f"Plan: {state['subject']}")
        return {"topics": made.topics}

    def spread(state: ReportState) -> list[Send]:
        return [Send("write", {"topic": topic}) for topic in state["topics"]]

    def write(state: Section) -> Any:
        section = model.invoke([SystemMessage("Be brief."), HumanMessage(state["topic"])])
        return {"sections": [str(section.text)]}

    def finish(state: ReportState) -> Any:
        title = model.invoke("A title for: " + " ".join(state["sections"]))
        return {"report": "\n".join([str(title.text), *state["sections"]])}

    graph = StateGraph(ReportState)
    graph.add_node(plan)
    graph.add_node(write)
    graph.add_node(finish)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", spread, ["write"])
    graph.add_edge("write", "finish")
    graph.add_edge("finish", END)
    return graph.compile().invoke({"subject": "the sea"})


@WITH_RECORDING
def test_map_reduce(performed: Performed) -> None:
    topics = ["tides", "salt", "whales"]
    script = [
        gives("Plan: the sea", "Topics", topics=topics),
        *(line(t, f"On {t}.", knows="Be brief.", anytime=True) for t in topics),
        line("A title for: On tides. On salt. On whales.", "Blue"),
    ]
    state = performed.same(map_reduce, script)
    assert state["report"] == "Blue\nOn tides.\nOn salt.\nOn whales."


class Verdict(BaseModel):
    """Is a joke good, and if not, what is missing?"""

    good: bool
    advice: str


class JokeState(TypedDict, total=False):
    """A joke that is made better."""

    topic: str
    joke: str
    verdict: Verdict
    tries: Annotated[int, operator.add]


def evaluator_optimizer(model: Any) -> Any:
    """Write, judge, and write again until the judge is content."""
    judge = model.with_structured_output(Verdict)

    def write(state: JokeState) -> Any:
        asked = f"A joke about {state['topic']}."
        if "verdict" in state:
            asked += f" Mind this: {state['verdict'].advice}"
        return {"joke": str(model.invoke(asked).text), "tries": 1}

    def evaluate(state: JokeState) -> Any:
        return {"verdict": judge.invoke(f"Grade this joke: {state['joke']}")}

    def next_step(state: JokeState) -> Literal["write", "__end__"]:
        return "__end__" if state["verdict"].good else "write"

    graph = StateGraph(JokeState).add_node(write).add_node(evaluate)
    graph.add_edge(START, "write")
    graph.add_edge("write", "evaluate")
    graph.add_conditional_edges("evaluate", next_step)
    return graph.compile().invoke({"topic": "cats"})


@WITH_RECORDING
def test_an_evaluator_and_an_optimizer(performed: Performed) -> None:
    script = [
        line("A joke about cats.", "A cat."),
        gives("Grade this joke: A cat.", "Verdict", good=False, advice="Add a piano."),
        line("Mind this: Add a piano.", "A cat on a piano."),
        gives("Grade this joke: A cat on a piano.", "Verdict", good=True, advice=""),
    ]
    state = performed.same(evaluator_optimizer, script)
    assert (state["joke"], state["tries"]) == ("A cat on a piano.", 2)


class Essay(TypedDict):
    """What the writer and the critic say to each other."""

    messages: Annotated[list[BaseMessage], add_messages]


def reflection(model: Any) -> Any:
    """Let a writer and a critic speak to each other: each sees the other one as its user."""
    writer = SystemMessage("You write essays.")
    critic = SystemMessage("You are a teacher.")

    def write(state: Essay) -> Any:
        return {"messages": [model.invoke([writer, *state["messages"]])]}

    def reflect(state: Essay) -> Any:
        first, *rest = state["messages"]
        turned = [
            HumanMessage(m.content) if isinstance(m, AIMessage) else AIMessage(m.content)
            for m in rest
        ]
        critique = model.invoke([critic, first, *turned])
        return {"messages": [HumanMessage(str(critique.text))]}

    def next_step(state: Essay) -> Literal["reflect", "__end__"]:
        return "__end__" if len(state["messages"]) > 5 else "reflect"

    graph = StateGraph(Essay).add_node(write).add_node(reflect)
    graph.add_edge(START, "write")
    graph.add_conditional_edges("write", next_step)
    graph.add_edge("reflect", "write")
    app = graph.compile(checkpointer=InMemorySaver())
    return app.invoke({"messages": [HumanMessage("Write about the sea.")]}, THREAD)


@WITH_RECORDING
def test_reflection(performed: Performed) -> None:
    script = [
        line("Write about the sea.", "Draft one.", knows="You write essays."),
        line("Draft one.", "Longer, please.", knows=["You are a teacher.", "about the sea"]),
        line("Longer, please.", "Draft two.", knows=["You write essays.", "Draft one."]),
        line("Draft two.", "More salt.", knows=["You are a teacher.", "Longer, please."]),
        line("More salt.", "Draft three.", knows=["Draft one.", "Draft two."]),
    ]
    state = performed.same(reflection, script)
    assert [next(iter(m.values())) for m in state["messages"]] == [
        *("Write about the sea.", "Draft one.", "Longer, please."),
        *("Draft two.", "More salt.", "Draft three."),
    ]


class Plan(BaseModel):
    """What is still to be done, in order."""

    steps: list[str]


class Response(BaseModel):
    """The answer, once it is known."""

    response: str


class Act(BaseModel):
    """Answer, or go on with what is still to be done."""

    action: Response | Plan


class PlanState(TypedDict, total=False):
    """A plan, and what was done of it."""

    goal: str
    plan: list[str]
    done: Annotated[list[list[str]], operator.add]
    response: str


def plan_and_execute(model: Any) -> Any:
    """Make a plan, do its first step, look at it anew, and so on."""

    def make_plan(state: PlanState) -> Any:
        made = model.with_structured_output(Plan).invoke(f"Plan for: {state['goal']}")
        return {"plan": made.steps}

    def execute(state: PlanState) -> Any:
        step = state["plan"][0]
        did = model.invoke(f"Do this step: {step}")
        return {"done": [[step, str(did.text)]]}

    def replan(state: PlanState) -> Any:
        done = "; ".join(f"{step}: {did}" for step, did in state["done"])
        asked = f"Goal: {state['goal']} Done: {done} Go on or answer."
        action = model.with_structured_output(Act).invoke(asked).action
        return (
            {"response": action.response}
            if isinstance(action, Response)
            else {"plan": action.steps}
        )

    def next_step(state: PlanState) -> Literal["execute", "__end__"]:
        return "__end__" if state.get("response") else "execute"

    graph = StateGraph(PlanState).add_node(make_plan).add_node(execute).add_node(replan)
    graph.add_edge(START, "make_plan")
    graph.add_edge("make_plan", "execute")
    graph.add_edge("execute", "replan")
    graph.add_conditional_edges("replan", next_step)
    return graph.compile(checkpointer=InMemorySaver()).invoke({"goal": "tea for two"}, THREAD)


@WITH_RECORDING
def test_plan_and_execute(performed: Performed) -> None:
    script = [
        gives("Plan for: tea for two", "Plan", steps=["boil", "pour"]),
        line("Do this step: boil", "It boils."),
        gives("boil: It boils.", "Act", action={"steps": ["pour"]}),
        line("Do this step: pour", "It is poured."),
        gives("pour: It is poured.", "Act", action={"response": "Tea is ready."}),
    ]
    state = performed.same(plan_and_execute, script)
    assert state["response"] == "Tea is ready."
    assert state["done"] == [["boil", "It boils."], ["pour", "It is poured."]]


def functional(model: Any) -> Any:
    """Write functions instead of a graph: tasks, and what the call before left."""
    ran: list[str] = []

    @task
    def write(topic: str) -> str:
        ran.append(f"write {topic}")
        return str(model.invoke(f"A paragraph about {topic}.").text)

    @task
    def translate(text: str) -> str:
        ran.append("translate")
        return str(model.invoke(f"In Latin: {text}").text)

    @entrypoint(checkpointer=InMemorySaver())
    def work(topic: str, *, previous: Any = None) -> Any:
        text = write(topic).result()
        told = translate(text).result()
        return entrypoint.final(value=[text, told, previous], save=told)

    @entrypoint(checkpointer=InMemorySaver())
    def chat(said: list[BaseMessage], *, previous: Any = None) -> Any:
        history = add_messages(previous or [], said)
        answer = model.invoke(history)
        return entrypoint.final(value=answer, save=add_messages(history, [answer]))

    first, second = work.invoke("fish", THREAD), work.invoke("birds", THREAD)
    chat.invoke([HumanMessage("I am Ada.")], THREAD)
    named = chat.invoke([HumanMessage("Who am I?")], THREAD)
    return [first, second, named, ran]


def test_the_functional_api(performed: Performed) -> None:
    script = [
        line("A paragraph about fish.", "Fish swim."),
        line("In Latin: Fish swim.", "Pisces natant."),
        line("A paragraph about birds.", "Birds fly."),
        line("In Latin: Birds fly.", "Aves volant."),
        line("I am Ada.", "Hello Ada."),
        line("Who am I?", "Ada.", knows="I am Ada."),
    ]
    first, second, named, ran = performed.same(functional, script)
    assert first == ["Fish swim.", "Pisces natant.", None]
    assert second == ["Birds fly.", "Aves volant.", "Pisces natant."]
    assert named == {"ai": "Ada."}
    assert ran == ["write fish", "translate", "write birds", "translate"]


def time_travel(model: Any) -> Any:
    """Go back to a checkpoint: run on from it once more, and with another question."""

    def answer(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer")
    app = graph.compile(checkpointer=InMemorySaver())
    for number, text in enumerate(["Tell me of Rome.", "How old is it?"]):
        app.invoke({"messages": [HumanMessage(text, id=f"asked-{number}")]}, THREAD)

    history = list(app.get_state_history(THREAD))
    before = next(s for s in history if s.next and len(s.values["messages"]) == 3)
    replayed = app.invoke(None, before.config)

    asked = before.values["messages"][-1]
    other = HumanMessage("How big is it?", id=asked.id)
    forked = app.invoke(None, app.update_state(before.config, {"messages": [other]}))
    last = HumanMessage("And the first thing I asked?", id="asked-2")
    on = app.invoke({"messages": [last]}, THREAD)
    return {
        "steps": [list(state.next) for state in history],
        "replayed": replayed["messages"],
        "forked": forked["messages"],
        "went on": on["messages"],
    }


@WITH_RECORDING
def test_time_travel(performed: Performed) -> None:
    """An agent is not asked twice: what runs on from a checkpoint gets the answer it gave."""
    script = [
        line("Tell me of Rome.", "A city."),
        line("How old is it?", "Old.", knows="A city."),
        line("How big is it?", "Big.", knows="A city."),
        line("And the first thing", "Of Rome.", knows=["Tell me of Rome.", "How big", "Big."]),
    ]
    again = line("How old is it?", "Very old.", knows="A city.")
    control, letta = performed.both(time_travel, script, control=[*script[:2], again, *script[2:]])
    said = [next(iter(m.values())) for m in letta["replayed"]]
    assert said == ["Tell me of Rome.", "A city.", "How old is it?", "Old."]
    assert control["replayed"] == [*letta["replayed"][:3], {"ai": "Very old."}]

    del control["replayed"], letta["replayed"]
    assert letta == control
    said = [next(iter(m.values())) for m in letta["went on"]]
    assert said[:4] == ["Tell me of Rome.", "A city.", "How big is it?", "Big."]
    assert said[4:] == ["And the first thing I asked?", "Of Rome."]
