"""Internal: what one viewer reads: a place in the log of its room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from letta_adapters.web.access import Viewer
from letta_adapters.web.events import Event, EventLog, make_event


class Watch(AsyncIterator[Event]):
    """The events of a room as one viewer reads them; made by ``Hub.watch``.

    Args:
        viewer: The viewer.
        log: The room's log.
        max_lag: The number of events that the viewer may be behind.
        leave: Called when the viewer leaves.
    """

    def __init__(
        self, viewer: Viewer, log: EventLog, max_lag: int, leave: Callable[[Watch], None]
    ) -> None:
        self.viewer = viewer
        self._log = log
        self._max_lag = max_lag
        self._leave = leave
        self._woken = asyncio.Event()
        self._first: Event | None = None
        self._place = 0
        self._caught_up_at = 0
        self._over = False

    def start(self, place: int, snapshot: Event | None) -> None:
        """Begin after a place in the log.

        Args:
            place: The place.
            snapshot: What is shown first.
        """
        self._first = snapshot
        self._place = place
        self._caught_up_at = self._log.last

    def wake(self) -> None:
        """Tell that there is an event."""
        self._woken.set()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Event:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        while not self._over:
            if self._is_too_slow():
                return self._drop()
            event = self._log.after(self._place)
            if event is not None:
                self._place = event.number
                self._over = event.kind == "closed"
                return event
            # Nothing has waited since the look above, so no event can be missed between the two.
            self._woken.clear()
            await self._woken.wait()
        self.close()
        raise StopAsyncIteration

    def _is_too_slow(self) -> bool:
        log = self._log
        if self._place < log.first - 1:
            return True
        # What was there when the viewer came it may read at its own speed.
        lag = log.last - max(self._place, self._caught_up_at)
        return lag > self._max_lag

    def _drop(self) -> Event:
        self._over = True
        told = {
            "code": "too_slow",
            "message": "This viewer did not keep up.",
            "hint": "Come back with the id of the last event.",
        }
        return make_event("dropped", told, id=self._log.name(self._place), number=self._place)

    def close(self) -> None:
        """Leave the room; it can be called more than once."""
        self._over = True
        self._woken.set()
        self._leave(self)

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
