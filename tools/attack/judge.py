"""Judge the outcome of an attack: the right answer, an error of ours, or a failure."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from letta_adapters import AsyncLettaClient, ResultMessage
from letta_adapters.client.client import get_slots
from letta_adapters.errors import LettaError

# What may come of an attack, and what may not.
GOOD = ("right", "our error")
BAD = ("wrong", "foreign error", "no end", "left running")


@dataclass
class Tally:
    """The outcomes of one kind of attack.

    Args:
        name: The name to print.
        seconds: The bound within which each attempt must end.
    """

    name: str
    seconds: float = 20.0
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Return the number of attempts."""
        return sum(self.counts[outcome] for outcome in (*GOOD, *BAD[:3]))

    def note(self, outcome: str, what: str) -> None:
        """Count an outcome."""
        self.counts[outcome] += 1
        if outcome in BAD:
            self.bad.append(f"{self.name}: {outcome}: {what}")

    async def judge(
        self,
        what: str | Callable[[], str],
        work: Coroutine[Any, Any, Any],
        right: Callable[[Any], bool],
    ) -> None:
        """Await ``work`` and count its outcome.

        Args:
            what: The name of the attempt, for a report of a bad outcome; asked afterwards.
            work: A call of the client; a failed result counts as the error it contains.
            right: Returns whether the result is the same as without the attack.
        """
        task = asyncio.ensure_future(work)
        done, _ = await asyncio.wait({task}, timeout=self.seconds)
        what = what if isinstance(what, str) else what()
        if not done:
            task.cancel()
            await asyncio.wait({task}, timeout=self.seconds)
            self.note("no end", what)
            return
        error = task.exception()
        if isinstance(error, LettaError):
            self.note("our error", what)
        elif error is not None:
            self.note("foreign error", f"{what}: {error!r}"[:300])
        else:
            self._look(what, task.result(), right)

    def _look(self, what: str, found: Any, right: Callable[[Any], bool]) -> None:
        if isinstance(found, ResultMessage) and not found.success:
            try:
                found.raise_for_status()
            except LettaError:
                self.note("our error", what)
            except Exception as error:
                self.note("foreign error", f"{what}: {error!r}"[:300])
        elif right(found):
            self.note("right", what)
        else:
            self.note("wrong", f"{what}: {found!r}"[:300])

    def look_behind(self, what: str, client: AsyncLettaClient) -> None:
        """Count a client in which a turn is left although nobody waits for one."""
        slots = get_slots(client)
        if slots.turns or slots.queue:
            self.note("left running", what)


async def nothing_left(tally: Tally) -> None:
    """Count the tasks that are left when the clients and servers of an attack are closed."""
    for _ in range(20):
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if not left:
            return
        await asyncio.sleep(0.05)
    for task in left:
        tally.note("left running", repr(task)[:200])
