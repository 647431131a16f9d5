"""Internal: find out what became of a message whose turn was lost with the connection.

The rules: docs/protocol.md ("What a lost connection means").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from letta_adapters._utils.bounded import Bounded
from letta_adapters.backends.app_server import conversations
from letta_adapters.backends.app_server.connection import Connection, Unread
from letta_adapters.backends.app_server.frames import encode_runtime
from letta_adapters.backends.base import Conversation, Delivery
from letta_adapters.errors import ServerError

_ABORT_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 0.5
_BEGIN_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.5
_QUEUED: Final = 256
IDLE: Final = "WAITING_ON_INPUT"


class ConversationStatus:
    """The server's latest account of a conversation (its loop, questions and settings)."""

    def __init__(self) -> None:
        self.loop = ""
        self.queue: list[dict[str, Any]] = []
        self._device: dict[str, Any] | Unread = {}
        # The messages whose turn runs.
        self.messages: tuple[str, ...] = ()
        # The messages that were seen to wait there, since this connection was made.
        self.queued: Bounded[str, None] = Bounded(_QUEUED)
        # Messages that left the queue together, because the server says them in one turn.
        self._together: Bounded[str, None] = Bounded(_QUEUED)
        self._news = asyncio.Event()

    @property
    def idle(self) -> bool:
        """True if nothing runs or waits there."""
        return self.loop in ("", IDLE) and not self.queue

    @property
    def device(self) -> dict[str, Any]:
        """The state of the device and the settings there.

        Raises:
            ProtocolError: What the server sent cannot be read.
        """
        # It keeps by itself what it says. Written back here by a thread that has read it, it could
        # take the place of a newer one.
        device = self._device
        return device.read() if isinstance(device, Unread) else device

    @property
    def mode(self) -> str:
        """The permission mode."""
        return str(self.device.get("current_permission_mode") or "")

    @property
    def directory(self) -> str:
        """The working directory; ``""`` if that is not known yet."""
        return str(self.device.get("current_working_directory") or "")

    @property
    def questions(self) -> list[dict[str, Any]]:
        """The permission requests that wait for somebody."""
        waiting = self.device.get("pending_control_requests")
        return [q for q in waiting if isinstance(q, dict)] if isinstance(waiting, list) else []

    def see(self, frame: dict[str, Any]) -> None:
        """Take a frame of this conversation.

        Raises:
            TypeError: It has another shape than this version knows; nothing of it is kept.
        """
        kind = frame.get("type")
        if kind == "update_loop_status":
            status = frame.get("loop_status") or {}
            self.loop = str(status.get("status") or "")
            of_runs = status.get("client_message_ids_by_run_id") or {}
            runs = status.get("active_run_ids") or ()
            self.messages = tuple(str(m) for run in runs for m in of_runs.get(run) or ())
        elif kind == "update_queue":
            self.queue = [item for item in frame.get("queue") or () if isinstance(item, dict)]
            self.queued.update({str(item.get("client_message_id")): None for item in self.queue})
            left = [item for item in frame.get("removed") or () if isinstance(item, dict)]
            begun = [item for item in left if item.get("disposition") == "dequeued"]
            if len(begun) > 1:
                ids = (str(item.get("client_message_id")) for item in begun)
                self._together.update(dict.fromkeys(ids))
        elif kind == "update_device_status":
            device = frame.get("device_status") or {}
            if not isinstance(device, dict | Unread):
                raise TypeError("device_status")
            self._device = device
        self._news.set()

    def shared(self, client_message_id: str) -> bool:
        """Return whether the message shares its turn with others, which are not its sender's."""
        return client_message_id in self._together

    def others(self, client_message_id: str) -> bool:
        """Return whether the turn that runs is somebody else's, at least in part."""
        return bool(set(self.messages) - {client_message_id})

    def says(self, client_message_id: str) -> bool:
        """Return whether the turn of this message is active or waits."""
        queued = (item.get("client_message_id") for item in self.queue)
        return not self.idle and client_message_id in (*self.messages, *queued)

    async def is_over(self, client_message_id: str, seconds: float) -> bool:
        """Wait, for a bounded time, until this message has had its turn; return whether it has.

        A turn ends with its connection, so an active one belongs to a client that lives. A client
        that asks a person may wait for as long as it takes.
        """
        await self.reaches(
            lambda: not self.says(client_message_id) or bool(self.questions), seconds
        )
        return not self.says(client_message_id)

    async def reaches(self, what: Callable[[], bool], seconds: float) -> bool:
        """Wait, for a bounded time, until ``what()`` holds; return whether it does."""
        until = time.monotonic() + seconds
        while not what():
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._news.clear()
            # Not a timeout around the wait: that would cost a task for every frame.
            alarm = asyncio.get_running_loop().call_later(left, self._news.set)
            try:
                await self._news.wait()
            finally:
                alarm.cancel()
        return True


