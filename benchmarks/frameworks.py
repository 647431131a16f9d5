"""Measure CPU per streamed event through the frameworks: ChatLetta, LettaLLM and LettaAgent.

They are compared with the usual adapters, where these are installed (``langchain-openai``;
``llama-index-llms-openai`` with LlamaIndex' ``FunctionAgent``), on the same server, which speaks
OpenAI's protocol too. Everything runs in this one process. In each round every contestant reads its
stream once, and a ratio is taken to raw httpx + ``json.loads`` of the same round, sync over sync
and async over async.
"""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from statistics import median
from typing import Any

import httpx

from benchmarks import server, wire
from benchmarks.clients import async_raw_lines, raw_lines
from benchmarks.floors import FloorAgent, aread_texts, read_texts, respond
from benchmarks.report import show, spread, versions
from letta_adapters import Rest
from letta_adapters.langchain import ChatLetta
from letta_adapters.llama_index import LettaAgent, LettaLLM

EVENTS = 2000
ROUNDS = 9
_TEXT = "Say something long."
BARS = {
    "sync ChatLetta.stream": 3.5,
    "async ChatLetta.astream": 3.6,
    "async ChatLetta.astream_events(v2)": 8.0,
    "sync ChatLetta.stream_events(v3)": 2.0,
    "async ChatLetta.astream_events(v3)": 2.0,
    "sync LettaLLM.stream_chat": 1.75,
    "async LettaLLM.astream_chat": 2.2,
    "async LettaAgent.stream_events": 2.3,
    "async LettaAgent.stream_events, coalesced": 1.5,
}

Run = Callable[[], str]
AsyncRun = Callable[[], Coroutine[Any, Any, str]]


def run(*, quick: bool = False) -> bool:
    """Measure and print; return ``False`` if a contestant got another text than was sent."""
    warnings.simplefilter("ignore")  # what the frameworks say of pydantic
    print(f"\nFrameworks: {versions('langchain-core', 'llama-index-core', 'httpx', 'pydantic')}")
    with server.running() as url, contestants(url) as runs:
        for name, one in runs.items():  # the warm-up
            if one() != wire.answer(EVENTS):
                print(f"{name}: got another text than was sent")
                return False
        samples = _measure(runs, 3 if quick else ROUNDS)
    rows = []
    for name, values in samples.items():
        base = samples[f"{name.split()[0]} httpx lines"]
        ratios = [a / b for a, b in zip(values, base, strict=True)]
        bar = BARS.get(name)
        met = "" if bar is None else f"<= {bar}: {'yes' if median(ratios) <= bar else 'NO'}"
        rows.append((name, spread(values), spread(ratios, 2), met))
    title = f"one HTTP chunk per event, {EVENTS} events, median [quartiles]"
    show(title, ("", "CPU µs/event", "x httpx lines", "bar"), rows)
    return True


