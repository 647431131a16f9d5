"""Measure how the CPU of a streamed answer grows with its length, up to 100,000 tokens.

The exponent is that of the total CPU: 1 is twice the work for twice the tokens. The floors read
from memory: what they grow by is the frameworks' own objects, and nothing of any client.
"""

from __future__ import annotations

import gc
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import httpx

from benchmarks import server, wire
from benchmarks.clients import raw_lines
from benchmarks.floors import FloorChatModel, respond
from benchmarks.frameworks import _installed, _texts_of
from benchmarks.report import show, versions
from letta_adapters import Rest
from letta_adapters.langchain import ChatLetta
from letta_adapters.llama_index import LettaLLM

SIZES = (1_000, 10_000, 100_000)
QUICK_SIZES = (500, 1_000, 2_000)
ROUNDS = 3
BAR = 1.05
JUDGED = ("ChatLetta.stream_events(v3)", "LettaLLM.stream_chat")
_TEXT = "Say something long."

Read = Callable[[], str]


def run(*, quick: bool = False) -> bool:
    """Measure and print; return ``False`` if a contestant got another text than was sent."""
    warnings.simplefilter("ignore")  # what the frameworks say of pydantic
    print(f"\nGrowth: {versions('langchain-core', 'llama-index-core', 'httpx', 'pydantic')}")
    sizes = QUICK_SIZES if quick else SIZES
    measured: dict[str, list[float]] = {}
    with server.running() as url:
        for size in sizes:
            with _contestants(url, size) as reads:
                for name, seconds in _measure(reads, size).items():
                    if not seconds:
                        print(f"{name}: got another text than was sent")
                        return False
                    measured.setdefault(name, []).append(seconds)
    rows = [_describe(name, sizes, totals) for name, totals in measured.items()]
    head = ("", *(f"{size:,}: µs a token" for size in sizes), "exponents", f"last <= {BAR}")
    show(f"the whole answer, median of {ROUNDS} rounds", head, rows)
    return True


def _describe(name: str, sizes: tuple[int, ...], totals: list[float]) -> tuple[str, ...]:
    exponents = [
        math.log(totals[i + 1] / totals[i]) / math.log(sizes[i + 1] / sizes[i])
        for i in range(len(sizes) - 1)
    ]
    each = [f"{total / size * 1e6:.1f}" for total, size in zip(totals, sizes, strict=True)]
    met = ("yes" if exponents[-1] <= BAR else "NO") if name in JUDGED else ""
    return (name, *each, " ".join(f"{exponent:.2f}" for exponent in exponents), met)


def _measure(reads: dict[str, Read], size: int) -> dict[str, float]:
    """Return the median CPU seconds of each; 0 for one that got another text."""
    answer = wire.answer(size)
    samples: dict[str, list[float]] = {name: [] for name in reads}
    wrong = set()
    for number in range(ROUNDS):
        names = list(reads)
        turned = number % len(names)
        for name in names[turned:] + names[:turned]:
            gc.collect()
            start = time.process_time()
            text = reads[name]()
            samples[name].append(time.process_time() - start)
            if text != answer:
                wrong.add(name)
    return {name: 0.0 if name in wrong else median(times) for name, times in samples.items()}


@contextmanager
def _contestants(url: str, size: int) -> Iterator[dict[str, Read]]:
    from llama_index.core.base.llms.types import ChatMessage

    conversation = wire.conversation_id("chunks", size)
    place: dict[str, Any] = {"agent_id": wire.AGENT_ID, "conversation_id": conversation}
    place |= {"backend": Rest(base_url=url, api_key=""), "timeout": 600.0}
    chat, llm = ChatLetta(**place), LettaLLM(**place)
    floor = FloorChatModel(texts=lambda: wire.tokens(size))
    messages = [ChatMessage(role="user", content=_TEXT)]

    def read_events(model: Any) -> Read:
        return lambda: _texts_of(list(model.stream_events(_TEXT, version="v3")))

    def read_responses(answer: Callable[[], Any]) -> Read:
        return lambda: "".join([response.delta or "" for response in answer()])

    with httpx.Client(base_url=url) as raw:
        lines = raw_lines(raw)
        yield {
            "httpx lines": lambda: lines(conversation),
            "ChatLetta.stream_events(v3)": read_events(chat),
            "... the floor of LangChain, from memory": read_events(floor),
            "LettaLLM.stream_chat": read_responses(lambda: llm.stream_chat(messages)),
            "... the floor of LlamaIndex, from memory": read_responses(
                lambda: respond(wire.tokens(size))
            ),
            **_peers(url, conversation, read_events, read_responses),
        }


def _peers(
    url: str,
    conversation: str,
    read_events: Callable[[Any], Read],
    read_responses: Callable[[Callable[[], Any]], Read],
) -> dict[str, Read]:
    reads: dict[str, Read] = {}
    # The name of the model is that of the conversation, so that the server gives the same answer.
    if _installed("langchain_openai"):
        from langchain_openai import ChatOpenAI
        from pydantic import SecretStr

        model = ChatOpenAI(model=conversation, base_url=f"{url}/v1", api_key=SecretStr("none"))
        reads["ChatOpenAI.stream_events(v3)"] = read_events(model)
    if _installed("llama_index.llms.openai"):
        from llama_index.core.base.llms.types import ChatMessage
        from llama_index.llms.openai import OpenAI

        llm = OpenAI(model="gpt-4.1", api_base=f"{url}/v1", api_key="none")
        # LlamaIndex looks a model's name up in a list before each call, the server need not know.
        named = {"model": conversation}
        messages = [ChatMessage(role="user", content=_TEXT)]
        reads["OpenAI (LlamaIndex).stream_chat"] = read_responses(
            lambda: llm.stream_chat(messages, **named)
        )
    return reads
