"""Give a block of documentation its Letta, and run it.

Names that a block uses and does not make itself are given to it if they are in `PREPARED`; the ids
``"agent-..."`` and ``"conv-..."`` stand for an agent and a conversation of the scene.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from letta_adapters import AsyncLettaClient, LettaClient
from letta_adapters.testing import (
    FakeLetta,
    RecordingTransport,
    Reply,
    ScriptedModel,
    save_cassette,
)
from tests.snippets.blocks import Block
from tests.snippets.docstrings import GIVEN

_AWAITS: Final = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
PUBLIC: Final = (
    "letta_adapters",
    "letta_adapters.langchain",
    "letta_adapters.llama_index",
    "letta_adapters.testing",
    "letta_adapters.testing.llama_index",
)
MODULES: Final = ("asyncio", "httpx", "json", "pytest")
# What every block may use, made when it is used.
PREPARED: Final = ("client", "session", "agent_id", "conversation_id", "picture", "visit")


@contextmanager
def serve(fake: FakeLetta) -> Iterator[str]:
    """Yield the address of a Letta in memory on loopback, for code that makes its own clients."""
    http = fake.http_client()

    async def answer(request: Request) -> StreamingResponse:
        kind = request.headers.get("content-type", "application/json")
        asked = http.build_request(
            request.method,
            f"{request.url.path}?{request.url.query}",
            content=await request.body(),
            headers={"content-type": kind},
        )
        got = await http.send(asked, stream=True)
        return StreamingResponse(got.aiter_bytes(), got.status_code, dict(got.headers))

    methods = ["GET", "POST", "PATCH", "DELETE", "PUT"]
    app = Starlette(routes=[Route("/{path:path}", answer, methods=methods)])
    # No WebSockets: uvicorn 0.34 loads a part of websockets for them that warns.
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def free_names(code: str) -> set[str]:
    """Return the names that a block loads and never makes."""
    tree = ast.parse(code)
    nodes = list(ast.walk(tree))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    made = {n.id for n in names if not isinstance(n.ctx, ast.Load)}
    made |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    made |= {
        n.name
        for n in nodes
        if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }
    made |= {n.name for n in nodes if isinstance(n, ast.ExceptHandler) and n.name}
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            made |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return {n.id for n in names} - made - set(dir(builtins))


def visit(app: Any, path: str, *, as_text: bool = False) -> Any:
    """Return what an ASGI application answers to a POST, from its start to its end."""
    with TestClient(app) as visitor:
        answer = visitor.post(path)
        answer.raise_for_status()
        return answer.text if as_text else answer.json()


def record(path: str) -> None:
    """Record two requests to a fake, for examples that play what is there."""
    recorder = RecordingTransport(httpx.MockTransport(FakeLetta()._handle))

    async def ask() -> None:
        async with httpx.AsyncClient(transport=recorder, base_url="http://letta.test") as http:
            for route in ("/v1/agents", "/v1/models"):
                await http.get(route)

    # In a thread, because whoever calls may run on an event loop.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, ask()).result()
    save_cassette(recorder.cassette, path)


def find_public(name: str) -> Any:
    """Return what a docstring may use without an import: public names, and the usual modules."""
    for module in PUBLIC:
        if name in import_module(module).__all__:
            return getattr(import_module(module), name)
    if name in MODULES:
        return import_module(name)
    return Path if name == "Path" else None


class World:
    """A Letta that blocks are run on, with an agent of its own."""

    def __init__(
        self, plays: FakeLetta | ScriptedModel, agent_id: str, conversation_id: str
    ) -> None:
        self.plays = plays
        self.agent_id = agent_id
        self.conversation_id = conversation_id

    def run(self, block: Block) -> None:
        """Run a block, with those before it that it goes on from."""
        given_code = GIVEN.get(block.name.rpartition(":")[0], "")
        parts = [given_code, *(b.code for b in block.before), block.code]
        if then := block.settings.get("then"):
            parts.append(then)
        code = "\n".join(parts).replace("agent-...", self.agent_id)
        code = code.replace("conv-...", self.conversation_id)
        replies = block.settings.get("replies", "").split("|")
        self.plays.script(*(Reply(text) for text in replies if text))
        wanted = free_names(code)
        compiled = compile(code, block.name, "exec", flags=_AWAITS, dont_inherit=True)
        given: dict[str, Any] = {"__name__": "snippet"}
        if block.name.startswith("letta_adapters"):
            given |= {name: find_public(name) for name in wanted if find_public(name) is not None}
        unknown = wanted - set(given) - set(PREPARED) - {"__name__"}
        assert not unknown, f"{block.name}: nothing makes {', '.join(sorted(unknown))}. {HELP}"
        # A block that only reads a stream goes on from a message that was sent.
        reads = "session" in wanted and "stream(" in code and ".send(" not in code
        if compiled.co_flags & inspect.CO_COROUTINE:
            asyncio.run(self._run_async(compiled, given, wanted, reads))
        else:
            self._run_sync(compiled, given, wanted, reads)

    def _fixed(self) -> dict[str, Any]:
        return {
            "agent_id": self.agent_id,
            "conversation_id": self.conversation_id,
            "picture": PICTURE,
            "visit": visit,
        }

    def _run_sync(
        self, compiled: Any, given: dict[str, Any], wanted: set[str], reads: bool
    ) -> None:
        if not wanted & {"client", "session"}:
            exec(compiled, given | self._fixed())
            return
        with LettaClient() as client, client.create_session(self.agent_id) as session:
            if reads:
                session.send("Hello!")
            exec(compiled, given | self._fixed() | {"client": client, "session": session})

    async def _run_async(
        self, compiled: Any, given: dict[str, Any], wanted: set[str], reads: bool
    ) -> None:
        if not wanted & {"client", "session"}:
            await eval(compiled, given | self._fixed())
            return
        async with AsyncLettaClient() as client, client.create_session(self.agent_id) as session:
            if reads:
                await session.send("Hello!")
            await eval(compiled, given | self._fixed() | {"client": client, "session": session})


HELP: Final = (
    "Write the import or the line that makes it, or put a comment before the fence: "
    "`<!-- snippet: more -->` goes on from the block before, `<!-- snippet: embedded -->` runs on "
    'Letta Code, `<!-- snippet: not-run reason="..." -->` is for what cannot run. The rest is in '
    "CONTRIBUTING.md; docstrings are prepared in tests/snippets/docstrings.py."
)
PICTURE: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cf"
    "c0f01f0005000180055af4dd0000000049454e44ae426082"
)
