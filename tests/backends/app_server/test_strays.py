"""A question belongs to the client whose turn asks it: nobody else answers in its user's name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient
from letta_adapters._utils.bounded import Bounded
from letta_adapters.backends.app_server import questions
from letta_adapters.backends.config import RuntimeStatus
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.app_server._server import AppServer

STATUS = RuntimeStatus(
    1, "0.34.12", datetime.now(timezone.utc), 2, 1.0, 2.0, 1.5, recycling=False, memory_mb=1.0
)


@pytest.mark.parametrize("other", ["client", "process"])
async def test_a_question_that_somebody_else_s_turn_asks_is_left_to_it(
    connect: Callable[..., AsyncLettaClient],
    server: AppServer,
    agent: str,
    model: ScriptedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other: str,
) -> None:
    asked = asyncio.Event()

    async def status() -> RuntimeStatus:
        return STATUS

    async def slowly(*_: Any) -> bool:
        asked.set()
        await asyncio.sleep(0.5)  # a person who thinks
        return True

    if other == "process":
        # What its clients sent is not known here.
        monkeypatch.setattr(questions, "_sent_here", Bounded())
        monkeypatch.setattr(questions.Strays, "sent", lambda *_: None)
    made = tmp_path / "made"
    command = ToolUse("Bash", {"command": f"touch {made}", "description": "x"})
    model.script(Reply(tool_calls=[command]), "Done.", "Second.")
    async with connect(server) as mine, connect(server, status=status) as theirs:
        async with mine.create_session(agent, can_use_tool=slowly) as session:
            turn = asyncio.create_task(_run(session, "go"))
            await asyncio.wait_for(asked.wait(), 20)
            where = {"agent_id": agent, "conversation_id": session.conversation_id}
            async with theirs.resume_session(**where) as watching:
                await watching.device_status()
                queued = asyncio.create_task(_run(watching, "and me?"))
                result = await turn
                assert (result.success, result.result) == (True, "Done."), result
                assert made.exists(), "the person allowed it, and nobody else was asked"
                # Letta Code may tell the agent of it at the next step, or in a turn of its own.
                assert (await queued).success
                assert "and me?" in str([request.messages for request in model.requests])


async def test_a_question_of_a_turn_that_nobody_is_at_any_more_is_denied(
    connect: Callable[..., AsyncLettaClient],
    server: AppServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def alone() -> RuntimeStatus:
        return replace(STATUS, clients=1)

    made = questions.Strays(True, alone)
    made.sent("cm-own")
    monkeypatch.setitem(questions._sent_here, "cm-of-another-client", None)
    assert not await made._is_somebody_else_s(("cm-own",))
    assert await made._is_somebody_else_s(("cm-of-another-client",))
    assert not await made._is_somebody_else_s(("cm-of-a-process-that-is-gone",))


async def _run(session: Any, text: str) -> Any:
    return await session.run_turn(text)
