"""Internal: the limits of a room."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from letta_adapters.errors import InvalidInputError
from letta_adapters.permissions import Allow, Deny, Postpone

# The reports of tools that a room passes on at once, and those a second after that.
REPORTS_AT_ONCE: Final = 50
REPORTS_A_SECOND: Final = 10.0


class Pace:
    """The pace at which a room passes the reports of tools on to its viewers.

    A tool may report thousands of times a second. Each report would be an event for each viewer,
    who would be too slow for them, and be dropped.

    Args:
        clock: Tells the time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(REPORTS_AT_ONCE)
        self._seen = clock()

    def takes(self) -> bool:
        """Return whether one more report is passed on now."""
        now = self._clock()
        grown = self._left + (now - self._seen) * REPORTS_A_SECOND
        self._left, self._seen = min(float(REPORTS_AT_ONCE), grown), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class HubOptions:
    """The limits of a room.

    Attributes:
        history: The number of stored messages that a viewer who comes is shown.
        replay_events: The number of events that are kept for viewers who come back.
        replay_characters: The size of their JSON together.
        viewer_lag: The number of events that a viewer may be behind before it is dropped.
        max_viewers: The number of viewers at a time.
        max_queue: The number of messages that wait while a turn runs.
        max_message_characters: The length of a message.
        close_after: The seconds after which a room that its last viewer has left is closed, with
            the turn that runs; ``None`` to go on.
        approval_timeout: The seconds that a tool call waits for an answer; ``None`` for no limit.
        approval_timeout_answer: The answer that is given then.
    """

    history: int = 50
    replay_events: int = 5000
    replay_characters: int = 16 * 1024 * 1024
    viewer_lag: int = 1000
    max_viewers: int = 100
    max_queue: int = 20
    max_message_characters: int = 16_000
    close_after: float | None = 30.0
    approval_timeout: float | None = 300.0
    approval_timeout_answer: Allow | Deny | Postpone = field(default_factory=Deny)

    def __post_init__(self) -> None:
        if not 1 <= self.history <= 1000:
            raise InvalidInputError("history must be a number from 1 to 1000.")
        for name in ("replay_events", "replay_characters", "viewer_lag", "max_viewers"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1.")
        if self.max_queue < 0 or self.max_message_characters < 1:
            raise InvalidInputError("max_queue and max_message_characters must not be negative.")
        if self.close_after is not None and self.close_after < 0:
            raise InvalidInputError("close_after must not be negative; None is for going on.")
        if self.approval_timeout is not None and self.approval_timeout <= 0:
            raise InvalidInputError("approval_timeout must be positive; None is for no limit.")
