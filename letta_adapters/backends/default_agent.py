"""Internal: find the agent used when none is named by its tag, or make it, but only once.

This holds whoever comes at the same time. An agent is the default one from the moment it has
:data:`DEFAULT_AGENT_TAG`, which is the last thing that its maker does. Until then it has another
tag and nobody uses it, so that its maker can take it back. An agent that has the tag is never
deleted here: somebody may use it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, Protocol

from letta_adapters.backends.base import Backend
from letta_adapters.errors import LettaError
from letta_adapters.options import AgentOptions

DEFAULT_AGENT_TAG: Final = "letta-adapters:default"
#: Made by one of those who have no lock in common; the oldest becomes the default agent.
CANDIDATE_TAG: Final = "letta-adapters:default-candidate"
#: Made by the holder of a lock. Whoever holds it later knows that its maker is dead.
MAKING_TAG: Final = "letta-adapters:default-making"
# Seconds that makers without a common lock need to see each other's agents.
RACE_SECONDS: Final = 0.3
_POLL_SECONDS: Final = 0.1
_PAGE: Final = 50
# Seconds the maker of an older agent may need for its last step before the next one goes ahead.
_PATIENCE_SECONDS: Final = 5.0

Lock = Callable[[], AbstractAsyncContextManager[None]]


class Place(Protocol):
    """A place where agents live."""

    @property
    def promotes(self) -> bool:
        """True if an agent can get another tag later; if not, it is made with its last one."""

    async def tagged(self, tag: str) -> Sequence[str]:
        """Return the ids of the agents with that tag, oldest first."""

    async def make(self, tag: str) -> str:
        """Make an agent, its memory included, and return its id."""

    async def promote(self, agent_id: str, tag: str) -> None:
        """Give it :data:`DEFAULT_AGENT_TAG` in place of that tag; raise NotFoundError if gone."""

    async def remove(self, agent_id: str) -> None:
        """Delete an agent."""


class Agents:
    """The agents of a backend, as a :class:`Place`.

    Args:
        backend: The backend.
        model: The model of an agent that is made; ``None`` means the backend's choice.
        persona: The agent's block of this name, where the backend does not make one itself.
        human: Its block about the user, likewise.
    """

    def __init__(
        self,
        backend: Backend,
        model: str | None,
        *,
        persona: str | None = None,
        human: str | None = None,
    ) -> None:
        self._backend = backend
        self._model = model
        self._persona = persona
        self._human = human
        # The tags of agents, as they were listed.
        self._tags: dict[str, list[str]] = {}

    @property
    def promotes(self) -> bool:
        """False where an agent's tags are not shown: those of its maker could not be kept."""
        return self._backend.capabilities.agent_tags_listed

    async def tagged(self, tag: str) -> Sequence[str]:
        """Return the ids of the agents with that tag, oldest first."""
        params = {
            "tags": [tag],
            "match_all_tags": True,
            "limit": _PAGE,
            "include": "agent.tags",
        }
        found = await self._backend.request("GET", "/v1/agents/", params=params)
        agents = [a for a in found if not self.promotes or tag in (a.get("tags") or ())]
        self._tags.update({str(a["id"]): list(a.get("tags") or ()) for a in agents})
        # The oldest one counts, so that all who look choose the same.
        agents.sort(key=lambda agent: (str(agent.get("created_at") or ""), str(agent["id"])))
        return [str(agent["id"]) for agent in agents]

    async def make(self, tag: str) -> str:
        """Make an agent, its memory included, and return its id."""
        made = AgentOptions(
            name="default",
            description="Used when no agent is named.",
            model=self._model,
            tags=(tag,),
            persona=self._persona,
            human=self._human,
        )
        return await self._backend.create_agent(made)

    async def promote(self, agent_id: str, tag: str) -> None:
        """Give it :data:`DEFAULT_AGENT_TAG` in place of that tag; raise NotFoundError if gone."""
        path = f"/v1/agents/{agent_id}"
        tags = self._tags.get(agent_id)
        if tags is None:
            found = await self._backend.request("GET", path, params={"include": "agent.tags"})
            tags = list(found.get("tags") or ())
        # An update replaces all tags, so the others (Letta Code has some) are sent along.
        tags = [other for other in tags if other != tag]
        await self._backend.request("PATCH", path, body={"tags": [*tags, DEFAULT_AGENT_TAG]})

    async def remove(self, agent_id: str) -> None:
        """Delete an agent."""
        await self._backend.request("DELETE", f"/v1/agents/{agent_id}")


async def find(place: Place, lock: Lock, *, shared: bool) -> str:
    """Return the default agent's id; make the agent if there is none.

    Args:
        place: The place where it lives.
        lock: Held while it is made.
        shared: True if the lock keeps out everybody else, in other processes too.
    """
    found = await place.tagged(DEFAULT_AGENT_TAG) if place.promotes else ()
    if found:
        return found[0]
    async with lock():
        # Looked for under the lock: whoever held it before may have made the agent.
        found = await place.tagged(DEFAULT_AGENT_TAG)
        if found:
            return found[0]
        if not place.promotes:
            return await _make_at_once(place, shared)
        return await (_make_alone(place) if shared else _make_beside_others(place))


# Without tags that can change, two makers may both succeed; then all take the oldest.
async def _make_at_once(place: Place, shared: bool) -> str:
    mine = await place.make(DEFAULT_AGENT_TAG)
    if shared:
        return mine
    await asyncio.sleep(RACE_SECONDS)
    return (await place.tagged(DEFAULT_AGENT_TAG) or [mine])[0]


async def _make_alone(place: Place) -> str:
    # The lock is shared, so whoever made these is gone, and nobody can be using them.
    for dead in await place.tagged(MAKING_TAG):
        await _remove(place, dead)
    return await _make(place, MAKING_TAG)


async def _make(place: Place, tag: str) -> str:
    mine = await place.make(tag)
    try:
        await place.promote(mine, tag)
    except BaseException:
        await _remove(place, mine)
        raise
    return mine


async def _make_beside_others(place: Place) -> str:
    mine = await place.make(CANDIDATE_TAG)
    try:
        await asyncio.sleep(RACE_SECONDS)
        found, alone = await _wait_for_older(place, mine)
        if not found:
            await place.promote(mine, CANDIDATE_TAG)
    except BaseException:
        await _remove(place, mine)
        raise
    if found:
        await _remove(place, mine)  # nobody has used it
        return found
    if alone:
        return mine
    # An older agent's maker may have been slow and not dead; then all take the older one.
    return (await place.tagged(DEFAULT_AGENT_TAG) or [mine])[0]


async def _wait_for_older(place: Place, mine: str) -> tuple[str, bool]:
    """Wait for the makers of older agents.

    Returns:
        The default agent's id, or ``""`` if ``mine`` is to become it; and whether there is no older
        agent.
    """
    began = time.monotonic()
    while True:
        # In this order, so that an agent that is promoted in between cannot be missed by both.
        others = list(await place.tagged(CANDIDATE_TAG))
        found = await place.tagged(DEFAULT_AGENT_TAG)
        if found:
            return found[0], False
        # Each older agent gets its time in turn, should those before it have died.
        older = others.index(mine) if mine in others else 0
        if time.monotonic() - began >= older * _PATIENCE_SECONDS:
            return "", older == 0
        await asyncio.sleep(_POLL_SECONDS)


async def _remove(place: Place, agent_id: str) -> None:
    # Shielded, as a maker that is cancelled would leave an agent behind that nobody uses.
    with suppress(LettaError):
        await asyncio.shield(place.remove(agent_id))
