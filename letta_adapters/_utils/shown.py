"""Internal: the texts by which objects show themselves to whoever prints them."""

from __future__ import annotations

from typing import Final

# The characters of a text that a repr shows.
_MAX_CHARS: Final = 60


def show_object(of: object, state: str = "", **facts: object) -> str:
    """Return the repr of an object that is alive: its class, what it is about, and its state.

    Args:
        of: The object.
        state: A word like ``"open"``.
        **facts: What it is about; those that are ``None`` are not known yet, and left out.
    """
    known = [f"{name}={value!r}" for name, value in facts.items() if value is not None]
    return f"<{' '.join([type(of).__name__, *known, *([state] if state else [])])}>"


def cut_text(text: str) -> str:
    """Return the first words of a text."""
    line = text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS].rstrip()}..."
    return repr(line)
