"""Run many turns at once in several ways, each with its text checked and its first token timed.

A crowd takes the number of turns, runs them all at the same moment, and returns the seconds from
the call to the first token of each; none where the answer comes in one piece.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx

from benchmarks import wire
from benchmarks.crowd_server import EVENTS
from letta_adapters import AsyncLettaClient, LettaClient, Rest
from letta_adapters.messages import StreamEvent

Crowd = Callable[[int], list[float]]
Made = tuple[Crowd, Callable[[], None]]
THREADS = 100
_TEXT = "Say something."
_MESSAGES: Any = [{"type": "message", "role": "user", "content": _TEXT}]
_BODY = {"messages": _MESSAGES, "streaming": True, "stream_tokens": True, "include_pings": True}
_PATIENCE = 300.0  # seconds, for those that are slow
# Seconds after which a crowd is given up: a pool may need minutes for a thousand turns.
LIMIT = 70.0
_ANSWER = wire.answer(EVENTS)


def _conversation(number: int) -> str:
    return f"conv-crowd-{number}"


class _Timed:
    """Puts an answer together, and notes when its first token came."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._first = 0.0
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        if not self._texts:
            self._first = time.perf_counter() - self._started
        self._texts.append(text)

    def end(self) -> float:
        """Return the seconds to the first token; fail if any token is missing."""
        check("".join(self._texts))
        return self._first


def check(text: str) -> None:
    """Fail if an answer is not what the server sent."""
    if text != _ANSWER:
        raise AssertionError(f"got another text than was sent: {text!r}")


class _Loop:
    """An event loop on which crowds gather."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def crowd(self, turn: Callable[[int], Coroutine[Any, Any, float]]) -> Crowd:
        async def gathered(turns: int) -> list[float]:
            return list(await asyncio.gather(*map(turn, range(turns))))

        return lambda turns: self.run(gathered(turns))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a crowd's work to its end; raise ``TimeoutError`` after :data:`LIMIT` seconds."""
        try:
            return self.loop.run_until_complete(asyncio.wait_for(work, LIMIT))
        except asyncio.TimeoutError as error:  # the same class from Python 3.11 on
            raise TimeoutError from error

    def close(self, *closing: Coroutine[Any, Any, Any]) -> None:
        for one in closing:
            self.loop.run_until_complete(one)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


def _threads(turn: Callable[[int], float], close: Callable[[], None]) -> Made:
    pool = ThreadPoolExecutor(THREADS)

    def end() -> None:
        pool.shutdown()
        close()

    return (lambda turns: list(pool.map(turn, range(turns)))), end


# -- on one event loop ----------------------------------------------------------------------------


def httpx_crowd(url: str, kept: int) -> Made:
    """Use raw httpx, ``iter_lines`` and ``json.loads``; its pool keeps ``kept`` connections."""
    loop = _Loop()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept)
    client = httpx.AsyncClient(base_url=url, timeout=_PATIENCE, limits=limits)

    async def turn(number: int) -> float:
        timed = _Timed()
        path = f"/v1/conversations/{_conversation(number)}/messages"
        async with client.stream("POST", path, json=_BODY) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if event["message_type"] == "assistant_message":
                        timed.add(event["content"])
        return timed.end()

    return loop.crowd(turn), lambda: loop.close(client.aclose())


def letta_client_crowd(url: str) -> Made:
    """Use letta-client's ``AsyncLetta``."""
    from letta_client import AsyncLetta

    loop = _Loop()
    client = AsyncLetta(base_url=url, api_key="none", timeout=_PATIENCE)

    async def turn(number: int) -> float:
        timed = _Timed()
        async with await client.conversations.messages.create(
            _conversation(number),
            messages=_MESSAGES,
            streaming=True,
            stream_tokens=True,
            include_pings=True,
        ) as stream:
            async for event in stream:
                if event.message_type == "assistant_message":
                    timed.add(event.content)
        return timed.end()

    return loop.crowd(turn), lambda: loop.close(client.close())


def _sessions(client: Any) -> Callable[[int], Any]:
    """Return what opens a session in a conversation of its own for each turn, once."""

    @functools.cache
    def session(number: int) -> Any:
        return client.resume_session(
            agent_id=wire.AGENT_ID,
            conversation_id=_conversation(number),
            include_partial_messages=True,
        )

    return session


