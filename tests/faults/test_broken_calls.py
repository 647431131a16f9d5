"""Answers to calls that wait with arguments that are no JSON object, as a cut-off model leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import Allow, Deny, Rest
from letta_adapters.client.client import AsyncLettaClient
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._tools import answered, get_weather
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]
CUT = ev.call(arguments='{"city": ')


async def test_an_input_of_the_applications_own_stands_in_for_a_broken_one(
    server: Server, rest: MakeRest, face: Any
) -> None:
    server.leave_pending(CUT)
    async with face(rest()) as client:
        session = resume(client, tools=[get_weather])
        assert (await session.respond_turn({"call_1": Allow({"city": "Rome"})})).success
    assert answered(server)[0]["tool_return"] == "sunny in Rome"
    assert answered(server)[0]["status"] == "success"


@pytest.mark.parametrize("allow", [Allow(), Allow({})], ids=["as it is", "as it was shown"])
async def test_a_broken_input_is_not_run_with_what_could_be_read_of_it(
    server: Server, client: AsyncLettaClient, allow: Allow
) -> None:
    def runs_anyway() -> str:
        raise AssertionError

    server.leave_pending(ev.call("runs_anyway", arguments='{"all": '))
    assert (await resume(client, tools=[runs_anyway]).respond_turn({"call_1": allow})).success
    assert answered(server)[0]["status"] == "error"
    assert "no JSON object" in answered(server)[0]["tool_return"]


async def test_a_broken_call_that_is_denied_is_told_the_denial(
    server: Server, client: AsyncLettaClient
) -> None:
    server.leave_pending(CUT)
    session = resume(client, tools=[get_weather])
    assert (await session.respond_turn({"call_1": Deny("Not today.")})).success
    assert (answered(server)[0]["approve"], answered(server)[0]["reason"]) == (False, "Not today.")
