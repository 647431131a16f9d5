"""``Local`` and ``Remote`` as users make them: the real runtime behind the public clients."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from letta_adapters import (
    AssistantMessage,
    AsyncLettaClient,
    ConnectionFailedError,
    LettaClient,
    LettaError,
    Local,
    Remote,
    ResultMessage,
    prompt,
)
from letta_adapters.backends.letta_code import local_backend, remote_backend
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests._processes import ask
from tests._wheel import needs_wheel

MODEL = "lmstudio/scripted"


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


@pytest.fixture
def local(model: ScriptedModel, tmp_path: Path) -> Local:
    return Local(
        data_dir=tmp_path / "state",
        openai_compatible={"base_url": model.base_url, "api_key": "unused"},
    )


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.parametrize("url", ["ws://127.0.0.1:4000", "ws://127.0.0.1:4000/"])
async def test_the_socket_is_found_under_the_address_the_server_prints(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETTA_APP_SERVER_URL", url)
    monkeypatch.setenv("LETTA_APP_SERVER_TOKEN", "from-the-environment")
    where = await remote_backend(Remote())._link._host.endpoint()
    assert (where.url, where.token) == ("ws://127.0.0.1:4000/ws", "from-the-environment")
    given = await remote_backend(
        Remote(url="wss://x.test/own", auth_token="t")
    )._link._host.endpoint()
    assert (given.url, given.token) == ("wss://x.test/own", "t")
    assert "t" not in repr(given).replace("test", "").replace("Endpoint", "")


async def test_an_app_server_that_is_not_there_is_a_typed_error() -> None:
    async with AsyncLettaClient(Remote(url="ws://127.0.0.1:9")) as client:
        with pytest.raises(ConnectionFailedError):
            await client.models.list()


@needs_wheel
def test_an_agent_lives_on_this_machine_and_is_found_again(
    local: Local, model: ScriptedModel
) -> None:
    with LettaClient(local) as client:
        agent = client.create_agent(name="ada", model=MODEL, persona="I am Ada.")
        model.script(Reply(tool_calls=[ToolUse("add", {"a": 2, "b": 3})]), Reply(text="Five."))
        with client.create_session(agent, tools=[add]) as session:
            session.send("2 + 3?")
            messages = list(session.stream())
            where = session.conversation_id
        assert [m.type for m in messages] == [
            "init",
            "tool_call",
            "tool_result",
            "assistant",
            "result",
        ]
    # The runtime has stopped; another one finds the state on disk.
    model.script(Reply(text="You asked for a sum."))
    with LettaClient(local) as client:
        assert [a["name"] for a in client.agents.list()] == ["ada"]
        with client.resume_session(agent_id=agent, conversation_id=where) as session:
            assert session.run_turn("What did I ask?").result == "You asked for a sum."
    sent = model.requests[-1].messages
    assert any(m["role"] == "assistant" and m.get("content") == "Five." for m in sent)


@needs_wheel
def test_prompt_makes_the_default_agent_once(local: Local, model: ScriptedModel) -> None:
    model.script(Reply(text="One."), Reply(text="Two."))
    with LettaClient(local) as client:
        first = prompt("Hello", client=client, model=MODEL)
        second = prompt("Hello", client=client, model=MODEL)
        assert (first.result, second.result) == ("One.", "Two.")
        assert first.agent_id == second.agent_id
        assert len(client.agents.list()) == 1


@needs_wheel
async def test_a_runtime_that_is_killed_ends_the_turn_and_the_next_session_works(
    local: Local, model: ScriptedModel
) -> None:
    async with AsyncLettaClient(local) as client:
        agent = await client.create_agent(name="ada", model=MODEL)
        model.script(Reply(text=["word "] * 50, token_delay=0.1))
        async with client.create_session(agent, include_partial_messages=True) as session:
            await session.send("count")
            messages = []
            async for message in session.stream():
                messages.append(message)
                if message.type == "stream_event" and len(messages) < 4:
                    _kill_the_runtime(local)
        result = messages[-1]
        assert isinstance(result, ResultMessage)
        assert not result.success
        assert not any(isinstance(m, AssistantMessage) for m in messages)
        with pytest.raises(LettaError):
            result.raise_for_status()
        before = len(model.requests)
        model.script(Reply(text="Fine."))
        async with client.create_session(agent) as session:
            assert (await session.run_turn("again")).result == "Fine."
        # The killed turn was not run again.
        assert len(model.requests) == before + 1


def _kill_the_runtime(local: Local) -> None:
    killed = 0
    children = psutil.Process().children(recursive=True)
    for process, (command, env) in ask(children, lambda one: (one.cmdline(), one.environ())):
        # Other tests' servers run beside it.
        if "letta.js" in " ".join(command) and str(local.data_dir) in env.values():
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
    assert killed


@needs_wheel
def test_a_local_backend_starts_nothing_until_it_is_used(local: Local) -> None:
    before = set(psutil.Process().children())  # of other tests, which may end meanwhile
    assert local_backend(local).name == "local"
    with LettaClient(local) as client:
        client.create_session()
    assert set(psutil.Process().children()) <= before
