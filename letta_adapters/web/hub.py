"""Internal: one agent's conversation for many viewers."""

from __future__ import annotations

import asyncio
import functools
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from letta_adapters._utils.bounded import Bounded
from letta_adapters._utils.tasks import end_task
from letta_adapters.client.session import AsyncSession
from letta_adapters.errors import (
    ConversationBusyError,
    InvalidInputError,
    LettaError,
    NotPermittedError,
    PendingApprovalError,
    SessionClosedError,
)
from letta_adapters.messages import Message, ToolProgressMessage, UserMessage
from letta_adapters.permissions import Allow, Deny, PermissionContext, Postpone
from letta_adapters.web.access import Viewer
from letta_adapters.web.approvals import ApprovalDesk
from letta_adapters.web.events import Event, EventKind, EventLog, make_event, show_message
from letta_adapters.web.limits import HubOptions, Pace
from letta_adapters.web.page_calls import PageCalls, hand_over
from letta_adapters.web.watch import Watch

_log: Final = logging.getLogger(__name__)

# Seconds that a turn which was stopped has to say so.
_LAST_WORDS: Final = 5.0
_MAX_KEY: Final = 200
# Seconds that a room is kept which nobody could be let into.
_UNOPENED: Final = 60.0
_BLOCKED: Final = PendingApprovalError.default_code

AskViewers: TypeAlias = Callable[
    [str, Mapping[str, Any], PermissionContext], Awaitable[Allow | Deny | Postpone]
]
OpenSession: TypeAlias = Callable[[str, AskViewers], AsyncSession | Awaitable[AsyncSession]]


@dataclass(slots=True)
class _Item:
    """A message of somebody's; ``stopped`` if somebody has stopped it.

    It is ``sent`` while its turn runs at the server, which can be aborted there.
    """

    id: str
    text: str
    by: str
    stopped: bool = False
    sent: bool = False

    def show(self) -> dict[str, Any]:
        return {"id": self.id, "text": self.text, "by": self.by}


