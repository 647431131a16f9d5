"""The controls of a session (model, toolset, queue), for synchronous code.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from letta_adapters.client.session import AsyncSession
    from letta_adapters.options import PermissionMode, Toolset


class Controls:
    """The controls of a session; see :class:`~letta_adapters.client.controls.AsyncControls`."""

    # For type checkers alone: :class:`~letta_adapters.Session` brings both.
    if TYPE_CHECKING:

        @property
        def _core(self) -> AsyncSession: ...

        def _run(self, work: Coroutine[Any, Any, Any]) -> Any: ...

    def update_model(self, model: str) -> None:
        """Use another model in this conversation from the next turn on (not in others)."""
        self._run(self._core.update_model(model))

    def update_toolset(self, toolset: Toolset) -> None:
        """Use another set of Letta Code's own tools from the next turn on; ``"none"`` for none."""
        self._run(self._core.update_toolset(toolset))

    def change_device_state(
        self,
        *,
        permission_mode: PermissionMode | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        """Change the permission mode or the working directory at once, also in a running turn."""
        self._run(self._core.change_device_state(permission_mode=permission_mode, cwd=cwd))

    def device_status(self) -> dict[str, Any]:
        """Return the server's own description of this conversation's state."""
        return dict(self._run(self._core.device_status()))

    def queued(self) -> tuple[Mapping[str, Any], ...]:
        """Return the messages that wait behind a running turn."""
        return tuple(self._run(self._core.queued()))

    def remove_queued(self, item_id: str) -> bool:
        """Take a message out of the queue; return ``False`` if it is not in it (any more)."""
        return bool(self._run(self._core.remove_queued(item_id)))

    def resume_queue(self) -> int:
        """Let the messages go on that an abort has put on hold, and return their number."""
        return int(self._run(self._core.resume_queue()))
