"""Archival passages, tools of the server and runs, on a real Letta API."""

from __future__ import annotations

import pytest

from letta_adapters import AsyncLettaClient, InvalidInputError, NotFoundError, Rest
from letta_adapters.testing import LettaCassette

SOURCE = '''def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b
'''
NO_RUN = "run-00000000-0000-4000-8000-00000000dead"


async def test_passages_tools_and_runs(letta_cassette: LettaCassette) -> None:
    letta_cassette.script("Hello Ada.")
    rest = Rest(base_url=letta_cassette.base_url, api_key=letta_cassette.api_key or "")
    async with (
        letta_cassette.http_client() as http_client,
        AsyncLettaClient(rest, http_client=http_client) as client,
    ):
        agent = await client.create_agent(
            name="records", model="openai-proxy/scripted", system_prompt="t", base_tools=False
        )
        # -- archival memory
        passages = client.agents.passages
        (tea,) = await passages.insert(agent, "Ada likes tea.", tags=["drinks"])
        assert (tea.text, tea.tags) == ("Ada likes tea.", ("drinks",))
        await passages.insert(agent, "Paris is in France.")
        assert [p.text for p in await passages.list(agent, limit=1)] == ["Ada likes tea."]
        after = await passages.list(agent, after=tea.id)
        assert [p.text for p in after] == ["Paris is in France."]
        (found,) = await passages.search(agent, "tea", tags=["drinks"])
        assert (found.id, found.text) == (tea.id, "Ada likes tea.")
        await passages.delete(agent, tea.id)
        with pytest.raises(NotFoundError):
            await passages.delete(agent, tea.id)
        with pytest.raises(InvalidInputError, match="needs a text"):
            await passages.insert(agent, " ")
        # -- tools
        made = await client.tools.create(SOURCE, tags=["sums"])
        assert (made.name, made.description, made.tags) == ("add", "Add two numbers.", ("sums",))
        assert set(made.parameters["properties"]) == {"a", "b"}
        asking = await client.tools.create(SOURCE, requires_approval=True, replace=True)
        assert (asking.id, asking.requires_approval) == (made.id, True)
        assert (await client.tools.retrieve(made.id)).source_code == SOURCE
        assert [t.id for t in await client.tools.list(name="add")] == [made.id]
        await client.tools.attach(agent, made.id)
        assert [t.name for t in await client.tools.list(agent_id=agent)] == ["add"]
        # Deleting it takes it from its agents.
        await client.tools.delete(made.id)
        assert await client.tools.list(agent_id=agent) == []
        with pytest.raises(NotFoundError):
            await client.tools.retrieve(made.id)
        with pytest.raises(InvalidInputError, match="invalid syntax"):
            await client.tools.create("def broken(:")
        # -- runs
        async with client.resume_session(agent_id=agent, conversation_id="default") as session:
            said = await session.run_turn("I am Ada.")
        (run,) = await client.runs.list(agent_id=agent, limit=2)
        assert (run.id, run.status, run.agent_id) == (said.run_ids[0], "completed", agent)
        assert run.stop_reason == "end_turn"
        assert await client.runs.list(agent_id=agent, active=True) == []
        user, answer = await client.runs.messages(run.id)
        assert (user.type, answer.type) == ("user", "assistant")
        (step,) = await client.runs.steps(run.id)
        assert (step.usage.total_tokens, step.model) == (120, "openai-proxy/scripted")
        # A run that is over is left as it is: the server would call it cancelled from then on.
        await client.runs.cancel(run.id)
        assert (await client.runs.retrieve(run.id)).status == "completed"
        with pytest.raises(NotFoundError):
            await client.runs.retrieve(NO_RUN)
