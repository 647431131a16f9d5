"""Odd tools, odd answers, odd messages: what becomes of them."""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models.chat_model_stream import ChatModelStream
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from letta_adapters import Allow, InvalidInputError, LettaClient, UnsupportedOptionError
from letta_adapters.chat import Marker, ResponseCompleted, ResponseStarted
from letta_adapters.chat.response import Answer, ResponseReader
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.langchain.chunks import build_message
from letta_adapters.langchain.events import EventMaker
from letta_adapters.langchain.messages import to_entries
from letta_adapters.langchain.structured_output import make_validator
from letta_adapters.langchain.tools import (
    ServerToolError,
    build_refusals,
    to_result_message,
)
from letta_adapters.llama_index import step
from letta_adapters.messages import AssistantMessage, ReasoningMessage, ToolCallMessage
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.langchain.test_runnable import Make, bash, graph_of, make, script, thread
from tests.langchain.test_works_as import MakeModel, model

__all__ = ["make", "model", "script"]

CALL = ToolCall(name="look", args={}, id="c1", type="tool_call")
beta = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")


# -- tools --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        (5, "must be a list"),
        ("look", "must be a list"),
        ([int], "is not a tool"),
        ([3], "is not a tool"),
        ([lambda x: x, lambda x: x], "Two tools"),
        ([functools.partial(int, base=2)], "is not a tool"),
    ],
)
def test_what_is_no_tool(tools: Any, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        LettaRunnable(agent_id="agent-1", backend="local", tools=tools)


def test_langchains_own_tools_and_what_they_give(make: Make, script: Any) -> None:
    @tool
    def numbers(n: int) -> list[int]:
        """Counts."""
        return list(range(n))

    script(Reply(tool_calls=[ToolUse("numbers", {"n": 3}, id="n1")]), "Counted.")
    out = make(tools=[numbers]).invoke("count")["messages"]
    assert json.loads(out[1].content) == [0, 1, 2]


def test_the_result_of_a_tool_that_is_no_message() -> None:
    made = to_result_message(CALL, {"a": 1})
    assert (made.content, made.tool_call_id, made.name) == ('{"a": 1}', "c1", "look")
    message = ToolMessage("x", tool_call_id="c1")
    assert to_result_message(CALL, message) is message


def test_a_callback_changes_what_a_tool_of_ours_is_given(make: Make, script: Any) -> None:
    seen: list[str] = []

    def look(city: str) -> str:
        """Look."""
        seen.append(city)
        return "sunny"

    script(Reply(tool_calls=[ToolUse("look", {"city": "Rome"}, id="edit-1")]), "Well.")
    agent = make(tools=[look], can_use_tool=lambda *_: Allow({"city": "Oslo"}))
    agent.invoke("go")
    assert seen == ["Oslo"]


def test_session_options_that_the_letta_api_has_not_are_refused(letta_fake: FakeLetta) -> None:
    options = {"stateless": True}
    for made in (
        ChatLetta(client=letta_fake.client(), session_options=options),
        LettaRunnable(client=letta_fake.client(), session_options=options),
    ):
        with pytest.raises(UnsupportedOptionError, match=r"stateless.* local"):
            made.invoke("hi")
    assert letta_fake.said == []


def test_session_options_that_letta_code_has_not_are_refused(
    embedded: LettaClient, embedded_agent: str, embedded_model: ScriptedModel
) -> None:
    # In a conversation that is there already, too.
    embedded_model.clear()
    with embedded.create_session(embedded_agent) as session:
        session.run_turn("there")
    asked = len(embedded_model.requests)
    model = ChatLetta(
        agent_id=embedded_agent,
        conversation_id=session.conversation_id,
        client=embedded,
        session_options={"allowed_tools": ["Bash(ls:*)"]},
    )
    with pytest.raises(UnsupportedOptionError, match="is a pattern"):
        model.invoke("hi")
    assert len(embedded_model.requests) == asked


def test_a_stateless_model_is_offered_no_tools_of_letta_codes(
    embedded: LettaClient, embedded_agent: str, embedded_model: ScriptedModel
) -> None:
    embedded_model.clear()
    model = ChatLetta(agent_id=embedded_agent, client=embedded, session_options={"stateless": True})
    model.invoke("hi")
    (request,) = embedded_model.requests
    assert request.tools == []


async def test_a_server_tool_that_fails_is_a_failed_run(
    make: Make, script: Any, tmp_path: Path
) -> None:
    script(Reply(tool_calls=[bash("exit 3", "fails-1")]), "It failed.")
    agent = make(session_options={"cwd": tmp_path, "permission_mode": "unrestricted"})
    events = [e async for e in agent.astream_events("go", version="v2")]
    assert [e["name"] for e in events if e["event"] == "on_tool_error"] == ["Bash"]
    script(Reply(tool_calls=[bash("exit 3", "fails-2")]), "It failed.")
    seen: list[str] = []
    given: Any = {"callbacks": [_Errors(seen)]}
    assert agent.invoke("go", given)["messages"][-1].text == "It failed."
    assert len(seen) == 1


class _Errors(BaseCallbackHandler):
    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
        self._seen.append(str(error))


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_a_tool_of_ours_that_asks_a_person(
    make: Make, script: Any, asynchronous: bool, embedded_model: ScriptedModel
) -> None:
    def ask(question: str) -> str:
        """Ask a person."""
        return str(interrupt(question))

    call = ToolUse("ask", {"question": "Which?"}, id=f"ask-{asynchronous}")
    script(Reply(tool_calls=[call]), "Blue, then.")
    graph = graph_of(make(tools=[ask]), InMemorySaver())
    config = thread(f"a tool asks {asynchronous}")
    if asynchronous:
        paused = await graph.ainvoke({"messages": "go"}, config)
        done = await graph.ainvoke(Command(resume="blue"), config)
    else:
        paused = graph.invoke({"messages": "go"}, config)
        done = graph.invoke(Command(resume="blue"), config)
    assert [question.value for question in paused["__interrupt__"]] == ["Which?"]
    assert done["messages"][-1].text == "Blue, then."
    assert embedded_model.requests[-1].messages[-1]["content"] == "blue"


def test_text_inside_a_graph_is_known_again(
    make: Make, script: Any, embedded_model: ScriptedModel, tmp_path: Path
) -> None:
    """A message without an id is named after the node's task, which a resumed node has again."""
    file = tmp_path / "made"
    script(Reply(tool_calls=[bash(f"touch {file}", "named-1")]), "Touched.")
    builder = StateGraph(dict)
    builder.add_node("agent", RunnableLambda(lambda state: "go") | make(output="text"))
    builder.add_edge(START, "agent")
    graph = builder.compile(checkpointer=InMemorySaver())
    config = thread("text in a graph")
    assert graph.invoke({"x": 1}, config)["__interrupt__"]
    graph.invoke(Command(resume="yes"), config)
    assert file.exists()
    users = [m for m in embedded_model.requests[-1].messages if m["role"] == "user"]
    assert len(users) == 1


# -- answers ------------------------------------------------------------------------------------


def test_arguments_that_are_no_json() -> None:
    """Letta Code mends them; a server that does not must not break the chain."""
    asked = ToolCallMessage("i1", "look", {}, '{"city": ', requires_approval=True)
    events: list[Any] = [
        ResponseStarted("1", "agent-1", "conv-1", "rest"),
        ReasoningMessage("Hm. "),
        ReasoningMessage("Yes."),
        AssistantMessage("I look."),
        asked,
        ResponseCompleted(Marker("rest", "agent-1", "conv-1", ("i1",)), pending=(asked,)),
    ]
    reader = ResponseReader(["look"])
    pieces = [piece for event in events for piece in reader.read(event)]
    whole = build_message(Answer(reader, tuple(pieces)))
    maker = EventMaker(ResponseReader(["look"]))
    stream = ChatModelStream()
    made: list[Any] = [item for event in events for item in maker.feed(event)] + maker.finish()
    assert_valid_event_stream(made)
    for item in made:
        stream.dispatch(item)
    for message in (whole, stream.output):
        (broken,) = message.invalid_tool_calls
        assert (broken["name"], broken["args"], message.tool_calls) == ("look", '{"city": ', [])
        blocks = [block for block in message.content_blocks if block["type"] == "reasoning"]
        assert [block["reasoning"] for block in blocks] == ["Hm. Yes."]


@beta
async def test_a_repeated_call_streams_what_was_answered(model: MakeModel, script: Any) -> None:
    script(Reply(reasoning="Hm.", text="Only once."))
    chat = model()
    question: Any = [HumanMessage("say it", id="repeat-me")]
    first = chat.invoke(question)
    assert "".join(chunk.text for chunk in chat.stream(question)) == "Only once."
    assert chat.stream_events(question, version="v3").output.text == "Only once."
    stream = await chat.astream_events(question, version="v3")
    again = await stream
    assert (again.text, again.id) == ("Only once.", first.id)


@beta
def test_a_demand_is_met_in_every_way_of_calling(model: MakeModel, script: Any) -> None:
    """What is checked before it is passed on comes at once, at its end."""

    def look(city: str) -> str:
        """Look."""
        return city

    bound = model().bind_tools([look], tool_choice="look")
    call = Reply(tool_calls=[ToolUse("look", {"city": "Rome"})])
    script("I would rather not.", call)
    assert bound.stream_events("a", version="v3").output.tool_calls[0]["name"] == "look"
    script("I would rather not.", call)
    chunks = list(bound.stream("b"))
    assert [c["name"] for chunk in chunks for c in chunk.tool_call_chunks] == ["look"]


# -- structure ----------------------------------------------------------------------------------


class Named(BaseModel):
    """Somebody."""

    name: str


def test_json_without_a_schema(model: MakeModel, script: Any) -> None:
    script('{"a": 1}')
    assert model().with_structured_output(None, method="json_mode").invoke("x") == {"a": 1}
    script("[1]", "[2]")
    with pytest.raises((OutputParserException, ValueError)):
        model().with_structured_output(None, method="json_mode").invoke("x")


def test_an_answer_that_is_nested_too_deeply_is_a_fault_of_the_parser(
    letta_fake: FakeLetta,
) -> None:
    deep = '{"c":' * 100_000 + "{}" + "}" * 100_000
    letta_fake.script(deep, deep)
    chain = ChatLetta(client=letta_fake.client()).with_structured_output(None, method="json_mode")
    with pytest.raises(OutputParserException):
        chain.invoke("x")


def test_data_that_is_nested_too_deeply_does_not_fit_its_schema() -> None:
    check = make_validator({"title": "x", "type": "object", "properties": {"c": {"$ref": "#"}}})
    with pytest.raises(ValueError, match="nested too deeply"):
        check(json.loads('{"c":' * 400 + "{}" + "}" * 400))


def test_broken_arguments_that_are_nested_too_deeply_are_handed_on() -> None:
    deep = '{"c":' * 100_000
    call = invalid_tool_call(name="look", args=deep, id="c1", error=None)
    assert build_refusals(AIMessage("", invalid_tool_calls=[call]))[0].status == "error"


def test_raw_answers_beside_what_was_read(model: MakeModel, script: Any) -> None:
    script(Reply(tool_calls=[ToolUse("Named", {"name": "Ada"})]))
    found = model().with_structured_output(Named, include_raw=True).invoke("x")
    assert (found["parsed"], found["parsing_error"]) == (Named(name="Ada"), None)


def test_schemas_that_are_none() -> None:
    with pytest.raises(InvalidInputError, match="JSON schema"):
        make_validator({"title": "x", "description": "y", "type": "object", "properties": 3})
    check = make_validator({"title": "x", "type": "object", "required": ["a"], "properties": {}})
    with pytest.raises(ValueError, match="'a' is a required property"):
        check({})
    assert make_validator(lambda a: a)({"a": 1}) == {"a": 1}


# -- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        FunctionMessage("x", name="f"),
        ChatMessage("x", role="narrator"),
        HumanMessage([{"type": "audio", "base64": "AA=="}]),
        HumanMessage([{"type": "image", "file_id": "file-1"}]),
    ],
    ids=["function", "role", "audio", "file"],
)
def test_messages_without_a_place(message: Any) -> None:
    with pytest.raises(InvalidInputError):
        to_entries([message])


