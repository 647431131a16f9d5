"""A run that ends well and shows nothing: what the server has of it decides what that means.

Seen from a server whose database had no connection left: ping, ``end_turn``, usage, ``[DONE]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import LettaClient, Rest
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import ServerError, is_retryable
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.tools.client_side import tool
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._tools import get_weather, read
from tests.faults._wire import Play, asks, status, stream
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]


def silent(*stored: dict[str, Any], run: int = 1, keep: bool = True) -> Play:
    return stream(ev.ping(run), ev.ending(), stored=stored, keep=keep)


def said(text: str, run: int = 1) -> dict[str, Any]:
    return ev.base("assistant_message", run, run, content=text)


@pytest.mark.parametrize("partial", [True, False])
async def test_an_answer_that_the_server_has_is_given(
    server: Server, rest: MakeRest, face: Any, partial: bool
) -> None:
    thought = ev.base("reasoning_message", 1, 1, reasoning="Hm.")
    server.script(silent(thought, said("Hello.")))
    async with face(rest()) as client:
        messages = await read(resume(client, include_partial_messages=partial))
    whole = [m for m in messages if m.type != "stream_event"]
    assert [m.type for m in whole] == ["init", "reasoning", "assistant", "result"]
    assert (whole[-1].success, whole[-1].result) == (True, "Hello.")


async def test_an_answer_that_nobody_has_is_a_failure(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(silent(keep=False))
    messages = await read(resume(client))
    assert [m.type for m in messages] == ["init", "error", "result"]
    result = messages[-1]
    assert (result.success, result.error_code, result.input_stored) == (
        False, "server_error", False
    )  # fmt: skip
    error = result.to_error()
    assert isinstance(error, ServerError)
    assert is_retryable(error)


async def test_a_model_that_said_nothing_said_nothing(
    server: Server, client: AsyncLettaClient
) -> None:
    """Its input is stored, and no answer beside it."""
    server.script(silent())
    result = (await read(resume(client)))[-1]
    assert (result.success, result.result) == (True, "")


async def test_what_cannot_be_found_out_is_a_failure(
    server: Server, client: AsyncLettaClient
) -> None:
    server.override("GET", f"/v1/runs/{ev.run_id(1)}/messages", status(500, {"detail": "x"}), 9)
    server.script(silent())
    result = (await read(resume(client)))[-1]
    assert (result.success, result.error_code) == (False, "server_error")


async def test_nothing_after_a_tool_s_result_is_looked_for_too(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(asks(ev.call()), silent(said("Sunny.", 2), run=2))
    messages = await read(resume(client, tools=[tool(get_weather)]))
    assert messages[-1].result == "Sunny."


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "runnable"])
async def test_langchain_gets_what_the_server_has(server: Server, rest: MakeRest, way: str) -> None:
    server.script(silent(said("Hello.")))
    with LettaClient(rest()) as client:
        model = ChatLetta(client=client, agent_id=ev.AGENT)
        if way == "invoke":
            text = model.invoke("hi").text
        elif way == "ainvoke":
            text = (await model.ainvoke("hi")).text
        elif way == "stream":
            text = "".join(chunk.text for chunk in model.stream("hi"))
        else:
            text = LettaRunnable(model=model, output="text").invoke("hi")
    assert text == "Hello."


async def test_langchain_asks_again_what_was_surely_lost(server: Server, rest: MakeRest) -> None:
    server.script(silent(keep=False), silent(said("Hello.", 2), run=2))
    with LettaClient(rest()) as client:
        assert ChatLetta(client=client, agent_id=ev.AGENT).invoke("hi").text == "Hello."
        with pytest.raises(ServerError, match="without a message"):
            server.script(silent(keep=False, run=3))
            ChatLetta(client=client, agent_id=ev.AGENT, max_retries=0).invoke("hi")
