"""The turns a session has sent: which is read next, which wait, and what was never sent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from letta_adapters.errors import ConversationBusyError
from letta_adapters.turns import Turn

# How many messages of one session may wait behind its turn.
MAX_QUEUED: Final = 100

_log = logging.getLogger("letta_adapters.session")


class Outbox:
    """What one session has sent and not read to its end, oldest first."""

    def __init__(self) -> None:
        self._turns: list[Turn] = []

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Those that are not over, and those whose end nobody has read."""
        self._turns = [turn for turn in self._turns if not (turn.finished and turn.streamed)]
        return tuple(self._turns)

    @property
    def current(self) -> Turn | None:
        """The one that runs."""
        return next((turn for turn in self.turns if turn.begun and not turn.finished), None)

    @property
    def busy(self) -> bool:
        """Must another message wait for one of them?"""
        return any(not turn.finished and not turn.given_up(None) for turn in self.turns)

    @property
    def unsent(self) -> tuple[Mapping[str, Any], ...]:
        """The messages that will never be sent."""
        return tuple(turn.item for turn in self.turns if turn.unsent)

    def add(self, turn: Turn) -> None:
        """Take a turn that was accepted, or that waits. One that was aborted unread is no more."""
        self._turns = [one for one in self.turns if not one.aborted or one.streamed]
        self._turns.append(turn)

    def remove(self, turn: Turn) -> None:
        """Let a turn go whose message was taken back."""
        if not turn.streamed:
            self._turns = [one for one in self._turns if one is not turn]

    def check_room(self) -> None:
        """Refuse one message more than may wait.

        Raises:
            ConversationBusyError: there is no room.
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
            ConversationBusyError: the caller has sent messages whose streams nobody reads.
        """
        unread = [turn for turn in self.turns if turn.unread and turn.left_behind(owner)]
        if unread:
            raise unread_error(len(unread))

    def next(self, owner: object) -> Turn | None:
        """Return the oldest turn nobody reads: of the caller's if there is one, else of any."""
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
    """Take back what waits, because its session or client is closed, and warn of it.

    Args:
        turns: Of them those that have not begun.
        what: ``"session"`` or ``"client"``.
    """
    reason = f"The {what} was closed."
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
