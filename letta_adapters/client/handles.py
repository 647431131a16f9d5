"""The model of each agent, as far as a client was told of it lately.

Internal: not part of the public API.
"""

from __future__ import annotations

import time
from typing import Final

from letta_adapters._utils.bounded import Bounded

# Others may give an agent another model, so after this time it is asked for again.
_SECONDS: Final = 600.0


class Handles:
    """The handles of agents' models, by agent; bounded, and shared by all that use a client."""

    def __init__(self) -> None:
        self._known: Bounded[str, tuple[str | None, float]] = Bounded()

    def __len__(self) -> int:
        return len(self._known)

    def note(self, agent_id: str, handle: object) -> None:
        """Remember an agent's model: its handle, or that it has none."""
        told = handle if isinstance(handle, str) and handle else None
        self._known[agent_id] = (told, time.monotonic())

    def forget(self, agent_id: str) -> None:
        """Forget an agent's model, which may have changed."""
        self._known.pop(agent_id, None)

    def knows(self, agent_id: str) -> bool:
        """Return whether the model is known, and was told lately."""
        return agent_id in self._known and time.monotonic() - self._known[agent_id][1] < _SECONDS

    def get(self, agent_id: str) -> str | None:
        """Return the handle; ``None`` if there is none, or none is known."""
        return self._known[agent_id][0] if agent_id in self._known else None
