"""An agent's memory through one face, over blocks and over files."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnsupportedOptionError,
)
from tests.behaviour._world import World

NOBODY = "agent-00000000-0000-4000-8000-00000000dead"
SHORT = {"model": "openai-proxy/scripted", "prompt": "Sum up."}
NO_BLOCK = "block-00000000-0000-4000-8000-00000000dead"


@pytest.mark.behaviour("memory")
async def test_memory_is_one_face_over_blocks_and_files(
    client: Any, agent: str, world: World
) -> None:
    # One test, as every agent that the API shows is long: by default most of it is this prompt.
    if world.capabilities.memory_blocks:
        await client.agents.update(agent, compaction_settings=SHORT)
    await _read_and_change(client.agents.memory, agent)
    await _be_refused(client.agents.memory, agent)
    await _lack_what_the_other_kind_has(client, agent, world)
    if world.capabilities.memory_history:
        await _look_at_the_history(client, agent)
    if world.capabilities.memory_blocks:
        await _share_a_block(client, agent)


async def _read_and_change(memory: Any, agent: str) -> None:
    assert "persona" in [item.label for item in await memory.list(agent)]
    persona = await memory.read(agent, "persona")
    assert persona.value == "I am a test agent."
    assert persona.description
    await memory.write(agent, "persona", description="Me.")
    text = "Ada likes\n  tea. 🫖"
    made = await memory.create(agent, "people/ada", text, description="What she likes.")
    assert (made.label, made.description) == ("people/ada", "What she likes.")
    assert (await memory.read(agent, "people/ada")).value == made.value == text
    changed = await memory.write(agent, "people/ada", "Ada likes coffee.")
    assert changed.value == "Ada likes coffee."
    described = await memory.write(agent, "people/ada", description="Drinks.")
    assert (described.value, described.description) == ("Ada likes coffee.", "Drinks.")
    labels = [item.label for item in await memory.list(agent)]
    assert labels == sorted(labels)
    assert {"people/ada", "persona"} <= set(labels)
    await memory.delete(agent, "people/ada")
    assert "people/ada" not in [item.label for item in await memory.list(agent)]


async def _be_refused(memory: Any, agent: str) -> None:
    for call in (
        memory.write(agent, "nothing", "x"),
        memory.delete(agent, "people/ada"),
        memory.read(NOBODY, "persona"),
    ):
        with pytest.raises(NotFoundError):
            await call
    for label in ("", " ", "a\nb", "a\0b", "x" * 201, "\ud800"):
        with pytest.raises(InvalidInputError):
            await memory.create(agent, label, "x")
    with pytest.raises(InvalidInputError, match="NUL"):
        await memory.write(agent, "persona", "a\0b")
    mine = await memory.read(agent, "persona")
    now = await memory.write(agent, "persona", "Somebody else was faster.")
    for call in (
        memory.write(agent, "persona", "Mine.", if_match=mine.version),
        memory.delete(agent, "persona", if_match=mine.version),
    ):
        with pytest.raises(ConflictError, match="has changed") as caught:
            await call
        assert caught.value.code == "memory_changed"
    assert (await memory.write(agent, "persona", "Mine.", if_match=now.version)).value == "Mine."
    with pytest.raises(ConflictError, match="already"):
        await memory.create(agent, "persona", "A second one.")


async def _lack_what_the_other_kind_has(client: Any, agent: str, world: World) -> None:
    memory, passages = client.agents.memory, client.agents.passages
    history = [
        lambda: memory.history(agent),
        lambda: memory.diff(agent, "a" * 40),
        lambda: memory.read(agent, "persona", at="a" * 40),
    ]
    blocks = [
        lambda: memory.attach(agent, NO_BLOCK),
        lambda: memory.detach(agent, "persona"),
        lambda: memory.create(agent, "notes", limit=10),
        lambda: memory.create(agent, "notes", read_only=True),
        lambda: client.blocks.list(),
        lambda: client.blocks.create("team", "x"),
        lambda: client.tools.list(),
        lambda: client.runs.list(),
        lambda: passages.search(agent, "tea"),
    ]
    for has, calls, others in (
        (world.capabilities.memory_history, history, ("local", "remote")),
        (world.capabilities.memory_blocks, blocks, ("rest",)),
    ):
        for call in () if has else calls:
            with pytest.raises(UnsupportedOptionError) as caught:
                await call()
            assert caught.value.supported_by == others


async def _look_at_the_history(client: Any, agent: str) -> None:
    memory = client.agents.memory
    await memory.write(agent, "persona", "Second.")
    await memory.write(agent, "persona", "Third.")
    newest, second, *_, first = await memory.history(agent, "persona")
    assert (await memory.history(agent, limit=1)) == [newest]
    assert newest.created_at > "2026"
    assert "-Second." in await memory.diff(agent, newest.sha)
    assert "+Third." in await memory.diff(agent, newest.sha)
    assert (await memory.read(agent, "persona", at=second.sha)).value == "Second."
    assert (await memory.read(agent, "persona", at=first.sha)).value == "I am a test agent."
    for call in (
        memory.diff(agent, "a" * 40),
        memory.read(agent, "persona", at="a" * 40),
        memory.read(agent, "nothing", at=first.sha),
        memory.history(agent, "nothing"),
        memory.history(NOBODY),
    ):
        with pytest.raises(NotFoundError):
            await call
    for sha in ("--output=x", "HEAD..x", "", "a" * 65):
        with pytest.raises(InvalidInputError, match="commit"):
            await memory.diff(agent, sha)


async def _share_a_block(client: Any, agent: str) -> None:
    memory = client.agents.memory
    block = await client.blocks.create("team", "We ship on Fridays.", limit=40)
    other = await client.create_agent(
        name="another",
        model="openai-proxy/scripted",
        system_prompt="t",
        block_ids=[block.id],
        base_tools=False,
    )
    await client.agents.update(other, compaction_settings=SHORT)
    for _ in range(2):  # the second time it changes nothing
        await memory.attach(agent, block.id)
    shared = await memory.read(agent, "team", shared_by=True)
    assert shared.shared_by == tuple(sorted((agent, other)))
    assert (shared.id, shared.limit, shared.read_only) == (block.id, 40, False)
    await memory.write(agent, "team", "We ship on Mondays.")
    assert (await memory.read(other, "team")).value == "We ship on Mondays."
    with pytest.raises(InvalidInputError, match="41 characters; its limit is 40") as caught:
        await memory.write(agent, "team", "x" * 41)
    assert caught.value.code == "memory_limit"
    with pytest.raises(InvalidInputError, match="its limit is 5"):
        await client.blocks.update(block.id, limit=5)
    with pytest.raises(ConflictError, match=other):
        await memory.delete(agent, "team")
    second = await client.blocks.create("team", "Another team.")
    with pytest.raises(ConflictError, match="another block with the label"):
        await memory.attach(agent, second.id)
    await memory.detach(agent, "team")
    assert [item.label for item in await memory.list(agent)] == ["persona"]
    locked = await client.blocks.update(block.id, read_only=True, description="The team's.")
    assert (locked.read_only, locked.description) == (True, "The team's.")
    first = await client.blocks.list(label="team", limit=1)
    rest = await client.blocks.list(label="team", limit=10, after=first[0].id)
    ids = [item.id for item in (*first, *rest)]
    assert len(ids) == len(set(ids))
    assert {block.id, second.id} <= set(ids)
    # Deleting a block that is attached takes it from its agents.
    await client.blocks.delete(block.id)
    await client.blocks.delete(second.id)
    assert await memory.list(other) == []
    for call in (client.blocks.retrieve(block.id), memory.attach(agent, NO_BLOCK)):
        with pytest.raises(NotFoundError):
            await call
