"""Histories, approvals that were left waiting, agents, conversations and models."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters import (
    AsyncLettaClient,
    InvalidInputError,
    NotFoundError,
    UnsupportedOptionError,
)
from letta_adapters.backends.app_server import conversations
from letta_adapters.backends.base import Conversation, PageQuery
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse


async def talk(session: Any, model: ScriptedModel, *words: str) -> None:
    model.script(*(f"Answer {word}." for word in words))
    for word in words:
        assert (await session.run_turn(f"Question {word}.")).success


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return ["".join(part["text"] for part in m["content"]) for m in messages]


SAID = [
    text for word in ("one", "two", "three") for text in (f"Question {word}.", f"Answer {word}.")
]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 6, 50])
async def test_pages_fit_together(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, order: Any, limit: int
) -> None:
    async with client.create_session(agent) as session:
        await talk(session, model, "one", "two", "three")
        said: list[str] = []
        cursor: dict[str, Any] = {}
        for _ in range(10):
            page = await session.list_messages(order=order, limit=limit, **cursor)
            said += texts(page.raw)
            if not page.has_more:
                break
            forward = order == "asc"
            cursor = {"after": page.next_after} if forward else {"before": page.next_before}
        direct = await client.list_messages(agent, session.conversation_id, limit=2)
    assert said == (SAID if order == "asc" else SAID[::-1])
    assert texts(direct.raw) == SAID[::-1][:2]


async def test_a_cursor_of_another_conversation(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    async with client.create_session(agent) as session:
        await talk(session, model, "one")
        with pytest.raises(InvalidInputError, match="message-1"):
            await session.list_messages(before="message-1")
        with pytest.raises(InvalidInputError, match="message-1"):
            await session.list_messages(after="message-1", order="asc")
    with pytest.raises(NotFoundError, match="local-conv-99999"):
        await client.list_messages(conversation_id="local-conv-99999")


async def test_history_has_no_injected_reminders(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    async with client.resume_session(agent) as session:
        assert session.conversation_id == "default"
        await talk(session, model, "one")
        page = await session.list_messages(order="asc")
    assert "<system-reminder>" in str(model.requests[-1].messages)
    assert "system-reminder" not in str(page.raw)
    assert texts(page.raw) == ["Question one.", "Answer one."]
    assert page.raw[0]["otid"]


async def test_conversations(client: AsyncLettaClient, agent: str, model: ScriptedModel) -> None:
    made = await client.conversations.create(agent, summary="Mine")
    assert made["summary"] == "Mine"
    async with client.resume_session(made["id"]) as session:
        assert session.agent_id == agent
        await talk(session, model, "one")
    assert [c["id"] for c in await client.conversations.list(agent)] == [made["id"]]
    changed = await client.conversations.update(made["id"], summary="Yours")
    assert changed["summary"] == "Yours"
    assert (await client.conversations.retrieve(made["id"]))["summary"] == "Yours"
    fork = await client.conversations.fork(made["id"])
    async with client.resume_session(agent_id=agent, conversation_id=fork["id"]) as session:
        page = await session.list_messages(order="asc")
        assert texts(page.raw) == ["Question one.", "Answer one."]
    model.script("A summary.")
    compacted = await client.request("POST", f"/v1/conversations/{made['id']}/compact")
    assert compacted["num_messages_after"] < compacted["num_messages_before"]
    with pytest.raises(UnsupportedOptionError):
        await client.conversations.delete(made["id"])
    with pytest.raises(NotFoundError):
        await client.resume_session("local-conv-99999").initialize()


async def test_the_default_conversation_can_be_forked(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    async with client.resume_session(agent) as session:
        await talk(session, model, "one")
    fork = await client.conversations.fork("default", agent_id=agent)
    page = await client.list_messages(agent, fork["id"], order="asc")
    assert texts(page.raw) == ["Question one.", "Answer one."]


async def test_models(client: AsyncLettaClient, model: ScriptedModel) -> None:
    handles = [m["handle"] for m in await client.models.list()]
    assert handles == ["lmstudio/scripted", "lmstudio/scripted-two"]


async def test_any_command(client: AsyncLettaClient, agent: str) -> None:
    answer = await client.request("COMMAND", "list_memory", body={"agent_id": agent})
    assert "persona.md" in [entry["relative_path"] for entry in answer["entries"]]
    with pytest.raises(InvalidInputError, match="command"):
        await client.request("COMMAND", "Nonsense!")
    with pytest.raises(InvalidInputError, match="request_id"):
        await client.request("COMMAND", "list_memory", body={"request_id": "x"})


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_of_messages_with_several_parts(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, order: Any
) -> None:
    look = [ToolUse("Bash", {"command": "ls", "description": "t"})] * 2
    model.script(
        Reply(text="I look.", reasoning="Hm.", tool_calls=look), Reply("Done.", reasoning="So.")
    )
    async with client.create_session(agent) as session:
        assert (await session.run_turn("go")).success
        whole = await session.list_messages(order=order)
        for limit in (1, 2, 3):
            ids: list[str] = []
            cursor: dict[str, Any] = {}
            for _ in range(12):
                page = await session.list_messages(order=order, limit=limit, **cursor)
                ids += [m["id"] for m in page.raw]
                if not page.has_more:
                    break
                forward = order == "asc"
                cursor = {"after": page.next_after} if forward else {"before": page.next_before}
            assert ids == [m["id"] for m in whole.raw]
    assert len(whole.raw) == 9
    assert not whole.has_more


async def test_pages_over_the_letta_api_ask_for_what_follows_in_the_list() -> None:
    """Seen with letta 0.34.12 over a server of 0.16.8 (``tests/live`` runs it there)."""

    class Asked:
        on_api = True

        def __init__(self) -> None:
            self.query: dict[str, Any] = {}

        async def request(self, frame: dict[str, Any]) -> dict[str, Any]:
            if frame["query"]["limit"] == 1:  # the check of the cursor
                return {"messages": [{"id": "message-9"}]}
            self.query = frame["query"]
            return {"messages": [{"id": f"message-{n}"} for n in (2, 1)]}

    asked = Asked()
    where = Conversation("agent-1", "conv-1")
    page = await conversations.fetch_page(asked, where, PageQuery(1, before="message-9"))
    assert asked.query == {"order": "desc", "limit": 2, "after": "message-9", "agent_id": "agent-1"}
    assert (page.last, page.more) == ("message-2", True)
