"""An answer that is data of a shape, on every backend."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters.testing.scripted_model import Reply
from tests.behaviour._world import World

COUNT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.behaviour("structured_output")
async def test_an_answer_that_does_not_fit_is_mended(client: Any, agent: str, world: World) -> None:
    world.script(Reply(text="There are three."), Reply(text='{"n": 3}'))
    async with client.create_session(agent) as session:
        result = await session.run_turn("How many?", output_schema=COUNT)
    assert result.output == {"n": 3}
    assert result.usage.step_count == 2
