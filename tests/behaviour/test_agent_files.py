"""An agent goes into a file and comes out of it again, with no more power than was named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import Allow, InvalidInputError, UnsupportedOptionError, inspect_agent_file
from letta_adapters.testing.scripted_model import Reply
from tests.agent_files._bundles import Maker
from tests.behaviour._world import World


@pytest.mark.behaviour("agent_file")
async def test_an_agent_travels_in_a_file_and_its_tools_ask(
    client: Any, world: World, agent: str, tmp_path: Path
) -> None:
    path = tmp_path / "agent.af"
    # Of neither of the two: it is an agent of Letta Code on one machine.
    bundle = Maker(tmp_path / "made").agent()
    with pytest.raises(UnsupportedOptionError, match="import_file") as caught:
        await client.agents.import_file(bundle)
    assert "local" in caught.value.supported_by
    if not world.capabilities.agent_files:
        with pytest.raises(UnsupportedOptionError, match="export_file"):
            await client.agents.export_file(agent, path)
        with pytest.raises(UnsupportedOptionError, match="files"):
            await client.request("POST", "/v1/agents/import", files={"file": b"{}"})
        return
    tool = await world.server_tool(client, agent, asks=False)
    shown = await client.agents.export_file(agent, path)
    assert [t.name for t in shown.untrusted] == ["multiply"]
    assert "return a * b" in (shown.untrusted[0].source or "")
    assert shown.demands == ("run:multiply",)
    # What a request says is recorded as it is, and a recording holds no times.
    text = re.sub(r'"20\d\d-[^"]*"', '"2026-01-01T00:00:00+00:00"', path.read_text("utf-8"))
    text = re.sub(r"20[-0-9]{8} [0-9:]{8} [AP]M", "2026-01-01 12:00:00 AM", text)
    path.write_text(text, "utf-8")
    shown = inspect_agent_file(path)
    with pytest.raises(InvalidInputError, match="nobody has trusted: multiply"):
        await client.agents.import_file(path)

    (copy,) = await client.agents.import_file(path, trust=shown.digest, name="a copy")
    assert (await client.agents.retrieve(copy))["name"] == "a copy"
    asked: list[str] = []

    def allow(name: str, input: Any, context: Any) -> Allow:
        asked.append(name)
        return Allow()

    world.script(Reply(tool_calls=[tool.use]), Reply(text="It is 42."))
    async with client.create_session(copy, can_use_tool=allow) as session:
        assert (await session.run_turn("multiply")).result == "It is 42."
    assert asked == ["multiply"]

    # What was named is granted, and without a history an agent answers all the same.
    document = json.loads(path.read_bytes())
    assert document["agents"][0]["messages"]
    (free,) = await client.agents.import_file(
        inspect_agent_file(path),
        trust=["multiply"],
        allow=["run:multiply"],
        strip_messages=True,
    )
    world.script(Reply(tool_calls=[tool.use]), Reply(text="Again 42."))
    assert (await client.prompt("multiply", free)).result == "Again 42."
