"""What is left of a call that failed in part: conversations, tokens, the answer that was given."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from pydantic import BaseModel

from letta_adapters import LettaError
from letta_adapters.chat import clients
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests._refusing import (
    call_again_at_once,
    client_of,
    count_conversations,
    refuse_messages,
)

DEEP = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"


class Person(BaseModel):
    """A person."""

    name: str


def add(a: int) -> int:
    """Add one."""
    return a + 1


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    call_again_at_once(monkeypatch)


# -- conversations ------------------------------------------------------------------------------


def test_a_call_that_is_made_again_leaves_no_empty_conversations() -> None:
    letta = FakeLetta("Hello.")
    client = client_of(letta, refuse_messages(2))
    assert ChatLetta(client=client).invoke("hi").text == "Hello."
    assert count_conversations(letta, client) == 1


def test_a_call_that_was_refused_for_good_leaves_no_empty_conversation() -> None:
    letta = FakeLetta("Hello.")
    client = client_of(letta, refuse_messages(1))
    with pytest.raises(LettaError, match="slow down"):
        ChatLetta(client=client, max_retries=0).invoke("hi")
    assert count_conversations(letta, client) == 0


def test_the_conversation_of_a_name_stays_when_its_first_message_is_refused() -> None:
    letta = FakeLetta("Hello.")
    client = client_of(letta, refuse_messages(1))
    assert ChatLetta(client=client, thread_id="t").invoke("hi").text == "Hello."
    assert count_conversations(letta, client) == 1


# -- tokens -------------------------------------------------------------------------------------


def total(message: AIMessage) -> int:
    assert message.usage_metadata is not None
    return message.usage_metadata["total_tokens"]


def ask(letta: FakeLetta, method: Any) -> AIMessage:
    model = ChatLetta(client=letta.client())
    chain = model.with_structured_output(Person, method=method, include_raw=True)
    raw: AIMessage = chain.invoke("Who?")["raw"]
    return raw


def test_an_answer_that_was_mended_counts_the_tokens_of_both_turns() -> None:
    once = ask(FakeLetta('{"name": "Ada"}'), "json_schema")
    twice = ask(FakeLetta("Ada.", '{"name": "Ada"}'), "json_schema")
    assert total(twice) == 2 * total(once)
    assert len(twice.response_metadata["run_ids"]) == 2


def test_a_tool_call_that_was_mended_counts_the_tokens_of_both_turns() -> None:
    good = Reply(tool_calls=[ToolUse("Person", {"name": "Ada"})])
    once = ask(FakeLetta(good), "function_calling")
    twice = ask(FakeLetta("Ada.", good), "function_calling")
    assert total(twice) == 2 * total(once)


# -- answers ------------------------------------------------------------------------------------


def fail_reads(request: httpx.Request) -> httpx.Response | None:
    reads = request.method == "GET" and request.url.path.endswith("/messages")
    return httpx.Response(400, json={"detail": "not now"}) if reads else None


def test_an_answer_stands_where_its_open_call_cannot_be_given_up() -> None:
    letta = FakeLetta(Reply(tool_calls=[ToolUse("Person", {"name": "Ada"})]))
    model = ChatLetta(client=client_of(letta, fail_reads))
    assert model.with_structured_output(Person).invoke("Who?") == Person(name="Ada")


async def test_an_answer_stands_where_its_call_cannot_be_given_up_in_a_task() -> None:
    letta = FakeLetta(Reply(tool_calls=[ToolUse("Person", {"name": "Ada"})]))
    model = ChatLetta(client=client_of(letta, fail_reads))
    assert await model.with_structured_output(Person).ainvoke("Who?") == Person(name="Ada")


# -- arguments ----------------------------------------------------------------------------------


def test_arguments_that_are_nested_too_deeply_are_broken_ones() -> None:
    letta = FakeLetta(Reply(tool_calls=[ToolUse("add", DEEP, id="c1")]), "Sorry.")
    model = ChatLetta(client=letta.client()).bind_tools([add])
    asked = HumanMessage("Add.")
    answer = model.invoke([asked])
    assert (answer.tool_calls, len(answer.invalid_tool_calls)) == ([], 1)
    told = ToolMessage("Too deep.", tool_call_id="c1", status="error")
    assert model.invoke([asked, answer, told]).text == "Sorry."


def test_an_agent_that_writes_such_arguments_is_told() -> None:
    letta = FakeLetta(Reply(tool_calls=[ToolUse("add", DEEP, id="c1")]), "Sorry.")
    agent = LettaRunnable(client=letta.client(), tools=[add], output="text")
    assert agent.invoke("Add.") == "Sorry."


# -- event loops --------------------------------------------------------------------------------


def test_an_event_loop_that_has_ended_is_not_kept() -> None:
    loops: list[Any] = []

    async def ask() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        # Nobody listens there: the client is made, and kept for the loop, all the same.
        model = ChatLetta(base_url="http://127.0.0.1:9", api_key="k", max_retries=0)
        with pytest.raises(LettaError):
            await model.ainvoke("hi")

    for _ in range(4):
        asyncio.run(ask())
    gc.collect()
    # The last one is forgotten when the next one begins.
    assert [loop() is None for loop in loops[:-1]] == [True] * 3
    assert sum(getattr(home, "is_closed", bool)() for home in list(clients._clients)) <= 1
