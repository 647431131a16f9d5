"""What LangChain's users take for granted of a chat model and of a Runnable."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessage, HumanMessage, trim_messages
from langchain_core.tools import StructuredTool, tool
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from letta_adapters import Allow, AsyncLettaClient, InvalidInputError, Rest
from letta_adapters.errors import LettaError, ProviderRefusedError, error_for_code
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def look(city: str) -> str:
    """Look at a city."""
    return f"sunny in {city}"


def looks(id: str = "c1") -> Reply:
    return Reply(tool_calls=[ToolUse("look", {"city": "Rome"}, id=id)])


# -- what a model is called, and what it takes --------------------------------------------------


def test_a_model_of_the_call_s_own_is_what_it_is_called(letta_fake: FakeLetta) -> None:
    model = ChatLetta(client=letta_fake.client(), model="other/model")
    assert model.invoke("hello").response_metadata["model_name"] == "other/model"
    assert model._get_ls_params()["ls_model_name"] == "other/model"


def test_before_anything_is_known_no_agent_is_taken_for_a_model() -> None:
    assert ChatLetta(agent_id="agent-1")._get_ls_params()["ls_model_name"] == "letta"


@pytest.mark.parametrize("way", ["invoke", "stream", "graph"])
async def test_the_first_call_is_counted_by_the_model_s_handle(
    letta_fake: FakeLetta, way: str
) -> None:
    agent_id = letta_fake.client().create_agent(name="ada", model="big/model")
    # A client that has not heard of that agent.
    model: Any = ChatLetta(client=letta_fake.client(), agent_id=agent_id)
    with get_usage_metadata_callback() as used:
        if way == "stream":
            names = [c.response_metadata.get("model_name") async for c in model.astream("hello")]
            assert [name for name in names if name] == ["big/model"]
        elif way == "graph":
            agent: Any = create_agent(model)
            agent.invoke({"messages": [HumanMessage("hello")]})
        else:
            assert model.invoke("hello").response_metadata["model_name"] == "big/model"
    assert list(used.usage_metadata) == ["big/model"]
    assert model._get_ls_params()["ls_model_name"] == "big/model"


async def test_the_model_s_handle_is_asked_for_once_and_beside_the_answer() -> None:
    letta = FakeLetta(Reply("One."), Reply(text=["Two ", "words."], token_delay=0.2), "Three.")
    asked: list[str] = []
    answers = letta.http_client()

    async def count(request: httpx.Request) -> None:
        asked.append(f"{request.method} {request.url.path.split('-')[0]}")

    agent_id = letta.client().create_agent(name="ada", model="big/model")
    answers.event_hooks["request"].append(count)
    async with AsyncLettaClient(Rest(base_url="http://letta.fake"), http_client=answers) as client:
        model = ChatLetta(client=client, agent_id=agent_id)
        for _ in range(3):
            answer = await model.ainvoke("hello")
            assert answer.response_metadata["model_name"] == "big/model"
    assert asked.count("GET /v1/agents/agent") == 1
    assert asked.index("GET /v1/agents/agent") < len(asked) // 2


async def test_another_model_of_the_agent_is_another_name(letta_fake: FakeLetta) -> None:
    client = letta_fake.client()
    agent_id = client.create_agent(name="ada", model="big/model")
    model = ChatLetta(client=client, agent_id=agent_id)
    names = [model.invoke("hello").response_metadata["model_name"]]
    client.agents.update(agent_id, model="small/model")
    names.append(model.invoke("hello").response_metadata["model_name"])
    client.request("PATCH", f"/v1/agents/{agent_id}", body={"model": "other/model"})
    names.append(model.invoke("hello").response_metadata["model_name"])
    assert names == ["big/model", "small/model", "other/model"]


async def test_an_answer_can_do_without_the_name_of_its_model() -> None:
    letta = FakeLetta("One.")
    client = letta.async_client()
    agent_id = await client.create_agent(name="ada")
    conversation = await client.conversations.create(agent_id)
    letta._agents.clear()  # it may not be read
    model = ChatLetta(client=client, agent_id=agent_id, conversation_id=conversation["id"])
    answer = await model.ainvoke("hello")
    assert (answer.text, answer.response_metadata["model_name"]) == ("One.", "letta")


async def test_a_profile_is_loaded_when_it_is_asked_for(letta_fake: FakeLetta) -> None:
    client = letta_fake.client()
    agent_id = client.create_agent(name="ada", model="big/model")
    client.agents.update(agent_id, llm_config={"context_window": 30_000})
    model = ChatLetta(client=client, agent_id=agent_id)
    assert "max_input_tokens" not in (model.profile or {})
    with pytest.raises(ValueError, match="profile"):
        SummarizationMiddleware(model=model, trigger=("fraction", 0.8))
    profile = await model.aload_profile()
    assert profile["max_input_tokens"] == 30_000
    assert profile["tool_calling"] is True
    SummarizationMiddleware(model=model, trigger=("fraction", 0.8))
    assert model._get_ls_params()["ls_model_name"] == "big/model"
    with get_usage_metadata_callback() as used:
        assert model.invoke("hello").response_metadata["model_name"] == "big/model"
    assert list(used.usage_metadata) == ["big/model"]
    again = ChatLetta(client=client, agent_id=agent_id)
    assert again.load_profile()["max_input_tokens"] == 30_000


def test_a_profile_that_is_given_wins_and_the_rest_stays() -> None:
    model = ChatLetta(profile={"max_input_tokens": 1000, "image_inputs": False})
    assert model.profile is not None
    assert model.profile["max_input_tokens"] == 1000
    assert model.profile["image_inputs"] is False
    assert model.profile["tool_calling"] is True
    SummarizationMiddleware(model=model, trigger=("fraction", 0.8))


def test_tokens_are_counted_about_without_a_tokenizer() -> None:
    model = ChatLetta()
    assert 15 <= model.get_num_tokens("a" * 80) <= 25
    messages: list[Any] = [HumanMessage("a" * 400), AIMessage("b" * 400), HumanMessage("c" * 40)]
    assert 200 <= model.get_num_tokens_from_messages(messages) <= 250
    assert model.get_num_tokens_from_messages(messages, tools=[look]) > 230
    kept = trim_messages(messages, max_tokens=50, token_counter=model, strategy="last")
    assert kept == messages[-1:]
    own = ChatLetta(custom_get_token_ids=lambda text: list(range(len(text))))
    assert own.get_num_tokens("abc") == 3


# -- structured answers of an agent -------------------------------------------------------------


@pytest.mark.parametrize("tools", [[], [look]], ids=["no tools", "tools"])
def test_a_provider_strategy_goes_through_the_emulation(
    letta_fake: FakeLetta, tools: list[Any]
) -> None:
    answers: list[Any] = ['{"name": "Ada"}', '```json\n{"name": "Ada", "age": 36}\n```']
    letta_fake.script(*([looks()] if tools else []), *answers)
    agent: Any = create_agent(
        ChatLetta(client=letta_fake.client()), tools, response_format=ProviderStrategy(Person)
    )
    # LangChain reads the JSON itself, and takes no code block.
    letta_fake.script(
        *([looks()] if tools else []), '{"name": "Ada"}', '{"name": "Ada", "age": 36}'
    )
    out = agent.invoke({"messages": [HumanMessage("Who?")]})
    assert out["structured_response"] == Person(name="Ada", age=36)


def test_a_response_format_that_means_nothing_is_refused(letta_fake: FakeLetta) -> None:
    model = ChatLetta(client=letta_fake.client())
    with pytest.raises(InvalidInputError, match="schema"):
        model.invoke("hello", response_format={"type": "json_schema"})
    assert model.invoke("hello", response_format={"type": "text"}).text == "You said: hello"


def test_broken_arguments_are_no_object_with_defaults(letta_fake: FakeLetta) -> None:
    class Limits(BaseModel):
        """All of it has defaults."""

        low: int = 0
        high: int = 10

    letta_fake.script(
        Reply(tool_calls=[ToolUse("Limits", '{"low": 1, ', id="c1")]),
        Reply(tool_calls=[ToolUse("Limits", {"low": 1}, id="c2")]),
    )
    chain = ChatLetta(client=letta_fake.client()).with_structured_output(Limits)
    assert chain.invoke("go") == Limits(low=1)


# -- a whole agent ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "v3"])
async def test_a_named_runnable_names_its_messages(letta_fake: FakeLetta, way: str) -> None:
    letta_fake.script(looks(), "Sunny.")
    agent = LettaRunnable(client=letta_fake.client(), tools=[look], name="ada")
    if way == "invoke":
        messages = agent.invoke("go")["messages"]
    elif way == "ainvoke":
        messages = (await agent.ainvoke("go"))["messages"]
    elif way == "stream":
        messages = [m for part in agent.stream("go") for m in part["messages"]]
    else:
        messages = agent.stream_events("go", version="v3").output["messages"]
    assert [(m.type, m.name) for m in messages] == [
        ("ai", "ada"), ("tool", "look"), ("ai", "ada")
    ]  # fmt: skip


def test_a_runnable_without_a_name_gives_none(letta_fake: FakeLetta) -> None:
    out = LettaRunnable(client=letta_fake.client()).invoke("go")
    assert out["messages"][-1].name is None


@pytest.mark.parametrize("output", ["messages", "message", "text"])
async def test_a_runnable_as_a_tool_is_asked_a_question(letta_fake: FakeLetta, output: Any) -> None:
    agent = LettaRunnable(client=letta_fake.client(), name="ada", output=output)
    made = agent.as_tool(description="Ada knows.")
    assert (made.name, made.description) == ("ada", "Ada knows.")
    assert list(made.args) == ["question"]
    assert made.invoke({"question": "Who?"}) == "You said: Who?"
    assert await made.ainvoke({"question": "Who?"}) == "You said: Who?"


def test_an_asynchronous_tool_runs_in_a_synchronous_run(letta_fake: FakeLetta) -> None:
    async def look(city: str) -> str:
        """Look at a city."""
        await asyncio.sleep(0)
        return f"sunny in {city}"

    made = StructuredTool.from_function(coroutine=look, description="Look at a city.")
    for tools in ([made], [look], [tool(look)]):
        letta_fake.script(looks(), "Done.")
        out = LettaRunnable(client=letta_fake.client(), tools=tools).invoke("go")["messages"]
        assert out[1].content == "sunny in Rome"


async def test_tool_messages_stream_in_order(letta_fake: FakeLetta) -> None:
    """In a graph as well: LangGraph gives what a node returns at its end only."""
    letta_fake.script(looks("c1"), looks("c2"), "Sunny.")
    builder = StateGraph(MessagesState)
    builder.add_node("agent", LettaRunnable(client=letta_fake.client(), tools=[look]))
    builder.add_edge(START, "agent")
    graph = builder.compile()
    given: Any = {"messages": [("user", "go")]}
    expected = ["calls c1", "tool c1", "calls c2", "tool c2", "says Sunny."]
    assert _told([m for m, _ in graph.stream(given, stream_mode="messages")]) == expected
    letta_fake.script(looks("c1"), looks("c2"), "Sunny.")
    again = [m async for m, _ in graph.astream(given, stream_mode="messages")]
    assert _told(again) == expected


def _told(messages: list[Any]) -> list[str]:
    """What was streamed, neighbouring pieces of a text as one."""
    made: list[str] = []
    for message in messages:
        if message.type == "tool":
            made.append(f"tool {message.tool_call_id}")
        elif message.tool_calls:
            made.append(f"calls {message.tool_calls[0]['id']}")
        elif message.text and made and made[-1].startswith("says "):
            made[-1] += message.text
        elif message.text:
            made.append(f"says {message.text}")
    return made


def test_a_permission_callback_sees_each_call_once(letta_fake: FakeLetta) -> None:
    seen: list[Any] = []

    def can_use_tool(name: str, given: Any, context: Any) -> Any:
        seen.append((name, given))
        return Allow()

    letta_fake.script(looks(), "Sunny.")
    agent = LettaRunnable(
        client=letta_fake.client(), tools=[look], can_use_tool=can_use_tool, output="text"
    )
    assert agent.invoke("go") == "Sunny."
    assert seen == [("look", {"city": "Rome"})]


# -- errors -------------------------------------------------------------------------------------


def test_what_a_provider_refused_is_not_asked_again() -> None:
    from letta_adapters.errors import is_retryable
    from letta_adapters.langchain.errors import as_langchain

    error = error_for_code("provider_refused", "Error code: 400 - bad", accepted=False)
    assert isinstance(error, ProviderRefusedError)
    assert not is_retryable(error)
    assert as_langchain(error).is_retryable is False


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("It failed", "It failed. Try again."),
        ("It failed.", "It failed. Try again."),
        ("Did it fail?", "Did it fail? Try again."),
        ("Error code: 400 - {'a': 1}", "Error code: 400 - {'a': 1}. Try again."),
    ],
)
def test_a_hint_is_a_sentence_of_its_own(message: str, text: str) -> None:
    assert str(LettaError(message, hint="Try again.")) == text
