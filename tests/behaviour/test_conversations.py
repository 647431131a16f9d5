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
    image_from_bytes,
    message_from_dict,
)
from letta_adapters.testing.scripted_model import Reply
from tests.behaviour._say import result_of, said, streamed_text, turn, types
from tests.behaviour._world import World

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
MISSING = "00000000-0000-4000-8000-00000000dead"


@pytest.mark.behaviour("one_shot")
async def test_prompt_answers_in_a_fresh_conversation(
    client: Any, agent: str, world: World
) -> None:
    world.script(Reply(text="Blue."), Reply(text="Still blue."))
    first = await client.prompt("What is your favourite colour?", agent)
    second = await client.prompt("And now?", agent)
    assert first.success
    assert first.result == "Blue."
    assert first.stop_reason == "end_turn"
    usage = first.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 20, 120)
    assert (usage.cached_input_tokens, usage.reasoning_tokens, usage.step_count) == (64, 5, 1)
    assert first.agent_id == agent
    assert len(first.run_ids) == 1
    assert first.raise_for_status() is first
    assert second.result == "Still blue."
    assert "conv-" in str(first.conversation_id)
    assert first.conversation_id != second.conversation_id


@pytest.mark.behaviour("multi_turn")
async def test_a_session_goes_on_and_can_be_resumed(client: Any, agent: str, world: World) -> None:
    world.script(Reply(text="Hello Ada."), Reply(text="Ada."), Reply(text="Goodbye."))
    async with client.create_session(agent) as session:
        opened = await turn(session, "I am Ada.")
        again = await turn(session, "Who am I?")
        conversation_id = session.conversation_id
    assert types(opened) == ["init", "assistant", "result"]
    assert types(again) == ["assistant", "result"]
    init = opened[0]
    assert isinstance(init, InitMessage)
    assert (init.agent_id, init.conversation_id) == (agent, conversation_id)
    assert (init.backend, init.model) == (world.backend, world.model)
    assert result_of(again).result == "Ada."
    # By the conversation's id alone the agent is looked up; with both ids nothing is.
    async with client.resume_session(conversation_id) as session:
        result = await session.run_turn("Bye")
        assert (result.result, result.agent_id, session.agent_id) == ("Goodbye.", agent, agent)
    async with client.resume_session(agent_id=agent, conversation_id=conversation_id) as session:
        page = await session.list_messages()
    assert said(page, "user_message") == ["Bye", "Who am I?", "I am Ada."]
    # The same as typed messages: one's own come back as what the user said.
    assert [m.content for m in page.messages if m.type == "user"] == [
        "Bye",
        "Who am I?",
        "I am Ada.",
    ]
    answers = [m.content for m in page.messages if m.type == "assistant"]
    assert answers == ["Goodbye.", "Ada.", "Hello Ada."]
    assert [message_from_dict(m.to_dict()) for m in page.messages] == list(page.messages)


@pytest.mark.behaviour("default_conversation")
async def test_an_agent_id_means_its_default_conversation(
    client: Any, agent: str, world: World
) -> None:
    world.script(Reply(text="One."), Reply(text="Two."))
    first_otid = world.otid("default-1")
    async with client.resume_session(agent) as session:
        assert session.conversation_id == "default"
        assert (await session.run_turn("first", otid=first_otid)).result == "One."
    async with client.resume_session(agent) as session:
        assert (await session.run_turn("second")).result == "Two."
        page = await session.list_messages()
    direct = await client.list_messages(agent)
    assert direct.raw == page.raw
    # The Letta API lists this conversation oldest first, whatever order is asked for.
    assert said(direct)[:4] == ["Two.", "second", "One.", "first"]
    assert direct.raw[3]["otid"] == first_otid
    kinds = [m["message_type"] for m in direct.raw]
    assert kinds[4:] == (["system_message"] if world.capabilities.system_message_listed else [])
    newest = await client.list_messages(agent, limit=2)
    older = await client.list_messages(agent, before=newest.next_before, limit=2)
    assert newest.raw + older.raw == direct.raw[:4]


