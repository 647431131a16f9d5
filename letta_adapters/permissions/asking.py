"""Internal: wait for the answer to a permission question, as long as the application wants to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeAlias

from letta_adapters._utils.invoke import UNWIND_SECONDS
from letta_adapters._utils.tasks import end_task
from letta_adapters.permissions import Allow, Deny, Postpone, denials

# The seconds that the callback has, and the answer that is given when they are over.
Patience: TypeAlias = tuple[float, Allow | Deny | Postpone]


@dataclass(frozen=True, slots=True)
class Undecided(Deny):
    """Nobody gave an answer, which allows nothing, as not knowing is not permission.

    The user has refused nothing either, so it is told as a denial only where nothing else can be.
    """

    traceback: str | None = None


async def ask_in_time(asking: Awaitable[Any], patience: Patience | None) -> Any:
    """Return the callback's answer, or the one that was chosen for when it takes too long.

    Args:
        asking: The callback's work.
        patience: Its time, and the answer at its end; ``None`` for no limit.

    Raises:
        RuntimeError: The callback was cancelled, by itself or from elsewhere, and not the caller.
        Exception: What the callback has raised.
    """
    # A task of its own tells "the callback was cancelled" from "the caller was cancelled".
    task = asyncio.ensure_future(asking)
    # An exception that comes when nobody waits any more has nobody to fetch it; asyncio would
    # complain.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    # Not `run_within`: a TimeoutError that the callback itself raises is no time-out of ours.
    try:
        await asyncio.wait({task}, timeout=None if patience is None else patience[0])
    except asyncio.CancelledError:
        await end_task(task)
        raise
    if task.cancelled():
        raise RuntimeError("it was cancelled")
    if patience is None or task.done():
        return task.result()
    # One that does not heed its cancellation must not hold the turn all the same.
    task.cancel()
    await asyncio.wait({task}, timeout=UNWIND_SECONDS)
    return answer_silence(patience)


def answer_silence(patience: Patience) -> Allow | Deny | Postpone:
    """Return the answer to a question that nobody has answered in time.

    Args:
        patience: The time, and the answer that was chosen.
    """
    seconds, otherwise = patience
    if isinstance(otherwise, Deny) and not otherwise.message:
        # The agent is not to take it for a refusal by the user.
        return Undecided(denials.explain_silence(seconds), otherwise.interrupt)
    return otherwise
