"""The synchronous twin of :mod:`letta_adapters.controls`."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from letta_adapters.options import PermissionMode, Toolset
    from letta_adapters.session import AsyncSession


class Controls:
    """See :class:`~letta_adapters.controls.AsyncControls`."""

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
        """What the server says of this conversation's place."""
        return dict(self._run(self._core.device_status()))

    def queued(self) -> tuple[Mapping[str, Any], ...]:
        """The messages that wait behind a running turn."""
        return tuple(self._run(self._core.queued()))

    def remove_queued(self, item_id: str) -> bool:
        """Take a message out of the queue. ``False`` if it is not (any more) in it."""
        return bool(self._run(self._core.remove_queued(item_id)))

    def resume_queue(self) -> int:
        """Let the messages go on that an abort has put on hold; how many there were."""
        return int(self._run(self._core.resume_queue()))
