"""Internal: find out what became of a message or a run whose connection broke too early to tell.

Letta (0.16.8) lists a turn's input only once its step is stored, and finishes a run whose client
went away. So the way is to wait until no run is active, then to look for our ``otid`` among the
stored messages.

The rules: docs/protocol.md ("What may be sent again")
and docs/protocol.md ("What a lost connection means").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from letta_adapters._utils.checks import check_id
from letta_adapters._utils.tasks import run_within
from letta_adapters.backends.base import DEFAULT, Conversation, Delivery
from letta_adapters.backends.http_errors import NO_ACTIVE_RUN
from letta_adapters.backends.rest.conversations import agent_param, conversation_path
from letta_adapters.backends.rest.http import Http
from letta_adapters.engine.otids import is_same_call
from letta_adapters.errors import (
    ConflictError,
    InvalidInputError,
    LettaError,
    NotFoundError,
    ProtocolError,
)

_POLL_SECONDS: Final = 0.25
# A cancelled run ends at its next chunk; the server looks for cancels every half second.
_CANCEL_SECONDS: Final = 5.0
_ACTIVE: Final = ("created", "running")
_RECENT: Final = 20


def run_path(run_id: object, tail: str = "") -> str:
    """Return ``/v1/runs/{id}{tail}``; raise ProtocolError if the server's id is none."""
    try:
        return f"/v1/runs/{check_id(run_id, 'a run id')}{tail}"
    except InvalidInputError as error:
        raise ProtocolError(f"The server named a run whose id is none: {error.message}") from None


async def cancel(http: Http, conversation: Conversation) -> bool:
    """Cancel the conversation's active run; return ``False`` if there is none (which is fine)."""
    try:
        await http.send(
            "POST", conversation_path(conversation, "/cancel"), params=agent_param(conversation)
        )
    except ConflictError as error:
        if error.code == NO_ACTIVE_RUN:
            return False
        raise
    return True


async def _newest_runs(http: Http, conversation: Conversation) -> list[Mapping[str, Any]]:
    """Return the newest runs of this conversation, the newest first."""
    default = conversation.conversation_id == DEFAULT
    params: dict[str, Any] = {"limit": _RECENT, "order": "desc"}
    params |= (
        {"agent_id": conversation.agent_id}
        if default
        else {"conversation_id": conversation.conversation_id}
    )
    runs = await http.read("/v1/runs/", params)
    # Runs of the default conversation have no conversation id, so its query names the agent, and
    # lists the runs of all the agent's conversations.
    return [run for run in runs if not default or run.get("conversation_id") in (None, DEFAULT)]


async def active_run(http: Http, conversation: Conversation) -> str | None:
    """Return the id of a run that is active in this conversation, or ``None``."""
    return _active(await _newest_runs(http, conversation))


def _active(runs: Sequence[Mapping[str, Any]]) -> str | None:
    return next((str(run["id"]) for run in runs if run.get("status") in _ACTIVE), None)


async def is_stored(http: Http, conversation: Conversation, otid: str) -> bool:
    """Return whether a message with this ``otid`` is among the newest stored ones."""
    params: Mapping[str, Any] = {"order": "desc", "limit": _RECENT, **agent_param(conversation)}
    stored = await http.read(conversation_path(conversation, "/messages"), params)
    return any(is_same_call(message.get("otid"), otid) for message in stored)


async def wait_for_run(http: Http, run_id: str, seconds: float) -> str | None:
    """Poll until the run is over, at most ``seconds``, and return its last seen status."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            run = await http.read(run_path(run_id))
        except NotFoundError:
            # Without a record there is nothing that could still run.
            return None
        status = str(run.get("status"))
        if status not in _ACTIVE or time.monotonic() >= deadline:
            return status
        await asyncio.sleep(_POLL_SECONDS)


async def wait_until_idle(
    http: Http, conversation: Conversation, seconds: float, after: str | None
) -> bool | None:
    """Wait until no run is active in this conversation, at most ``seconds``.

    Returns:
        ``True`` if none is active, ``False`` if one still is, and ``None`` if nothing has run since
        the run ``after``.
    """
    runs = await _newest_runs(http, conversation)
    if after is not None and runs and runs[0].get("id") == after:
        return None
    run_id = _active(runs)
    return run_id is None or await wait_for_run(http, run_id, seconds) not in _ACTIVE


async def finish_run(
    http: Http, conversation: Conversation, run_id: str | None, seconds: float
) -> str | None:
    """Leave no run active: wait ``seconds`` for it to finish by itself, then cancel it.

    Returns:
        Its last seen status; ``None`` if there was no run.
    """
    # The stream may have broken before it named its run.
    run_id = run_id or await active_run(http, conversation)
    if run_id is None:
        return None
    status = await wait_for_run(http, run_id, seconds)
    if status in _ACTIVE:
        await cancel(http, conversation)
        status = await wait_for_run(http, run_id, _CANCEL_SECONDS)
    return status


async def settle(
    http: Http, conversation: Conversation, otid: str, *, run_id: str | None, seconds: float
) -> Delivery:
    """Leave nothing running and find out whether the message with ``otid`` was stored.

    A :class:`LettaError` is never raised: a fact that cannot be found out in time is ``None``.
    """

    async def find_out() -> Delivery:
        status = await finish_run(http, conversation, run_id, seconds)
        stored = await is_stored(http, conversation, otid)
        return Delivery(stored, answered=status == "completed")

    try:
        # Each read of a silent server has its own time limit and attempts, far more than this in
        # all.
        return await run_within(seconds + 2 * _CANCEL_SECONDS, find_out())
    except (LettaError, asyncio.TimeoutError):
        return Delivery(None)
