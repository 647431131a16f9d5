"""What tests of tool calls have in common."""

from __future__ import annotations

from typing import Any

from tests.faults._server import Server


def answers(server: Server, at: int = 1) -> list[dict[str, Any]]:
    """The answers to tool calls in the ``at``-th request."""
    approvals: list[dict[str, Any]] = server.sent()[at].messages[0]["approvals"]
    return approvals


def answered(server: Server) -> list[dict[str, Any]]:
    """The last answers to tool calls, alone or with a message."""
    return next(r.approvals for r in reversed(server.sent()) if r.approvals)


def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


async def read(session: Any, text: str = "hello") -> list[Any]:
    await session.send(text)
    return [message async for message in session.stream()]
