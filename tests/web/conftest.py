"""A room over a Letta in memory, with people who may do different things in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest

from letta_adapters import AsyncLettaClient
from letta_adapters.testing import fakes
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.web import HubOptions, Hubs, Viewer, create_app
from tests.web._asgi import Browser, running
from tests.web._chromium import running_chromium

MAY = {
    "ada": {"may_send": True, "may_approve": True},
    "grace": {"may_send": True, "may_approve": True},
    "editor": {"may_approve": True, "may_edit": True},
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
    frontend_tools: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    app_options: dict[str, Any] = field(default_factory=dict)
    asked_for: list[str] = field(default_factory=list)
    # The tools that a person is asked about; all if it is `None`.
    asked_about: set[str] | None = None

    def build(self) -> Any:
        """Make the application, after the options were set."""

        def open_session(room: str, ask: Any) -> Any:
            self.asked_for.append(room)

            async def may(name: str, tool_input: Any, context: Any) -> Any:
                if self.asked_about is None or name in self.asked_about:
                    return await ask(name, tool_input, context)
                return context.default

            return self.client.resume_session(
                self.agent, can_use_tool=may, tools=self.tools, include_partial_messages=True
            )

        options = HubOptions(**self.options)
        self.hubs = Hubs(open_session, options=options, frontend_tools=self.frontend_tools)
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


Hold: TypeAlias = Callable[[int], asyncio.Event]


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Hold:
    """Let answers say no more than some pieces until the event that is returned is set.

    So a test is in the middle of a turn for as long as it needs, however busy the machine is.
    """

    def start(pieces: int) -> asyncio.Event:
        go, send = asyncio.Event(), fakes._send_events

        async def send_held(events: Sequence[Any], reply: Any) -> AsyncIterator[bytes]:
            left = pieces
            async for piece in send(events, reply):
                if b'"assistant_message"' in piece:
                    left -= 1
                    if left < 0:
                        await go.wait()
                yield piece

        monkeypatch.setattr(fakes, "_send_events", send_held)
        return go

    return start


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a browser without a screen."""
    with running_chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address