async def quiet_down(
    connection: Connection,
    conversation: Conversation,
    live: ConversationStatus,
    seconds: float,
    client_message_id: str = "",
) -> bool:
    """Wait until nothing runs there, abort a turn that still does, and return if one was aborted.

    A turn goes on by itself while another client watches it, and a server that was restarted in
    the middle of a turn runs its message again. With a ``client_message_id`` a turn of other
    messages is left alone.
    """
    await live.reaches(lambda: live.idle or bool(live.questions), seconds)
    if live.idle or (client_message_id and live.others(client_message_id)):
        return False
    await abort(connection, conversation)
    await live.reaches(lambda: live.idle, _ABORT_SECONDS)
    return True


async def abort(connection: Connection, conversation: Conversation) -> bool:
    """Abort the turn that runs there; return ``False`` if none did."""
    answer = await connection.request(
        {"type": "abort_message", "runtime": encode_runtime(conversation)}
    )
    return answer.get("aborted") is True


async def settle(
    connection: Connection,
    conversation: Conversation,
    client_message_id: str,
    live: ConversationStatus,
    seconds: float,
) -> Delivery:
    """Leave nothing running and find out whether the message is stored."""
    # A restarted server shows only a moment later that it runs the message again.
    await live.reaches(lambda: not live.idle, _AGAIN_SECONDS)
    removed = await unqueue(connection, conversation, client_message_id, live)
    if client_message_id in live.queued and not removed:
        # Between the queue and the turn the conversation looks idle.
        await live.reaches(lambda: live.loop not in ("", IDLE), _BEGIN_SECONDS)
    # A turn that runs while the message waits is somebody else's.
    aborted = not removed and await quiet_down(
        connection, conversation, live, seconds, client_message_id
    )
    # A Letta API finishes a turn whose client is gone, and stores its message only then.
    until = time.monotonic() + (seconds if connection.on_api else 0.0)
    while True:
        stored, answered = await conversations.is_stored(
            connection, conversation, client_message_id
        )
        if stored or time.monotonic() >= until:
            break
        await asyncio.sleep(_POLL_SECONDS)
    unknown = connection.on_api and not stored
    return Delivery(None) if unknown else Delivery(stored, answered, aborted or removed)


async def unqueue(
    connection: Connection,
    conversation: Conversation,
    client_message_id: str,
    live: ConversationStatus,
) -> bool:
    """Take the message out of the queue; return ``False`` if it is not in it (any more).

    A restarted server keeps the message of the turn it was in and would run it once more.
    """
    removed = False
    for item in live.queue:
        if item.get("client_message_id") != client_message_id:
            continue
        frame = {
            "type": "remove_queue_item",
            "runtime": encode_runtime(conversation),
            "item_id": str(item.get("id")),
        }
        with suppress(ServerError):  # it has just started
            await connection.request(frame)
            removed = True
    return removed