@pytest.mark.behaviour("token_streaming")
async def test_tokens_and_reasoning_stream(client: Any, agent: str, world: World) -> None:
    world.script(Reply(text="The answer is 42.", reasoning="They ask about life. I know that one."))
    async with client.create_session(agent, include_partial_messages=True) as session:
        messages = await turn(session, "What is the answer?")
    whole = [name for name in types(messages) if name != "stream_event"]
    assert whole == ["init", "reasoning", "assistant", "result"]
    assert streamed_text(messages, "assistant") == "The answer is 42."
    assert streamed_text(messages, "reasoning") == "They ask about life. I know that one."
    (reasoning,) = [m for m in messages if isinstance(m, ReasoningMessage)]
    (answer,) = [m for m in messages if isinstance(m, AssistantMessage)]
    assert reasoning.content == "They ask about life. I know that one."
    assert answer.content == "The answer is 42."
    fragments = [m for m in messages if isinstance(m, StreamEvent)]
    assert {m.otid for m in fragments} == {reasoning.otid, answer.otid}
    assert {m.run_id for m in fragments} == {answer.run_id}
    assert result_of(messages).run_ids == (answer.run_id,)


@pytest.mark.behaviour("step_streaming")
async def test_without_partial_messages_the_same_messages_arrive_whole(
    client: Any, agent: str, world: World
) -> None:
    world.script(Reply(text="The answer is 42.", reasoning="I know that one."))
    async with client.create_session(agent) as session:
        messages = await turn(session, "What is the answer?")
    assert types(messages) == ["init", "reasoning", "assistant", "result"]
    assert [m.content for m in messages[1:3]] == ["I know that one.", "The answer is 42."]


@pytest.mark.behaviour("unicode")
async def test_unicode_survives_both_ways(client: Any, agent: str, world: World) -> None:
    # Line separators that `str.splitlines` splits at, an emoji with a joiner, right-to-left text.
    text = "a\u2028b\u2029c\u0085d 👩‍🚀 שלום \x0b end\n\nnew"
    world.script(Reply(text=["a\u2028b", "\u2029c\u0085d 👩‍🚀 ", "שלום \x0b end\n\nnew"]))
    async with client.create_session(agent, include_partial_messages=True) as session:
        messages = await turn(session, text)
        page = await session.list_messages(limit=1)
        stored = await session.list_messages()
    assert streamed_text(messages, "assistant") == text
    assert result_of(messages).result == text
    assert said(page) == [text]
    assert said(stored, "user_message") == [text]


@pytest.mark.behaviour("image_input")
async def test_an_image_is_sent_and_stored(client: Any, agent: str, world: World) -> None:
    world.script(Reply(text="A red dot."))
    async with client.create_session(agent) as session:
        result = await session.run_turn(["What is this?", image_from_bytes(PNG)])
        page = await session.list_messages()
    assert result.result == "A red dot."
    (user,) = [m for m in page.raw if m["message_type"] == "user_message"]
    assert [part["type"] for part in user["content"]] == ["text", "image"]
    assert user["content"][1]["source"]["media_type"] == "image/png"


@pytest.mark.behaviour("pagination")
async def test_pages_go_back_and_forth_without_gaps(client: Any, agent: str, world: World) -> None:
    world.script(*[Reply(text=f"answer {i}") for i in range(4)])
    async with client.create_session(agent) as session:
        for i in range(4):
            assert (await session.run_turn(f"question {i}")).success
        everything = (await session.list_messages()).raw
        seen: list[dict[str, Any]] = []
        before = None
        while True:
            page = await session.list_messages(before=before, limit=3)
            assert len({m["id"] for m in page.raw}) <= 3
            seen += page.raw
            before = page.next_before
            if not page.has_more:
                break
        assert seen == everything
        first = await session.list_messages(order="asc", limit=3)
        assert first.has_more
        rest = await session.list_messages(order="asc", after=first.next_after, limit=50)
        assert not rest.has_more
    assert [m["id"] for m in first.raw + rest.raw] == [m["id"] for m in seen][::-1]
    kinds = ["user_message", "assistant_message"] * 4
    if world.capabilities.system_message_listed:
        kinds = ["system_message", *kinds]
    assert [m["message_type"] for m in first.raw + rest.raw] == kinds
    assert not (await client.list_messages(conversation_id=session.conversation_id)).has_more


@pytest.mark.behaviour("history_during_stream")
async def test_messages_can_be_listed_while_a_turn_streams(
    client: Any, agent: str, world: World
) -> None:
    world.script(Reply(text=["slow "] * 10, token_delay=0.1))
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
    during = said(pages[0], "user_message")
    assert during == (["go"] if world.capabilities.live_history else [])
    assert said(after)[:2] == ["slow " * 10, "go"]


