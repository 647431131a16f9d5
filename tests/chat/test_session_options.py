"""Session options of an adapter: what only a session's own loop would use is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters.chat.request import read_session
from letta_adapters.errors import InvalidInputError


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("tools", [print], r"bind_tools\(\)"),
        ("mcp_servers", {"files": {"command": "files"}}, "MCP"),
        ("can_use_tool", lambda *_: False, "can_use_tool=..."),
        ("ask_timeout", 3.0, "can_use_tool=..."),
        ("ask_timeout_answer", False, "can_use_tool=..."),
        ("include_partial_messages", True, "Stream"),
        ("max_steps", 3, "max_steps"),
        ("turn_timeout", 3.0, "timeout"),
        ("max_denied_rounds", 3, "rounds"),
        ("recovery_attempts", 3, "Leave it out"),
    ],
)
def test_an_option_that_nothing_would_use_is_refused(name: str, value: Any, instead: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"session_options\['{name}'\].*{instead}"):
        read_session({name: value}, None)


def test_what_a_conversation_has_is_taken() -> None:
    options = read_session({"allowed_tools": ["Bash"], "cwd": "/"}, "low")
    assert options.allowed_tools == ("Bash",)
    assert options.reasoning_effort == "low"
