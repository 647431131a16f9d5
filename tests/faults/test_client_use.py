"""Wrong use of clients and sessions: typed errors, before any I/O where that is possible."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from letta_adapters import LettaClient, Rest, aio
from letta_adapters import prompt as sync_prompt
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import (
    InvalidInputError,
    NotFoundError,
    SessionClosedError,
    UnsupportedOptionError,
    WrongEventLoopError,
)
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import status
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]


# -- closed ---------------------------------------------------------------------------------------


async def test_a_closed_client_is_final(server: Server, rest: MakeRest, face: Any) -> None:
    client = face(rest())
    session = resume(client)
    assert (await session.run_turn("hello")).success
    await client.close()
    await client.close()
    for use in (
        lambda: session.send("more"),
        lambda: session.initialize(),
        lambda: session.list_messages(),
        lambda: client.prompt("hello", ev.AGENT),
        lambda: client.create_agent(model="x/y"),
        lambda: client.list_messages(ev.AGENT),
        lambda: client.request("GET", "/v1/tools/"),
        lambda: client.agents.retrieve(ev.AGENT),
    ):
        with pytest.raises(SessionClosedError):
            await use()
    await session.close()
    assert server.texts() == ["hello"]


async def test_a_closed_session_is_final(server: Server, client: AsyncLettaClient) -> None:
    session = resume(client)
    async with session:
        assert (await session.run_turn("hello")).success
    await session.close()
    for use in (
        lambda: session.send("more"),
        lambda: session.run_turn("more"),
        lambda: session.initialize(),
        lambda: session.abort(),
        lambda: session.list_messages(),
        lambda: session.bootstrap_state(),
        lambda: session.recover_pending_approvals(),
    ):
        with pytest.raises(SessionClosedError, match="resume_session"):
            await use()
    with pytest.raises(SessionClosedError):
        async with session:
            pass
    assert server.texts() == ["hello"]
    assert session.conversation_id == ev.CONV


async def test_a_closed_client_cannot_be_entered(rest: MakeRest) -> None:
    client = AsyncLettaClient(rest())
    await client.close()
    with pytest.raises(SessionClosedError):
        async with client:
            pass


async def test_a_session_that_owns_its_client_closes_it(server: Server, rest: MakeRest) -> None:
    session = aio.resume_session(ev.CONV, agent_id=ev.AGENT, backend=rest())
    async with session:
        assert (await session.run_turn("hello")).success
    with pytest.raises(SessionClosedError):
        session._slots.check_usable()
    server.override("POST", "/v1/conversations/", status(404, {"detail": "gone"}), 1)
    failing = aio.create_session(ev.AGENT, backend=rest())
    with pytest.raises(NotFoundError):
        async with failing:
            pass
    with pytest.raises(SessionClosedError):
        failing._slots.check_usable()


async def test_module_functions(server: Server, rest: MakeRest) -> None:
    assert (await aio.prompt("hello", ev.AGENT, backend=rest())).result == "You said: hello"
    assert (await aio.create_agent(backend=rest(), model="x/y")).startswith("agent-")
    asked = await asyncio.to_thread(sync_prompt, "again", ev.AGENT, backend=rest())
    assert asked.result == "You said: again"
    async with AsyncLettaClient(rest()) as client:
        assert (await aio.prompt("more", ev.AGENT, client=client)).success
        assert (await aio.create_agent(client=client, model="x/y")).startswith("agent-")
        with pytest.raises(InvalidInputError, match="either client or backend"):
            await aio.prompt("more", client=client, backend=rest())


# -- event loops ----------------------------------------------------------------------------------


def test_another_event_loop_is_a_typed_error(server: Server, rest: MakeRest) -> None:
    client = AsyncLettaClient(rest())
    session = resume(client)

    async def use() -> None:
        assert (await session.run_turn("hello")).success

    async def close() -> None:
        await client.close()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use())
    with pytest.raises(WrongEventLoopError, match="still runs elsewhere") as caught:
        asyncio.run(use())
    assert "one AsyncLettaClient per event loop" in str(caught.value)
    loop.run_until_complete(close())
    loop.close()
    assert server.texts() == ["hello"]


def test_a_client_of_a_loop_that_is_closed(server: Server, rest: MakeRest) -> None:
    client = AsyncLettaClient(rest())

    async def use() -> None:
        assert (await resume(client).run_turn("hello")).success
        await client.backend.aclose()

    asyncio.run(use())
    with pytest.raises(WrongEventLoopError, match="which is closed"):
        asyncio.run(use())


# -- the injected client --------------------------------------------------------------------------


async def test_an_injected_http_client_is_used_and_not_closed(
    server: Server, rest: MakeRest
) -> None:
    async with httpx.AsyncClient(headers={"x-mine": "yes"}) as mine:
        async with AsyncLettaClient(rest(), http_client=mine) as client:
            assert (await resume(client).run_turn("hello")).success
        assert not mine.is_closed
        assert (await mine.get(f"{server.url}/v1/models/")).status_code == 200
    assert all(request.headers["x-mine"] == "yes" for request in server.requests)


@pytest.mark.parametrize("make", [AsyncLettaClient, LettaClient])
def test_a_sync_http_client_is_refused(make: Any) -> None:
    with httpx.Client() as wrong:
        with pytest.raises(InvalidInputError, match=r"must be an httpx\.AsyncClient, not Client"):
            make(Rest(base_url="http://127.0.0.1:9"), http_client=wrong)


# -- input that is refused before any I/O ---------------------------------------------------------


async def test_bad_input_costs_no_request(server: Server, rest: MakeRest, face: Any) -> None:
    async with face(rest()) as client:
        session = resume(client)
        for bad in ("", "  ", None, 3, []):
            with pytest.raises(InvalidInputError):
                await session.send(bad)
        with pytest.raises(InvalidInputError, match="otid"):
            await session.send("hello", otid=" ")
        for page in ({"limit": 0}, {"limit": 1001}, {"order": "up"}):
            with pytest.raises(InvalidInputError):
                await session.list_messages(**page)
        with pytest.raises(InvalidInputError):
            await session.list_messages(before="message-1", after="message-2")
        with pytest.raises(InvalidInputError):
            await client.create_agent(nonsense=1)
    assert server.requests == []


@pytest.mark.parametrize("make", [AsyncLettaClient, LettaClient])
def test_bad_options_are_refused_before_the_session_opens(rest: MakeRest, make: Any) -> None:
    client = make(rest())
    for ids in (
        {},
        {"id": "bogus"},
        {"id": ev.AGENT, "agent_id": ev.AGENT},
        {"id": ev.CONV, "conversation_id": ev.CONV},
        {"conversation_id": "default"},
        {"conversation_id": "bogus"},
        {"agent_id": ev.CONV},
    ):
        with pytest.raises(InvalidInputError):
            client.resume_session(**ids)
    with pytest.raises(InvalidInputError):
        client.create_session("bogus")
    with pytest.raises(InvalidInputError, match="is not an option"):
        client.create_session(ev.AGENT, tempo=1)
    with pytest.raises(UnsupportedOptionError, match="permission_mode"):
        client.create_session(ev.AGENT, permission_mode="plan")


async def test_otids(server: Server, client: AsyncLettaClient) -> None:
    session = resume(client)
    await session.run_turn("hello", otid="my-own-id")
    await session.run_turn("again")
    first, second = (request.messages[0]["otid"] for request in server.sent())
    assert first == "my-own-id"
    assert second not in ("", None, first)
