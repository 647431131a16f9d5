"""What only the Letta API can: settings of a conversation, and calls that outlive a process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from letta_adapters import AsyncLettaClient, InvalidInputError, UnsupportedOptionError
from letta_adapters.backends.model_settings import read_effort
from letta_adapters.errors import ProviderRefusedError
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.testing import LettaCassette
from letta_adapters.testing.scripted_model import ModelError, Reply, ToolUse
from tests._replayed import open_other_processes
from tests.backends.rest._server_tool import attach
from tests.backends.rest.conftest import MODEL
from tests.langchain.test_runnable import get_weather, graph_of, thread

OTHER = MODEL.replace("scripted", "scripted-two")
NewClient = Callable[[], AsyncLettaClient]


@pytest.fixture
async def new_client(letta_cassette: LettaCassette) -> AsyncIterator[NewClient]:
    """Makes a client that knows nothing of the ones before it, as in another process."""
    async with open_other_processes(letta_cassette) as make:
        yield make


@pytest.fixture
async def client(new_client: NewClient) -> AsyncLettaClient:
    return new_client()


@pytest.fixture
async def agent(client: AsyncLettaClient) -> str:
    return await client.create_agent(
        name="langchain",
        model=MODEL,
        persona="I am a test.",
        system_prompt="You are a test.",
        base_tools=False,
    )


async def test_settings_of_a_conversation(
    client: AsyncLettaClient, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script("Cold.", "Colder.")
    await client.agents.update(agent, reasoning_effort="low")
    model = ChatLetta(agent_id=agent, client=client, temperature=0.25, max_tokens=99)
    first = await model.ainvoke("How is it?")
    place = first.response_metadata["conversation_id"]
    settings = (await client.conversations.retrieve(place))["model_settings"]
    assert (settings["temperature"], settings["max_output_tokens"]) == (0.25, 99)
    # The same conversation with other settings for one call.
    history: list[Any] = [HumanMessage("How is it?"), first, HumanMessage("And now?")]
    await model.ainvoke(history, temperature=0.75)
    settings = (await client.conversations.retrieve(place))["model_settings"]
    assert settings["temperature"] == 0.75
    # The API replaces settings as a whole; those of the agent stay all the same.
    assert read_effort(settings) == "low"
    assert not settings["parallel_tool_calls"]
    with pytest.raises(UnsupportedOptionError, match="default conversation"):
        await model.ainvoke("hi", conversation_id="default")
    with pytest.raises(InvalidInputError, match="top_p"):
        await model.ainvoke("hi", top_p=0.5)


async def test_settings_beside_a_model_of_the_call(
    client: AsyncLettaClient, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script("One.", "Two.")
    model = ChatLetta(agent_id=agent, client=client, temperature=0.25, model_name=OTHER)
    first = await model.ainvoke("How is it?")
    place = first.response_metadata["conversation_id"]
    conversation = await client.conversations.retrieve(place)
    # A message's own model would be used without the settings (letta 0.16.8).
    assert conversation["model"] == OTHER
    assert conversation["model_settings"]["temperature"] == 0.25
    history: list[Any] = [HumanMessage("How is it?"), first, HumanMessage("And now?")]
    await model.ainvoke(history, model=MODEL)
    conversation = await client.conversations.retrieve(place)
    assert conversation["model"] == MODEL
    assert conversation["model_settings"]["temperature"] == 0.25


async def test_an_effort_in_all_conversations_of_an_object(
    client: AsyncLettaClient, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script("One.", "Two.", "Three.", "Four.")
    await client.agents.update(agent, reasoning_effort="low")
    model = ChatLetta(agent_id=agent, client=client, reasoning_effort="high")
    first = await model.ainvoke("one")
    place = first.response_metadata["conversation_id"]

    async def effort() -> str | None:
        return read_effort((await client.conversations.retrieve(place))["model_settings"])

    assert await effort() == "high"
    history: list[Any] = [HumanMessage("one"), first, HumanMessage("two")]
    second = await model.ainvoke(history)
    assert second.response_metadata["conversation_id"] == place
    # Another object goes on in the same conversation, and with settings beside it.
    history += [second, HumanMessage("three")]
    other = model.model_copy(update={"reasoning_effort": "medium", "temperature": 0.5})
    third = await other.ainvoke(history)
    settings = (await client.conversations.retrieve(place))["model_settings"]
    assert (read_effort(settings), settings["temperature"]) == ("medium", 0.5)
    # One that asks for nothing leaves it as it is.
    history += [third, HumanMessage("four")]
    await ChatLetta(agent_id=agent, client=client).ainvoke(history)
    assert await effort() == "medium"
    with pytest.raises(UnsupportedOptionError, match="default conversation"):
        await model.ainvoke("hi", conversation_id="default")
    for call in (model, model.bind(reasoning_effort="low")):
        with pytest.raises(InvalidInputError, match="all calls of one object"):
            await call.ainvoke("hi", reasoning_effort="low")
    assert (await client.agents.retrieve(agent))["model_settings"]["reasoning"] == {
        "reasoning_effort": "low"
    }


async def test_what_a_provider_refused_is_asked_once(
    client: AsyncLettaClient, agent: str, letta_cassette: LettaCassette
) -> None:
    """By whatever way: a second try would get the same answer and costs time."""
    model = ChatLetta(agent_id=agent, client=client, max_retries=2)
    refused = Reply(error=ModelError(400, "that is no picture", type="invalid_request_error"))
    for stream in (False, True):
        letta_cassette.script(refused, "Asked again.")
        with pytest.raises(ProviderRefusedError, match="400") as error:
            if stream:
                async for _ in model.astream("look at it"):
                    pass
            else:
                await model.ainvoke("look at it")
        assert error.value.is_retryable is False


async def test_the_first_answer_of_a_new_process_names_its_model(
    new_client: NewClient, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script("Hello.", "Hello again.")
    model = ChatLetta(agent_id=agent, client=new_client())
    with get_usage_metadata_callback() as used:
        await model.ainvoke("hello")
        await model.ainvoke("hello")
    assert list(used.usage_metadata) == [MODEL]


async def test_a_call_that_waits_survives_the_process(
    client: AsyncLettaClient, agent: str, new_client: NewClient, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(
        Reply(tool_calls=[ToolUse("get_weather", {"city": "Rome"}, id="call-rome")]), "Sunny."
    )
    asked = (
        await ChatLetta(agent_id=agent, client=client).bind_tools([get_weather]).ainvoke("Rome?")
    )
    stored = asked.model_dump_json()

    again = AIMessage.model_validate_json(stored)
    model = ChatLetta(agent_id=agent, client=new_client()).bind_tools([get_weather])
    result = ToolMessage("sunny in Rome", tool_call_id=again.tool_calls[0]["id"])
    answer = await model.ainvoke([HumanMessage("Rome?"), again, result])
    assert answer.text == "Sunny."
    assert answer.response_metadata["conversation_id"] == asked.response_metadata["conversation_id"]


async def test_an_approval_survives_the_process(
    client: AsyncLettaClient, agent: str, new_client: NewClient, letta_cassette: LettaCassette
) -> None:
    await attach(client, agent, asks=True)
    letta_cassette.script(
        Reply(tool_calls=[ToolUse("multiply", {"a": 6, "b": 7}, id="call-sum")]), "42."
    )
    checkpoints = InMemorySaver()
    paused = await graph_of(LettaRunnable(agent_id=agent, client=client), checkpoints).ainvoke(
        {"messages": [HumanMessage("6 times 7?", id="sum")]}, thread("sums")
    )
    (question,) = paused["__interrupt__"]
    assert (question.value["tool_name"], question.value["tool_input"]) == (
        "multiply",
        {"a": 6, "b": 7},
    )

    graph = graph_of(LettaRunnable(agent_id=agent, client=new_client()), checkpoints)
    done = await graph.ainvoke(Command(resume=True), thread("sums"))
    assert done["messages"][-1].text == "42."
    place = done["messages"][-1].response_metadata["conversation_id"]
    page = await client.list_messages(agent, place, order="asc", limit=50)
    kinds = [item["message_type"] for item in page.raw]
    assert kinds.count("user_message") == 1
    (returned,) = [m for m in page.raw if m["message_type"] == "tool_return_message"]
    assert returned["tool_return"] == "42"
