"""``ChatLetta`` over the real embedded runtime: content, streams, tools, structure, errors."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core import exceptions
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel
from typing_extensions import TypedDict

from letta_adapters import (
    ConnectionFailedError,
    InvalidInputError,
    LettaClient,
    NotFoundError,
    RateLimitError,
    Rest,
    UnsupportedOptionError,
    errors,
)
from letta_adapters.langchain import ChatLetta
from letta_adapters.langchain.errors import as_langchain
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import ModelError, Reply, ScriptedModel, ToolUse

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
Make = Callable[..., ChatLetta]


@pytest.fixture
def make(embedded: LettaClient, embedded_agent: str, embedded_model: ScriptedModel) -> Make:
    embedded_model.clear()
    return lambda **fields: ChatLetta(**{"agent_id": embedded_agent, "client": embedded} | fields)


@pytest.fixture
def script(embedded_model: ScriptedModel) -> Callable[..., None]:
    return embedded_model.script


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


# -- content ------------------------------------------------------------------------------------

IMAGES: list[dict[str, Any]] = [
    {"type": "image", "base64": PIXEL, "mime_type": "image/png"},
    {"type": "image", "source_type": "base64", "data": PIXEL, "mime_type": "image/png"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
]


@pytest.mark.parametrize("image", IMAGES, ids=["v1", "v0", "openai", "anthropic"])
def test_images_of_every_kind(make: Make, script: Any, image: dict[str, Any]) -> None:
    """The twin of the standard test, which fetches its image."""
    script("A red dot.")
    content: Any = [{"type": "text", "text": "What is this?"}, image]
    assert make().invoke([HumanMessage(content)]).text == "A red dot."


def test_an_image_a_tool_gave(make: Make, script: Any) -> None:
    script(Reply(tool_calls=[ToolUse("get_weather", {"city": "Rome"}, id="img-1")]), "I see it.")
    model = make().bind_tools([get_weather])
    history: list[Any] = [HumanMessage("Show me Rome")]
    history.append(model.invoke(history))
    history.append(ToolMessage(IMAGES[0:1], tool_call_id="img-1"))
    assert model.invoke(history).text == "I see it."


@pytest.mark.parametrize(
    "block",
    [
        {"type": "file", "base64": "JVBERi0=", "mime_type": "application/pdf"},
        {"type": "audio", "base64": "UklGRg==", "mime_type": "audio/wav"},
        {"type": "video", "url": "http://letta.test/video.mp4"},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "image"},
        {"type": "image", "file_id": "file-1"},
    ],
    ids=lambda block: block["type"],
)
def test_what_a_letta_message_cannot_hold_is_refused(
    make: Make, block: dict[str, Any], embedded_model: ScriptedModel
) -> None:
    with pytest.raises(exceptions.ModelInvalidRequestError):
        make().invoke([HumanMessage([{"type": "text", "text": "Look"}, block])])
    assert embedded_model.requests == []


def test_roles(make: Make, script: Any) -> None:
    script("Yes.")
    messages = [ChatMessage("Be brief.", role="system"), ChatMessage("Hello?", role="user")]
    assert make().invoke(messages).text == "Yes."
    with pytest.raises(InvalidInputError, match="no place"):
        make().invoke([ChatMessage("?", role="critic")])


# -- streams ------------------------------------------------------------------------------------


def script_of_everything(script: Any) -> None:
    server = ToolUse("Bash", {"command": "echo hi", "description": "x"}, id="s1")
    client = ToolUse("get_weather", {"city": "Rome"}, id="c1")
    script(
        Reply(text="First.", reasoning="Hm hm.", tool_calls=[server]), Reply(tool_calls=[client])
    )


KINDS = ["reasoning", "text", "server_tool_call", "server_tool_result", "tool_call"]


def test_a_native_event_stream(make: Make, script: Any) -> None:
    script_of_everything(script)
    model = make(session_options={"allowed_tools": ["Bash"]}).bind_tools([get_weather])
    stream = model.stream_events("go", version="v3")
    events = list(stream)
    assert_valid_event_stream(events)
    blocks = [e["content"] for e in events if e["event"] == "content-block-finish"]
    assert [block["type"] for block in blocks] == KINDS
    output = stream.output
    assert output.tool_calls[0]["args"] == {"city": "Rome"}
    assert output.usage_metadata["input_tokens"] == 200
    assert output.response_metadata["letta"]["pending"] == [["c1", "get_weather"]]


async def test_a_native_asynchronous_event_stream(make: Make, script: Any) -> None:
    script_of_everything(script)
    model = make(session_options={"allowed_tools": ["Bash"]}).bind_tools([get_weather])
    stream = await model.astream_events("go", version="v3")
    events = [event async for event in stream]
    assert_valid_event_stream(events)
    blocks = [e["content"] for e in events if e["event"] == "content-block-finish"]
    assert [block["type"] for block in blocks] == KINDS


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_every_way_of_streaming_knows_the_thread(make: Make, script: Any) -> None:
    model = make()
    given: Any = {"configurable": {"thread_id": "every-way"}}
    script("one", "two", "three", "four")
    answers = [await model.ainvoke("1", given)]
    answers.append(model.stream_events("2", given, version="v3").output)
    answers.append(await (await model.astream_events("3", given, version="v3")))
    events = [event async for event in model.astream_events("4", given, version="v2")]
    answers += [e["data"]["output"] for e in events if e["event"] == "on_chat_model_end"]
    assert [answer.text for answer in answers] == ["one", "two", "three", "four"]
    assert len({answer.response_metadata["conversation_id"] for answer in answers}) == 1


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_output_versions(make: Make, script: Any, version: str) -> None:
    script_of_everything(script)
    model = make(output_version=version, session_options={"allowed_tools": ["Bash"]})
    message = model.bind_tools([get_weather]).invoke("go")
    assert [block["type"] for block in message.content_blocks] == KINDS
    chunks_script = Reply(text="One two.", reasoning="Hm.")
    script(chunks_script)
    total: Any = None
    for chunk in make(output_version=version).stream("go"):
        total = chunk if total is None else total + chunk
    assert [block["type"] for block in total.content_blocks] == ["reasoning", "text"]


def test_stop_words(make: Make, script: Any, embedded_model: ScriptedModel) -> None:
    script("One two three four.", "Next.")
    model = make(stop=["three"])
    first = model.invoke("count")
    assert first.text == "One two "
    assert first.response_metadata["stop_reason"] == "stop_sequence"
    # The turn went on to its end: the conversation can be continued.
    history = [HumanMessage("count"), first, HumanMessage("more")]
    assert (
        model.invoke(history).response_metadata["conversation_id"]
        == (first.response_metadata["conversation_id"])
    )
    script("A th, a thr, a thread.")
    texts = [chunk.text for chunk in make().stream("x", stop=["thre"])]
    assert "".join(texts) == "A th, a thr, a "


def test_leaving_a_stream_stops_the_agent(make: Make, script: Any) -> None:
    script(Reply(text="a b c d e f g h", token_delay=0.2), "Fine.")
    model = make(thread_id="left early")
    for _ in model.stream("go"):
        break
    assert model.invoke("again").text == "Fine."


async def test_a_second_event_loop_keeps_what_waits(make: Make, script: Any) -> None:
    script(Reply(tool_calls=[ToolUse("get_weather", {"city": "Rome"}, id="loop-1")]), "Sunny.")
    model = make().bind_tools([get_weather])
    history: list[Any] = [HumanMessage("Rome?")]

    def in_own_loop() -> AIMessage:
        return asyncio.run(model.ainvoke(history))

    history.append(await asyncio.to_thread(in_own_loop))
    history.append(ToolMessage("sunny", tool_call_id="loop-1"))
    answer = await asyncio.to_thread(in_own_loop)
    assert answer.text == "Sunny."


# -- tools and structure ------------------------------------------------------------------------


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class PersonDict(TypedDict):
    """A person."""

    name: str
    age: int


JSON_SCHEMA = {"title": "Person", "description": "A person.", **Person.model_json_schema()}
ADA = {"name": "Ada", "age": 36}


@pytest.mark.parametrize("schema", [Person, PersonDict, JSON_SCHEMA], ids=["model", "dict", "json"])
@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output_is_mended_once(
    make: Make, script: Any, schema: Any, method: str, embedded_model: ScriptedModel
) -> None:
    bad, good = {"name": "Ada"}, ADA
    if method == "function_calling":
        name = "PersonDict" if schema is PersonDict else "Person"
        script(*(Reply(tool_calls=[ToolUse(name, args)]) for args in (bad, good)))
    else:
        script('{"name": "Ada"}', '```json\n{"name": "Ada", "age": 36}\n```')
    found = make().with_structured_output(schema, method=method).invoke("Who?")
    assert found == (Person(**good) if schema is Person else good)
    assert len(embedded_model.requests) == 2


def test_structured_output_that_stays_wrong(make: Make, script: Any) -> None:
    script("nonsense", "more nonsense")
    model = make().with_structured_output(Person, method="json_schema", include_raw=True)
    found = model.invoke("Who?")
    assert found["parsed"] is None
    assert isinstance(found["parsing_error"], exceptions.OutputParserException)
    assert found["raw"].text == "more nonsense"
    script("nonsense", "more nonsense")
    with pytest.raises(exceptions.OutputParserException):
        make().with_structured_output(Person, method="json_schema").invoke("Who?")


def test_after_structured_output_nothing_waits(make: Make, script: Any) -> None:
    script(Reply(tool_calls=[ToolUse("Person", ADA)]), "Still here.")
    model = make()
    found = model.with_structured_output(Person, include_raw=True).invoke("Who?")
    raw = found["raw"]
    history = [HumanMessage("Who?"), raw, HumanMessage("And now?")]
    answer = model.invoke(history)
    assert answer.text == "Still here."
    assert answer.response_metadata["conversation_id"] == raw.response_metadata["conversation_id"]


@pytest.mark.parametrize("bad", [{"method": "xml"}, {"schema": None}])
def test_structured_output_of_nothing(make: Make, bad: dict[str, Any]) -> None:
    given = {"schema": Person} | bad
    with pytest.raises(InvalidInputError):
        make().with_structured_output(given.pop("schema"), **given)


def test_a_tool_that_must_be_called(make: Make, script: Any, embedded_model: ScriptedModel) -> None:
    call = Reply(tool_calls=[ToolUse("get_weather", {"city": "Rome"}, id="must-1")])
    script("I would rather talk.", call)
    model = make().bind_tools([get_weather], tool_choice="any")
    assert model.invoke("Rome?").tool_calls[0]["name"] == "get_weather"
    told = embedded_model.requests[-1].last_user_text
    assert "did not call a tool" in told
    chunks = list(make().bind_tools([get_weather], tool_choice="none").stream("hello"))
    assert not any(chunk.tool_call_chunks for chunk in chunks)


@pytest.mark.parametrize(
    ("tools", "choice"), [([get_weather], "get_time"), ([], "any"), ([3], None)]
)
def test_bad_tools_are_refused_at_once(make: Make, tools: Any, choice: Any) -> None:
    with pytest.raises(InvalidInputError):
        make().bind_tools(tools, tool_choice=choice)


def test_an_argument_nothing_is_done_with(make: Make) -> None:
    with pytest.raises(InvalidInputError, match="logprobs"):
        make().invoke("x", logprobs=True)


def test_create_agent_with_tools_memory_and_structure(make: Make, script: Any) -> None:
    script(
        Reply(tool_calls=[ToolUse("get_weather", {"city": "Rome"}, id="agent-1")]),
        Reply(tool_calls=[ToolUse("Person", ADA, id="agent-2")]),
        Reply(tool_calls=[ToolUse("Person", ADA | {"age": 37}, id="agent-3")]),
    )
    agent: Any = create_agent(
        make(),
        tools=[get_weather],
        system_prompt="Be kind.",
        response_format=ToolStrategy(Person),
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "with structure"}}
    first = agent.invoke({"messages": "Who lives in the sun?"}, config)
    assert first["structured_response"] == Person(**ADA)
    second = agent.invoke({"messages": "And in a year?"}, config)
    assert second["structured_response"].age == 37
    places = {m.response_metadata["conversation_id"] for m in second["messages"] if m.type == "ai"}
    assert len(places) == 1


def test_a_chain_with_a_prompt_and_a_parser(make: Make, script: Any) -> None:
    script("Bonjour.")
    prompt = ChatPromptTemplate.from_messages([("system", "Translate."), ("user", "{word}")])
    assert (prompt | make() | StrOutputParser()).invoke({"word": "hello"}) == "Bonjour."


def test_no_agent_at_all(make: Make, script: Any, embedded_model: ScriptedModel) -> None:
    script("A.", "B.")
    model = make(agent_id=None, agent_free=True, model="lmstudio/scripted")
    first = model.invoke([SystemMessage("Plain."), HumanMessage("one")])
    model.invoke([SystemMessage("Plain."), HumanMessage("one"), first, HumanMessage("two")])
    roles = [m["role"] for m in embedded_model.requests[-1].messages]
    assert roles == ["system", "user", "assistant", "user"]
    assert embedded_model.requests[-1].messages[0]["content"] == "Plain."
    with pytest.raises(UnsupportedOptionError, match="agent_free"):
        ChatLetta(agent_free=True, backend=Rest(base_url="http://letta.test")).invoke("x")


# -- errors -------------------------------------------------------------------------------------


def test_a_model_that_fails(make: Make, script: Any) -> None:
    quota = ModelError(
        429, "You exceeded your current quota", "insufficient_quota", "insufficient_quota"
    )
    script(Reply(error=quota))
    with pytest.raises(exceptions.ModelError) as caught:
        make().invoke("x")
    assert isinstance(caught.value, errors.TurnFailedError)
    assert caught.value.is_retryable is False


def test_a_server_that_is_not_there() -> None:
    model = ChatLetta(base_url="http://127.0.0.1:9", agent_id="agent-1", max_retries=0)
    with pytest.raises(exceptions.ModelConnectionError) as caught:
        model.invoke("x")
    assert isinstance(caught.value, ConnectionFailedError)
    assert caught.value.is_retryable is True


def test_settings_that_letta_code_has_not(make: Make) -> None:
    for field in ({"temperature": 0.5}, {"max_tokens": 5}):
        with pytest.raises(UnsupportedOptionError, match=next(iter(field))):
            make(**field).invoke("x")


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (NotFoundError("x", accepted=False), exceptions.ModelNotFoundError, False),
        (RateLimitError("x", accepted=False), exceptions.ModelRateLimitError, True),
        (RateLimitError("x", accepted=True), exceptions.ModelRateLimitError, False),
        (errors.ServerError("x"), exceptions.ModelAPIError, False),
        (errors.AuthenticationError("x", status_code=401), exceptions.ModelAuthenticationError, 0),
        (
            errors.AuthenticationError("x", status_code=403),
            exceptions.ModelPermissionDeniedError,
            0,
        ),
        (errors.TimeoutAfterAcceptanceError("x", accepted=True), exceptions.ModelTimeoutError, 0),
        (errors.ProviderRateLimitError("x", accepted=False), exceptions.ModelRateLimitError, True),
        (errors.ProviderAuthenticationError("x"), exceptions.ModelAuthenticationError, False),
        (
            errors.TurnFailedError("x", code="context_window_overflow_in_system_prompt"),
            exceptions.ContextOverflowError,
            False,
        ),
    ],
)
def test_errors_are_both(error: Any, kind: type, retryable: bool) -> None:
    made: Any = as_langchain(error)
    assert isinstance(made, kind)
    assert isinstance(made, type(error))
    assert made.is_retryable is bool(retryable)
    assert (str(made), made.code, made.accepted) == (str(error), error.code, error.accepted)
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is type(made)
    assert as_langchain(made) is made


def test_two_ways_to_name_a_backend_are_refused() -> None:
    with pytest.raises(ValueError, match="names the backend"):
        ChatLetta(backend="local", base_url="http://letta.test")
    with pytest.raises(ValueError, match="LettaClient"):
        ChatLetta(client=3)


@pytest.mark.parametrize("name", ["parameters", "input_schema", "inputSchema"])
def test_the_schema_of_a_tool_in_a_dict_counts_by_whatever_name(
    letta_fake: FakeLetta, name: str
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    tool = {"name": "x", "description": "Do it.", name: schema}
    letta_fake.script("Done.")
    ChatLetta(client=letta_fake.client()).bind_tools([tool]).invoke("go")
    (sent,) = letta_fake.requests[-1]["client_tools"]
    assert sent == {"name": "x", "description": "Do it.", "parameters": schema}
