"""A front end that speaks AG-UI to a room."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.web._asgi import Browser, Stream
from tests.web.conftest import Room, authorize

pytest.importorskip("ag_ui", reason="ag-ui-protocol is not installed")

from ag_ui.core import Event as AguiEvent
from pydantic import TypeAdapter

from letta_adapters.web.agui import agui_routes

_EVENTS: TypeAdapter[Any] = TypeAdapter(AguiEvent)
_NAMES = ("stepName", "toolCallId", "messageId")
NODE = shutil.which("node")
CLIENT = os.environ.get("AGUI_CLIENT", "")
# The runs of all tests, as far as they came to their end.
_RUNS: list[list[dict[str, Any]]] = []


def place_script(name: str, folder: Path) -> list[str]:
    """Return the command that runs a script of this directory with AG-UI's own client."""
    # Node looks for a package beside the program that imports it.
    script = folder / name
    script.write_bytes(Path(__file__).with_name(name).read_bytes())
    (folder / "node_modules").symlink_to(Path(CLIENT, "node_modules").absolute())
    return [str(NODE), str(script)]


@pytest.fixture(scope="session", autouse=True)
def _verified_by_the_own_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the runs of all tests to the check of AG-UI's own client, where it is installed."""
    yield
    if NODE is None or not CLIENT or not _RUNS:
        return
    command = place_script("verify.mjs", tmp_path_factory.mktemp("verify"))
    lines = "".join(json.dumps(events) + "\n" for events in _RUNS)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(_RUNS)


def ask(*messages: tuple[str, str], **fields: Any) -> dict[str, Any]:
    """Return a RunAgentInput; each message is a role and a text, and has a number as its id."""
    said = [{"id": f"m{n}", "role": r, "content": t} for n, (r, t) in enumerate(messages)]
    given = {"threadId": "thread-1", "runId": "run-1", "messages": said}
    return {**given, "state": {}, "tools": [], "context": [], "forwardedProps": {}, **fields}


class Order:
    """The order that the protocol asks for: what is begun once is ended once, before its run is."""

    def __init__(self) -> None:
        self._open: set[tuple[str, str]] = set()
        self._ended = False

    def see(self, event: Mapping[str, Any]) -> None:
        """Take note of the next event of a run."""
        kind = event["type"]
        assert not self._ended, f"{kind} after the end"
        assert (kind == "RUN_STARTED") == (("RUN", "") not in self._open), kind
        self._ended = kind in ("RUN_FINISHED", "RUN_ERROR")
        if kind == "RUN_FINISHED":
            assert self._open == {("RUN", "")}
        what, _, part = kind.rpartition("_")
        id_ = next((event[key] for key in _NAMES if key in event), "")
        if part in ("START", "STARTED"):
            assert (what, id_) not in self._open, event
            self._open.add((what, "" if what == "RUN" else id_))
        elif part in ("CONTENT", "ARGS", "END") or kind == "STEP_FINISHED":
            assert (what, id_) in self._open, event
            if part in ("END", "FINISHED"):
                self._open.remove((what, id_))


class Run(Stream):
    """The events of a run; each is one that the protocol's own models take."""

    def __init__(self, data: Any) -> None:
        super().__init__()
        self._order = Order()
        self._events: list[dict[str, Any]] = []
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self._body = {"type": "http.request", "body": body, "more_body": False}

    async def read(self) -> dict[str, Any] | None:
        """Return the next event; ``None`` at the end."""
        while "\n\n" not in self._text:
            getting = asyncio.ensure_future(self._pieces.get())
            ending = asyncio.ensure_future(self.ended.wait())
            await asyncio.wait({getting, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if not getting.done():
                getting.cancel()
                return None
            self._text += getting.result().decode()
        block, _, self._text = self._text.partition("\n\n")
        if not block.startswith("data: "):
            return await self.read()
        event: dict[str, Any] = json.loads(block[6:])
        _EVENTS.validate_python(event)
        self._order.see(event)
        self._events.append(event)
        if event["type"] in ("RUN_FINISHED", "RUN_ERROR"):
            _RUNS.append(self._events)
        return event

    async def rest(self) -> list[dict[str, Any]]:
        """Return all events to the end."""
        events = []
        while (event := await self.read()) is not None:
            events.append(event)
        return events


@asynccontextmanager
async def run(browser: Browser, data: Any) -> AsyncIterator[Run]:
    """Start a run, and leave at the end."""
    stream = Run(data)
    scope = browser.scope("/agui", "POST", content_type="application/json")
    serving = asyncio.ensure_future(browser.app(scope, stream.receive, stream.send))
    serving.add_done_callback(lambda _: stream.ended.set())
    try:
        yield stream
    finally:
        stream.leave()
        await serving


async def whole_run(browser: Browser, data: Any) -> list[dict[str, Any]]:
    async with run(browser, data) as stream:
        return await stream.rest()


def build(room: Room, **kwargs: Any) -> Any:
    """Make the application of a room with the route of AG-UI."""
    made: list[Any] = []
    room.app_options["pages"] = made
    running = room.build()
    # The rooms are made by build(), so the route comes after it.
    room.app.router.routes.extend(agui_routes(room.hubs, authorize=authorize, **kwargs))
    return running
