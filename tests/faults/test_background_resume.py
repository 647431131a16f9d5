"""Background runs: a lost connection is resumed where it broke, without losses or repetitions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from letta_adapters import Rest
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import ServerError
from letta_adapters.messages import AssistantMessage
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import (
    Wire,
    asks,
    broken,
    deaf,
    hang,
    status,
    stream,
)
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]

NO_REDIS = status(503, {"detail": ev.NO_REDIS})


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letta_adapters.backends.rest.turn._RESUME_PAUSE", 0.01)


@pytest.fixture
async def client(rest: MakeRest) -> AsyncIterator[AsyncLettaClient]:
    async with AsyncLettaClient(rest(background=True)) as made:
        yield made


def words(*numbers: int, run: int = 1) -> list[bytes]:
    """Deltas of one message; the ping has number 1, so the first word has number 2."""
    return [ev.text(f"w{n} ", run, run, seq=n) for n in numbers]


def resumed_at(server: Server) -> list[tuple[str, int]]:
    """Which runs were resumed, and after which event."""
    found = [r for r in server.requests if r.method == "POST" and r.path.startswith("/v1/runs/")]
    assert all(r.body["include_pings"] is True for r in found)
    return [(r.path.split("/")[3], r.body["starting_after"]) for r in found]


LOST = broken(run="running", keep=False)


async def read(session: Any, text: str = "hello") -> list[Any]:
    await session.send(text)
    return [message async for message in session.stream()]


@pytest.mark.parametrize("how", [LOST, broken(run="running", keep=False, reset=True)])
async def test_resume(server: Server, rest: MakeRest, face: Any, how: Any) -> None:
    server.script(stream(ev.ping(seq=1), *words(2, 3), how))
    server.resumes.append(stream(*words(4, 5), ev.ending()))
    async with face(rest(background=True)) as client:
        session = resume(client, include_partial_messages=True)
        messages = await read(session)
        deltas = [m.event["content"] for m in messages if m.type == "stream_event"]
        assert deltas == ["w2 ", "w3 ", "w4 ", "w5 "]
        assert messages[-1].result == "w2 w3 w4 w5 "
        assert [m.type for m in messages].count("assistant") == 1
        assert resumed_at(server) == [(ev.run_id(1), 3)]
        assert server.sent()[0].body["background"] is True
        assert (await session.run_turn("again")).success
    assert server.texts() == ["hello", "again"]
    assert server.cancels == 0


async def test_a_resumed_stream_that_starts_from_the_beginning(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(stream(ev.ping(seq=1), *words(2, 3), LOST))
    server.resumes.append(stream(ev.ping(seq=1), *words(2, 3, 4), ev.ending()))
    messages = await read(resume(client))
    assert messages[-1].result == "w2 w3 w4 "


async def test_cut_in_the_middle_of_an_event(server: Server, client: AsyncLettaClient) -> None:
    """The half event is dropped; the server sends it again."""
    half = words(3)[0][:40]
    server.script(stream(ev.ping(seq=1), *words(2), half, LOST))
    server.resumes.append(stream(*words(3), ev.ending()))
    assert (await read(resume(client)))[-1].result == "w2 w3 "
    assert resumed_at(server) == [(ev.run_id(1), 2)]


async def test_a_clean_end_without_ending_is_resumed(
    server: Server, client: AsyncLettaClient
) -> None:
    def ends(wire: Wire) -> None:
        wire.end()
        raise ConnectionResetError

    server.script(stream(ev.ping(seq=1), *words(2), ends))
    server.resumes.append(stream(*words(3), ev.ending()))
    assert (await read(resume(client)))[-1].result == "w2 w3 "


async def test_silence_is_resumed(server: Server, rest: MakeRest) -> None:
    server.script(stream(ev.ping(seq=1), *words(2), deaf))
    server.resumes.append(stream(*words(3), ev.ending()))
    async with AsyncLettaClient(rest(background=True, idle_timeout=0.2)) as client:
        assert (await read(resume(client)))[-1].result == "w2 w3 "
    assert server.cancels == 0


async def test_resume_needs_more_than_one_attempt(server: Server, client: AsyncLettaClient) -> None:
    server.script(stream(ev.ping(seq=1), *words(2), LOST))
    server.resumes += [
        status(503, {"detail": "restarting"}),
        broken(reset=True, keep=False, run="running"),
    ]
    server.resumes.append(stream(*words(3), ev.ending()))
    assert (await read(resume(client)))[-1].result == "w2 w3 "
    assert resumed_at(server) == [(ev.run_id(1), 2)] * 3


async def test_a_resumed_stream_is_lost_too(server: Server, client: AsyncLettaClient) -> None:
    server.script(stream(ev.ping(seq=1), *words(2), LOST))
    server.resumes.append(stream(*words(3, 4), LOST))
    server.resumes.append(stream(*words(5), ev.ending()))
    assert (await read(resume(client)))[-1].result == "w2 w3 w4 w5 "
    assert resumed_at(server) == [(ev.run_id(1), 2), (ev.run_id(1), 4)]


async def test_resuming_gives_up_and_says_what_became_of_the_turn(
    server: Server, client: AsyncLettaClient
) -> None:
    """The server finished it: the answer is there, and the message must not go again."""
    request = broken(run="completed", keep=True)
    server.script(stream(ev.ping(seq=1), *words(2), request))
    session = resume(client)
    messages = await read(session)
    assert [m.type for m in messages] == ["init", "error", "result"]
    assert messages[-1].error_code == "stream_truncated"
    assert messages[-1].input_stored is True
    assert "read it with list_messages(); do not send" in str(messages[-1].error_detail)
    assert resumed_at(server) == [(ev.run_id(1), 2)] * 3
    assert (await session.run_turn("again")).success
    assert server.texts() == ["hello", "again"]


async def test_lost_before_anything_was_numbered(server: Server, client: AsyncLettaClient) -> None:
    server.script(stream(b": comment\n\n", broken(keep=False, run="failed")))
    session = resume(client)
    messages = await read(session)
    assert messages[-1].error_code == "stream_truncated"
    assert messages[-1].input_stored is False
    assert resumed_at(server) == []
    assert (await session.run_turn("again")).success


async def test_an_error_in_a_resumed_stream(server: Server, client: AsyncLettaClient) -> None:
    """Background runs end after an error without [DONE]."""
    failing = ev.stop("llm_api_error") + ev.error("llm_rate_limit", "Slow down")
    server.script(stream(ev.ping(seq=1), *words(2), broken(run="failed", keep=False)))
    server.resumes.append(stream(failing, keep=False))
    messages = await read(resume(client))
    assert [m.type for m in messages].count("error") == 1
    assert messages[-1].error_code == "provider_rate_limit"


async def test_malformed_events_are_not_asked_for_again(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(stream(ev.ping(seq=1), *words(2), b"data: {oops\n\n", hang))
    messages = await read(resume(client))
    assert messages[-1].error_code == "protocol_error"
    assert resumed_at(server) == []


async def test_each_request_of_a_turn_is_resumed_as_its_own_run(
    server: Server, client: AsyncLettaClient
) -> None:
    def get_weather(city: str) -> str:
        return "sunny"

    server.script(asks(ev.call()), stream(ev.ping(2, seq=1), *words(2, run=2), LOST))
    server.resumes.append(stream(*words(3, run=2), ev.ending()))
    messages = await read(resume(client, tools=[get_weather]))
    assert messages[-1].result == "w2 w3 "
    assert messages[-1].run_ids == (ev.run_id(1), ev.run_id(2))
    assert resumed_at(server) == [(ev.run_id(2), 2)]
    assert [r.body["background"] for r in server.sent()] == [True, True]


async def test_leaving_early_cancels_the_background_run(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(stream(ev.ping(seq=1), *words(2), hang))
    session = resume(client, include_partial_messages=True)
    await session.send("hello")
    async with session.stream() as messages:
        async for message in messages:
            if message.type == "stream_event":
                break
    assert [run.status for run in server.runs] == ["cancelled"]
    assert resumed_at(server) == []


async def test_a_server_without_redis_is_asked_once(
    server: Server, client: AsyncLettaClient
) -> None:
    """Refused before anything was stored, so the foreground request is no repetition."""
    server.override("POST", "/messages$", NO_REDIS, 1)
    session = resume(client)
    assert (await session.run_turn("hello")).success
    assert (await resume(client).run_turn("again")).success
    assert [r.body.get("background") for r in server.sent()] == [True, None, None]
    stored = [m for m in server.stored[ev.CONV] if m["message_type"] == "user_message"]
    assert [m["content"] for m in stored] == ["hello", "again"]


async def test_other_failures_do_not_fall_back(server: Server, client: AsyncLettaClient) -> None:
    server.script(status(503, {"detail": "Service Unavailable"}))
    with pytest.raises(ServerError):
        await resume(client).send("hello")
    assert len(server.sent()) == 1


async def test_background_is_for_the_cloud_unless_asked_for(server: Server, rest: MakeRest) -> None:
    async with AsyncLettaClient(rest()) as client:
        await resume(client).run_turn("hello")
    assert "background" not in server.sent()[0].body
    cloud = AsyncLettaClient(Rest(api_key="sk-let-x"))
    assert cloud.backend._background.on
    await cloud.close()


async def test_nothing_is_lost_over_many_cuts(server: Server, client: AsyncLettaClient) -> None:
    """Cut after every event in turn: always the same messages."""
    events = [ev.ping(seq=1), *words(2, 3, 4)]
    for cut in range(1, len(events) + 1):
        number = len(server.runs) + 1
        renumbered = [e.replace(ev.run_id(1).encode(), ev.run_id(number).encode()) for e in events]
        server.script(stream(*renumbered[:cut], LOST))
        server.resumes.append(
            stream(
                *renumbered[cut:],
                ev.ending(),
                lambda wire: server.active[0].end("completed"),
            )
        )
        messages = await read(resume(client), f"cut {cut}")
        assert [m.content for m in messages if isinstance(m, AssistantMessage)] == ["w2 w3 w4 "]
        assert messages[-1].success
    assert len(server.sent()) == len(events)
