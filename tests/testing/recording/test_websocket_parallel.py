"""Parallel sessions on one connection: recorded once, played in whatever order they come.

``python -m tools.app_server -- python -m pytest tests/testing/recording/test_websocket_parallel.py
--letta-record=rewrite`` records it anew from the real ``letta`` wheel.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from letta_adapters import AsyncLettaClient, AsyncSession
from letta_adapters.testing import Cassette, CassetteMissError, LettaCassette, Reply, save_cassette
from letta_adapters.testing.recording.save import RehearsalError
from letta_adapters.testing.recording.websocket import (
    ConnectionRecording,
    WebSocketPlayer,
    WebSocketRecorder,
)
from tests.backends.app_server._server import MODEL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PARALLEL = pytest.mark.letta_cassette("app_server_parallel", shared=True)
QUESTIONS = ("kumquat", "durian", "quince")


async def make_agent(client: AsyncLettaClient) -> str:
    made: str = await client.create_agent(
        name="parallel", model=MODEL, system_prompt="You are a test.", persona="I am a test."
    )
    return made


async def answers(
    client: AsyncLettaClient, agent: str, questions: Sequence[str], chance: random.Random
) -> dict[str, list[str | None]]:
    """Ask each question, and once more, in a session of its own; all at once."""

    async def ask(question: str) -> tuple[str, list[str | None]]:
        said: list[str | None] = []
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        async with client.create_session(agent) as session:
            for text in (question, f"another {question}"):
                said.append((await session.run_turn(text)).result)
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
        return question, said

    return dict(await asyncio.gather(*map(ask, questions)))


EXPECTED: dict[str, list[str | None]] = {q: [f"A {q}.", f"Two {q}."] for q in QUESTIONS}


@PARALLEL
async def test_sessions_in_parallel(letta_cassette: LettaCassette) -> None:
    second = [Reply(f"Two {q}.", when=f"another {q}") for q in QUESTIONS]
    letta_cassette.script(*second, *(Reply(f"A {q}.", when=q) for q in QUESTIONS))
    with letta_cassette.websocket():
        async with AsyncLettaClient(letta_cassette.app_server) as client:
            agent = await make_agent(client)
            assert await answers(client, agent, QUESTIONS, random.Random(0)) == EXPECTED


@PARALLEL
@pytest.mark.parametrize("seed", range(15))
async def test_they_replay_in_any_order(
    recording: Cassette, letta_cassette: LettaCassette, seed: int
) -> None:
    chance = random.Random(seed)
    questions = list(QUESTIONS)
    chance.shuffle(questions)
    player = WebSocketPlayer(recording)
    with player:
        async with AsyncLettaClient(letta_cassette.app_server) as client:
            agent = await make_agent(client)
            assert await answers(client, agent, questions, chance) == EXPECTED
    player.assert_all_played()


@PARALLEL
@pytest.mark.parametrize("order", [*itertools.permutations(QUESTIONS)], ids="-".join)
@pytest.mark.parametrize("early", range(4))
async def test_a_conversation_may_go_on_before_others_begin(
    recording: Cassette, letta_cassette: LettaCassette, order: tuple[str, ...], early: int
) -> None:
    """Recorded, all three had begun before any of them sent a message.

    ``early`` turns are made before the second session is opened, and before the third.
    """
    said: dict[str, list[str | None]] = {question: [] for question in order}
    player = WebSocketPlayer(recording)
    with player:
        async with AsyncLettaClient(letta_cassette.app_server) as client:
            agent = await make_agent(client)
            async with contextlib.AsyncExitStack() as opened:
                coming: list[tuple[str, str, AsyncSession]] = []
                for question in order:
                    session = await opened.enter_async_context(client.create_session(agent))
                    texts = (question, f"another {question}")
                    coming.extend((question, text, session) for text in texts)
                    for _ in range(min(early, len(coming))):
                        whose, text, asked = coming.pop(0)
                        said[whose].append((await asked.run_turn(text)).result)
                for whose, text, asked in coming:
                    said[whose].append((await asked.run_turn(text)).result)
    assert said == EXPECTED
    player.assert_all_played()


@PARALLEL
async def test_what_was_not_recorded_is_no_answer(
    recording: Cassette, letta_cassette: LettaCassette
) -> None:
    with WebSocketPlayer(recording) as player:
        # Closing the client ends the other turn, which was not recorded either.
        with pytest.raises(CassetteMissError, match="no recorded conversation"):
            async with AsyncLettaClient(letta_cassette.app_server) as client:
                agent = await make_agent(client)
                await answers(client, agent, ("durian", "melon"), random.Random(0))
    with pytest.raises(CassetteMissError):
        player.assert_all_played()


def conversation(
    number: int, talk: ConnectionRecording, answer: str, follow: str
) -> list[Callable[[], None]]:
    """What is said in one of two conversations, step by step."""
    runtime = {"agent_id": "agent-local-1", "conversation_id": f"local-conv-{number}"}

    def start() -> None:
        request = {"request_id": f"la-{number:032x}"}
        talk.sent(json.dumps({"type": "runtime_start", **request}))
        talk.came(json.dumps({"type": "runtime_start_response", "runtime": runtime, **request}))

    def say(text: str, answered: str, turn: int) -> None:
        request = {"request_id": f"la-{number * 100 + turn:032x}", "runtime": runtime}
        talk.sent(json.dumps({"type": "input", "content": text, **request}))
        delta = {"message_type": "assistant_message", "content": answered}
        talk.came(json.dumps({"type": "stream_delta", "runtime": runtime, "delta": delta}))

    return [start, lambda: say("go", answer, 1), lambda: say(follow, "Fine.", 2)]


@pytest.mark.parametrize("same", [True, False])
def test_a_recording_that_depends_on_chance_is_not_saved(tmp_path: Path, same: bool) -> None:
    """The same question was answered in two ways, and what followed depends on which."""
    recorder = WebSocketRecorder()
    talk = recorder.opened("ws://127.0.0.1:43117/ws", {})
    both = [
        conversation(1, talk, "yes", "thanks for yes"),
        conversation(2, talk, "yes" if same else "no", "thanks for no"),
    ]
    for steps in zip(*both, strict=True):
        for step in steps:
            step()
    path = tmp_path / "two.yaml"
    if same:
        save_cassette(recorder.cassette, path)
        assert path.exists()
    else:
        with pytest.raises(RehearsalError, match="another order"):
            save_cassette(recorder.cassette, path)
        assert not path.exists()
