"""The requests of a client that begin no turn, and what the client remembers of their answers.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from letta_adapters._utils.checks import checked_method
from letta_adapters.backends.base import Backend, Change, change_of
from letta_adapters.client.handles import Handles


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
    ) -> Any:
        """Make any call; see :meth:`~letta_adapters.AsyncLettaClient.request`."""
        self.check_usable()
        verb = checked_method(method)
        answer = await self.backend.request(verb, path, params=params, body=body)
        # A call made by hand may change or delete an agent or a conversation that something here
        # has cached, so it counts like a call of ours.
        change = change_of(verb, path, body)
        if change is not None:
            self.notice(change)
        return answer

    def watch(self, watcher: Callable[[Change], None]) -> None:
        """Call ``watcher`` with every change this client makes to an agent or a conversation."""
        self._watchers.append(watcher)

    def notice(self, change: Change) -> None:
        """Drop all that was cached of an agent or a conversation which has just changed."""
        self.backend.notice(change)
        if change.agent_id:
            self.handles.forget(change.agent_id)
        for watcher in self._watchers:
            watcher(change)
