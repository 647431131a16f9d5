"""``connector=``: a client's own way to open its WebSocket, a recorder and a player among them."""

from __future__ import annotations

import asyncio
import contextvars
import ssl
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import websockets

from letta_adapters import (
    AsyncLettaClient,
    ConfigurationError,
    ConnectionFailedError,
    Connector,
    InvalidInputError,
    LettaClient,
    Local,
    Remote,
    Rest,
)
from letta_adapters.langchain import ChatLetta
from letta_adapters.testing import (
    Cassette,
    CassetteMissError,
    LettaCassette,
    WebSocketPlayer,
    WebSocketRecorder,
)
from letta_adapters.testing.scripted_model import Reply, ScriptedModel
from tests._wheel import needs_wheel
from tests.backends.app_server._server import MODEL, TOKEN, AppServer
from tests.testing.recording.test_websocket import talk
from tools.fake_app_server import Frame, accept, fake_app_server

NOWHERE = Remote(url="ws://letta.test/ws", auth_token="a-token")
SESSION = pytest.mark.letta_cassette("app_server_session", shared=True)
ADAPTERS = pytest.mark.letta_cassette("app_server_adapters", shared=True)
NAMES = ("one", "two")


def models(*names: str) -> Callable[[Frame], list[Frame]]:
    """A play of a server that has these models."""

    def play(frame: Frame) -> list[Frame]:
        entries = [{"id": name, "handle": f"test/{name}"} for name in names]
        return [accept(frame) | {"entries": entries, "available_handles": [f"test/{names[0]}"]}]

    return play


async def handles(client: AsyncLettaClient) -> list[str]:
    """The handles of the models that the client's server has."""
    return [str(model["handle"]) for model in await client.models.list()]


async def recorded(*names: str) -> Cassette:
    """A recording of one request to a server that has these models."""
    recorder = WebSocketRecorder()
    async with (
        fake_app_server(models(*names)) as plain,
        AsyncLettaClient(plain.spec, connector=recorder) as client,
    ):
        await handles(client)
    return recorder.cassette


class Meeting:
    """A place where so many tasks wait for each other, any number of times."""

    def __init__(self, parties: int) -> None:
        self._parties, self._here = parties, 0
        self._all = asyncio.Event()

    async def wait(self) -> None:
        self._here += 1
        if self._here == self._parties:
            self._here = 0
            self._all.set()
            self._all = asyncio.Event()
            return
        await self._all.wait()


async def ask_often(spec: Remote, meeting: Meeting, connector: Any, *, block: bool) -> list[str]:
    """Ask three times over one connection, each time while the others do."""
    seen: list[str] = []

    async def ask(given: Any) -> None:
        async with AsyncLettaClient(spec, connector=given) as client:
            for _ in range(3):
                await meeting.wait()
                seen.extend(await handles(client))
            await meeting.wait()

    if block:
        with connector:
            await ask(None)
    else:
        await ask(connector)
    return seen


# -- a recorder and players at once -------------------------------------------------------------


@pytest.mark.parametrize("block", [False, True], ids=["connector", "block"])
async def test_a_recorder_and_two_players_run_at_once_each_with_its_own(block: bool) -> None:
    players = []
    for name in NAMES:
        recorder = WebSocketRecorder()
        async with fake_app_server(models(name)) as server:
            await ask_often(server.spec, Meeting(1), recorder, block=False)
        players.append(WebSocketPlayer(recorder.cassette))
    recorder, meeting = WebSocketRecorder(), Meeting(3)
    async with fake_app_server(models("live")) as server:
        answers = await asyncio.gather(
            ask_often(server.spec, meeting, recorder, block=block),
            *(ask_often(NOWHERE, meeting, player, block=block) for player in players),
        )
    assert answers == [["test/live"] * 3, ["test/one"] * 3, ["test/two"] * 3]
    for player in players:
        player.assert_all_played()
    text = recorder.cassette.dumps()
    assert "test/live" in text
    assert "test/one" not in text
    assert "test/two" not in text
    again = WebSocketPlayer(recorder.cassette)
    assert await ask_often(NOWHERE, Meeting(1), again, block=block) == ["test/live"] * 3
    again.assert_all_played()


@needs_wheel
@SESSION
async def test_a_real_session_is_recorded_while_another_one_is_played(
    recording: Cassette,
    letta_cassette: LettaCassette,
    app_server: AppServer,
    shared_model: ScriptedModel,
) -> None:
    recorder, player = WebSocketRecorder(), WebSocketPlayer(recording)
    shared_model.clear()
    shared_model.script(Reply(text="Flabbergasted", when="who"))
    real = Remote(url=app_server.url, auth_token=TOKEN)

    async def record() -> str | None:
        async with AsyncLettaClient(real, connector=recorder) as client:
            agent = await client.create_agent(
                name="live", model=MODEL, system_prompt="You are a test.", persona="I am a test."
            )
            return (await client.prompt("who", agent)).result

    async def play() -> list[str | None]:
        where = letta_cassette.app_server
        async with AsyncLettaClient(where, connector=player) as client:
            return [result.result for result in await talk(client, lambda *_: None)][:3]

    said, played = await asyncio.gather(record(), play())
    assert said == "Flabbergasted"
    assert played == ["One two three.", "It is made.", "Three."]
    player.assert_all_played()
    text = recorder.cassette.dumps()
    assert "Flabbergasted" in text
    assert "One two three" not in text


