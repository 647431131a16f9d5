"""Some of the graphs, against recordings of a real Letta API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from letta_adapters import LettaClient, Rest
from letta_adapters.sync.bridge import get_bridge
from letta_adapters.testing import LettaCassette
from tests.langchain.graphs import (
    test_identity,
    test_middleware,
    test_places,
    test_teams,
    test_threads,
    test_tools,
)
from tests.langchain.graphs.conftest import BARE, World

pytestmark = pytest.mark.letta_cassette


@pytest.fixture
def rest_world(letta_cassette: LettaCassette) -> Iterator[World]:
    rest = Rest(base_url=letta_cassette.base_url, api_key=letta_cassette.api_key or "")
    http_client = letta_cassette.http_client()
    with LettaClient(rest, http_client=http_client) as client:
        agent_id = client.create_agent(name="graphs", **BARE)
        world = World(client, agent_id, letta_cassette.script, thread="t0000000")
        world.as_another_process()  # recordings have the same ids
        yield world
    get_bridge().call(http_client.aclose())


@pytest.mark.parametrize("kind", ["model", "agent"])
def test_a_tool_asks_the_very_agent(rest_world: World, saver: InMemorySaver, kind: str) -> None:
    test_tools.test_a_tool_may_ask_the_very_agent(rest_world, saver, kind)


def test_summaries_are_made_elsewhere(rest_world: World, saver: InMemorySaver) -> None:
    test_middleware.test_summaries_are_made_elsewhere_and_not_said_again(rest_world, saver, 2)


def test_tools_are_chosen_elsewhere(rest_world: World, saver: InMemorySaver) -> None:
    test_middleware.test_tools_are_chosen_elsewhere(rest_world, saver)


def test_a_router_and_an_answer(rest_world: World, saver: InMemorySaver) -> None:
    test_places.test_a_router_does_not_speak_in_the_conversation_of_the_answer(
        rest_world, saver, structured=True
    )


def test_a_swarm(rest_world: World, database: str) -> None:
    test_teams.test_a_swarm_with_handoffs(rest_world, database)


def test_a_worker_in_a_tool(rest_world: World, database: str) -> None:
    test_teams.test_a_worker_in_a_tool_of_its_supervisor(rest_world, database)


def test_branches(rest_world: World, saver: InMemorySaver) -> None:
    rest_world.script(*(f"Read {n}." for n in range(4)))
    test_places.test_branches_do_not_see_each_other(rest_world, saver)


def test_sub_graphs(rest_world: World, saver: InMemorySaver) -> None:
    test_places.test_a_sub_graph_has_its_own(rest_world, saver, called=False)


async def test_ten_at_once(rest_world: World) -> None:
    rest_world.script(*(f"Yes {n}." for n in range(10)))
    await test_threads.test_ten_calls_that_start_a_thread_at_once_share_it(rest_world)


def test_an_edited_call(rest_world: World) -> None:
    test_identity.test_the_agent_is_told_that_its_call_was_edited(rest_world, kept=False)


def test_one_tool_at_a_time(rest_world: World) -> None:
    test_identity.test_one_tool_at_a_time_is_told_once_and_by_nobody(rest_world)
