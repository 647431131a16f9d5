"""The network goes away while a run is active, and comes back before the run is over."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from llama_index.core.workflow import Context

from letta_adapters import ConversationBusyError, LettaClient, Rest
from letta_adapters.llama_index import LettaAgent
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.llama_index.agents import run
from tests.llama_index.conftest import World

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called"),
]
RUN = "run-11111111-1111-4000-a000-111111111111"


class Away:
    """Loses the connection after a message; like the Letta API, the fake then lists what an active
    run was sent only when the run is over, which is when it has been looked at twice."""

    def __init__(self, fake: FakeLetta) -> None:
        self._handle = fake._handle
        self._taken: httpx.Request | None = None
        self._looks = 0
        self.armed = self.gone = self.endless = False
        fake._handle = self._through

    async def _through(self, request: httpx.Request) -> httpx.Response:
        if self.gone:
            raise httpx.ConnectError("the network is away")
        path = request.url.path.rstrip("/")
        if self.armed and request.method == "POST" and path.endswith("/messages"):
            self._taken, self.armed, self.gone = request, False, True
            raise httpx.ReadError("the network went away")
        if path == "/v1/runs":
            return httpx.Response(200, json=[self._run()] if self._taken is not None else [])
        if path == f"/v1/runs/{RUN}":
            return await self._look()
        return await self._handle(request)

    def _run(self, status: str = "running") -> dict[str, Any]:
        assert self._taken is not None
        return {"id": RUN, "status": status, "conversation_id": self._taken.url.path.split("/")[3]}

    async def is_over(self) -> None:
        """The run comes to its end, if nobody waited for it."""
        if self._taken is not None:
            await (await self._handle(self._taken)).aread()

    async def _look(self) -> httpx.Response:
        self._looks += 1
        if self._looks < 2 or self.endless:
            return httpx.Response(200, json=self._run())
        over = self._run("completed")
        assert self._taken is not None
        answer = await self._handle(self._taken)
        await answer.aread()
        self._taken = None
        return httpx.Response(200, json=over)


@pytest.fixture
def away(letta_fake: FakeLetta) -> Away:
    return Away(letta_fake)


@pytest.fixture
def world(letta_fake: FakeLetta, away: Away) -> World:
    place = Rest(base_url="http://letta.fake", turn_timeout=2)
    client = LettaClient(place, http_client=letta_fake.http_client())
    return World(client, client, client.create_agent(name="a"), letta_fake.script)


async def lost(agent: LettaAgent, ctx: Context, away: Away) -> None:
    """A run whose message was accepted, which nobody here can know."""
    away.armed = True
    with pytest.raises(Exception, match="network"):
        await run(agent, "two", ctx)
    away.gone = False


async def second_lost(world: World, away: Away) -> tuple[Any, Context]:
    """One question is answered, and the second got out of sight."""
    world.script("One.", "Two.", "Three.")
    agent = world.agent()
    ctx = Context(agent)
    await run(agent, "one", ctx)
    await lost(agent, ctx, away)
    return agent, ctx


async def test_a_message_that_an_active_run_has_is_not_sent_again(world: World, away: Away) -> None:
    agent, ctx = await second_lost(world, away)
    output, _ = await run(agent, "three", ctx)
    assert str(output) == "Three."
    await away.is_over()
    assert await world.said_anywhere() == [["one", "two", "three"]]


async def test_the_same_from_a_context_that_was_stored(world: World, away: Away) -> None:
    """What a process remembers does not help in the next one."""
    _, ctx = await second_lost(world, away)
    stored = json.loads(json.dumps(ctx.to_dict()))
    other = world.agent()
    await run(other, "three", Context.from_dict(other, stored))
    await away.is_over()
    assert await world.said_anywhere() == [["one", "two", "three"]]


async def test_a_run_that_goes_on_and_on_is_an_error_that_says_so(world: World, away: Away) -> None:
    agent, ctx = await second_lost(world, away)
    away.endless = True
    with pytest.raises(ConversationBusyError, match="run is active"):
        await run(agent, "three", ctx)
    away.endless = False
    await run(agent, "four", ctx)
    await away.is_over()
    assert await world.said_anywhere() == [["one", "two", "three", "four"]]