async def test_sync_clients_in_threads_play_different_recordings_at_once() -> None:
    players = {name: WebSocketPlayer(await recorded(name)) for name in NAMES}
    both = threading.Barrier(2, timeout=20)
    answers: dict[str, Any] = {}

    def ask(name: str) -> None:
        with LettaClient(NOWHERE, connector=players[name]) as client:
            both.wait()
            answers[name] = [model["handle"] for model in client.models.list()]
            both.wait()

    await asyncio.gather(*(asyncio.to_thread(ask, name) for name in NAMES))
    assert answers == {"one": ["test/one"], "two": ["test/two"]}
    for player in players.values():
        player.assert_all_played()


@SESSION
async def test_a_cassette_is_handed_to_a_client(letta_cassette: LettaCassette) -> None:
    where, socket = letta_cassette.app_server, letta_cassette.websocket()
    async with AsyncLettaClient(where, connector=socket) as client:
        results = await talk(client, letta_cassette.script)
    assert [result.result for result in results[:3]] == ["One two three.", "It is made.", "Three."]


# -- blocks -------------------------------------------------------------------------------------


def elsewhere(work: Any) -> asyncio.Task[Any]:
    """Run it in a task whose context is empty, as that of a fixture's task may be."""
    return contextvars.Context().run(asyncio.create_task, work)


async def in_a_task(call: Callable[[], Any]) -> Any:
    """Call it in a task of its own."""
    return call()


def apart(work: Callable[[], Any]) -> Any:
    """Run it in a plain thread, whose context is empty."""
    out: list[Any] = []
    thread = threading.Thread(target=lambda: out.append(work()))
    thread.start()
    thread.join(20)
    return out[0]


def sync_handles() -> list[str]:
    with LettaClient(NOWHERE) as client:
        return [str(model["handle"]) for model in client.models.list()]


async def async_handles() -> list[str]:
    async with AsyncLettaClient(NOWHERE) as client:
        return await handles(client)


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(async_handles, id="a task of the block"),
        pytest.param(lambda: asyncio.to_thread(sync_handles), id="a sync client"),
        pytest.param(lambda: asyncio.to_thread(apart, sync_handles), id="a plain thread"),
        pytest.param(
            lambda: asyncio.to_thread(apart, lambda: asyncio.run(async_handles())),
            id="another event loop",
        ),
        pytest.param(lambda: elsewhere(async_handles()), id="a context of before the block"),
    ],
)
async def test_a_block_reaches_clients_that_have_no_connector(ask: Callable[[], Any]) -> None:
    player = WebSocketPlayer(await recorded("one"))
    with player:
        assert await ask() == ["test/one"]
    player.assert_all_played()


async def test_a_client_s_own_connector_comes_before_a_block() -> None:
    own, around = [WebSocketPlayer(await recorded(name)) for name in NAMES]
    with around:
        async with AsyncLettaClient(NOWHERE, connector=own) as client:
            assert await handles(client) == ["test/one"]
        assert await async_handles() == ["test/two"]


async def test_blocks_nest() -> None:
    outer, inner = [WebSocketPlayer(await recorded(name)) for name in NAMES]
    with outer:
        with inner:
            assert await asyncio.to_thread(apart, sync_handles) == ["test/two"]
        assert await async_handles() == ["test/one"]


async def test_a_block_is_over_for_tasks_that_outlive_it() -> None:
    over = asyncio.Event()

    async def late() -> list[str]:
        await over.wait()
        return await async_handles()

    with WebSocketPlayer(await recorded("one")):
        task = asyncio.create_task(late())
    over.set()
    with pytest.raises(ConnectionFailedError):
        await task


async def test_a_block_may_be_left_in_another_context_than_it_was_entered_in() -> None:
    player = WebSocketPlayer(await recorded("one"))
    await elsewhere(in_a_task(player.__enter__))
    assert await async_handles() == ["test/one"]
    await elsewhere(in_a_task(lambda: player.__exit__(None, None, None)))
    with pytest.raises(ConnectionFailedError):
        await async_handles()


async def test_of_two_blocks_a_client_outside_of_both_asks_which() -> None:
    entered = asyncio.Event()

    async def hold(name: str, meeting: Meeting) -> list[str]:
        with WebSocketPlayer(await recorded(name)):
            await meeting.wait()
            await entered.wait()
            return await async_handles()

    meeting = Meeting(3)
    blocks = [asyncio.create_task(hold(name, meeting)) for name in NAMES]
    await meeting.wait()
    with pytest.raises(ConfigurationError, match="2 recorders or players") as caught:
        await async_handles()
    assert "connector=" in caught.value.hint
    entered.set()
    assert await asyncio.gather(*blocks) == [["test/one"], ["test/two"]]


