"""Read the same stream in four ways, each sync and async. All return the answer's text."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import httpx
from letta_client import AsyncLetta, Letta

from benchmarks.wire import AGENT_ID
from letta_adapters import AsyncLettaClient, LettaClient, Rest
from letta_adapters.messages import StreamEvent

Turn = Callable[[str], str]
AsyncTurn = Callable[[str], Coroutine[Any, Any, str]]

_TEXT = "Say something long."
_ASSISTANT = "assistant_message"
_MESSAGES: Any = [{"type": "message", "role": "user", "content": _TEXT}]
_BODY = {"messages": _MESSAGES, "streaming": True, "stream_tokens": True, "include_pings": True}
_SESSION: Any = {"agent_id": AGENT_ID, "include_partial_messages": True}


def _path(conversation: str) -> str:
    return f"/v1/conversations/{conversation}/messages"


# -- raw httpx: what one writes by hand ---------------------------------------------------------


def raw_lines(client: httpx.Client) -> Turn:
    """Read with ``iter_lines`` and ``json.loads``: the baseline."""

    def turn(conversation: str) -> str:
        texts = []
        with client.stream("POST", _path(conversation), json=_BODY) as response:
            for line in response.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if event["message_type"] == _ASSISTANT:
                    texts.append(event["content"])
        return "".join(texts)

    return turn


def raw_bytes(client: httpx.Client) -> Turn:
    """Read the bytes and cut them at blank lines: a hand-written loop that has to be fast."""

    def turn(conversation: str) -> str:
        texts = []
        rest = b""
        with client.stream("POST", _path(conversation), json=_BODY) as response:
            for chunk in response.iter_raw():
                *datas, rest = (rest + chunk).split(b"\n\n")
                for data in datas:
                    if data == b"data: [DONE]":
                        continue
                    event = json.loads(data[6:])
                    if event["message_type"] == _ASSISTANT:
                        texts.append(event["content"])
        return "".join(texts)

    return turn


def async_raw_lines(client: httpx.AsyncClient) -> AsyncTurn:
    """Read as :func:`raw_lines` does, async."""

    async def turn(conversation: str) -> str:
        texts = []
        async with client.stream("POST", _path(conversation), json=_BODY) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if event["message_type"] == _ASSISTANT:
                    texts.append(event["content"])
        return "".join(texts)

    return turn


def async_raw_bytes(client: httpx.AsyncClient) -> AsyncTurn:
    """Read as :func:`raw_bytes` does, async."""

    async def turn(conversation: str) -> str:
        texts = []
        rest = b""
        async with client.stream("POST", _path(conversation), json=_BODY) as response:
            async for chunk in response.aiter_raw():
                *datas, rest = (rest + chunk).split(b"\n\n")
                for data in datas:
                    if data == b"data: [DONE]":
                        continue
                    event = json.loads(data[6:])
                    if event["message_type"] == _ASSISTANT:
                        texts.append(event["content"])
        return "".join(texts)

    return turn


def handed_over(client: httpx.AsyncClient, in_thread: Callable[[Any], Any]) -> Turn:
    """Read as :func:`async_raw_lines` does, on a thread, and hand each text to the caller's."""

    def turn(conversation: str) -> str:
        queue: SimpleQueue[str | None] = SimpleQueue()

        async def pump() -> None:
            async with client.stream("POST", _path(conversation), json=_BODY) as response:
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    event = json.loads(line[6:])
                    if event["message_type"] == _ASSISTANT:
                        queue.put(event["content"])
            queue.put(None)

        async def begin() -> asyncio.Task[None]:
            return asyncio.create_task(pump())

        task = in_thread(begin())
        texts = list(iter(queue.get, None))
        in_thread(_ended(task))
        return "".join(texts)

    return turn


async def _ended(task: asyncio.Task[None]) -> None:
    await task


# -- letta-client -------------------------------------------------------------------------------


