"""Measure the CPU of a turn of one token: what a call costs whatever its answer.

Everything runs in this one process against one server process. In each round every contestant makes
the same number of calls; a ratio is taken between contestants of the same round. The bare socket
and raw httpx show what of it is HTTP.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx
from letta_client import Letta

from benchmarks import crowd_server, wire
from benchmarks.floors import FloorChatModel
from benchmarks.report import show, spread, versions
from letta_adapters import AsyncLettaClient, LettaClient, Rest
from letta_adapters.langchain import ChatLetta

ROUNDS, QUICK_ROUNDS = 31, 5
CALLS = 25
AGENT = f"agent-{crowd_server.AT_ONCE}"
_TEXT = "Hi"
_ANSWER = wire.answer(crowd_server.ONE)
_BODY = {
    "messages": [{"type": "message", "role": "user", "content": _TEXT}],
    "streaming": True,
    "stream_tokens": True,
}
OPENAI, LETTA_CLIENT = "ChatOpenAI.invoke", "letta-client"
BARS = (
    ("ChatLetta.invoke, named conversation", OPENAI, 1.0),
    ("ChatLetta.invoke, new conversation", OPENAI, 1.4),
    ("LettaClient session", LETTA_CLIENT, 1.0),
)

Call = Callable[[], object]


def run(*, quick: bool = False) -> bool:
    """Measure and print."""
    warnings.simplefilter("ignore")  # what the frameworks say of pydantic
    packages = ("httpx", "httpcore", "letta-client", "langchain-core", "langchain-openai")
    print(f"\nTurns of one token: {versions(*packages)}")
    with crowd_server.running() as url, _calls(url) as calls:
        samples = _measure(calls, QUICK_ROUNDS if quick else ROUNDS)
    rows = [
        (
            name,
            spread(values, 2),
            spread(_ratios(values, samples[LETTA_CLIENT]), 2),
            spread(_ratios(values, samples[OPENAI]), 2),
        )
        for name, values in samples.items()
    ]
    head = ("", "CPU ms", f"x {LETTA_CLIENT}", f"x {OPENAI}")
    show(f"one call, {len(samples[OPENAI])} rounds of {CALLS}, median [quartiles]", head, rows)
    judged = []
    for name, other, bar in BARS:
        ratios = _ratios(samples[name], samples[other])
        met = "yes" if median(ratios) <= bar else "NO"
        judged.append((f"{name} / {other}", f"<= {bar}", spread(ratios, 2), met))
    show("the bars", ("", "bar", "measured", "met"), judged)
    return True


def _ratios(values: list[float], others: list[float]) -> list[float]:
    return [a / b for a, b in zip(values, others, strict=True)]


def _measure(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():  # the warm-up
        for _ in range(CALLS):
            call()
    names = list(calls)
    for number in range(rounds):
        turned = number % len(names)
        for name in names[turned:] + names[:turned]:
            # Its connection has been unused while the others had their turn.
            calls[name]()
            gc.collect()
            start = time.process_time()
            for _ in range(CALLS):
                calls[name]()
            samples[name].append((time.process_time() - start) / CALLS * 1e3)
    return samples


@contextmanager
def _calls(url: str) -> Iterator[dict[str, Call]]:
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    rest, loop = Rest(base_url=url, api_key=""), asyncio.new_event_loop()
    raw, async_raw, threads_raw = httpx.Client(), httpx.AsyncClient(), httpx.AsyncClient()
    letta = Letta(base_url=url, api_key="none")
    client, async_client = LettaClient(rest), AsyncLettaClient(rest)
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever, daemon=True)
    thread.start()
    socket = loop.run_until_complete(_BareSocket.open(url))
    openai = ChatOpenAI(model=crowd_server.AT_ONCE, base_url=f"{url}/v1", api_key=SecretStr("none"))
    fresh = ChatLetta(agent_id=AGENT, backend=rest)
    named = ChatLetta(agent_id=AGENT, backend=rest, conversation_id=_conversation(1))
    session = client.resume_session(agent_id=AGENT, conversation_id=_conversation(2), **_PARTIAL)
    async_session = async_client.resume_session(
        agent_id=AGENT, conversation_id=_conversation(3), **_PARTIAL
    )
    where = f"{url}/v1/conversations/{_conversation(4)}/messages"
    create = f"{url}/v1/conversations/?agent_id={AGENT}"

    def in_loop(work: Callable[[], Coroutine[Any, Any, object]]) -> Call:
        return lambda: loop.run_until_complete(work())

    def in_thread(work: Callable[[], Coroutine[Any, Any, object]]) -> Call:
        return lambda: asyncio.run_coroutine_threadsafe(work(), other).result()

    def floor(call: Call) -> Call:
        model = FloorChatModel(answer=lambda: str(call()))
        return lambda: _same(model.invoke(_TEXT).content)

    yield {
        "a bare socket, asyncio": in_loop(socket.turn),
        "raw httpx": lambda: _raw(raw, where),
        "raw httpx, async": in_loop(lambda: _async_raw(async_raw, where)),
        "raw httpx, async on a thread": in_thread(lambda: _async_raw(threads_raw, where)),
        LETTA_CLIENT: lambda: _letta_client(letta),
        "AsyncLettaClient session": in_loop(lambda: _async_session(async_session)),
        "LettaClient session": lambda: _session(session),
        "ChatLetta.invoke, named conversation": lambda: _same(named.invoke(_TEXT).content),
        "ChatLetta.invoke, new conversation": lambda: _same(fresh.invoke(_TEXT).content),
        "floor: LangChain and raw httpx, async on a thread": floor(
            in_thread(lambda: _async_raw(threads_raw, where))
        ),
        "floor: the same with a request before it": floor(
            in_thread(lambda: _async_raw_pair(threads_raw, create, where))
        ),
        OPENAI: lambda: _same(openai.invoke(_TEXT).content),
    }
    client.close()
    letta.close()
    raw.close()
    for closing in (async_client.close(), async_raw.aclose(), socket.aclose()):
        loop.run_until_complete(closing)
    asyncio.run_coroutine_threadsafe(threads_raw.aclose(), other).result()
    other.call_soon_threadsafe(other.stop)
    thread.join()
    loop.close()
    other.close()


_PARTIAL: Any = {"include_partial_messages": True}


def _conversation(number: int) -> str:
    return f"conv-{crowd_server.AT_ONCE}-{number}"


def _same(text: object) -> None:
    if text != _ANSWER:
        raise AssertionError(f"got another text than was sent: {text!r}")


class _BareSocket:
    """The least that a turn can cost here: no HTTP library, nothing checked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> _BareSocket:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def turn(self) -> None:
        data = json.dumps(_BODY).encode()
        head = f"POST /v1/conversations/{_conversation(5)}/messages HTTP/1.1\r\n"
        self._writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        read = b""
        while not read.endswith(b"\r\n0\r\n\r\n"):
            read += await self._reader.read(65536)
        datas = [line[6:] for line in read.split(b"\n") if line.startswith(b"data: {")]
        _same("".join(json.loads(data).get("content") or "" for data in datas))

    async def aclose(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def _texts(lines: list[str]) -> str:
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return "".join(event.get("content") or "" for event in events)


def _raw(client: httpx.Client, url: str) -> None:
    with client.stream("POST", url, json=_BODY) as response:
        _same(_texts(list(response.iter_lines())))


async def _async_raw(client: httpx.AsyncClient, url: str) -> str:
    async with client.stream("POST", url, json=_BODY) as response:
        text = _texts([line async for line in response.aiter_lines()])
    _same(text)
    return text


async def _async_raw_pair(client: httpx.AsyncClient, create: str, url: str) -> str:
    made = await client.post(create, json={})
    assert made.json()["id"]
    return await _async_raw(client, url)


def _letta_client(client: Letta) -> None:
    messages: Any = _BODY["messages"]
    with client.conversations.messages.create(
        _conversation(6), messages=messages, streaming=True, stream_tokens=True
    ) as stream:
        _same("".join([e.content for e in stream if e.message_type == "assistant_message"]))


def _session(session: Any) -> None:
    session.send(_TEXT)
    _same(list(session.stream())[-1].result)


async def _async_session(session: Any) -> None:
    await session.send(_TEXT)
    _same([message async for message in session.stream()][-1].result)
