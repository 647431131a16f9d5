"""The requests that a call of ``ChatLetta`` takes, up to and with its message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from langchain_core.messages import BaseMessage, HumanMessage

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters.langchain import ChatLetta
from letta_adapters.testing import FakeLetta
from tests.faults import _events as ev
from tests.faults._server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    """A Letta API."""
    with Server() as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncLettaClient]:
    """A client of ``server``."""
    async with AsyncLettaClient(Rest(base_url=server.url, api_key="")) as made:
        yield made


def asked(server: Server, since: int) -> list[str]:
    """The requests behind that many, without ids, up to the first message."""
    names = []
    for request in server.requests[since:]:
        path = request.path.removeprefix("/v1").strip("/").split("/")
        names.append(f"{request.method} {'/'.join(part for part in path if '-' not in part)}")
        if request.sends:
            break
    return names


async def begun(model: ChatLetta) -> list[BaseMessage]:
    """A history of one question and its answer."""
    question = HumanMessage("one")
    return [question, await model.ainvoke([question])]


@pytest.mark.parametrize(
    ("on_mismatch", "requests"),
    [
        ("fork", ["GET conversations/messages", "POST conversations/messages"]),
        ("error", ["GET conversations/messages", "POST conversations/messages"]),
        ("continue", ["POST conversations/messages"]),
    ],
)
async def test_a_history_that_goes_on(
    server: Server, client: AsyncLettaClient, on_mismatch: str, requests: list[str]
) -> None:
    model = ChatLetta(agent_id=ev.AGENT, client=client, on_mismatch=on_mismatch)  # type: ignore[arg-type]  # each is one of them
    history = await begun(model)
    since = len(server.requests)
    await model.ainvoke([*history, HumanMessage("two")])
    assert asked(server, since) == requests


async def test_a_call_that_goes_on_anyway_is_not_sent_twice() -> None:
    letta = FakeLetta()
    async with letta.async_client() as client:
        agent = await client.create_agent(model="fake/model")
        model = ChatLetta(agent_id=agent, client=client, on_mismatch="continue")
        history = [*await begun(model), HumanMessage("two", id="two")]
        first = await model.ainvoke(history)
        again = await model.ainvoke(history)
    assert again.content == first.content
    assert letta.said == ["one", "two"]


async def test_model_settings_ask_for_the_agent_once(
    server: Server, client: AsyncLettaClient
) -> None:
    model = ChatLetta(agent_id=ev.AGENT, client=client, temperature=0.5)
    sent = ["POST conversations", "POST conversations/messages"]
    for text, expected in (("one", ["GET agents", *sent]), ("two", sent)):
        since = len(server.requests)
        await model.ainvoke(text)
        assert asked(server, since) == expected
    # An agent that was changed here may have another model now.
    await client.agents.update(ev.AGENT, model="openai-proxy/other")
    since = len(server.requests)
    await model.ainvoke("three")
    assert asked(server, since) == ["GET agents", *sent]
    (made,) = [r for r in server.requests[since:] if r.path == "/v1/conversations/"]
    assert made.body["model"] == "openai-proxy/other"