def letta_client(client: Letta) -> Turn:
    """Read letta-client's own stream of typed messages."""

    def turn(conversation: str) -> str:
        with client.conversations.messages.create(
            conversation, messages=_MESSAGES, streaming=True, stream_tokens=True, include_pings=True
        ) as stream:
            texts = [event.content for event in stream if event.message_type == _ASSISTANT]
        return "".join(texts)

    return turn


def async_letta_client(client: AsyncLetta) -> AsyncTurn:
    """Read as :func:`letta_client` does, async."""

    async def turn(conversation: str) -> str:
        async with await client.conversations.messages.create(
            conversation, messages=_MESSAGES, streaming=True, stream_tokens=True, include_pings=True
        ) as stream:
            texts = [event.content async for event in stream if event.message_type == _ASSISTANT]
        return "".join(texts)

    return turn


# -- letta-adapters -----------------------------------------------------------------------------


def ours(client: LettaClient) -> Turn:
    """Read with this package: one ``StreamEvent`` per token, besides the complete messages."""

    def turn(conversation: str) -> str:
        with client.resume_session(conversation_id=conversation, **_SESSION) as session:
            session.send(_TEXT)
            texts = [m.event["content"] for m in session.stream() if type(m) is StreamEvent]
        return "".join(texts)

    return turn


def async_ours(client: AsyncLettaClient) -> AsyncTurn:
    """Read as :func:`ours` does, async."""

    async def turn(conversation: str) -> str:
        async with client.resume_session(conversation_id=conversation, **_SESSION) as session:
            await session.send(_TEXT)
            texts = [m.event["content"] async for m in session.stream() if type(m) is StreamEvent]
        return "".join(texts)

    return turn


@contextmanager
def loop_on_a_thread() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Yield what runs a coroutine on an event loop in a thread of its own, and waits for it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@contextmanager
def contestants(base_url: str) -> Iterator[dict[str, Turn]]:
    """Yield all of them by name, the async ones driven by one event loop, with warm clients."""
    with loop_on_a_thread() as in_thread, _all_by(base_url, in_thread) as turns:
        yield turns


@contextmanager
def _all_by(base_url: str, in_thread: Callable[[Any], Any]) -> Iterator[dict[str, Turn]]:
    rest = Rest(base_url=base_url, api_key="")
    loop = asyncio.new_event_loop()
    raw, async_raw = httpx.Client(base_url=base_url), httpx.AsyncClient(base_url=base_url)
    threads_raw = httpx.AsyncClient(base_url=base_url)
    letta = Letta(base_url=base_url, api_key="none")
    async_letta = AsyncLetta(base_url=base_url, api_key="none")
    adapters, async_adapters = LettaClient(rest), AsyncLettaClient(rest)

    def in_loop(turn: AsyncTurn) -> Turn:
        return lambda conversation: loop.run_until_complete(turn(conversation))

    turns: dict[str, Turn] = {
        "sync httpx lines": raw_lines(raw),
        "sync httpx lines, async on a thread": lambda conversation: in_thread(
            async_raw_lines(threads_raw)(conversation)
        ),
        "sync httpx lines, handed over": handed_over(threads_raw, in_thread),
        "sync httpx bytes": raw_bytes(raw),
        "sync letta-client": letta_client(letta),
        "sync letta-adapters": ours(adapters),
        "async httpx lines": in_loop(async_raw_lines(async_raw)),
        "async httpx bytes": in_loop(async_raw_bytes(async_raw)),
        "async letta-client": in_loop(async_letta_client(async_letta)),
        "async letta-adapters": in_loop(async_ours(async_adapters)),
    }
    try:
        yield turns
    finally:
        in_thread(threads_raw.aclose())
        raw.close()
        letta.close()
        adapters.close()
        for closing in (async_raw.aclose(), async_letta.close(), async_adapters.close()):
            loop.run_until_complete(closing)
        loop.close()
