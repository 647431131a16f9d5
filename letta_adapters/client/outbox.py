"""Keep the turns that a session has sent, to be read, waiting, or never sent after all.

Internal: not part of the public API.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from letta_adapters.client.turn import Turn
from letta_adapters.errors import ConversationBusyError

# The number of messages of one session that may wait behind its turn.
MAX_QUEUED: Final = 100

_log = logging.getLogger("letta_adapters.session")


class Outbox:
    """The turns of one session that are not read to their end, oldest first."""

    def __init__(self) -> None:
        self._turns: list[Turn] = []

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns that are not over, and those whose end nobody has read."""
        # Looked through at each use: turns end by themselves and tell nobody.
        self._turns = [turn for turn in self._turns if not (turn.finished and turn.streamed)]
        return tuple(self._turns)

    @property
    def current(self) -> Turn | None:
        """The turn that runs, if one does."""
        return next((turn for turn in self.turns if turn.begun and not turn.finished), None)

    @property
    def busy(self) -> bool:
        """True if another message must wait for one of these turns."""
        return any(not turn.finished and not turn.given_up(None) for turn in self.turns)

    @property
    def unsent(self) -> tuple[Mapping[str, Any], ...]:
        """The messages that will never be sent."""
        return tuple(turn.item for turn in self.turns if turn.unsent)

    def add(self, turn: Turn) -> None:
        """Add a turn that was accepted, or that waits; forget those that were aborted unread."""
        self._turns = [one for one in self.turns if not one.aborted or one.streamed]
        self._turns.append(turn)

    def remove(self, turn: Turn) -> None:
        """Remove a turn whose message was taken back."""
        # A turn that has a stream stays: its reader still gets the end.
        if not turn.streamed:
            self._turns = [one for one in self._turns if one is not turn]

    def check_room(self) -> None:
        """Refuse a message that would make too many wait.

        Raises:
            ConversationBusyError: There is no room.
        """
        waiting = [turn for turn in self.turns if not turn.begun and not turn.finished]
        if len(waiting) >= MAX_QUEUED:
            raise ConversationBusyError(
                f"{len(waiting)} messages of this session wait already.",
                hint="Read their streams first.",
                accepted=False,
            )

    def check_read(self, owner: object) -> None:
        """Refuse to wait for turns that only the caller can bring to their end.

        Raises:
            ConversationBusyError: The caller has sent messages whose streams nobody reads.
        """
        unread = [turn for turn in self.turns if turn.unread and turn.left_behind(owner)]
        if unread:
            raise unread_error(len(unread))

    def next(self, owner: object) -> Turn | None:
        """Return the oldest turn nobody reads: the caller's own if there is one, else anybody's."""
        waiting = [turn for turn in self.turns if not turn.streamed]
        mine = [turn for turn in waiting if turn.left_behind(owner)]
        return next(iter(mine or waiting), None)


def unread_error(count: int = 1) -> ConversationBusyError:
    """Return the error of a caller who would wait for a turn that waits for the caller."""
    return ConversationBusyError(
        f"{count} message(s) sent before in this conversation have not been read.",
        hint="Read them with stream(), give them up with abort(), or close their session.",
        accepted=False,
    )


async def withdraw(turns: Sequence[Turn], what: str) -> None:
    """Take back the messages that wait, because their session or client is closed, and warn of it.

    Args:
        turns: Those that have begun are left alone.
        what: The thing that was closed: ``"session"`` or ``"client"``.
    """
    reason = f"The {what} was closed."
    # A turn that has begun cannot be taken back; the caller stops it.
    waiting = [turn for turn in turns if not turn.begun]
    for turn in waiting:
        turn.withdraw(reason)  # all, before one of them gets a chance to begin
    for turn in waiting:
        await turn.stop(reason)
    lost = [str(turn.item["id"]) for turn in waiting if turn.unsent]
    if lost:
        _log.warning(
            "%d message(s) waited when the %s was closed and were not sent (session.unsent holds "
            "them): %s",
            len(lost),
            what,
            ", ".join(lost),
        )
