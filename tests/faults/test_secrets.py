"""Keys: which one is sent, and that none is ever shown."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import LettaClient, Rest
from letta_adapters.client.client import AsyncLettaClient, resolve_backend
from letta_adapters.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidInputError,
    LettaError,
)
from tests.faults._server import Server, closed_port
from tests.faults._wire import status
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]
KEY = "sk-let-very-secret-0123456789"


# -- which backend, which key ---------------------------------------------------------------------


def test_no_key_for_the_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in ("cloud", Rest(), Rest(api_key=""), Rest(api_key="  ")):
        for make in (AsyncLettaClient, LettaClient):
            with pytest.raises(AuthenticationError, match="LETTA_API_KEY"):
                make(backend)
    monkeypatch.setenv("LETTA_API_KEY", "")
    with pytest.raises(AuthenticationError):
        AsyncLettaClient("cloud")


def test_what_the_environment_means(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(resolve_backend(None)).__name__ == "Local"
    monkeypatch.setenv("LETTA_APP_SERVER_URL", "ws://127.0.0.1:9")
    assert type(resolve_backend(None)).__name__ == "Remote"
    monkeypatch.setenv("LETTA_BASE_URL", "http://127.0.0.1:9/")
    assert type(resolve_backend(None)).__name__ == "Rest"
    with pytest.raises(InvalidInputError, match="'nowhere'"):
        resolve_backend("nowhere")


async def test_base_url_and_key_from_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETTA_BASE_URL", server.url + "/")
    monkeypatch.setenv("LETTA_API_KEY", f" {KEY}\n")
    async with AsyncLettaClient() as client:
        assert (await resume(client).run_turn("hello")).success
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_headers(server: Server, rest: MakeRest) -> None:
    options = rest(api_key=KEY, project="my-project", headers={"user_id": "user-1"})
    async with AsyncLettaClient(options) as client:
        await client.models.list()
    headers = server.requests[0].headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["x-project-id"] == "my-project"
    assert headers["user_id"] == "user-1"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("letta-adapters/")


# -- secrets --------------------------------------------------------------------------------------


def shown(*things: object) -> str:
    """Everything a log, a traceback or a debugger would show of them."""
    text = []
    for thing in things:
        text += [repr(thing), str(thing), f"{thing}"]
        if isinstance(thing, BaseException):
            text.append("".join(traceback.format_exception(thing)))
    return "\n".join(text)


async def test_no_key_in_what_is_shown(
    server: Server, rest: MakeRest, face: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = rest(api_key=KEY, headers={"x-token": KEY})
    things: list[object] = [options, rest(api_key=KEY).model_dump_json()]
    async with face(options) as client:
        session = resume(client)
        things += [client, session, client.backend if face is AsyncLettaClient else client._target]
        refusals = [
            status(401, {"detail": "Unauthorized"}),
            status(500, {"detail": "An unknown error occurred"}),
            status(422, {"detail": "Messages must not be empty"}),
        ]
        for refusal in refusals:
            server.script(refusal)
            with pytest.raises(LettaError) as caught:
                await session.send("hello")
            things.append(caught.value)
        result = await session.run_turn("hello")
        things.append(result)
    async with face(rest(base_url=f"http://127.0.0.1:{closed_port()}", api_key=KEY)) as client:
        with pytest.raises(ConnectionFailedError) as refused:
            await resume(client).send("hello")
        things.append(refused.value)
    with pytest.raises(InvalidInputError) as invalid:
        Rest(api_key=KEY, base_url=KEY, idle_timeout=-1)
    things.append(invalid.value)
    assert KEY not in shown(*things)
    assert KEY not in caplog.text
    assert KEY.encode() not in pickle.dumps([t for t in things if isinstance(t, LettaError)])
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_missing_key_error_shows_nothing_of_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuthenticationError) as caught:
        AsyncLettaClient(Rest(headers={"x-token": KEY}))
    assert KEY not in shown(caught.value)
