"""Tutorials about query engines and chat engines: an index is asked, the LLM answers."""

import json
import operator
from typing import Any

from llama_index.core import MockEmbedding, SQLDatabase, SummaryIndex, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.evaluation import (
    CorrectnessEvaluator,
    FaithfulnessEvaluator,
    GuidelineEvaluator,
    RelevancyEvaluator,
)
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import (
    CitationQueryEngine,
    CustomQueryEngine,
    NLSQLTableQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import QueryEngineTool
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, insert
from sqlalchemy.pool import StaticPool

from tests.tutorials.llama_index.stage import Fill, Stage, tutorial


def index_of(*texts: str) -> VectorStoreIndex:
    """Return an index of these texts, which finds all of them for every question."""
    nodes = [TextNode(text=text, id_=str(at)) for at, text in enumerate(texts)]
    return VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))


def nodes_of(*texts: str) -> list[NodeWithScore]:
    """Return these texts as they are found."""
    return [NodeWithScore(node=TextNode(text=text), score=1.0) for text in texts]


@tutorial(
    json.dumps([{"choice": 2, "reason": "It is about the whole."}]),
    "It is a story about a whale.",
    json.dumps([{"choice": 1, "reason": "It is about a detail."}]),
    "He has a wooden leg.",
    recorded=True,
)
def a_router(stage: Stage) -> Any:
    """Two engines over one book, and an LLM that chooses one of them."""
    llm = stage.llm()
    texts = "Ahab has a wooden leg.", "They hunt a whale."
    details = QueryEngineTool.from_defaults(
        index_of(*texts).as_query_engine(llm=llm), name="details", description="Finds details."
    )
    whole = QueryEngineTool.from_defaults(
        SummaryIndex([TextNode(text=text) for text in texts]).as_query_engine(llm=llm),
        name="whole",
        description="Sums the book up.",
    )
    router = RouterQueryEngine(
        selector=LLMSingleSelector.from_defaults(llm=llm),
        query_engine_tools=[details, whole],
        llm=llm,
    )
    made = [router.query(text) for text in ("What is the book about?", "What has Ahab?")]
    return [(str(r), [s.reason for s in r.metadata["selector_result"].selections]) for r in made]


QUESTIONS = [
    {"sub_question": "How high is the Zugspitze?", "tool_name": "germany"},
    {"sub_question": "How high is Mont Blanc?", "tool_name": "france"},
]


@tutorial(
    f"```json\n{json.dumps({'items': QUESTIONS})}\n```",
    "2962 metres.",
    "4806 metres.",
    "Mont Blanc is higher.",
    recorded=True,
)
def sub_questions(stage: Stage) -> Any:
    """A question is taken apart, and the answers are put together."""
    llm = stage.llm()
    tools = [
        QueryEngineTool.from_defaults(
            index_of(text).as_query_engine(llm=llm), name=name, description=f"Hills of {name}."
        )
        for name, text in (("germany", "Zugspitze: 2962 m."), ("france", "Mont Blanc: 4806 m."))
    ]
    engine = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=tools,
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        response_synthesizer=get_response_synthesizer(llm=llm),
        use_async=False,
        verbose=False,
    )
    response = engine.query("Which is higher, the Zugspitze or Mont Blanc?")
    return {"answer": str(response), "from": [node.text for node in response.source_nodes]}


@tutorial(
    "SELECT name FROM cities ORDER BY people DESC LIMIT 1\nSQLResult: ",
    "Tokyo is the largest.",
)
def text_to_sql(stage: Stage) -> Any:
    """A question becomes SQL, and the rows become an answer."""
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    metadata = MetaData()
    cities = Table(
        "cities",
        metadata,
        Column("name", String(20), primary_key=True),
        Column("people", Integer),
    )
    metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [{"name": "Oslo", "people": 700_000}, {"name": "Tokyo", "people": 14_000_000}]
        connection.execute(insert(cities), rows)
    asking = NLSQLTableQueryEngine(
        sql_database=SQLDatabase(engine, include_tables=["cities"]),
        tables=["cities"],
        llm=stage.llm(),
        embed_model=MockEmbedding(embed_dim=4),
    )
    response = asking.query("Which city is the largest?")
    engine.dispose()
    about = response.metadata
    return {"answer": str(response), "sql": about["sql_query"], "rows": about["result"]}


class Filter(BaseModel):
    """Which rows of a table are meant."""

    column: str
    compare: str
    value: float


TABLE = [
    {"name": "Oslo", "degrees": -2.0},
    {"name": "Rome", "degrees": 14.0},
    {"name": "Cairo", "degrees": 22.0},
]