@pytest.mark.behaviour("bootstrap")
async def test_bootstrap_state_says_everything_at_once(
    client: Any, agent: str, world: World
) -> None:
    world.script(Reply(text="Hi."))
    async with client.create_session(agent) as session:
        await session.run_turn("Hello")
        state = await session.bootstrap_state()
    assert (state.agent_id, state.conversation_id) == (agent, session.conversation_id)
    assert state.model == world.model
    assert isinstance(state.tools, tuple)
    assert said(state.page)[0] == "Hi."
    assert not state.has_pending_approval


@pytest.mark.behaviour("default_agent")
async def test_without_an_agent_the_default_one_is_made_once_and_found_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETTA_MODEL", world.model)
    world.script(Reply(text="One."), Reply(text="Two."))
    first = await world.client().prompt("Hello")
    second = await world.client().prompt("Hello again")
    assert (first.result, second.result) == ("One.", "Two.")
    assert first.agent_id == second.agent_id
    # So that a recording can be repeated.
    await world.client().agents.delete(first.agent_id)


@pytest.mark.behaviour("not_found")
async def test_what_does_not_exist_is_a_typed_error(client: Any, agent: str, world: World) -> None:
    with pytest.raises(NotFoundError, match="not found") as caught:
        await client.prompt("hi", f"agent-{MISSING}")
    assert caught.value.code == "not_found"
    with pytest.raises(NotFoundError):
        await client.resume_session(f"conv-{MISSING}").initialize()
    with pytest.raises(NotFoundError):
        await client.resume_session(agent_id=agent, conversation_id=f"conv-{MISSING}").run_turn(
            "hi"
        )
    # The Letta API looks at the shape of an id first.
    with pytest.raises((InvalidInputError, NotFoundError), match=r"agent-bogus|agent_id"):
        await client.resume_session("agent-bogus").initialize()


@pytest.mark.behaviour("agents_and_conversations")
async def test_agents_and_conversations_are_managed(client: Any, agent: str, world: World) -> None:
    updated = await client.agents.update(agent, description="changed")
    assert updated["description"] == "changed"
    assert (await client.agents.retrieve(agent))["description"] == "changed"
    made = await client.conversations.create(agent, summary="a talk")
    forked = await client.conversations.fork(made["id"])
    assert forked["id"] != made["id"]
    renamed = await client.conversations.update(made["id"], summary="renamed")
    assert renamed["summary"] == "renamed"
    listed = await client.conversations.list(agent)
    assert {c["id"] for c in listed} == {made["id"], forked["id"]}
    if world.capabilities.removable_conversations:
        await client.conversations.delete(made["id"])
        with pytest.raises(NotFoundError):
            await client.conversations.retrieve(made["id"])
    assert world.model in [m["handle"] for m in await client.models.list()]
    await client.agents.delete(agent)
    with pytest.raises(NotFoundError):
        await client.agents.retrieve(agent)


@pytest.mark.behaviour("sends_in_a_row")
async def test_messages_sent_in_a_row_are_answered_one_by_one(
    client: Any, agent: str, world: World
) -> None:
    world.script(Reply(text="One."), Reply(text="Two."), Reply(text="Three."))
    async with client.create_session(agent) as session:
        for text in ("first", "second", "third"):
            await session.send(text)
        assert [item["content"] for item in await session.queued()] == ["second", "third"]
        for answer in ("One.", "Two.", "Three."):
            assert result_of([m async for m in session.stream()]).result == answer
        page = await session.list_messages(order="asc")
    assert said(page, "user_message") == ["first", "second", "third"]
    assert said(page, "assistant_message") == ["One.", "Two.", "Three."]


@pytest.mark.behaviour("abandoned_before_another", timing=True)
async def test_a_stream_that_was_left_is_stopped_and_the_message_behind_it_answered(
    client: Any, agent: str, world: World
) -> None:
    world.script(world.slow(9), Reply(text="Two."))
    async with client.create_session(agent, include_partial_messages=True) as session:
        await session.send("first")
        await session.send("second")
        stream = session.stream()
        async for message in stream:
            if isinstance(message, StreamEvent):
                break
        await stream.aclose()
        assert result_of([m async for m in session.stream()]).result == "Two."
