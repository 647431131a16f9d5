"""Internal: the texts by which clients and sessions show themselves to whoever prints them."""

from __future__ import annotations


def show_object(of: object, state: str = "", **facts: object) -> str:
    """Return the repr of an object that is alive: its class, what it is about, and its state.

    Args:
        of: The object.
        state: A word like ``"open"``.
        **facts: What it is about; those that are ``None`` are not known yet, and left out.
    """
    known = [f"{name}={value!r}" for name, value in facts.items() if value is not None]
    return f"<{' '.join([type(of).__name__, *known, *([state] if state else [])])}>"