def test_parts_that_say_nothing_are_left_out() -> None:
    silent = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": " "}]
    (entry,) = to_entries([HumanMessage(silent)])
    assert entry.content == ""
    call = invalid_tool_call(name="f", args="{", id="1", error="")
    broken = AIMessage("", invalid_tool_calls=[call])
    (entry,) = to_entries([broken])
    assert [(call.tool_call_id, call.tool_name) for call in entry.tool_calls] == [("1", "f")]


def test_text_that_was_a_string_among_parts() -> None:
    (entry,) = to_entries([HumanMessage(["one ", {"type": "text", "text": "two"}])])
    assert "one" in str(entry.content)
    assert "two" in str(entry.content)


def test_a_failed_tool_of_the_agents_is_one_error_for_both_frameworks() -> None:
    with pytest.raises(step.ServerToolError):
        raise ServerToolError("no such file")
    assert ServerToolError is step.ServerToolError
    assert pickle.loads(pickle.dumps(ServerToolError("no"))).args == ("no",)


class _ToolRuns(BaseCallbackHandler):
    """Note how the runs of tools begin and end."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("start")

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self.seen.append(f"end: {output}")

    def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
        self.seen.append(f"error: {error}")


def _agent_whose_tool_never_ends(
    letta_fake: FakeLetta, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> LettaRunnable:
    """An agent whose answer begins with a call of a tool of its own, and has no result of it."""
    call = {"type": "server_tool_call", "id": "call-1", "name": "Bash", "args": {}, "index": 0}

    def answer(*args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(content=[call]))
        if failure is not None:
            raise failure
        yield ChatGenerationChunk(message=AIMessageChunk(content="Do"))
        yield ChatGenerationChunk(message=AIMessageChunk(content="ne.", chunk_position="last"))

    async def aanswer(*args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in answer():
            yield chunk

    monkeypatch.setattr(ChatLetta, "_stream", answer)
    monkeypatch.setattr(ChatLetta, "_astream", aanswer)
    return LettaRunnable(client=letta_fake.client())


@pytest.mark.parametrize(
    ("failure", "told"),
    [(None, ["start", "end: None"]), (RuntimeError("torn"), ["start", "error: torn"])],
    ids=["the turn ends", "the turn fails"],
)
async def test_no_tool_of_the_agents_stays_at_work_in_a_trace(
    letta_fake: FakeLetta,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception | None,
    told: list[str],
) -> None:
    agent = _agent_whose_tool_never_ends(letta_fake, monkeypatch, failure)
    here, there = _ToolRuns(), _ToolRuns()
    with suppress(RuntimeError):
        agent.invoke("go", {"callbacks": [here]})
    with suppress(RuntimeError):
        await agent.ainvoke("go", {"callbacks": [there]})
    assert (here.seen, there.seen) == (told, told)


async def test_a_consumer_who_leaves_ends_the_agents_tools_without_an_error(
    letta_fake: FakeLetta, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = _agent_whose_tool_never_ends(letta_fake, monkeypatch, None)
    agent.output = "text"
    here, there = _ToolRuns(), _ToolRuns()
    with closing(agent.stream("go", {"callbacks": [here]})) as texts:
        assert next(texts) == "Do"
    async with aclosing(agent.astream("go", {"callbacks": [there]})) as later:
        assert await anext(later) == "Do"
    assert (here.seen, there.seen) == (["start", "end: None"],) * 2