def _measure(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            start = time.process_time()
            runs[name]()
            samples[name].append((time.process_time() - start) / EVENTS * 1e6)
    return samples


@contextmanager
def contestants(url: str) -> Iterator[dict[str, Run]]:
    """Yield all of them by name, the async ones driven by one event loop."""
    conversation = wire.conversation_id("chunks", EVENTS)
    raw, async_raw = httpx.Client(base_url=url), httpx.AsyncClient(base_url=url)
    loop = asyncio.new_event_loop()

    def in_loop(work: AsyncRun) -> Run:
        return lambda: loop.run_until_complete(work())

    lines, async_lines = raw_lines(raw), async_raw_lines(async_raw)
    runs: dict[str, Run] = {
        "sync httpx lines": lambda: lines(conversation),
        "async httpx lines": in_loop(lambda: async_lines(conversation)),
    }
    place: dict[str, Any] = {"agent_id": wire.AGENT_ID, "conversation_id": conversation}
    place["backend"] = Rest(base_url=url, api_key="")
    runs |= _langchain("ChatLetta", ChatLetta(**place), in_loop)
    runs |= _llama_index("LettaLLM", LettaLLM(**place), in_loop)
    runs["async LettaAgent.stream_events"] = in_loop(_agent(lambda: LettaAgent(**place)))
    coalesced = _agent(lambda: LettaAgent(**place, coalesce=True))
    runs["async LettaAgent.stream_events, coalesced"] = in_loop(coalesced)
    runs["sync floor of LlamaIndex: stream_chat"] = lambda: "".join(
        [response.delta or "" for response in respond(read_texts(raw, conversation))]
    )
    floor = _agent(lambda: FloorAgent.reading(lambda: aread_texts(async_raw, conversation)))
    runs["async floor of LlamaIndex: stream_events"] = in_loop(floor)
    runs |= _peers(url, in_loop)
    try:
        yield runs
    finally:
        raw.close()
        loop.run_until_complete(async_raw.aclose())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _langchain(name: str, model: Any, in_loop: Callable[[AsyncRun], Run]) -> dict[str, Run]:
    def stream() -> str:
        return "".join([chunk.content for chunk in model.stream(_TEXT)])

    async def astream() -> str:
        return "".join([chunk.content async for chunk in model.astream(_TEXT)])

    async def events_v2() -> str:
        return "".join(
            [
                event["data"]["chunk"].content
                async for event in model.astream_events(_TEXT, version="v2")
                if event["event"] == "on_chat_model_stream"
            ]
        )

    def events_v3() -> str:
        return _texts_of(list(model.stream_events(_TEXT, version="v3")))

    async def aevents_v3() -> str:
        stream = await model.astream_events(_TEXT, version="v3")
        return _texts_of([event async for event in stream])

    return {
        f"sync {name}.stream": stream,
        f"async {name}.astream": in_loop(astream),
        f"async {name}.astream_events(v2)": in_loop(events_v2),
        f"sync {name}.stream_events(v3)": events_v3,
        f"async {name}.astream_events(v3)": in_loop(aevents_v3),
    }


def _texts_of(events: list[Any]) -> str:
    deltas = [e["delta"] for e in events if e["event"] == "content-block-delta"]
    return "".join(d["text"] for d in deltas if d["type"] == "text-delta")


def _llama_index(name: str, llm: Any, in_loop: Callable[[AsyncRun], Run]) -> dict[str, Run]:
    from llama_index.core.base.llms.types import ChatMessage

    messages = [ChatMessage(role="user", content=_TEXT)]

    def stream_chat() -> str:
        return "".join([chunk.delta or "" for chunk in llm.stream_chat(messages)])

    async def astream_chat() -> str:
        return "".join([chunk.delta or "" async for chunk in await llm.astream_chat(messages)])

    return {
        f"sync {name}.stream_chat": stream_chat,
        f"async {name}.astream_chat": in_loop(astream_chat),
    }


def _agent(make: Callable[[], Any]) -> AsyncRun:
    from llama_index.core.agent.workflow import AgentStream

    async def stream_events() -> str:
        handler = make().run(_TEXT)
        texts = [e.delta async for e in handler.stream_events() if isinstance(e, AgentStream)]
        await handler
        return "".join(texts)

    return stream_events


def _peers(url: str, in_loop: Callable[[AsyncRun], Run]) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    if _installed("langchain_openai"):
        from langchain_openai import ChatOpenAI
        from pydantic import SecretStr

        model = ChatOpenAI(model="gpt-4.1", base_url=f"{url}/v1", api_key=SecretStr("none"))
        runs |= _langchain("ChatOpenAI", model, in_loop)
    if _installed("llama_index.llms.openai"):
        from llama_index.core.agent.workflow import FunctionAgent
        from llama_index.llms.openai import OpenAI

        llm = OpenAI(model="gpt-4.1", api_base=f"{url}/v1", api_key="none")
        runs |= _llama_index("OpenAI (LlamaIndex)", llm, in_loop)
        agent = _agent(lambda: FunctionAgent(llm=llm, tools=[]))
        runs["async FunctionAgent.stream_events"] = in_loop(agent)
    return runs


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package it would be in
        return False
