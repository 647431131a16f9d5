"""A time limit for a turn that costs nothing per message.

``asyncio.timeout`` (3.11+) around every step would cost something for each; and it could not span
the consumer's own code between two messages, which must not be interrupted.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio

from letta_adapters.errors import TimeoutAfterAcceptanceError

# Since Python 3.11 a task counts its cancellations. Below that version a task of another class may
# do so too (that of ``backports.asyncio.runner``), but whoever cancels it does not take the count
# back.
_COUNTED = hasattr(asyncio.Task, "uncancel")


class Deadline:
    """Cancel the task that waits between :meth:`enter` and :meth:`leave` when time is up."""

    __slots__ = ("_cancels_before", "_handle", "_task", "expired", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.expired = False
        self._task: asyncio.Task[object] | None = None
        self._cancels_before = 0
        self._handle: asyncio.TimerHandle | None = None
        if seconds is not None:
            self._handle = asyncio.get_running_loop().call_later(seconds, self._fire)

    def _fire(self) -> None:
        self.expired = True
        if self._task is not None:
            self._task.cancel()

    def enter(self) -> None:
        """Begin a wait of the current task; raise the error if time is up already."""
        if self.expired:
            raise self.error()
        if self.seconds is not None:
            self._task = task = asyncio.current_task()
            # A cancel that somebody caught earlier still counts, and is not ours.
            counted = getattr(task, "cancelling", None) if _COUNTED else None
            self._cancels_before = counted() if counted is not None else 0

    def leave(self) -> None:
        """End the wait of the current task."""
        self._task = None

    def absorbs_cancel(self) -> bool:
        """Return whether the ``CancelledError`` just caught is this deadline's alone."""
        task = self._task
        if not self.expired or task is None:
            return False
        uncancel = getattr(task, "uncancel", None) if _COUNTED else None
        return uncancel is None or uncancel() <= self._cancels_before

    def error(self) -> TimeoutAfterAcceptanceError:
        """Return the error of a turn that took too long."""
        return TimeoutAfterAcceptanceError(
            f"The turn took longer than {self.seconds:g} seconds and was aborted."
        )

    def stop(self) -> None:
        """Stop the clock, because the turn is over."""
        if self._handle is not None:
            self._handle.cancel()