def our_crowd(url: str) -> Made:
    """Use ``AsyncLettaClient``, a session in a conversation of its own for each turn."""
    loop = _Loop()
    client = AsyncLettaClient(Rest(base_url=url, api_key=""))

    session = _sessions(client)

    async def turn(number: int) -> float:
        timed = _Timed()
        await session(number).send(_TEXT)
        async for message in session(number).stream():
            if type(message) is StreamEvent:
                timed.add(message.event.get("content", ""))
        return timed.end()

    return loop.crowd(turn), lambda: loop.close(client.close())


def abatch_crowd(model: Any) -> Made:
    """Use ``abatch`` of one of LangChain's chat models, whole answers."""
    loop = _Loop()

    def crowd(turns: int) -> list[float]:
        for answer in loop.run(model.abatch([_TEXT] * turns)):
            check(answer.content)
        return []

    return crowd, loop.close


def astream_crowd(model: Any) -> Made:
    """Use ``astream`` of one of LangChain's chat models, token by token."""
    loop = _Loop()

    async def turn(_number: int) -> float:
        timed = _Timed()
        async for chunk in model.astream(_TEXT):
            if chunk.content:
                timed.add(chunk.content)
        return timed.end()

    return loop.crowd(turn), loop.close


# -- in threads -----------------------------------------------------------------------------------


def httpx_threads(url: str) -> Made:
    """Use raw httpx, ``iter_lines`` and ``json.loads`` in threads; its pool keeps ten."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=10)
    client = httpx.Client(base_url=url, timeout=_PATIENCE, limits=limits)

    def turn(number: int) -> float:
        timed = _Timed()
        path = f"/v1/conversations/{_conversation(number)}/messages"
        with client.stream("POST", path, json=_BODY) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if event["message_type"] == "assistant_message":
                        timed.add(event["content"])
        return timed.end()

    return _threads(turn, client.close)


def letta_client_threads(url: str) -> Made:
    """Use letta-client's ``Letta`` in threads."""
    from letta_client import Letta

    client = Letta(base_url=url, api_key="none", timeout=_PATIENCE)

    def turn(number: int) -> float:
        timed = _Timed()
        with client.conversations.messages.create(
            _conversation(number),
            messages=_MESSAGES,
            streaming=True,
            stream_tokens=True,
            include_pings=True,
        ) as stream:
            for event in stream:
                if event.message_type == "assistant_message":
                    timed.add(event.content)
        return timed.end()

    return _threads(turn, client.close)


def our_threads(url: str) -> Made:
    """Use ``LettaClient`` in threads, a session in a conversation of its own for each turn."""
    client = LettaClient(Rest(base_url=url, api_key=""))

    session = _sessions(client)

    def turn(number: int) -> float:
        timed = _Timed()
        session(number).send(_TEXT)
        for message in session(number).stream():
            if type(message) is StreamEvent:
                timed.add(message.event.get("content", ""))
        return timed.end()

    return _threads(turn, client.close)


def invoke_threads(model: Any) -> Made:
    """Use ``invoke`` of one of LangChain's chat models in threads, whole answers."""

    def turn(_number: int) -> float:
        check(model.invoke(_TEXT).content)
        return 0.0

    crowd, close = _threads(turn, lambda: None)
    return (lambda turns: crowd(turns)[:0]), close


def chat_letta(url: str) -> Any:
    """Return a ``ChatLetta`` whose calls have a new conversation each: two requests."""
    from letta_adapters.langchain import ChatLetta

    return ChatLetta(agent_id=wire.AGENT_ID, backend=Rest(base_url=url, api_key=""))


def chat_openai(url: str) -> Any:
    """Return a ``ChatOpenAI`` of langchain-openai."""
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    return ChatOpenAI(
        model="gpt-4.1", base_url=f"{url}/v1", api_key=SecretStr("none"), timeout=_PATIENCE
    )


@contextmanager
def crowds(url: str, makers: dict[str, Callable[[str], Made]]) -> Iterator[dict[str, Crowd]]:
    """Yield crowds by name, and close what they need afterwards."""
    made = {name: make(url) for name, make in makers.items()}
    try:
        yield {name: crowd for name, (crowd, _) in made.items()}
    finally:
        for _, close in made.values():
            close()
