"""Internal: the requests of a client, of which whoever caches agents or conversations is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from letta_adapters._utils.bounded import Bounded
from letta_adapters._utils.checks import check_method
from letta_adapters.backends.base import (
    Backend,
    Change,
    Files,
    find_change,
    find_command_change,
)

# Others may give an agent another model, so after this time it is asked for again.
_HANDLE_SECONDS: Final = 600.0


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
        return (
            agent_id in self._known
            and time.monotonic() - self._known[agent_id][1] < _HANDLE_SECONDS
        )

    def get(self, agent_id: str) -> str | None:
        """Return the handle; ``None`` if there is none, or none is known."""
        return self._known[agent_id][0] if agent_id in self._known else None


class Requests:
    """Requests to one backend; whoever caches agents or conversations is told of their changes.

    Args:
        backend: The backend on which the agents live.
        check_usable: Raises if the client is closed, or belongs to another event loop.
    """

    def __init__(self, backend: Backend, check_usable: Callable[[], None]) -> None:
        self.backend = backend
        self.check_usable = check_usable
        self.handles = Handles()
        # Functions to call when an agent or a conversation changes, because they cache parts of it.
        self._watchers: list[Callable[[Change], None]] = []

    async def make(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        files: Files | None = None,
    ) -> Any:
        """Make any call; see :meth:`~letta_adapters.AsyncLettaClient.request`."""
        self.check_usable()
        verb = check_method(method)
        if verb == "COMMAND" and files is None:
            return await self.command(path, **{**(params or {}), **(body or {})})
        return await self.make_last(verb, path, params=params, body=body, files=files)

    async def make_last(
        self,
        verb: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        files: Files | None = None,
    ) -> Any:
        """Make a call of a clean-up, which a client that is closing waits for."""
        answer = await self.backend.request(verb, path, params=params, body=body, files=files)
        # A call made by hand may change or delete an agent or a conversation that something here
        # has cached, so it counts like a call of ours.
        self.notice(find_change(verb, path, body))
        return answer

    async def command(self, name: str, /, **fields: Any) -> dict[str, Any]:
        """Send a command; see :class:`~letta_adapters.backends.base.Backend`."""
        self.check_usable()
        answer = await self.backend.command(name, **fields)
        self.notice(find_command_change(name, fields))
        return answer

    def watch(self, watcher: Callable[[Change], None]) -> None:
        """Call ``watcher`` with every change this client makes to an agent or a conversation."""
        self._watchers.append(watcher)

    def notice(self, change: Change | None) -> None:
        """Drop all that was cached of an agent or a conversation which has just changed."""
        if change is None:
            return
        self.backend.notice(change)
        if change.agent_id:
            self.handles.forget(change.agent_id)
        for watcher in self._watchers:
            watcher(change)
