"""Talking: one-shot, several turns, streaming, images, unicode, history."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from letta_adapters import (
    AssistantMessage,
    InitMessage,
    InvalidInputError,
    NotFoundError,
    ReasoningMessage,
    StreamEvent,
    Usage,
    image_from_bytes,
)
from letta_adapters.testing import LettaCassette
from letta_adapters.testing.scripted_model import Reply
from tests.rest._say import result_of, streamed_text, turn, types

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
# One step of the scripted model, as the server reports it when it does not stream tokens.
STEP = Usage(100, 20, 120, 64, 0, 5, 120, 1)


@pytest.mark.letta_cassette("one_shot", shared=True)
async def test_prompt_answers_in_a_fresh_conversation(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(Reply(text="Blue."), Reply(text="Still blue."))
    first = await client.prompt("What is your favourite colour?", agent)
    second = await client.prompt("And now?", agent)
    assert first.success
    assert first.result == "Blue."
    assert first.stop_reason == "end_turn"
    assert first.usage == STEP
    assert first.agent_id == agent
    assert len(first.run_ids) == 1
    assert first.raise_for_status() is first
    assert second.result == "Still blue."
    assert str(first.conversation_id).startswith("conv-")
    assert first.conversation_id != second.conversation_id


@pytest.mark.letta_cassette("multi_turn", shared=True)
async def test_a_session_goes_on_and_can_be_resumed(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(Reply(text="Hello Ada."), Reply(text="Ada."), Reply(text="Goodbye."))
    async with client.create_session(agent) as session:
        opened = await turn(session, "I am Ada.")
        again = await turn(session, "Who am I?")
        conversation_id = session.conversation_id
    assert types(opened) == ["init", "assistant", "result"]
    assert types(again) == ["assistant", "result"]
    init = opened[0]
    assert isinstance(init, InitMessage)
    assert (init.agent_id, init.conversation_id) == (agent, conversation_id)
    assert (init.backend, init.model) == ("rest", "openai-proxy/scripted")
    assert result_of(again).result == "Ada."
    # By the conversation's id alone the agent is looked up; with both ids nothing is.
    async with client.resume_session(conversation_id) as session:
        assert session.agent_id == agent
        assert (await session.run_turn("Bye")).result == "Goodbye."
    async with client.resume_session(agent_id=agent, conversation_id=conversation_id) as session:
        page = await session.list_messages()
    texts = [m["content"] for m in page.messages if m["message_type"] == "user_message"]
    assert texts == ["Bye", "Who am I?", "I am Ada."]


@pytest.mark.letta_cassette("default_conversation", shared=True)
async def test_an_agent_id_means_its_default_conversation(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(Reply(text="One."), Reply(text="Two."))
    async with client.resume_session(agent) as session:
        assert session.conversation_id == "default"
        assert (await session.run_turn("first", otid="00000000-default-1")).result == "One."
    async with client.resume_session(agent) as session:
        assert (await session.run_turn("second")).result == "Two."
        page = await session.list_messages()
    direct = await client.list_messages(agent)
    assert direct.messages == page.messages
    # The server lists this conversation oldest first, whatever order is asked for.
    assert [m["content"] for m in direct.messages[:4]] == ["Two.", "second", "One.", "first"]
    assert direct.messages[3]["otid"] == "00000000-default-1"
    assert direct.messages[4]["message_type"] == "system_message"
    newest = await client.list_messages(agent, limit=2)
    older = await client.list_messages(agent, before=newest.next_before, limit=2)
    assert newest.messages + older.messages == direct.messages[:4]


@pytest.mark.letta_cassette("token_streaming", shared=True)
async def test_tokens_and_reasoning_stream(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(
        Reply(text="The answer is 42.", reasoning="They ask about life. I know that one.")
    )
    async with client.create_session(agent, include_partial_messages=True) as session:
        messages = await turn(session, "What is the answer?")
    assert types(messages) == ["init", "stream_event", "reasoning", "assistant", "result"]
    assert streamed_text(messages, "assistant") == "The answer is 42."
    assert streamed_text(messages, "reasoning") == "They ask about life. I know that one."
    reasoning, answer = messages[-3:-1]
    assert isinstance(reasoning, ReasoningMessage)
    assert isinstance(answer, AssistantMessage)
    assert reasoning.content == "They ask about life. I know that one."
    assert answer.content == "The answer is 42."
    fragments = [m for m in messages if isinstance(m, StreamEvent)]
    assert {m.otid for m in fragments} == {reasoning.otid, answer.otid}
    assert {m.run_id for m in fragments} == {answer.run_id}
    assert result_of(messages).run_ids == (answer.run_id,)


@pytest.mark.letta_cassette("step_streaming", shared=True)
async def test_without_partial_messages_the_same_messages_arrive_whole(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(Reply(text="The answer is 42.", reasoning="I know that one."))
    async with client.create_session(agent) as session:
        messages = await turn(session, "What is the answer?")
    assert types(messages) == ["init", "reasoning", "assistant", "result"]
    assert [m.content for m in messages[1:3]] == ["I know that one.", "The answer is 42."]  # type: ignore[union-attr]


@pytest.mark.letta_cassette("unicode", shared=True)
async def test_unicode_survives_both_ways(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    # Line separators that `str.splitlines` splits at, an emoji with a joiner, right-to-left text.
    text = "a\u2028b\u2029c\u0085d 👩‍🚀 שלום \x0b end\n\nnew"
    letta_cassette.script(Reply(text=["a\u2028b", "\u2029c\u0085d 👩‍🚀 ", "שלום \x0b end\n\nnew"]))
    async with client.create_session(agent, include_partial_messages=True) as session:
        messages = await turn(session, text)
        page = await session.list_messages(limit=1)
        stored = await session.list_messages()
    assert streamed_text(messages, "assistant") == text
    assert result_of(messages).result == text
    assert page.messages[0]["content"] == text
    assert text in [m.get("content") for m in stored.messages if "user" in m["message_type"]]


@pytest.mark.letta_cassette("image_input", shared=True)
async def test_an_image_is_sent_and_stored(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(Reply(text="A red dot."))
    async with client.create_session(agent) as session:
        result = await session.run_turn(["What is this?", image_from_bytes(PNG)])
        page = await session.list_messages()
    assert result.result == "A red dot."
    (user,) = [m for m in page.messages if m["message_type"] == "user_message"]
    assert [part["type"] for part in user["content"]] == ["text", "image"]
    assert user["content"][1]["source"]["media_type"] == "image/png"


@pytest.mark.letta_cassette("pagination", shared=True)
async def test_pages_go_back_and_forth_without_gaps(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(*[Reply(text=f"answer {i}") for i in range(4)])
    async with client.create_session(agent) as session:
        for i in range(4):
            assert (await session.run_turn(f"question {i}")).success
        everything = (await session.list_messages()).messages
        seen: list[dict[str, Any]] = []
        before = None
        while True:
            page = await session.list_messages(before=before, limit=3)
            assert len({m["id"] for m in page.messages}) <= 3
            seen += page.messages
            before = page.next_before
            if not page.has_more:
                break
        assert seen == everything
        first = await session.list_messages(order="asc", limit=3)
        assert first.has_more
        rest = await session.list_messages(order="asc", after=first.next_after, limit=50)
        assert not rest.has_more
    assert [m["id"] for m in first.messages + rest.messages] == [m["id"] for m in seen][::-1]
    assert [m["message_type"] for m in first.messages] == [
        "system_message",
        "user_message",
        "assistant_message",
    ]
    assert not (await client.list_messages(conversation_id=session.conversation_id)).has_more


@pytest.mark.letta_cassette("history_during_stream", shared=True)
async def test_messages_can_be_listed_while_a_turn_streams(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(Reply(text=["slow "] * 10, token_delay=0.1))
    async with client.create_session(agent, include_partial_messages=True) as session:
        await session.send("go")
        pages = []
        messages = []
        async for message in session.stream():
            messages.append(message)
            if isinstance(message, StreamEvent) and not pages:
                pages.append(await session.list_messages())
        after = await session.list_messages()
    assert result_of(messages).result == "slow " * 10
    # The server lists a turn once its step is stored, and not before.
    assert [m["message_type"] for m in pages[0].messages] == ["system_message"]
    assert [m["message_type"] for m in after.messages] == [
        "assistant_message",
        "user_message",
        "system_message",
    ]


@pytest.mark.letta_cassette("bootstrap", shared=True)
async def test_bootstrap_state_says_everything_at_once(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    letta_cassette.script(Reply(text="Hi."))
    async with client.create_session(agent) as session:
        await session.run_turn("Hello")
        state = await session.bootstrap_state()
    assert (state.agent_id, state.conversation_id) == (agent, session.conversation_id)
    assert state.model == "openai-proxy/scripted"
    assert state.tools == ()
    assert state.page.messages[0]["content"] == "Hi."
    assert not state.has_pending_approval


@pytest.mark.letta_cassette("default_agent", shared=True)
async def test_without_an_agent_the_default_one_is_made_once_and_found_again(
    new_client: Any, letta_cassette: LettaCassette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETTA_MODEL", "openai-proxy/scripted")
    letta_cassette.script(Reply(text="One."), Reply(text="Two."))
    first = await new_client().prompt("Hello")
    second = await new_client().prompt("Hello again")
    assert (first.result, second.result) == ("One.", "Two.")
    assert first.agent_id == second.agent_id
    client = new_client()
    (agent,) = await client.agents.list(tags=["letta-adapters:default"])
    assert agent["id"] == first.agent_id
    # So that a recording can be repeated.
    await client.agents.delete(agent["id"])


@pytest.mark.letta_cassette("not_found", shared=True)
async def test_what_does_not_exist_is_a_typed_error(
    client: Any, agent: str, letta_cassette: LettaCassette
) -> None:
    missing = "00000000-0000-4000-8000-00000000dead"
    with pytest.raises(NotFoundError, match="not found") as caught:
        await client.prompt("hi", f"agent-{missing}")
    assert caught.value.code == "not_found"
    assert caught.value.status_code == 404
    with pytest.raises(NotFoundError):
        await client.resume_session(f"conv-{missing}").initialize()
    with pytest.raises(NotFoundError):
        await client.resume_session(agent_id=agent, conversation_id=f"conv-{missing}").run_turn(
            "hi"
        )
    with pytest.raises(InvalidInputError) as malformed:
        await client.resume_session("agent-bogus").initialize()
    assert malformed.value.status_code == 422


@pytest.mark.letta_cassette("agents_and_conversations", shared=True)
async def test_agents_and_conversations_are_managed(client: Any, agent: str) -> None:
    updated = await client.agents.update(agent, description="changed")
    assert updated["description"] == "changed"
    found = await client.agents.retrieve(agent)
    assert {b["label"]: b["value"] for b in found["memory"]["blocks"]} == {
        "persona": "I am a test agent.",
    }
    made = await client.conversations.create(agent, summary="a talk")
    forked = await client.conversations.fork(made["id"])
    assert forked["id"] != made["id"]
    renamed = await client.conversations.update(made["id"], summary="renamed")
    assert renamed["summary"] == "renamed"
    listed = await client.conversations.list(agent)
    assert {c["id"] for c in listed} == {made["id"], forked["id"]}
    await client.conversations.delete(made["id"])
    with pytest.raises(NotFoundError):
        await client.conversations.retrieve(made["id"])
    assert "openai-proxy/scripted" in [m["handle"] for m in await client.models.list()]
    await client.agents.delete(agent)
    with pytest.raises(NotFoundError):
        await client.agents.retrieve(agent)
