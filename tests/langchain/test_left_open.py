"""Calls that an earlier run has left open: what a callback raises, and what a tool returns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letta_adapters import TimeoutBeforeAcceptanceError
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse


def look(name: str) -> str:
    """Look at a file."""
    return f"found {name}\udcff"


@pytest.fixture
def letta() -> FakeLetta:
    return FakeLetta(Reply(tool_calls=[ToolUse("look", {"name": "x"}, id="c1")]), "Done.")


@pytest.fixture
def place(letta: FakeLetta) -> str:
    """A conversation whose call nobody has answered."""
    answer = ChatLetta(client=letta.client()).bind_tools([look]).invoke("Look.")
    return str(answer.response_metadata["conversation_id"])


def agent(letta: FakeLetta, place: str, ask: Any, **fields: Any) -> LettaRunnable:
    about: dict[str, Any] = {"client": letta.client(), "conversation_id": place, "output": "text"}
    return LettaRunnable(tools=[look], can_use_tool=ask, **about, **fields)


def raise_timeout(*_: Any) -> bool:
    raise TimeoutError("the approval service did not answer")


@pytest.mark.parametrize("fields", [{}, {"timeout": 30.0}])
def test_a_timeout_of_the_callback_s_own_is_raised_as_it_is(
    letta: FakeLetta, place: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(TimeoutError, match="approval service"):
        agent(letta, place, raise_timeout, **fields).invoke("Go.")
    assert letta.said == ["Look."]


async def test_a_timeout_of_an_asynchronous_callback_is_raised_as_it_is(
    letta: FakeLetta, place: str
) -> None:
    async def ask(*_: Any) -> bool:
        return raise_timeout()

    with pytest.raises(TimeoutError, match="approval service"):
        await agent(letta, place, ask).ainvoke("Go.")


async def test_a_callback_that_takes_longer_than_the_call_may_is_told_so(
    letta: FakeLetta, place: str
) -> None:
    async def ask(*_: Any) -> bool:
        await asyncio.Event().wait()
        return True

    with pytest.raises(TimeoutBeforeAcceptanceError, match="not answered within"):
        await agent(letta, place, ask, timeout=0.1).ainvoke("Go.")


def test_a_tool_may_return_characters_that_cannot_be_sent(letta: FakeLetta, place: str) -> None:
    assert agent(letta, place, lambda *_: True).invoke("Go.") == "Done."
    sent = [m for m in letta.requests[-1]["messages"] if m.get("type") == "approval"]
    assert [a["tool_return"] for m in sent for a in m["approvals"]] == ["found x?"]