@ADAPTERS
async def test_adapters_share_no_connection_with_another_block(
    recording: Cassette, letta_cassette: LettaCassette
) -> None:
    where = letta_cassette.app_server
    for _ in range(2):
        player = WebSocketPlayer(recording)
        with player:
            # The first recorded connection makes the agent, as `adapters` does it.
            model = ChatLetta(agent_id="agent-local-1", backend=where)
            with pytest.raises(CassetteMissError):
                await model.ainvoke("not recorded")
        assert len(player.misses) == 1


# -- what a connector may be --------------------------------------------------------------------


@pytest.mark.parametrize("make", [LettaClient, AsyncLettaClient])
def test_the_letta_api_refuses_a_connector(make: Any) -> None:
    with pytest.raises(InvalidInputError, match="connector opens WebSockets"):
        make(Rest(base_url="http://127.0.0.1:9"), connector=websockets.connect)


@pytest.mark.parametrize("make", [LettaClient, AsyncLettaClient])
@pytest.mark.parametrize("spec", [NOWHERE, Local()])
def test_a_connector_that_cannot_be_called_is_refused(make: Any, spec: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"async callable .* not str"):
        make(spec, connector="ws://127.0.0.1:9")


async def returning(value: Any) -> Any:
    """Return a value, as an async connector would."""
    return value


async def never(url: str, **options: Any) -> Any:
    """Open no connection, and say nothing."""
    await asyncio.Event().wait()


async def offline(url: str, **options: Any) -> Any:
    """Fail as a network does."""
    raise OSError("no route")


async def untrusted(url: str, **options: Any) -> Any:
    """Fail at the certificate, which is an OSError and a ValueError."""
    raise ssl.SSLCertVerificationError("self-signed")


async def refusing(url: str, **options: Any) -> Any:
    """Fail with a typed error."""
    raise ConfigurationError("The tunnel is down.")


async def broken(url: str, **options: Any) -> Any:
    """Fail with an error of one's own."""
    raise ZeroDivisionError("own mistake")


@pytest.mark.parametrize(
    ("connector", "error", "said"),
    [
        (lambda url, **options: object(), InvalidInputError, "must be async"),
        (lambda url, **options: returning(object()), InvalidInputError, "not a WebSocket"),
        (never, ConnectionFailedError, "No App Server answers"),
        (offline, ConnectionFailedError, "No App Server answers"),
        (untrusted, ConnectionFailedError, "SSLCertVerificationError"),
        (refusing, ConfigurationError, "The tunnel is down"),
        (broken, ZeroDivisionError, "own mistake"),
    ],
)
async def test_a_connector_that_opens_nothing_is_an_error(
    connector: Any, error: type[Exception], said: str
) -> None:
    spec = NOWHERE.model_copy(update={"connect_timeout": 0.2})
    async with AsyncLettaClient(spec, connector=connector) as client:
        with pytest.raises(error, match=said):
            await handles(client)


async def test_a_connection_that_nobody_waits_for_any_more_is_closed() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    class Late:
        async def send(self, text: str, /) -> None: ...

        async def __aiter__(self) -> Any:
            yield ""

        async def close(self) -> None:
            closed.set()

    async def late(url: str, **options: Any) -> Any:
        try:
            asked.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Late()

    async with AsyncLettaClient(NOWHERE, connector=late) as client:
        call = asyncio.create_task(handles(client))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert closed.is_set()


async def test_it_is_given_the_address_and_the_token_and_asked_again_after_a_loss() -> None:
    asked: list[tuple[str, Any]] = []
    sockets: list[Any] = []

    async def connect(url: str, **options: Any) -> Any:
        asked.append((url, options["additional_headers"]))
        sockets.append(await websockets.connect(url, **options))
        return sockets[-1]

    typed: Connector = connect
    async with fake_app_server(models("one"), auth_token="a-token") as server:
        async with AsyncLettaClient(server.spec, connector=typed) as client:
            assert await handles(client) == ["test/one"]
            await sockets[0].close()
            assert await handles(client) == ["test/one"]
        assert asked == [(server.spec.url, {"Authorization": "Bearer a-token"})] * 2


def test_websockets_connect_is_a_connector() -> None:
    plain: Connector = websockets.connect
    with_options: Connector = partial(websockets.connect, user_agent_header=None)
    for connector in (plain, with_options):
        AsyncLettaClient(NOWHERE, connector=connector)


@needs_wheel
async def test_the_runtime_of_this_machine_is_reached_by_it(letta_local: Any) -> None:
    recorder = WebSocketRecorder()
    async with AsyncLettaClient(letta_local.spec, connector=recorder) as client:
        await handles(client)
    assert "list_models" in recorder.cassette.dumps()


async def test_a_recorder_records_what_another_connector_opens() -> None:
    player = WebSocketPlayer(await recorded("one"))
    recorder = WebSocketRecorder(connector=player)
    async with AsyncLettaClient(NOWHERE, connector=recorder) as client:
        assert await handles(client) == ["test/one"]
    assert "test/one" in recorder.cassette.dumps()
