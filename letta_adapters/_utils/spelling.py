"""Internal: find the name that an unknown one may mean: a TypeScript one, or one misspelt."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Final

_SESSION: Final = "It is an option of a session: create_session(agent_id, {}=...)."
# Options of the TypeScript SDKs (docs/typescript.md) that are not called the same here, in Python's
# spelling, and what is there instead.
_OTHERS: Final[Mapping[str, str]] = {
    "agent_id": "The agent's id comes first: create_session(agent_id, ...).",
    "api_base_url": "It is called 'base_url' here: Rest(base_url=...).",
    "app_server": "Its settings are those of Local(...).",
    "approval_recovery_timeout_ms": "Each request has request_timeout seconds: Rest(...).",
    "block_id": "Existing blocks are given by their ids: create_agent(block_ids=[...]).",
    "can_use_tool": _SESSION.format("can_use_tool"),
    "conversation_id": "Use resume_session(conversation_id=...).",
    "dreaming": "It is called 'sleeptime' here.",
    "env": "The variables are those of the server: Local(env=...).",
    "environment": "Another machine is reached by its address: Remote(url=...).",
    "fetch": "Give the client an HTTP client of your own: LettaClient(http_client=...).",
    "filesystem_confinement": "Use permission_mode='strict' and can_use_tool.",
    "harness_backend": "It is called 'api' here: Local(api=...).",
    "max_approval_recovery_attempts": "It is called 'recovery_attempts' here.",
    "reasoning_effort": "It belongs to the model_settings of the agent or the conversation.",
    "resources": "Repositories of Letta's cloud are not supported.",
    "sandbox": "Sandboxes of Letta's cloud are not supported; use Remote(url=...).",
    "startup_timeout_ms": "It is called 'start_timeout' here, in seconds.",
    "tools": _SESSION.format("tools"),
    "url": "A server elsewhere is reached by its address: Remote(url=...).",
    "web_socket": "Give the client a function that connects: LettaClient(connector=...).",
}


def to_snake_case(name: str) -> str:
    """Return a name of TypeScript's as Python, and the Letta API, spell it."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def did_you_mean(name: str, known: Iterable[str] = ()) -> str:
    """Return a sentence that says what an unknown name may mean; ``""`` if nothing is like it.

    Args:
        name: The name that was given.
        known: The names that could have been given instead.
    """
    names = list(known)
    snake = to_snake_case(name)
    if snake != name and snake in names:
        return f"Did you mean {snake!r}?"
    # Times are milliseconds in TypeScript.
    if snake.endswith("_ms") and snake[:-3] in names:
        return f"Did you mean {snake[:-3]!r}, in seconds?"
    if snake in _OTHERS:
        return _OTHERS[snake]
    near = difflib.get_close_matches(snake, names, n=2, cutoff=0.6)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
