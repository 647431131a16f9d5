"""The five contracts of Letta's TypeScript SDK, as functions of a client and an agent.

They are those that the live tests of ``@letta-ai/letta-code-sdk`` check. They run offline against
recordings and a local server (``tests/behaviour``), and live against the server that ``LETTA_*``
names (``tests/live``), with the async client and the sync one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from letta_adapters import (
    AssistantMessage,
    InitMessage,
    ReasoningMessage,
    ResultMessage,
    StreamEvent,
    ToolCallMessage,
    ToolResultMessage,
    extract_stream_text_delta,
)
from letta_adapters.testing.scripted_model import Reply, ToolUse

Script = Callable[..., None]

SECRET = "quartz-7"


def secret_word(language: str) -> str:
    """Look up the secret word. Use it whenever the user asks for the secret word.

    Args:
        language: Language of the word, such as "en".
    """
    return f"{SECRET} ({language})"


def open_session(client: Any, agent_id: str, conversation_id: str | None, **options: Any) -> Any:
    """Return a session in the named conversation, or in a fresh one."""
    if conversation_id is None:
        return client.create_session(agent_id, **options)
    return client.resume_session(agent_id=agent_id, conversation_id=conversation_id, **options)


async def check_session_init(client: Any, agent_id: str, conversation_id: str | None) -> None:
    """Check contract 1: opening a session gives its ids, model and tools."""
    session = open_session(client, agent_id, conversation_id)
    # Before it is opened a session has asked nothing, so it knows nothing.
    assert (session.agent_id, session.conversation_id, session.session_id) == (None, None, None)
    async with session:
        init = await session.initialize()
        assert isinstance(init, InitMessage)
        assert init.type == "init"
        assert init.agent_id == agent_id == session.agent_id
        assert init.conversation_id == session.conversation_id
        assert conversation_id in (None, init.conversation_id)
        assert init.session_id == session.session_id
        assert init.session_id.startswith("session-")
        assert isinstance(init.tools, tuple)


async def check_send_and_stream(
    client: Any, agent_id: str, conversation_id: str | None, script: Script
) -> None:
    """Check contract 2: a turn streams fragments, then whole messages, and ends with one result."""
    script(Reply(text="Contracts hold today.", reasoning="They want four words. Four it is."))
    async with open_session(
        client, agent_id, conversation_id, include_partial_messages=True
    ) as session:
        await session.send("Say in four words that contracts hold.")
        messages = [message async for message in session.stream()]
    results = [m for m in messages if isinstance(m, ResultMessage)]
    # Exactly one result, and nothing after it: readers stop there.
    assert results == messages[-1:]
    result = results[0]
    assert result.success, result
    answers = [m for m in messages if isinstance(m, AssistantMessage)]
    assert answers
    assert result.result == answers[-1].content != ""
    assert result.usage.total_tokens > 0
    assert result.duration_ms > 0
    assert result.run_ids
    events = [m for m in messages if isinstance(m, StreamEvent)]
    # Joined, the fragments must be exactly the complete messages.
    deltas = [extract_stream_text_delta(event) for event in events]
    for kind, whole in (("assistant", answers), ("reasoning", _reasoning(messages))):
        text = "".join(d.text for d in deltas if d is not None and d.kind == kind)
        assert text == "".join(m.content for m in whole)
    otids = [m.otid for m in messages if isinstance(m, AssistantMessage | ReasoningMessage)]
    assert len(otids) == len(set(otids))


def _reasoning(messages: list[Any]) -> list[ReasoningMessage]:
    return [m for m in messages if isinstance(m, ReasoningMessage) and not m.redacted]


async def check_backfill_and_pages(
    client: Any, agent_id: str, conversation_id: str | None, script: Script
) -> None:
    """Check contract 3: messages can be listed, newest first, in pages that fit together."""
    script(Reply(text="One."), Reply(text="Two."))
    async with open_session(client, agent_id, conversation_id) as session:
        for word in ("one", "two"):
            result = await session.run_turn(f"Answer with the word {word}.")
            assert result.success, result
        page = await session.list_messages(limit=2)
        assert page.has_more
        assert page.raw
        assert page.next_before == page.raw[-1]["id"]
        older = await session.list_messages(before=page.next_before, limit=2)
        ids = {m["id"] for m in page.raw}
        assert ids.isdisjoint(m["id"] for m in older.raw)
        # The order is checked by what was said: ids do not tell which message is the newer one.
        recent = [m for m in (page.raw + older.raw) if m["message_type"] == "user_message"]
        assert "two" in str(recent[0]["content"])
        # Without a session the client must list the same.
        direct = await client.list_messages(agent_id, session.conversation_id, limit=2)
        assert [m["id"] for m in direct.raw] == [m["id"] for m in page.raw]


async def check_list_while_streaming(
    client: Any, agent_id: str, conversation_id: str | None, script: Script
) -> None:
    """Check contract 4: messages can be listed while a turn streams, without disturbing it."""
    script(Reply(text=["steady "] * 8, token_delay=0.1))
    async with open_session(
        client, agent_id, conversation_id, include_partial_messages=True
    ) as session:
        await session.send("Count slowly from one to twenty, in words.")
        listing = None
        messages = []
        async for message in session.stream():
            messages.append(message)
            # Only while the turn streams, so that the two really overlap.
            if listing is None and isinstance(message, StreamEvent):
                listing = asyncio.ensure_future(session.list_messages(limit=5))
        assert listing is not None
        assert (await listing).messages
    result = messages[-1]
    assert isinstance(result, ResultMessage)
    assert result.success, result


async def check_tool_lifecycle(
    client: Any, agent_id: str, conversation_id: str | None, script: Script
) -> None:
    """Check contract 5: a client-side tool's call is followed by its result, which is then used."""
    script(
        Reply(tool_calls=[ToolUse("secret_word", {"language": "en"})]),
        Reply(text=f"The secret word is {SECRET}."),
    )
    async with open_session(
        client, agent_id, conversation_id, tools=[secret_word], include_partial_messages=True
    ) as session:
        await session.send("What is the secret word in English? Use your tool to find out.")
        messages = [message async for message in session.stream()]
    call = next(m for m in messages if isinstance(m, ToolCallMessage))
    returned = next(m for m in messages if isinstance(m, ToolResultMessage))
    assert call.tool_name == "secret_word"
    assert "language" in call.tool_input
    assert returned.tool_call_id == call.tool_call_id
    assert (returned.is_error, SECRET in returned.content) == (False, True)
    # A user interface that shows a result before its call would have nowhere to put it.
    assert messages.index(call) < messages.index(returned)
    result = messages[-1]
    assert isinstance(result, ResultMessage)
    assert result.success, result
    assert SECRET in (result.result or "")
    assert result.usage.step_count >= 2