class Hub:
    """A room: the open conversation of one agent, its viewers, and the messages that wait.

    It opens with its first viewer or message, and cannot be opened again once it is closed. It
    belongs to one event loop.

    Args:
        open_session: Makes the session, given the room's name and the function to pass on as its
            ``can_use_tool``. The hub closes the session, and not its client.
        room: The name of the room.
        options: Its limits.
        on_close: Called when it is closed, however that came about.
    """

    def __init__(
        self,
        open_session: OpenSession,
        *,
        room: str = "",
        options: HubOptions | None = None,
        on_close: Callable[[Hub], None] | None = None,
    ) -> None:
        self.room = room
        self.options = options or HubOptions()
        self._open_session = open_session
        self._on_close = on_close
        self._log = EventLog(
            history=self.options.history,
            events=self.options.replay_events,
            characters=self.options.replay_characters,
        )
        self._desk = ApprovalDesk(
            self._publish,
            timeout=self.options.approval_timeout,
            timeout_answer=self.options.approval_timeout_answer,
        )
        # Those of the calls that a page carries out; see :mod:`letta_adapters.web.agui`.
        self.page_calls = PageCalls(self._publish)
        self._pace = Pace()
        self._session: AsyncSession | None = None
        self._opening: asyncio.Task[None] | None = None
        # Held while the stored messages are read and while a turn begins: what a turn says must not
        # stand in the transcript already.
        self._changing = asyncio.Lock()
        self._watches: set[Watch] = set()
        self._queue: deque[_Item] = deque()
        self._running: _Item | None = None
        self._turns: asyncio.Task[None] | None = None
        self._turn: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        # What was sent lately, by its sender and the id that the sender gave it.
        self._accepted: Bounded[tuple[str, str], dict[str, Any]] = Bounded()

    # -- viewers ------------------------------------------------------------------------------

    async def watch(self, viewer: Viewer, *, after: str | None = None) -> Watch:
        """Return the events of this room for a viewer; close it when the viewer leaves.

        Args:
            viewer: The viewer.
            after: The id of the last event that it has; the events after it follow. Without one,
                or if they are gone, the first event is a ``snapshot``: draw anew.

        Raises:
            NotPermittedError: The viewer may not watch.
            ConversationBusyError: There are too many viewers.
            SessionClosedError: The room is closed.
            LettaError: The conversation cannot be opened.
        """
        self._check_open()
        # Before any refusal: a room that lets nobody in would otherwise never be closed.
        self._maybe_leave()
        if not viewer.may_watch:
            raise NotPermittedError("You may not watch this conversation.")
        if len(self._watches) >= self.options.max_viewers:
            raise ConversationBusyError(
                "Too many viewers watch this conversation.", hint="Try again later."
            )
        watch = Watch(viewer, self._log, self.options.viewer_lag, self._leave)
        # Counted from now on: the room must not close while this viewer comes in.
        self._enter(watch)
        try:
            await self._start(watch, after)
        except BaseException:
            watch.close()
            raise
        return watch

    async def _start(self, watch: Watch, after: str | None) -> None:
        fresh = self._session is None
        await self._open()
        # Opening has just read the stored messages, and whoever comes back in time needs none.
        if not fresh and self._log.find(after) is None:
            async with self._changing:
                await self._refresh()
        # From here on nothing waits: nothing can happen between the snapshot and what follows it.
        self._check_open()
        # Looked for again: the events after that place may have gone while this waited.
        place = self._log.find(after)
        if place is None:
            snapshot = self._make_snapshot(watch.viewer)
            watch.start(snapshot.number, snapshot)
        else:
            watch.start(place, None)

    async def _refresh(self) -> None:
        """Read the stored messages, if no turn runs: others may talk to the agent as well."""
        if self._busy or self._session is None:
            return
        try:
            page = await self._session.list_messages(limit=self.options.history)
        except SessionClosedError:
            return  # while we waited; the caller finds out
        except LettaError:
            # The room works on with what it has seen itself.
            _log.warning("The stored messages of a room cannot be read.", exc_info=True)
            return
        messages = page.messages if page.order == "asc" else tuple(reversed(page.messages))
        self._log.restart(messages)

    def _make_snapshot(self, viewer: Viewer) -> Event:
        """Return the transcript, and what goes on, for a viewer who comes new."""
        place = self._log.base_number
        approvals = self._desk.show(place, may_approve=viewer.may_approve)
        data = {"messages": list(self._log.base), "approvals": approvals, **self._show_queue()}
        data["handed"] = self.page_calls.show(place)
        return make_event("snapshot", data, id=self._log.name(place), number=place)

    @property
    def viewers(self) -> int:
        """The number of viewers."""
        return len(self._watches)

    @property
    def closed(self) -> bool:
        """True once it is closed or closes, which is final."""
        return self._closing is not None

    def _enter(self, watch: Watch) -> None:
        self._watches.add(watch)
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def _leave(self, watch: Watch) -> None:
        if watch not in self._watches:
            return
        self._watches.discard(watch)
        self._maybe_leave()

    def _restart_leaving(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        self._maybe_leave()

    def _maybe_leave(self) -> None:
        # One that was never opened has nothing to go on with.
        wait = self.options.close_after if self._opening is not None else _UNOPENED
        if self._watches or self.closed or wait is None or self._leaving is not None:
            return
        self._leaving = asyncio.get_running_loop().call_later(wait, self._all_left)

    def _all_left(self) -> None:
        self._leaving = None
        if not self._watches:
            self._begin_closing("The last viewer has left.")

    # -- what viewers do ------------------------------------------------------------------------

    async def send(self, viewer: Viewer, text: str, *, key: str | None = None) -> dict[str, Any]:
        """Take a message; it is sent when the turns before it are over.

        Args:
            viewer: The sender.
            text: The message.
            key: An id of the sender's own. A second message of the same sender with the same key is
                the same message, and is not sent again.

        Returns:
            Its ``id``, and ``queued``: whether it waits.

        Raises:
            NotPermittedError: The viewer may not send.
            InvalidInputError: The message is empty or too long.
            ConversationBusyError: Too many messages wait.
            SessionClosedError: The room is closed.
            LettaError: The conversation cannot be opened.
        """
        self._check_open()
        # Somebody may send and never watch: that counts as having been here just now.
        self._restart_leaving()
        if not viewer.may_send:
            raise NotPermittedError("You may not send messages here.")
        self._check_text(text)
        _check_key(key)
        await self._open()
        self._check_open()
        # Nothing waits until the key is noted below, so two requests at once are one message.
        known = None if key is None else self._accepted.get((viewer.name, key))
        if known is not None:
            return known
        waits = self._running is not None or bool(self._queue)
        if waits and len(self._queue) >= self.options.max_queue:
            raise ConversationBusyError(
                f"{len(self._queue)} messages wait already.",
                hint="Send it again when the agent has answered, or stop its turn.",
                accepted=False,
            )
        item = _Item(str(uuid.uuid4()), text, viewer.name)
        self._queue.append(item)
        taken = {"id": item.id, "queued": waits}
        if key is not None:
            self._accepted[viewer.name, key] = taken
        self._publish("queue", self._show_queue())
        if self._turns is None:
            self._turns = asyncio.ensure_future(self._run_turns())
        return taken

    def _check_text(self, text: object) -> None:
        limit = self.options.max_message_characters
        if not isinstance(text, str) or not text.strip():
            raise InvalidInputError("The message must be a text that is not empty.")
        if len(text) > limit:
            raise InvalidInputError(f"The message is longer than {limit} characters.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInputError("The message has half a character in it.") from None

    async def stop(self, viewer: Viewer, *, message_id: str | None = None) -> bool:
        """Stop the turn that runs, or take a message that waits out of the queue.

        Args:
            viewer: The viewer.
            message_id: The message whose turn is meant; the one that runs if not given. With it, a
                click that comes late does not stop the next turn.

        Returns:
            Whether there was anything to stop.

        Raises:
            NotPermittedError: The viewer may not send, and so may not stop.
        """
        self._maybe_leave()
        if not viewer.may_send:
            raise NotPermittedError("You may not stop the agent here.")
        running = self._running
        if running is not None and message_id in (None, running.id):
            await self._stop_running(running)
            return True
        for item in self._queue:
            if item.id == message_id:
                self._queue.remove(item)
                self._publish("queue", self._show_queue())
                return True
        return False

    async def _stop_running(self, item: _Item) -> None:
        # A stop is of the message and not of the attempt: one that a call blocks has a second one.
        again, item.stopped = item.stopped, True
        if item.sent and self._session is not None:
            # Its stream ends with a result that says so.
            await self._session.abort()
        elif self._turn is not None and not again:
            # Once only: a second click must not interrupt the taking back.
            self._turn.cancel()

    async def answer(self, viewer: Viewer, tool_call_id: str, decision: Allow | Deny) -> None:
        """Answer a tool call that waits; the first answer counts.

        Args:
            viewer: The viewer.
            tool_call_id: The call.
            decision: The answer.

        Raises:
            NotPermittedError: The viewer may not answer, or not change the arguments; the call
                still waits.
            ConflictError: It has an answer already (``already_answered``).
            NotFoundError: No such call waits here.
        """
        self._maybe_leave()
        if not viewer.may_approve:
            raise NotPermittedError("You may not answer the agent's questions here.")
        edits = isinstance(decision, Allow) and decision.updated_input is not None
        if edits and not viewer.may_edit:
            raise NotPermittedError("You may not change what the agent asked for, only allow it.")
        self._desk.answer(tool_call_id, decision, viewer.name)

    def is_waiting(self, tool_call_id: str | None = None) -> bool:
        """Return whether a call waits for an answer.

        Args:
            tool_call_id: The call; any if not given.
        """
        return self._desk.is_waiting(tool_call_id)

    def was_answered(self, tool_call_id: str) -> bool:
        """Return whether a call had its answer a while ago.

        Args:
            tool_call_id: The call.
        """
        return self._desk.was_answered(tool_call_id)

    def is_at(self, message_id: str) -> bool:
        """Return whether a message waits, or its turn runs.

        Args:
            message_id: The id that :meth:`send` gave it.
        """
        items = [*self._queue, *([self._running] if self._running else [])]
        return any(item.id == message_id for item in items)

    # -- turns ----------------------------------------------------------------------------------

    async def _open(self) -> None:
        self._check_open()
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open_once())
            self._opening.add_done_callback(_look_at)
            # The wait for somebody is another one now.
            self._restart_leaving()
        # Whoever waits for it may go away; the others still want it.
        await asyncio.wait({self._opening})
        # Its end is the room's; passed on, it would look like a cancellation of the caller.
        if self._opening.cancelled():
            self._check_open()
        self._opening.result()

    async def _open_once(self) -> None:
        try:
            made = self._open_session(self.room, self._desk.ask)
            session = made if isinstance(made, AsyncSession) else await made
            # The room was closed meanwhile, and does not know of this session yet.
            if self.closed:
                await session.close()
            self._check_open()
            self._session = session
            await session.initialize()
            await self._refresh()
        except BaseException as error:
            # A room that did not open is no room: the next one who comes tries anew.
            self._begin_closing(f"The conversation cannot be opened ({_code(error)}).")
            raise

    async def _run_turns(self) -> None:
        """Send the messages that wait, one after the other."""
        try:
            while self._queue and not self.closed:
                # Whoever reads the stored messages now must not meet this turn's in them.
                async with self._changing:
                    # The last message may have been taken back while the lock was waited for.
                    if not self._queue:
                        break
                    item = self._running = self._queue.popleft()
                    self._log.fold()
                    self._publish("queue", self._show_queue())
                    said = UserMessage(item.text, otid=item.id)
                    self._publish("message", show_message(said))
                self._turn = asyncio.ensure_future(self._run_turn(item))
                try:
                    # Not awaited itself: whoever stops it means the turn, and not this task.
                    await asyncio.wait({self._turn})
                except asyncio.CancelledError:
                    await end_task(self._turn)
                    raise
                self._finish(item, self._turn)
        finally:
            self._turns = None

    def _finish(self, item: _Item, turn: asyncio.Task[None]) -> None:
        self._running = self._turn = None
        error = asyncio.CancelledError() if turn.cancelled() else turn.exception()
        if isinstance(error, asyncio.CancelledError):
            self._fail(item, "cancelled", "The message was stopped.", "")
        elif isinstance(error, LettaError):
            self._fail(item, error.code, error.message, error.hint)
        elif error is not None:
            _log.error("A turn of a room has ended by a fault of its own.", exc_info=error)
            self._fail(item, "internal", "The turn was lost.", "The server's log has the reason.")
        self._log.fold()
        self._publish("queue", self._show_queue())
        self._maybe_leave()

    def _fail(self, item: _Item, code: str, message: str, hint: str) -> None:
        told = {"id": item.id, "code": code, "message": message, "hint": hint}
        self._publish("failed", told)

    async def _run_turn(self, item: _Item) -> None:
        session = self._session
        assert session is not None  # nothing is taken before it is open
        # The tools of this turn see it, as they run in tasks that it starts.
        hand_over.set(functools.partial(self.page_calls.wait, sender=item.by))
        try:
            blocked = await self._say(session, item)
        except PendingApprovalError as error:
            # A message that the server has would be said twice if it were sent again.
            if error.accepted:
                raise
            blocked = True
        if blocked:
            # The stop may have come with the end of that turn, and so have found none to abort.
            if item.stopped:
                raise asyncio.CancelledError
            # A room before this one was closed while a call waited, and its message may be the one
            # that asked. Nobody is asked again: the policy of whoever made the session decides
            # about calls of its own turns only. None of them runs.
            await session.recover_pending_approvals()
            await self._say(session, item, last=True)

    async def _say(self, session: AsyncSession, item: _Item, *, last: bool = False) -> bool:
        """Send a message and tell its answer; return whether a call left open has blocked it."""
        item.sent = False
        await session.send(item.text, otid=item.id)
        item.sent = True
        async with session.stream() as stream:
            async for message in stream:
                # A server tells of such a call by refusing the message, or by ending its turn.
                if not last and message.type == "result" and message.error_code == _BLOCKED:
                    # This turn is over: there is nothing to abort until the message is sent anew.
                    item.sent = False
                    return True
                self._tell(message, item)
        return False

    def _tell(self, message: Message, item: _Item) -> None:
        # Letta Code repeats what was sent, and viewers have it already.
        if isinstance(message, UserMessage) and message.otid == item.id:
            return
        if isinstance(message, ToolProgressMessage) and not self._pace.takes():
            return
        if message.type != "system":
            self._publish("message", show_message(message))

    @property
    def _busy(self) -> bool:
        return self._running is not None

    def _show_queue(self) -> dict[str, Any]:
        running = None if self._running is None else self._running.show()
        return {"running": running, "queue": [item.show() for item in self._queue]}

    def _publish(
        self, kind: EventKind, data: Mapping[str, Any], public: Mapping[str, Any] | None = None
    ) -> Event:
        event = self._log.add(kind, data, public)
        for watch in self._watches:
            watch.wake()
        return event

    # -- the end --------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.closed:
            raise SessionClosedError("This room is closed.", hint="Come in again.")

    async def close(self, reason: str = "The server closes.") -> None:
        """Stop the turn that runs and close for good; messages that wait are not sent.

        It can be called more than once, and is carried out to its end however the caller fares.

        Args:
            reason: What the viewers are told.
        """
        await asyncio.shield(self._begin_closing(reason))

    def _begin_closing(self, reason: str) -> asyncio.Task[None]:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(reason))
            # At once, so that whoever comes now gets a new room instead of an error.
            if self._on_close is not None:
                self._on_close(self)
        return self._closing

    async def _close(self, reason: str) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        unsent, self._queue = list(self._queue), deque()
        for item in unsent:
            self._fail(item, "session_closed", "The message was not sent.", reason)
        try:
            if self._session is not None:
                # First: the turn that runs ends with a result that viewers still see.
                await self._session.close()
        except Exception:
            _log.warning("The session of a room did not close well.", exc_info=True)
        finally:
            if self._opening is not None:
                await end_task(self._opening)
            if self._turns is not None:
                await asyncio.wait({self._turns}, timeout=_LAST_WORDS)
            if self._turns is not None:
                await end_task(self._turns)
            self._publish("closed", {"reason": reason})


def _look_at(task: asyncio.Task[None]) -> None:
    """Take note of an error, which all who wait for it may have left."""
    if not task.cancelled():
        task.exception()


def _check_key(key: object) -> None:
    if key is not None and (not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY):
        raise InvalidInputError(f"`key` must be a text of at most {_MAX_KEY} characters.")


def _code(error: BaseException) -> str:
    return error.code if isinstance(error, LettaError) else "internal"
