"""Internal: the facts of a session's conversation, some of which are read beside its first turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from letta_adapters._utils.tasks import run_within
from letta_adapters.backends.base import Opened
from letta_adapters.errors import LettaError, SessionClosedError
from letta_adapters.messages import InitMessage

# Seconds that an answer waits for facts which only describe its agent.
PATIENCE: Final = 5.0

_log = logging.getLogger("letta_adapters.session")


class Facts:
    """The facts of an open conversation.

    Args:
        opened: Those that are known.
        start: Starts a look-up of these facts as a task. The session ends it when it is closed; it
            is not known here, because a turn keeps its facts, and must not keep its session.
    """

    def __init__(
        self,
        opened: Opened,
        start: Callable[[Facts, Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.known = opened
        self._start = start
        self._looking: asyncio.Task[None] | None = None

    @property
    def agent_id(self) -> str | None:
        """The agent's id, ``""`` for none, and ``None`` while it is not known."""
        return self.known.conversation.agent_id or (None if self.known.look_up else "")

    def look_up(self) -> None:
        """Begin to look up what is not known, beside whatever the caller does next."""
        # One look-up at a time: all who ask while it runs wait for the same.
        if self.known.look_up is not None and self._looking is None:
            self._looking = self._start(self, self._look_up(self.known.look_up))

    async def _look_up(self, read: Callable[[], Any]) -> None:
        try:
            self.known = await read()
        finally:
            self._looking = None  # if it failed, the next one who asks tries again

    async def complete(self) -> Opened:
        """Return all facts.

        Raises:
            SessionClosedError: The session was closed meanwhile.
            LettaError: They cannot be read: there is no such agent, ...
        """
        self.look_up()
        task = self._looking
        if task is not None:
            # Not awaited itself: others wait for it too, and are not cancelled with this caller.
            await asyncio.wait({task})
            if task.cancelled():
                raise SessionClosedError("The session was closed meanwhile.")
            task.result()
        return self.known

    async def settle(self, seconds: float | None) -> Opened:
        """Return the facts that can be had in time; an answer is not given up for the others.

        Args:
            seconds: The time that there is; ``None`` for no limit but that of patience.
        """
        if self.known.look_up is None:
            return self.known
        most = PATIENCE if seconds is None else max(0.0, min(PATIENCE, seconds))
        try:
            await run_within(most, self.complete())
        except (LettaError, asyncio.TimeoutError) as error:
            # A session that was closed knows why it has no facts.
            if not isinstance(error, SessionClosedError):
                reason = error if isinstance(error, LettaError) else f"no reply in {most:g} s"
                _log.warning(
                    "The agent's id, model or tools could not be read beside its answer, whose "
                    "init message lacks them: %s",
                    reason,
                )
        return self.known


def make_init(session_id: str, backend: str, tools: Sequence[str], opened: Opened) -> InitMessage:
    """Return the first message of a session's first stream.

    Args:
        session_id: The session.
        backend: The kind of backend.
        tools: The names of the session's own tools.
        opened: The facts of its conversation.
    """
    where = opened.conversation
    named = (*opened.tools, *(name for name in tools if name not in opened.tools))
    return InitMessage(
        where.agent_id, where.conversation_id, session_id, backend, opened.model, named
    )
