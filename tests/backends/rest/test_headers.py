"""The headers of a request: each goes out once, and the user's in the place of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from letta_adapters import InvalidInputError, Rest
from letta_adapters.backends.rest.http import Http
from letta_adapters.errors import AuthenticationError

URL = "http://letta.test"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LETTA_API_KEY", raising=False)


async def sent(rest: Rest, own: Mapping[str, str] | None = None, **more: Any) -> dict[str, str]:
    """Return the headers of a request over a client that has some of its own.

    None of them goes out twice.
    """
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=[])

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, headers=own, **more) as http_client:
        await Http(rest, http_client).read("/v1/models/")
    names = [name.decode().lower() for name, _ in seen[0].headers.raw]
    assert sorted(names) == sorted(set(names))
    return {name: seen[0].headers[name] for name in names}


async def receive(rest: Mapping[str, Any]) -> list[str]:
    """Return the lines of a request that a server gets of a connection of our own."""
    got: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        http = Http(Rest(base_url=f"http://127.0.0.1:{port}", **rest))
        try:
            await http.read("/v1/models/")
        finally:
            await http.aclose()
    return got


async def test_the_server_gets_each_header_once() -> None:
    given = {"User-Agent": "mine", "Authorization": "Basic b"}
    lines = await receive({"api_key": "key", "headers": given})
    found = [line for line in lines if line.lower().startswith(("user-agent:", "authorization:"))]
    assert sorted(found) == ["Authorization: Basic b", "User-Agent: mine"]


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
async def test_what_the_user_says_stands_in_the_place_of_ours_in_any_spelling(change: Any) -> None:
    mine = {"user-agent": "mine", "accept": "x/y", "authorization": "Basic b", "x-project-id": "p"}
    given = {change(name): value for name, value in mine.items()}
    headers = await sent(Rest(base_url=URL, api_key="key", project="other", headers=given))
    assert {name: headers[name] for name in mine} == mine


async def test_a_header_of_the_user_stands_in_the_place_of_the_environments_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LETTA_API_KEY", "key")
    headers = await sent(Rest(base_url=URL, headers={"Authorization": "Basic b"}))
    assert headers["authorization"] == "Basic b"


async def test_without_any_of_the_users_ours_are_sent() -> None:
    headers = await sent(Rest(base_url=URL, api_key="key", project="p"))
    assert headers["authorization"] == "Bearer key"
    assert headers["x-project-id"] == "p"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("letta-adapters/")


async def test_those_of_an_injected_client_stand_in_the_place_of_what_nobody_has_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LETTA_API_KEY", "key")
    own = {"USER-AGENT": "mine", "Authorization": "Basic b", "X-Mine": "1"}
    headers = await sent(Rest(base_url=URL), own)
    assert headers["user-agent"] == "mine"
    assert headers["authorization"] == "Basic b"
    assert headers["x-mine"] == "1"
    # Answers are read as they come, which an encoding would not allow.
    assert headers["accept-encoding"] == "identity"


async def test_what_the_options_name_stands_in_the_place_of_an_injected_clients() -> None:
    own = {"User-Agent": "mine", "Authorization": "Basic b"}
    headers = await sent(Rest(base_url=URL, api_key="key", headers={"user-agent": "this"}), own)
    assert headers["user-agent"] == "this"
    assert headers["authorization"] == "Bearer key"


@pytest.mark.parametrize(
    ("rest", "more"),
    [
        ({"headers": {"AUTHORIZATION": "Bearer key"}}, {}),
        ({}, {"own": {"authorization": "Bearer key"}}),
        ({}, {"auth": ("ada", "key")}),
    ],
)
async def test_the_cloud_takes_a_key_in_whatever_way_it_is_given(rest: Any, more: Any) -> None:
    headers = await sent(Rest(base_url="https://api.letta.com", **rest), **more)
    assert headers["authorization"]


async def test_the_cloud_needs_a_key_also_with_an_injected_client() -> None:
    with pytest.raises(AuthenticationError):
        await sent(Rest(base_url="https://api.letta.com", headers={"X-Key": "key"}))


def test_one_header_in_two_spellings_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'x-team' is given twice"):
        Rest(headers={"X-Team": "1", "x-team": "2"})
