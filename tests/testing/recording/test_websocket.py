"""A recorded App Server session, replayed through everything that speaks to one.

``python -m tools.app_server -- python -m pytest tests/testing/recording/test_websocket.py
--letta-record=rewrite`` records it anew from the real ``letta`` wheel.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from letta_adapters import (
    Allow,
    AsyncLettaClient,
    InvalidInputError,
    LettaError,
    Remote,
    ResultMessage,
    StreamEvent,
)
from letta_adapters.langchain import ChatLetta
from letta_adapters.llama_index import LettaAgent
from letta_adapters.testing import (
    Cassette,
    CassetteMissError,
    CassetteTransport,
    LettaCassette,
    Reply,
    ToolUse,
)
from letta_adapters.testing.live.faces import make_sync_client
from letta_adapters.testing.recording.websocket import WebSocketPlayer
from tests.backends.app_server._server import MODEL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SESSION = pytest.mark.letta_cassette("app_server_session", shared=True)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def talk(client: AsyncLettaClient, script: Any) -> list[ResultMessage]:
    """Streaming with thoughts, an approval, a client-side tool, and an abort."""
    bash = ToolUse("Bash", {"command": "touch made", "description": "a test"}, id="bash-1")
    script(
        Reply(text="One two three.", reasoning="Hm."),
        Reply(tool_calls=[bash]),
        "It is made.",
        Reply(tool_calls=[ToolUse("add", {"a": 1, "b": 2}, id="add-1")]),
        "Three.",
        Reply(["word "] * 100, token_delay=0.1),
    )
    agent = await client.create_agent(
        name="recorded", model=MODEL, system_prompt="You are a test.", persona="I am a test."
    )
    results: list[ResultMessage] = []
    asked: list[str] = []
    aborted = False

    async def can_use_tool(name: str, tool_input: Any, context: Any) -> Allow:
        asked.append(name)
        return Allow()

    options: Any = {"include_partial_messages": True, "can_use_tool": can_use_tool, "tools": [add]}
    async with client.create_session(agent, **options) as session:
        for question in ("count", "make it", "add", "talk"):
            await session.send(question)
            async for message in session.stream():
                if question == "talk" and isinstance(message, StreamEvent) and not aborted:
                    aborted = True
                    await session.abort()
                if isinstance(message, ResultMessage):
                    results.append(message)
    assert asked == ["Bash", "add"]
    return results


@SESSION
async def test_a_session(letta_cassette: LettaCassette) -> None:
    with letta_cassette.websocket():
        async with AsyncLettaClient(letta_cassette.app_server) as client:
            results = await talk(client, letta_cassette.script)
    assert [(r.success, r.result) for r in results[:3]] == [
        (True, "One two three."),
        (True, "It is made."),
        (True, "Three."),
    ]
    assert (results[3].success, results[3].error_code) == (False, "cancelled")


async def replayed(player: WebSocketPlayer, client: AsyncLettaClient) -> list[ResultMessage]:
    with player:
        async with client:
            return await talk(client, lambda *_: None)


@SESSION
async def test_it_asks_the_clock_for_the_recorded_delays(
    recording: Cassette, letta_cassette: LettaCassette
) -> None:
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    player = WebSocketPlayer(recording, timing="recorded", sleep=sleep)
    await replayed(player, AsyncLettaClient(letta_cassette.app_server))
    player.assert_all_played()
    recorded = [
        delay / 1000
        for interaction in recording
        for delay, _ in interaction.response.timing or ()
        if delay
    ]
    assert recorded[: len(asked)] == asked
    assert sum(asked) > 0


@SESSION
@pytest.mark.slow
async def test_cut_at_every_frame(recording: Cassette, letta_cassette: LettaCassette) -> None:
    """Each cut is a typed error or a failed result; never a shorter answer, never a hang."""
    whole = WebSocketPlayer(recording)
    answers = [r.result for r in await replayed(whole, AsyncLettaClient(letta_cassette.app_server))]
    told = 0
    for frames in range(whole.came):
        player = WebSocketPlayer(recording, cut_after=frames)
        client = AsyncLettaClient(
            letta_cassette.app_server.model_copy(update={"settle_timeout": 0.0})
        )
        try:
            results = await asyncio.wait_for(replayed(player, client), 10)
        except LettaError:
            told += 1
            continue
        for result, answer in zip(results, answers, strict=False):
            assert not result.success or result.result == answer, frames
        told += any(not result.success for result in results[:3])
    assert told > whole.came / 2


@SESSION
async def test_it_begins_once(recording: Cassette, letta_cassette: LettaCassette) -> None:
    letta_cassette.websocket()
    with pytest.raises(RuntimeError, match="once a test"):
        letta_cassette.websocket()


@SESSION
async def test_a_timing_that_is_none(recording: Cassette) -> None:
    for player in (WebSocketPlayer, CassetteTransport):
        with pytest.raises(InvalidInputError, match="timing='fast'"):
            player(recording, timing="fast")


@SESSION
async def test_it_replays_through_the_sync_client(
    recording: Cassette, letta_cassette: LettaCassette
) -> None:
    player = WebSocketPlayer(recording)
    results = await replayed(player, make_sync_client(letta_cassette.app_server))
    player.assert_all_played()
    assert [r.result for r in results[:3]] == ["One two three.", "It is made.", "Three."]
    assert results[3].error_code == "cancelled"


@SESSION
async def test_a_frame_that_differs_is_said(
    recording: Cassette, letta_cassette: LettaCassette
) -> None:
    text = recording.dumps()
    assert '"make it"' in text
    player = WebSocketPlayer(Cassette.loads(text.replace('"make it"', '"make that"')))
    client = AsyncLettaClient(letta_cassette.app_server)
    with pytest.raises((LettaError, CassetteMissError)):
        await asyncio.wait_for(replayed(player, client), 10)
    with pytest.raises(CassetteMissError, match="make it"):
        player.assert_all_played()


@SESSION
async def test_frames_can_be_dropped_and_repeated(
    recording: Cassette, letta_cassette: LettaCassette
) -> None:
    def twice(number: int, text: str) -> list[str]:
        frame = json.loads(text)
        return [text] * (2 if frame.get("type") == "update_loop_status" else 1)

    player = WebSocketPlayer(recording, edit=twice)
    results = await replayed(player, AsyncLettaClient(letta_cassette.app_server))
    assert [r.result for r in results[:2]] == ["One two three.", "It is made."]


@pytest.mark.letta_cassette("app_server_adapters", shared=True)
async def test_through_the_adapters(letta_cassette: LettaCassette) -> None:
    call = ToolUse("add", {"a": 1, "b": 2}, id="add-1")
    letta_cassette.script(
        "Hello.", Reply(tool_calls=[call]), Reply(tool_calls=[call], when="Again?"), "It is 3."
    )
    with letta_cassette.websocket():
        said = await adapters(letta_cassette.app_server)
    assert said == SAID


SAID = ["Hello.", ["add"], "It is 3."]


async def adapters(where: Remote, said: list[Any] | None = None) -> list[Any]:
    """What ChatLetta (streamed, then with a tool) and LettaAgent answer, as far as they come."""
    said = [] if said is None else said
    async with AsyncLettaClient(where) as client:
        agent_id = await client.create_agent(
            name="recorded", model=MODEL, system_prompt="You are a test."
        )
        model = ChatLetta(agent_id=agent_id, client=client)
        said.append("".join([str(chunk.text) async for chunk in model.astream("hi")]))
        asked = await model.bind_tools([add]).ainvoke("1 + 2?")
        said.append([call["name"] for call in asked.tool_calls])
        agent = LettaAgent(agent_id=agent_id, client=client, tools=[add])
        said.append(str(await agent.run("Again?")))
    return said


@pytest.mark.letta_cassette("app_server_adapters", shared=True)
@pytest.mark.slow
async def test_the_adapters_cut_at_every_frame(
    recording: Cassette, letta_cassette: LettaCassette
) -> None:
    """Each cut is a typed error, after whole answers; never a shorter answer, never a hang."""
    whole = WebSocketPlayer(recording)
    with whole:
        assert await adapters(letta_cassette.app_server) == SAID
    where = letta_cassette.app_server.model_copy(update={"settle_timeout": 0.0})
    for frames in range(whole.came):
        said: list[Any] = []
        told: Exception | None = None
        with WebSocketPlayer(recording, cut_after=frames):
            try:
                await asyncio.wait_for(adapters(where, said), 20)
            except (LettaError, ConnectionError) as error:
                told = error
        assert said == SAID[: len(said)], frames
        assert said == SAID or told is not None, frames
