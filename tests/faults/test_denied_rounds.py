"""A model that insists on a tool that is denied does not go on without end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters import Deny
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import InvalidInputError, TurnFailedError
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import asks
from tests.faults.conftest import resume


def look(city: str = "") -> str:
    """Look out of the window."""
    return "sunny"


def insisting(rounds: int) -> list[Callable[..., None]]:
    return [asks(ev.call(f"call_{n}", "look", "{}")) for n in range(rounds)]


async def test_the_turn_ends_after_so_many_denied_steps_in_a_row(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(*insisting(50))
    session = resume(client, tools=[look], can_use_tool=lambda *_: Deny("no"), max_denied_rounds=3)
    result = await session.run_turn("go")
    assert (result.success, result.error_code) == (False, "denied_rounds")
    with pytest.raises(TurnFailedError, match="3 steps in a row"):
        result.raise_for_status()
    assert len(server.sent()) <= 6  # the message, three denials, and what clears the last call
    assert server.pending() == []
    assert server.active == []


async def test_the_limit_is_twenty_and_what_is_allowed_in_between_starts_it_anew(
    server: Server, client: AsyncLettaClient
) -> None:
    server.script(*insisting(30))
    asked = 0

    def every_tenth(*_: Any) -> bool:
        nonlocal asked
        asked += 1
        return asked % 10 == 0

    result = await resume(client, tools=[look], can_use_tool=every_tenth).run_turn("go")
    assert result.success, "thirty rounds, never more than nine denied in a row"
    server.script(*insisting(30))
    result = await resume(client, tools=[look], can_use_tool=lambda *_: False).run_turn("go")
    assert result.error_code == "denied_rounds"
    assert asked == 30


def test_a_limit_below_zero_is_refused(client: AsyncLettaClient) -> None:
    with pytest.raises(InvalidInputError, match="max_denied_rounds"):
        resume(client, max_denied_rounds=-1)
