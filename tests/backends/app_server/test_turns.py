"""Turns: text, reasoning, tools and permissions, as the real server does them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from letta_adapters import (
    Allow,
    AsyncLettaClient,
    Deny,
    ToolCallMessage,
    ToolResultMessage,
)
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse


def bash(command: str) -> ToolUse:
    return ToolUse("Bash", {"command": command, "description": "a test"})


async def collect(session: Any, message: str = "go") -> list[Any]:
    await session.send(message)
    return [item async for item in session.stream()]


def only(kind: type, messages: list[Any]) -> list[Any]:
    return [m for m in messages if isinstance(m, kind)]


async def test_two_turns_of_one_conversation(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    model.script("First answer.", "Second answer.")
    async with client.create_session(agent) as session:
        first = await session.run_turn("one")
        second = await session.run_turn("two")
    assert (first.success, first.result) == (True, "First answer."), first
    assert (second.result, second.stop_reason) == ("Second answer.", "end_turn")
    sent = model.requests[-1].messages
    assert [m["content"] for m in sent if m["role"] == "assistant"] == ["First answer."]
    assert first.conversation_id == second.conversation_id == session.conversation_id
    assert first.run_ids != second.run_ids


async def test_a_client_side_tool(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    def secret(language: str) -> str:
        """The secret word."""
        return f"quartz ({language})"

    model.script(
        Reply(text="I look.", tool_calls=[ToolUse("secret", {"language": "en"})]),
        Reply(text="It is quartz."),
    )
    async with client.create_session(agent, tools=[secret]) as session:
        messages = await collect(session)
    call = only(ToolCallMessage, messages)[0]
    assert (call.tool_name, call.tool_input) == ("secret", {"language": "en"})
    assert call.requires_approval
    returned = only(ToolResultMessage, messages)
    assert [(r.tool_call_id, r.content, r.is_error) for r in returned] == [
        (call.tool_call_id, "quartz (en)", False)
    ]
    assert messages.index(call) < messages.index(returned[0])
    result = messages[-1]
    assert (result.success, result.result, result.usage.step_count) == (True, "It is quartz.", 2)
    assert model.requests[-1].messages[-1]["content"] == "quartz (en)"


async def test_parallel_client_tools_run_at_the_same_time(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    both = asyncio.Barrier(2) if hasattr(asyncio, "Barrier") else None

    async def left(a: int) -> str:
        """Left."""
        if both is not None:
            await asyncio.wait_for(both.wait(), 5)
        return f"left {a}"

    async def right(a: int) -> str:
        """Right."""
        if both is not None:
            await asyncio.wait_for(both.wait(), 5)
        return f"right {a}"

    model.script(
        Reply(tool_calls=[ToolUse("left", {"a": 1}), ToolUse("right", {"a": 2})]), Reply("done")
    )
    async with client.create_session(agent, tools=[left, right]) as session:
        messages = await collect(session)
    assert messages[-1].success, messages[-1]
    returned = {r.tool_call_id: r.content for r in only(ToolResultMessage, messages)}
    assert returned == {"call_1": "left 1", "call_2": "right 2"}


async def test_a_tool_that_fails(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    def broken() -> str:
        """Fails."""
        raise ValueError("no such file")

    model.script(Reply(tool_calls=[ToolUse("broken", {})]), Reply("sorry"))
    async with client.create_session(agent, tools=[broken]) as session:
        messages = await collect(session)
    returned = only(ToolResultMessage, messages)[0]
    assert returned.is_error
    assert "no such file" in returned.content
    assert "no such file" in str(model.requests[-1].messages[-1]["content"])
    assert messages[-1].result == "sorry"


async def test_without_a_callback_a_tool_is_denied_with_an_explanation(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, project: Path
) -> None:
    model.script(Reply(tool_calls=[bash("touch made.txt")]), Reply("ok"))
    async with client.create_session(agent, cwd=project) as session:
        messages = await collect(session)
    returned = only(ToolResultMessage, messages)
    assert len(returned) == 1
    assert returned[0].is_error
    assert "no way to give one" in returned[0].content
    assert "no way to give one" in str(model.requests[-1].messages[-1]["content"])
    assert messages[-1].success
    assert not (project / "made.txt").exists()


async def test_allow(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, project: Path
) -> None:
    asked: list[Any] = []

    def decide(name: str, tool_input: Any, context: Any) -> Allow:
        asked.append((name, tool_input, context))
        return Allow()

    model.script(Reply(tool_calls=[bash("echo hi > made.txt")]), Reply("ok"))
    async with client.create_session(agent, cwd=project, can_use_tool=decide) as session:
        messages = await collect(session)
    assert messages[-1].success, messages[-1]
    assert (project / "made.txt").read_text() == "hi\n"
    name, tool_input, context = asked[0]
    assert (name, tool_input["command"]) == ("Bash", "echo hi > made.txt")
    assert context.suggestions[0]["id"] == "save-default"
    assert (context.client_tool, context.agent_id) == (False, agent)
    assert (context.kind, type(context.default)) == ("executes", Deny)
    call = only(ToolCallMessage, messages)[0]
    assert call.requires_approval


async def test_edited_input_replaces_the_command(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, project: Path
) -> None:
    def decide(name: str, tool_input: Any, context: Any) -> Allow:
        return Allow({**tool_input, "command": "touch edited.txt"})

    model.script(Reply(tool_calls=[bash("touch made.txt")]), Reply("ok"))
    async with client.create_session(agent, cwd=project, can_use_tool=decide) as session:
        result = await session.run_turn("go")
    assert result.success, result
    assert (project / "edited.txt").exists()
    assert not (project / "made.txt").exists()


async def test_a_diff_is_part_of_the_question(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, project: Path
) -> None:
    file = project / "f.txt"
    file.write_text("one\ntwo\n")
    contexts: list[Any] = []

    def decide(name: str, tool_input: Any, context: Any) -> bool:
        contexts.append(context)
        return True

    model.script(
        Reply(tool_calls=[ToolUse("Read", {"file_path": str(file)})]),
        Reply(
            tool_calls=[
                ToolUse(
                    "Edit", {"file_path": str(file), "old_string": "two", "new_string": "three"}
                )
            ]
        ),
        Reply("ok"),
    )
    async with client.create_session(agent, cwd=project, can_use_tool=decide) as session:
        messages = await collect(session)
    assert file.read_text() == "one\nthree\n"
    assert [context.kind for context in contexts] == ["reads_cwd", "writes_cwd"]
    assert contexts[1].diffs[0]["fileName"] == "f.txt"
    calls = only(ToolCallMessage, messages)
    assert [(c.tool_name, c.requires_approval) for c in calls] == [("Read", True), ("Edit", True)]


async def test_a_saved_suggestion_is_not_asked_again(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, project: Path
) -> None:
    asked: list[str] = []

    def decide(name: str, tool_input: Any, context: Any) -> Allow:
        asked.append(name)
        return Allow(save=tuple(s["id"] for s in context.suggestions))

    again = Reply(tool_calls=[bash("touch a.txt")])
    model.script(again, again, Reply("ok"))
    async with client.create_session(agent, cwd=project, can_use_tool=decide) as session:
        result = await session.run_turn("go")
    assert result.success
    assert asked == ["Bash"]


async def test_a_model_that_insists_on_what_is_refused_beforehand_is_stopped(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    model.script(*(Reply(tool_calls=[bash(f"echo {n}")]) for n in range(12)))
    async with client.create_session(agent, max_denied_rounds=3) as session:
        result = await session.run_turn("go")
        assert (result.success, result.error_code) == (False, "denied_rounds")
        asked = len(model.requests)
        assert asked <= 6
        model.script("Here I am.")
        assert (await session.run_turn("and now?")).result == "Here I am."
