"""``LettaRunnable`` over the real embedded runtime: its tools, its traces, and inside LangGraph."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from letta_adapters import Allow, Deny, InvalidInputError, LettaClient, TurnCancelledError
from letta_adapters.chat import cache
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.langchain.fields import ModelFields
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse

Make = Callable[..., LettaRunnable]


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def explode(why: str) -> str:
    """Fails."""
    raise ValueError(why)


def bash(command: str, id: str) -> ToolUse:
    return ToolUse("Bash", {"command": command, "description": "a test"}, id=id)


def weather(city: str, id: str) -> ToolUse:
    return ToolUse("get_weather", {"city": city}, id=id)


@pytest.fixture
def make(
    embedded: LettaClient, embedded_agent: str, embedded_model: ScriptedModel, tmp_path: Path
) -> Make:
    embedded_model.clear()

    def made(**fields: Any) -> LettaRunnable:
        given: dict[str, Any] = {"session_options": {"cwd": tmp_path}}
        return LettaRunnable(agent_id=embedded_agent, client=embedded, **given | fields)

    return made


@pytest.fixture
def script(embedded_model: ScriptedModel) -> Callable[..., None]:
    return embedded_model.script


def graph_of(agent: LettaRunnable, checkpointer: Any = None) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("agent", agent)
    builder.add_edge(START, "agent")
    return builder.compile(checkpointer=checkpointer)


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


def test_a_whole_turn(make: Make, script: Any, embedded_model: ScriptedModel) -> None:
    script(Reply(text="Let me see.", tool_calls=[weather("Rome", "w1")]), "It is sunny.")
    out = make(tools=[get_weather]).invoke("Rome?")
    asked, returned, answer = out["messages"]
    assert [call["name"] for call in asked.tool_calls] == ["get_weather"]
    assert (returned.content, returned.tool_call_id) == ("sunny in Rome", "w1")
    assert answer.text == "It is sunny."
    assert embedded_model.requests[-1].messages[-1]["content"] == "sunny in Rome"


@pytest.mark.parametrize(
    "given",
    [
        "hello",
        [HumanMessage("hello")],
        HumanMessage("hello"),
        {"messages": [("user", "hello")]},
        {"messages": "hello"},
    ],
    ids=["text", "list", "message", "dict", "dict of text"],
)
def test_every_kind_of_input(make: Make, script: Any, given: Any) -> None:
    script("Hello.")
    assert make(output="text").invoke(given) == "Hello."


@pytest.mark.parametrize("bad", [None, 3, [], {}, {"messages": []}, {"question": "x"}])
def test_input_that_is_none(make: Make, bad: Any) -> None:
    with pytest.raises(InvalidInputError):
        make().invoke(bad)


def test_bad_arguments() -> None:
    with pytest.raises(InvalidInputError, match="output"):
        LettaRunnable(output="xml")
    with pytest.raises(InvalidInputError, match="Two tools"):
        LettaRunnable(tools=[get_weather, get_weather])
    with pytest.raises(InvalidInputError, match="not a tool"):
        LettaRunnable(tools=[3])
    with pytest.raises(InvalidInputError, match="list"):
        LettaRunnable(tools="abc")
    with pytest.raises(InvalidInputError, match="max_rounds"):
        LettaRunnable(max_rounds=0)


def test_outputs_and_schemas(make: Make, script: Any) -> None:
    script("One.", "Two.")
    message = make(output="message").invoke("x")
    assert isinstance(message, AIMessage)
    assert message.text == "One."
    agent = make(output="text")
    assert list(agent.stream("x")) == ["Two."]
    assert agent.get_input_schema().model_json_schema()["anyOf"][0] == {"type": "string"}
    assert agent.get_output_schema().model_json_schema()["type"] == "string"
    assert "messages" in make().get_output_schema().model_json_schema()["properties"]


def test_as_a_step_of_a_chain(make: Make, script: Any) -> None:
    script("Bonjour.")
    prompt = ChatPromptTemplate.from_messages([("user", "Say {word} in French")])
    chain = prompt | make(output="message") | StrOutputParser()
    assert chain.invoke({"word": "hello"}) == "Bonjour."


@pytest.mark.parametrize("sync", [True, False])
async def test_a_tool_that_fails_is_told(
    make: Make,
    script: Any,
    embedded_model: ScriptedModel,
    caplog: pytest.LogCaptureFixture,
    sync: bool,
) -> None:
    script(Reply(tool_calls=[ToolUse("explode", {"why": "boom"}, id="e1")]), "I see.")
    agent = make(tools=[explode])
    out = await asyncio.to_thread(agent.invoke, "go") if sync else await agent.ainvoke("go")
    assert out["messages"][1].status == "error"
    assert "ValueError: boom" in embedded_model.requests[-1].messages[-1]["content"]
    assert "raise ValueError" not in str(embedded_model.requests[-1].messages)
    # The developer gets the line.
    assert "raise ValueError(why)" in caplog.text
    assert [r.levelname for r in caplog.records if "letta_adapters" in r.name] == ["WARNING"]


async def test_parallel_tools_and_callbacks_of_tools(make: Make, script: Any) -> None:
    script(Reply(tool_calls=[weather("Rome", "w1"), weather("Oslo", "w2")]), "Both sunny.")
    seen: list[str] = []

    class Handler(BaseCallbackHandler):
        def on_tool_end(self, output: Any, **_: Any) -> None:
            seen.append(output.content)

    config: Any = {"callbacks": [Handler()]}
    out = await make(tools=[get_weather]).ainvoke("both?", config)
    assert sorted(seen) == ["sunny in Oslo", "sunny in Rome"]
    assert [m.type for m in out["messages"]] == ["ai", "tool", "tool", "ai"]


EVENTS = [
    ("on_chain_start", "LettaRunnable"),
    ("on_chat_model_start", "ChatLetta"),
    ("on_chat_model_stream", "ChatLetta"),
    ("on_custom_event", "letta_reasoning"),
    ("on_chat_model_stream", "ChatLetta"),
    ("on_custom_event", "letta_reasoning"),
    ("on_chat_model_stream", "ChatLetta"),
    ("on_tool_start", "Bash"),
    ("on_chat_model_stream", "ChatLetta"),
    ("on_tool_start", "Bash"),
    ("on_chat_model_stream", "ChatLetta"),
    ("on_tool_end", "Bash"),
    ("on_chat_model_stream", "ChatLetta"),
    ("on_tool_end", "Bash"),
    ("on_chat_model_stream", "ChatLetta"),
    ("on_chat_model_stream", "ChatLetta"),
    ("on_chat_model_end", "ChatLetta"),
    ("on_chain_stream", "LettaRunnable"),
    ("on_tool_start", "get_weather"),
    ("on_tool_end", "get_weather"),
    ("on_chain_stream", "LettaRunnable"),
    ("on_chat_model_start", "ChatLetta"),
    ("on_chat_model_stream", "ChatLetta"),
    ("on_chat_model_stream", "ChatLetta"),
    ("on_chat_model_stream", "ChatLetta"),
    ("on_chat_model_end", "ChatLetta"),
    ("on_chain_stream", "LettaRunnable"),
    ("on_chain_end", "LettaRunnable"),
]


def script_of_the_trace(script: Any) -> None:
    script(
        Reply(reasoning="Think hard.", tool_calls=[bash("echo one", "b1"), bash("echo two", "b2")]),
        Reply(text="Now", tool_calls=[weather("Rome", "w1")]),
        "All done.",
    )


async def test_the_trace_of_reasoning_two_server_tools_and_a_client_tool(
    make: Make, script: Any
) -> None:
    script_of_the_trace(script)
    agent = make(tools=[get_weather], session_options={"allowed_tools": ["Bash"]})
    events = [e async for e in agent.astream_events("go", version="v2")]
    assert [(e["event"], e["name"]) for e in events] == EVENTS
    starts = [e for e in events if e["event"] == "on_tool_start"]
    assert [e["data"]["input"].get("command") for e in starts[:2]] == ["echo one", "echo two"]
    ends = [e["data"]["output"] for e in events if e["event"] == "on_tool_end"]
    assert ["one" in ends[0], "two" in ends[1], ends[2].content] == [True, True, "sunny in Rome"]


async def test_the_same_trace_inside_a_graph(make: Make, script: Any) -> None:
    script_of_the_trace(script)
    agent = make(tools=[get_weather], session_options={"allowed_tools": ["Bash"]})
    graph = graph_of(agent)
    events = [e async for e in graph.astream_events({"messages": "go"}, version="v2")]
    inside = [(e["event"], e["name"]) for e in events if e["name"] not in ("LangGraph", "agent")]
    assert inside == EVENTS


def test_tokens_in_a_graphs_message_stream(make: Make, script: Any) -> None:
    script("One two three.")
    graph = graph_of(make())
    stream = graph.stream({"messages": "count"}, stream_mode="messages")
    texts = [chunk.text for chunk, _ in stream]
    assert "".join(texts) == "One two three."
    assert len([text for text in texts if text]) == 3


@pytest.mark.parametrize("answer", [True, "allow", {"behavior": "allow"}])
def test_an_approval_interrupts_the_graph_and_a_person_resumes_it(
    make: Make, script: Any, tmp_path: Path, answer: Any, embedded_model: ScriptedModel
) -> None:
    file = tmp_path / "made"
    script(
        Reply(tool_calls=[weather("Rome", "w1")]),
        Reply(tool_calls=[bash(f"touch {file}", "b1")]),
        "Touched.",
    )
    runs: list[str] = []

    def get_weather(city: str) -> str:
        """The weather of a city."""
        runs.append(city)
        return "sunny"

    graph = graph_of(make(tools=[get_weather]), InMemorySaver())
    config = thread(f"approval {answer}")
    paused = graph.invoke({"messages": "go"}, config)
    (question,) = paused["__interrupt__"]
    assert question.value["tool_name"] == "Bash"
    assert str(file) in question.value["tool_input"]["command"]
    assert not file.exists()
    done = graph.invoke(Command(resume=answer), config)
    assert done["messages"][-1].text == "Touched."
    assert file.exists()
    assert runs == ["Rome"]  # not once more when the node ran again
    users = [m for m in embedded_model.requests[-1].messages if m["role"] == "user"]
    assert len(users) == 1


@pytest.mark.parametrize("answer", [False, "deny", {"behavior": "deny", "message": "Not today."}])
def test_a_denied_approval(
    make: Make, script: Any, tmp_path: Path, answer: Any, embedded_model: ScriptedModel
) -> None:
    file = tmp_path / "made"
    script(Reply(tool_calls=[bash(f"touch {file}", "b1")]), "Then not.")
    graph = graph_of(make(), InMemorySaver())
    config = thread(f"denial {answer}")
    graph.invoke({"messages": "go"}, config)
    done = graph.invoke(Command(resume=answer), config)
    assert done["messages"][-1].text == "Then not."
    assert not file.exists()
    if isinstance(answer, dict):
        assert "Not today." in embedded_model.requests[-1].messages[-1]["content"]


def test_a_callback_decides_elsewhere(make: Make, script: Any, tmp_path: Path) -> None:
    file = tmp_path / "made"
    script(Reply(tool_calls=[bash(f"touch {file}", "b1")]), "Done.")
    asked: list[Any] = []

    def can_use_tool(name: str, tool_input: dict[str, Any], context: Any) -> Allow:
        asked.append((name, tool_input["command"], context.client_tool))
        return Allow()

    out = make(can_use_tool=can_use_tool).invoke("go")
    assert out["messages"][-1].text == "Done."
    assert asked == [("Bash", f"touch {file}", False)]
    assert file.exists()


def _run_in_events(agent: LettaRunnable, text: str) -> Any:
    return agent.stream_events(text, version="v3").output


def _run_in_asynchronous_events(agent: LettaRunnable, text: str) -> Any:
    async def run() -> Any:
        async with await agent.astream_events(text, version="v3") as turn:
            return await turn.output

    return asyncio.run(run())


@pytest.mark.filterwarnings("ignore:.*in beta")
@pytest.mark.parametrize("run", [LettaRunnable.invoke, _run_in_events, _run_in_asynchronous_events])
def test_a_callback_is_asked_about_reads_too(
    make: Make, script: Any, tmp_path: Path, run: Callable[[LettaRunnable, str], Any]
) -> None:
    (tmp_path / "plain.txt").write_text("read me")
    read = ToolUse("Read", {"file_path": str(tmp_path / "plain.txt")}, id="r1")
    asked: list[Any] = []

    def can_use_tool(name: str, tool_input: dict[str, Any], context: Any) -> Deny:
        asked.append((name, context.kind, context.default))
        return Deny("Not this one.")

    for mode in ("standard", "unrestricted"):
        script(Reply(tool_calls=[read]), "Done.")
        options = {"cwd": tmp_path, "permission_mode": mode}
        run(make(can_use_tool=can_use_tool, session_options=options), f"go {mode}")
    assert asked == [("Read", "reads_cwd", Allow())] * 2


def test_without_a_callback_the_default_answer_holds(
    make: Make, script: Any, tmp_path: Path, embedded_model: ScriptedModel
) -> None:
    (tmp_path / "plain.txt").write_text("read me")
    read = ToolUse("Read", {"file_path": str(tmp_path / "plain.txt")}, id="r2")
    script(Reply(tool_calls=[read, bash("env", "b2")]), "Done.")
    make(session_options={"cwd": tmp_path}).invoke("go")
    told = {m["tool_call_id"]: m["content"] for m in embedded_model.requests[-1].messages[-2:]}
    assert "read me" in str(told["r2"])
    assert "PATH" not in str(told["b2"])


@pytest.mark.parametrize("asked", ["callback", "graph"])
def test_a_denial_that_interrupts_ends_the_run(
    make: Make, script: Any, tmp_path: Path, asked: str, embedded_model: ScriptedModel
) -> None:
    file, denial = tmp_path / "made", {"behavior": "deny", "message": "Stop.", "interrupt": True}
    script(Reply(tool_calls=[bash(f"touch {file}", "b1")]), "Never said.")
    with pytest.raises(TurnCancelledError, match=r"Stop\."):
        if asked == "callback":
            make(can_use_tool=lambda *_: denial).invoke("go")
        else:
            graph = graph_of(make(), InMemorySaver())
            graph.invoke({"messages": "go"}, thread("interrupting denial"))
            graph.invoke(Command(resume=denial), thread("interrupting denial"))
    assert not file.exists()
    assert "Never said." not in str(embedded_model.requests[-1].messages)


def test_an_asynchronous_callback_of_a_synchronous_run(
    make: Make, script: Any, tmp_path: Path
) -> None:
    file = tmp_path / "made"
    script(Reply(tool_calls=[bash(f"touch {file}", "b1")]), "Not done.")

    async def can_use_tool(name: str, tool_input: dict[str, Any], context: Any) -> Deny:
        return Deny("No.")

    out = make(can_use_tool=can_use_tool).invoke("go")
    assert (out["messages"][-1].text, file.exists()) == ("Not done.", False)


def test_each_question_of_a_graph_s_node_gets_its_own_answer(
    make: Make, script: Any, tmp_path: Path
) -> None:
    """Between them runs what is not asked about."""
    places = [tmp_path / name for name in ("one", "two", "three")]
    read = ToolUse("TaskCreate", {"subject": "A", "description": "B"}, id="t1")
    turns = [Reply(tool_calls=[bash(f"touch {at}", at.name)]) for at in places]
    script(turns[0], Reply(tool_calls=[read]), *turns[1:], "Done.")
    graph = graph_of(make(), InMemorySaver())
    out = graph.invoke({"messages": "go"}, thread("own answers"))
    for at, decision in zip(places, (True, False, True), strict=True):
        assert out["__interrupt__"][0].value["tool_call_id"] == at.name
        out = graph.invoke(Command(resume=decision), thread("own answers"))
    assert out["messages"][-1].text.endswith("Done.")
    assert [at.exists() for at in places] == [True, False, True]


def test_without_anybody_to_ask_it_does_not_run(
    make: Make, script: Any, tmp_path: Path, embedded_model: ScriptedModel
) -> None:
    file = tmp_path / "made"
    script(Reply(tool_calls=[bash(f"touch {file}", "b1")]), "A pity.")
    out = make().invoke("go")
    assert (out["messages"][-1].text, file.exists()) == ("A pity.", False)
    assert "needs an approval" in embedded_model.requests[-1].messages[-1]["content"]


def test_a_thread_goes_on_in_another_process(make: Make, script: Any) -> None:
    """What a new process has: the checkpoints, and nothing that was remembered."""
    script("I will remember.", "Ada.")
    saver = InMemorySaver()
    first = graph_of(make(), saver).invoke({"messages": "I am Ada."}, thread("resumed"))
    cache.recent._calls.clear()
    second = graph_of(make(), saver).invoke({"messages": "Who am I?"}, thread("resumed"))
    places = [m.response_metadata["conversation_id"] for m in second["messages"] if m.type == "ai"]
    assert len(places) == 2
    assert len(set(places)) == 1
    assert places[0] == first["messages"][-1].response_metadata["conversation_id"]


def test_retries_fallbacks_listeners_and_batches(make: Make, script: Any) -> None:
    script(*[Reply(f"Answer {n}.", when=f"question {n}") for n in range(3)])
    ended: list[Any] = []
    agent = make(output="text").with_listeners(on_end=ended.append).with_retry()
    questions = [f"question {n}" for n in range(3)]
    answers = agent.batch(questions, {"max_concurrency": 2})
    assert answers == [f"Answer {n}." for n in range(3)]
    assert len(ended) == 3
    script("Instead.")
    broken = make(output="text", thread_id="x").bind(nonsense=1)
    assert broken.with_fallbacks([make(output="text")]).invoke("help") == "Instead."


@pytest.mark.filterwarnings("ignore:This API is in beta")
def test_as_a_tool_of_something_else(make: Make, script: Any) -> None:
    script("Forty-two.")
    tool = make(output="text").as_tool(
        name="oracle", description="Knows.", arg_types={"messages": str}
    )
    assert tool.invoke({"messages": "the question"}) == "Forty-two."


def test_too_many_rounds(make: Make, script: Any) -> None:
    script(*[Reply(tool_calls=[weather("Rome", f"r{n}")]) for n in range(3)])
    with pytest.raises(Exception, match="after 2 rounds"):
        make(tools=[get_weather], max_rounds=2).invoke("go")


def test_a_history_is_told_once(make: Make, script: Any, embedded_model: ScriptedModel) -> None:
    script("First.", "Second.")
    agent = make()
    history: list[Any] = [HumanMessage("one")]
    history += agent.invoke(history)["messages"]
    history.append(HumanMessage("two"))
    out = agent.invoke({"messages": history})
    assert [m.text for m in out["messages"]] == ["Second."]
    assert not any(isinstance(m, ToolMessage) for m in out["messages"])
    roles = [m["role"] for m in embedded_model.requests[-1].messages]
    assert roles == ["system", "user", "assistant", "user"]


def test_the_names_for_editors_are_the_fields_of_the_model() -> None:
    names = set(ModelFields.__annotations__)
    fields = ChatLetta.model_fields
    aliases = {
        alias
        for field in fields.values()
        for alias in (field.alias, field.validation_alias)
        if isinstance(alias, str)
    }
    # What is no field is shown to whoever inspects the class, as are the fields of ChatLetta there.
    assert {"tools", "ask_timeout", "ask_timeout_answer"} < set(signature(LettaRunnable).parameters)
    # The run's own name and the whole model are arguments of the runnable.
    assert names == set(fields) - {"name", "model"} | aliases
