"""Aborts, broken connections and restarts: what is reported, and what is left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import (
    AssistantMessage,
    AsyncLettaClient,
    ConnectionFailedError,
    LoopStatusMessage,
    QueueUpdateMessage,
    ResultMessage,
    SessionClosedError,
    StreamEvent,
)
from letta_adapters.backends.app_server.backend import AppServerBackend
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.app_server._server import MODEL, AppServer

SLOW = Reply(text=["word "] * 200, token_delay=0.05)


async def open_socket(client: AsyncLettaClient) -> Any:
    backend = client.backend
    assert isinstance(backend, AppServerBackend)
    return (await backend.connection())._socket


async def test_abort_while_a_client_tool_runs(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    running = asyncio.Event()
    ended = asyncio.Event()

    async def wait_long() -> str:
        """Waits."""
        running.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return "never"

    model.script(Reply(tool_calls=[ToolUse("wait_long", {})]), Reply("never said"))
    async with client.create_session(agent, tools=[wait_long]) as session:
        turn = asyncio.ensure_future(session.run_turn("go"))
        await asyncio.wait_for(running.wait(), 30)
        started = time.monotonic()
        await session.abort()
        result = await asyncio.wait_for(turn, 40)
        assert time.monotonic() - started < 30
        assert (result.success, result.error_code) == (False, "cancelled")
        await asyncio.wait_for(ended.wait(), 20)
        assert len(model.requests) == 1
        model.script("Fine.")
        after = await session.run_turn("go on")
    assert (after.success, after.result) == (True, "Fine.")


@pytest.mark.parametrize("callback", ["raises", "never returns"])
async def test_a_callback_that_gives_no_answer(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, tmp_path: Path, callback: str
) -> None:
    """The tool does not run, the message is not said again, and the conversation goes on."""
    ended = asyncio.Event()

    async def can_use_tool(name: str, tool_input: Any, context: Any) -> bool:
        if callback == "raises":
            raise RuntimeError("the callback is broken")
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()
        return True

    use = ToolUse("Bash", {"command": "touch made", "description": "a test"})
    model.script(Reply(tool_calls=[use]), "Then not.")
    options: Any = {"can_use_tool": can_use_tool, "cwd": tmp_path, "turn_timeout": 2.0}
    async with client.create_session(agent, **options) as session:
        result = await session.run_turn("please touch it")
        if callback == "raises":
            assert (result.success, result.result) == (True, "Then not.")
            told = str(model.requests[-1].messages[-1]["content"])
            assert "broken" in told
        else:
            assert (result.success, result.error_code) == (False, "timeout_after_acceptance")
            await asyncio.wait_for(ended.wait(), 20)
        model.script("Fine.")
        after = await session.run_turn("go on")
    assert (after.success, after.result) == (True, "Fine."), after
    users = [str(m["content"]) for m in model.requests[-1].messages if m["role"] == "user"]
    assert "\n".join(users).count("please touch it") == 1
    assert not (tmp_path / "made").exists()


async def test_abort_before_the_models_first_word(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    model.script(Reply("late", delay=15))
    async with client.create_session(agent) as session:
        turn = asyncio.ensure_future(session.run_turn("go"))
        while not model.requests:
            await asyncio.sleep(0.05)
        started = time.monotonic()
        await session.abort()
        result = await asyncio.wait_for(turn, 40)
        assert time.monotonic() - started < 12
        assert (result.success, result.error_code) == (False, "cancelled")
        model.script("Fine.")
        # The server is still busy with the aborted turn: this one waits behind it.
        after = await session.run_turn("go on")
    assert (after.success, after.result) == (True, "Fine."), after


async def test_a_lost_connection_is_no_shorter_answer(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    model.script(SLOW)
    async with client.create_session(agent, include_partial_messages=True) as session:
        await session.send("talk")
        messages: list[Any] = []
        socket = await open_socket(client)
        async for message in session.stream():
            messages.append(message)
            if isinstance(message, StreamEvent):
                socket.transport.abort()
        result = messages[-1]
        assert isinstance(result, ResultMessage)
        assert (result.success, result.error_code) == (False, "stream_truncated"), result
        assert result.input_stored is True
        assert "stored" in (result.error_detail or "")
        assert not [m for m in messages if isinstance(m, AssistantMessage)]
        # The next use connects again. The server's local backend keeps the cut turn for ever.
        model.script("Fine.")
        after = await session.run_turn("go on")
        assert (after.success, after.error_code) == (False, "conversation_busy"), after
        assert after.input_stored is False
        assert "fork" in (after.error_detail or "")
        fork = await client.conversations.fork(str(session.conversation_id))
    async with client.resume_session(agent_id=agent, conversation_id=fork["id"]) as session:
        after = await session.run_turn("go on")
    assert (after.success, after.result) == (True, "Fine."), after
    said = [m["content"] for m in model.requests[-1].messages if m["role"] == "user"]
    assert "talk" in str(said[0])


async def test_after_a_reconnect_the_client_tools_are_there(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    def ping() -> str:
        """Pings."""
        return "pong"

    async with client.create_session(agent, tools=[ping]) as session:
        model.script("one")
        assert (await session.run_turn("one")).success
        (await open_socket(client)).transport.abort()
        await asyncio.sleep(0.1)
        model.script(Reply(tool_calls=[ToolUse("ping", {})]), Reply("two"))
        result = await session.run_turn("two")
    assert (result.success, result.result) == (True, "two"), result
    assert model.requests[-1].messages[-1]["content"] == "pong"


async def test_a_server_that_died_in_the_middle_of_a_turn(
    connect: Callable[..., AsyncLettaClient], tmp_path: Path
) -> None:
    """Letta Code would run the message again after the restart: it must not, behind our back."""
    with ScriptedModel() as model:
        server = AppServer(tmp_path, model.base_url).start()
        try:
            async with connect(server, settle_timeout=0.5) as client:
                agent = await client.create_agent(model=MODEL, system_prompt="Test.")
                model.script(SLOW, Reply(text=["again "] * 100, token_delay=0.05))
                async with client.create_session(agent, include_partial_messages=True) as session:
                    await session.send("talk")
                    messages: list[Any] = []
                    async for message in session.stream():
                        messages.append(message)
                        if isinstance(message, StreamEvent) and server.url:
                            server.stop(kill=True)
                            server.url = ""
                            server.start()
                    result = messages[-1]
                    assert (result.success, result.error_code) == (False, "stream_truncated")
                    assert result.input_stored is True, result
                    model.script("Fine.")
                    after = await session.run_turn("go on")
                    assert (after.success, after.result) == (True, "Fine."), after
        finally:
            server.stop()


async def test_a_server_that_is_gone(
    connect: Callable[..., AsyncLettaClient], tmp_path: Path
) -> None:
    server = AppServer(tmp_path, "")
    server.url = "ws://127.0.0.1:9/ws"
    async with connect(server) as client:
        with pytest.raises(ConnectionFailedError) as caught:
            await client.create_session("agent-1").initialize()
    assert caught.value.accepted is False


async def test_sends_of_one_conversation_run_one_after_the_other(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    model.script(Reply(["a "] * 5, token_delay=0.05), Reply("two"), Reply("three"))
    async with client.create_session(agent) as session:
        results = await asyncio.gather(*(session.run_turn(word) for word in ("x", "y", "z")))
    assert [r.result for r in results] == ["a a a a a ", "two", "three"]
    assert all(len(r.run_ids) == 1 for r in results)
    assert len(model.requests) == 3


async def test_a_turn_that_another_client_started_does_not_end_ours(
    connect: Callable[..., AsyncLettaClient],
    client: AsyncLettaClient,
    server: AppServer,
    agent: str,
    model: ScriptedModel,
) -> None:
    model.script(Reply(["theirs "] * 10, token_delay=0.1), Reply("ours"))
    async with connect(server, name="remote") as other, client.create_session(agent) as session:
        await session.initialize()
        theirs = other.resume_session(agent_id=agent, conversation_id=session.conversation_id)
        await theirs.send("first")
        await asyncio.sleep(0.3)
        mine = await session.run_turn("second")
        assert (mine.success, mine.result) == (True, "ours"), mine
        messages = [m async for m in theirs.stream()]
        assert messages[-1].result == "theirs " * 10
        await theirs.close()


async def test_the_queue_and_the_loop_are_told_on_request(
    connect: Callable[..., AsyncLettaClient],
    client: AsyncLettaClient,
    server: AppServer,
    agent: str,
    model: ScriptedModel,
) -> None:
    model.script(Reply(["theirs "] * 10, token_delay=0.1), Reply("ours"))
    async with connect(server, name="remote") as other:
        async with client.create_session(agent, include_status_messages=True) as session:
            await session.initialize()
            theirs = other.resume_session(
                agent_id=agent,
                conversation_id=session.conversation_id,
                include_status_messages=True,
            )
            await theirs.send("first")
            await asyncio.sleep(0.3)
            await session.send("second")
            mine = [m async for m in session.stream()]
            seen = [m async for m in theirs.stream()]
            await theirs.close()
    assert mine[-1].result == "ours"
    for messages in (mine, seen):
        queues = [m for m in messages if isinstance(m, QueueUpdateMessage)]
        assert [i["content"] for i in queues[0].items] == ["second"]
    left = [i["disposition"] for m in mine if isinstance(m, QueueUpdateMessage) for i in m.removed]
    assert left == ["dequeued"]
    statuses = [m.status for m in mine if isinstance(m, LoopStatusMessage)]
    assert {"WAITING_FOR_API_RESPONSE", "PROCESSING_API_RESPONSE"} <= set(statuses)


async def test_an_otid_that_was_used_before_is_reported(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from letta_adapters.backends.app_server import turn as channel

    monkeypatch.setattr(channel, "_SILENCE_SECONDS", 0.5)
    model.script("one")
    async with client.create_session(agent) as session:
        await session.run_turn("hello", otid="same")
        result = await session.run_turn("hello", otid="same")
    assert (result.success, result.error_code) == (False, "conflict"), result
    assert len(model.requests) == 1


async def test_a_large_message_and_a_large_history(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    big = "\u20ac" * 360_000  # more than a megabyte, and still within the model's context
    model.script("ok")
    async with client.create_session(agent) as session:
        assert (await session.run_turn(big)).success
        page = await session.list_messages()
    assert any(big in str(m.get("content")) for m in page.raw)


async def test_a_closed_client_is_final(
    connect: Callable[..., AsyncLettaClient], server: AppServer, model: ScriptedModel
) -> None:
    client = connect(server)
    await client.agents.list()
    await client.close()
    with pytest.raises(SessionClosedError):
        await client.agents.list()