class TableEngine(CustomQueryEngine):
    """Lets the LLM say which rows are meant, finds them, and lets it tell."""

    llm: Any
    rows: list[dict[str, Any]]

    def custom_query(self, query_str: str) -> str:
        """Answer a question about the table."""
        columns = ", ".join(self.rows[0])
        meant = self.llm.structured_predict(
            Filter,
            PromptTemplate("A table has the columns {columns}. Which rows answer: {question}"),
            columns=columns,
            question=query_str,
        )
        holds = {">": operator.gt, "<": operator.lt, "=": operator.eq}[meant.compare]
        found = [row for row in self.rows if holds(row[meant.column], meant.value)]
        told = json.dumps(found)
        return str(self.llm.complete(f"Rows: {told}\nQuestion: {query_str}\nAnswer:"))


@tutorial(
    Fill("Filter", {"column": "degrees", "compare": ">", "value": 10}),
    "Rome and Cairo are warm.",
)
def a_table(stage: Stage) -> Any:
    """A query engine of one's own, over rows."""
    return str(TableEngine(llm=stage.llm(), rows=TABLE).query("Which cities are warm?"))


@tutorial("Bees dance [1] and ants dig [2].", recorded=True)
def citations(stage: Stage) -> Any:
    """An answer that names its sources."""
    engine = CitationQueryEngine.from_args(
        index_of("Bees dance.", "Ants dig."), llm=stage.llm(), similarity_top_k=2
    )
    response = engine.query("What do insects do?")
    return {"answer": str(response), "sources": [node.text for node in response.source_nodes]}


FACT = "The key is under the mat."


@tutorial(
    "Hello Ada.",
    "You are Ada.",
    "Under the mat.",
    "Yes, under it.",
    "Under the mat.",
    "Is the key really under the mat?",
    "It really is.",
    "Where is the key?",
    "Under the mat.",
    "Is the key there?",
    "It is there.",
    "Bye.",
    recorded=True,
)
def chat_engines(stage: Stage) -> Any:
    """The four engines: simple, context, condense question, condense plus context."""
    llm = stage.llm()
    simple = SimpleChatEngine.from_defaults(
        llm=llm, system_prompt="You are polite.", memory=ChatMemoryBuffer.from_defaults()
    )
    index = index_of(FACT)
    modes = ("context", "condense_question", "condense_plus_context")
    context, condense, both = (
        index.as_chat_engine(chat_mode=mode, llm=llm, memory=ChatMemoryBuffer.from_defaults())
        for mode in modes
    )
    asked = {
        "simple": (simple, ["I am Ada.", "Who am I?"]),
        "context": (context, ["Where is the key?", "Is it?"]),
        "condense": (condense, ["Where is the key?", "Really?"]),
    }
    made: dict[str, Any] = {}
    for name, (engine, questions) in asked.items():
        said = [str(engine.chat(question)) for question in questions]
        made[name] = [said, engine.chat_history]
    before = [ChatMessage(role="user", content="Hi."), ChatMessage(role="assistant", content="Hi.")]
    first = str(both.chat("Where is it?", chat_history=before))
    streamed = "".join(both.stream_chat("Is it there?").response_gen)
    made["both"] = [[first, streamed], both.chat_history]
    simple.reset()
    made["after"] = ["".join(simple.stream_chat("Bye.").response_gen), simple.chat_history]
    return made


@tutorial(
    "Compact.",
    "First.",
    "Refined once.",
    "Refined twice.",
    "Tree.",
    "Simple.",
    "One.",
    "Two.",
)
def synthesizers(stage: Stage) -> Any:
    """The same three texts, put together in every way there is."""
    llm = stage.llm()
    texts = "Fact one.", "Fact two.", "Fact three."
    made = {}
    for mode in (
        ResponseMode.COMPACT,
        ResponseMode.REFINE,
        ResponseMode.TREE_SUMMARIZE,
        ResponseMode.SIMPLE_SUMMARIZE,
    ):
        synthesizer = get_response_synthesizer(llm=llm, response_mode=mode)
        made[mode.value] = str(synthesizer.synthesize("What is known?", nodes=nodes_of(*texts)))
    accumulate = get_response_synthesizer(llm=llm, response_mode=ResponseMode.ACCUMULATE)
    made["accumulate"] = str(accumulate.synthesize("What is it?", nodes=nodes_of(*texts[:2])))
    return made


@tutorial(
    "Rome is sunny.",
    "YES",
    "NO",
    "4.5\nIt says what is known.",
    json.dumps({"passing": True, "feedback": "It is short."}),
)
async def evaluators(stage: Stage) -> Any:
    """An answer is judged: is it supported, to the point, correct, and in style?"""
    llm = stage.llm()
    question = "How is Rome?"
    response = await index_of("The sun shines in Rome.").as_query_engine(llm=llm).aquery(question)
    judged = [
        await FaithfulnessEvaluator(llm=llm).aevaluate_response(response=response),
        await RelevancyEvaluator(llm=llm).aevaluate_response(query=question, response=response),
        await CorrectnessEvaluator(llm=llm).aevaluate(
            query=question, response=str(response), reference="Sunny."
        ),
        await GuidelineEvaluator(llm=llm, guidelines="Be short.").aevaluate(
            query=question, response=str(response)
        ),
    ]
    return [(one.passing, one.score, one.feedback) for one in judged]
