"""Answers from documents: in one chain, and by an agent that looks up what it needs."""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.tutorials.control import calls, gives, line
from tests.tutorials.langchain.conftest import WITH_RECORDING, Performed

LIBRARY = [
    Document("The lighthouse was built in 1812.", metadata={"source": "history"}),
    Document("The keeper's cat is called Fresnel.", metadata={"source": "people"}),
    Document("Ferries leave at noon.", metadata={"source": "travel"}),
]


def find(query: str, count: int = 1) -> list[Document]:
    """Return the documents that share the most words with a query."""

    def words(text: str) -> set[str]:
        return set(text.lower().replace("?", " ").replace(".", " ").split())

    shared = {doc.page_content: len(words(query) & words(doc.page_content)) for doc in LIBRARY}
    return sorted(LIBRARY, key=lambda doc: -shared[doc.page_content])[:count]


def rag_chain(model: Any) -> Any:
    """Put what was found into the prompt; every question is for itself."""
    prompt = ChatPromptTemplate.from_template(
        "Answer from this only:\n{context}\n\nQuestion: {question}"
    )

    def joined(found: list[Document]) -> str:
        return "\n\n".join(document.page_content for document in found)

    chain = (
        {"context": RunnableLambda(find) | joined, "question": RunnablePassthrough()}
        | prompt
        | model
        | StrOutputParser()
    )
    one = chain.invoke("When was the lighthouse built?")
    return [one, "".join(chain.stream("When do ferries leave?"))]


def test_a_rag_chain(performed: Performed) -> None:
    script = [
        line("built in 1812", "In 1812."),
        line("leave at noon", "At noon."),
    ]
    assert performed.same(rag_chain, script) == ["In 1812.", "At noon."]


class RagState(TypedDict, total=False):
    """What the steps of a RAG graph hand on."""

    question: str
    found: list[Document]
    answer: str


def rag_graph(model: Any) -> Any:
    """Retrieve and answer as steps of a graph, whose state holds no messages."""

    def retrieve(state: RagState) -> RagState:
        return {"found": find(state["question"], 2)}

    def answer(state: RagState) -> RagState:
        context = "\n".join(document.page_content for document in state["found"])
        asked = f"Use this:\n{context}\nQuestion: {state['question']}"
        return {"answer": str(model.invoke([HumanMessage(asked)]).text)}

    graph = StateGraph(RagState).add_sequence([retrieve, answer])
    app = graph.add_edge(START, "retrieve").compile()
    questions = ["When was the lighthouse built?", "What is the cat called?"]
    states = [app.invoke({"question": question}) for question in questions]
    steps = list(app.stream({"question": questions[0]}, stream_mode="updates"))
    return [[state["answer"] for state in states], [list(step) for step in steps]]


@WITH_RECORDING
def test_a_rag_graph(performed: Performed) -> None:
    script = [
        line(["built in 1812", "When was"], "In 1812."),
        line(["Fresnel", "What is"], "Fresnel."),
        line(["built in 1812", "When was"], "In 1812, again."),
    ]
    answers, steps = performed.same(rag_graph, script)
    assert answers == ["In 1812.", "Fresnel."]
    assert steps == [["retrieve"], ["answer"]]


class Grade(BaseModel):
    """Does a document help?"""

    helps: Literal["yes", "no"]


def agentic_rag(model: Any) -> Any:
    """Let the model look things up, grade what it found, ask anew, and answer."""
    looked_up: list[str] = []

    @tool
    def look_up(query: str) -> str:
        """Look into the library."""
        looked_up.append(query)
        return find(query)[0].page_content

    def ask_or_answer(state: MessagesState) -> Any:
        return {"messages": [model.bind_tools([look_up]).invoke(state["messages"])]}

    def grade(state: MessagesState) -> Literal["answer", "rewrite"]:
        question, found = state["messages"][0].text, state["messages"][-1].text
        asked = [HumanMessage(f"Does this help with {question!r}? {found}")]
        graded = model.with_structured_output(Grade).invoke(asked)
        return "answer" if graded.helps == "yes" else "rewrite"

    def rewrite(state: MessagesState) -> Any:
        asked = f"Put this question better: {state['messages'][0].text}"
        better = model.invoke([HumanMessage(asked)])
        return {"messages": [HumanMessage(str(better.text))]}

    def answer(state: MessagesState) -> Any:
        question, found = state["messages"][0].text, state["messages"][-1].text
        asked = f"Answer in a word. Question: {question} Context: {found}"
        return {"messages": [model.invoke([HumanMessage(asked)])]}

    graph = StateGraph(MessagesState)
    graph.add_node(ask_or_answer)
    graph.add_node("look_up", ToolNode([look_up]))
    graph.add_node(rewrite)
    graph.add_node(answer)
    graph.add_edge(START, "ask_or_answer")
    graph.add_conditional_edges("ask_or_answer", tools_condition, {"tools": "look_up", END: END})
    graph.add_conditional_edges("look_up", grade)
    graph.add_edge("rewrite", "ask_or_answer")
    graph.add_edge("answer", END)
    app = graph.compile()

    helped = app.invoke({"messages": [HumanMessage("Who is Fresnel?")]})
    chatted = app.invoke({"messages": [HumanMessage("Hello!")]})
    return [helped, chatted, looked_up]


@WITH_RECORDING
def test_agentic_rag(performed: Performed) -> None:
    script = [
        line("Who is Fresnel?", calls("look_up", query="when do ferries leave")),
        gives("Ferries leave at noon.", "Grade", helps="no"),
        line("Put this question better", "What is the cat called?"),
        line("What is the cat called?", calls("look_up", query="the cat called")),
        gives("cat is called Fresnel.", "Grade", helps="yes"),
        line("Answer in a word.", "A cat."),
        line("Hello!", "Hello, what do you want to know?"),
    ]
    helped, chatted, looked_up = performed.same(agentic_rag, script)
    assert helped["messages"][-1] == {"ai": "A cat."}
    assert len(chatted["messages"]) == 2
    assert looked_up == ["when do ferries leave", "the cat called"]
