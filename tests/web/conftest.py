"""A room over a Letta in memory, with people who may do different things in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.web import HubOptions, Hubs, Viewer, create_app
from tests.web._asgi import Browser, running

MAY = {
    "ada": {"may_send": True, "may_approve": True},
    "grace": {"may_send": True, "may_approve": True},
    "guest": {"may_send": True},
    "mouse": {},
    "blind": {"may_watch": False},
}


def authorize(connection: Any) -> Viewer | None:
    """Know people by a header; they are all in one room, whatever they say."""
    name = connection.headers.get("x-user")
    if name == "bug":
        raise RuntimeError("the user database is down")
    return Viewer(name=name, room="lobby", **MAY[name]) if name in MAY else None


@dataclass
class Room:
    """An application with one room, and what its agent can do."""

    letta: FakeLetta
    client: AsyncLettaClient
    agent: str
    tools: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    app_options: dict[str, Any] = field(default_factory=dict)
    asked_for: list[str] = field(default_factory=list)

    def build(self) -> Any:
        """Make the application, after the options were set."""

        def open_session(room: str, ask: Any) -> Any:
            self.asked_for.append(room)
            return self.client.resume_session(
                self.agent, can_use_tool=ask, tools=self.tools, include_partial_messages=True
            )

        self.hubs = Hubs(open_session, options=HubOptions(**self.options))
        self.app = create_app(self.hubs, authorize=authorize, **self.app_options)
        return running(self.app)

    def browser(self, name: str | None, **kwargs: Any) -> Browser:
        """Return somebody's browser."""
        return Browser(self.app, name, **kwargs)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    letta = FakeLetta()
    async with letta.async_client() as client:
        yield Room(letta, client, await client.create_agent(name="web"))
