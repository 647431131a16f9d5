"""Internal: read the arguments of a tool call, which models write as JSON text."""

from __future__ import annotations

import json
from typing import Any, Final

# The agent is shown this many characters of arguments that cannot be read.
_SHOWN: Final = 2000


def arguments_in(raw: str) -> dict[str, Any] | None:
    """Return the arguments of a tool call, or ``None`` for text that is no JSON object.

    An empty text and ``null`` count as no arguments: some models call a tool that way.
    """
    text = raw.strip()
    if text in ("", "null"):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        # Arguments nested by the thousand make the JSON reader recurse too deep: broken like any
        # other.
        return None
    return value if isinstance(value, dict) else None


def broken_arguments(name: str, raw: str) -> str:
    """Return a text that tells the agent its arguments are broken; ``""`` if they can be read."""
    if arguments_in(raw) is not None:
        return ""
    shown = raw if len(raw) <= _SHOWN else f"{raw[:_SHOWN]}..."
    return f"{name} was not run: its arguments are no JSON object: {shown}"
