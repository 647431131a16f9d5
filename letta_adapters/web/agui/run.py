"""Internal: one run of AG-UI over a room: follow a turn to its end, or to its next question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from ag_ui.core import (
    BaseEvent,
    CustomEvent,
    MessagesSnapshotEvent,
    RunErrorEvent,
    RunFinishedCancelledOutcome,
    RunFinishedEvent,
    RunFinishedSuccessOutcome,
    RunStartedEvent,
    StateSnapshotEvent,
)
from sse_starlette import ServerSentEvent

from letta_adapters.errors import ConflictError, NotFoundError, NotPermittedError
from letta_adapters.tools import ToolResult
from letta_adapters.web.access import Viewer
from letta_adapters.web.agui.asked import Answer, Asked, read_result
from letta_adapters.web.agui.writer import Writer, write_end, write_history, write_interrupt
from letta_adapters.web.events import Event, write_json
from letta_adapters.web.hub import Hub
from letta_adapters.web.watch import Watch

# Seconds that a place is kept for a client whose question waits, in a room without a limit.
_PARKED: Final = 300.0


@dataclass(slots=True)
class _Place:
    """A client's place in the turn that it follows; ``turn`` is the turn's message."""

    watch: Watch
    writer: Writer
    turn: str | None
    started: bool
    # The calls that wait, by their id.
    asking: dict[str, Any] = field(default_factory=dict)
    # Those that this page may carry out, though they were taken: by it, or before it came.
    had: set[str] = field(default_factory=set)


class Parking:
    """The places of clients between a question and its answer, one for each viewer of a room.

    Such a client has no connection. Its place keeps the room open, so that the question is still
    there when the person has thought about it, and the next run goes on without a gap.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[Hub, str], tuple[str, _Place, asyncio.TimerHandle]] = {}

    def put(self, hub: Hub, thread_id: str, place: _Place) -> None:
        """Keep a place, and give up the viewer's older one.

        Args:
            hub: The room.
            thread_id: The client's name of the thread.
            place: The place.
        """
        key = hub, place.watch.viewer.name
        # Only one for each viewer: otherwise a client could keep any number of them open.
        self._drop(key)
        wait = hub.options.approval_timeout or _PARKED
        timer = asyncio.get_running_loop().call_later(wait, self._drop, key)
        self._places[key] = thread_id, place, timer

    def take(self, hub: Hub, viewer: Viewer, thread_id: str) -> _Place | None:
        """Return the place of a viewer's thread, which it is to close, if there is one.

        Args:
            hub: The room.
            viewer: The viewer, whose rights may be others by now.
            thread_id: The client's name of the thread.
        """
        key = hub, viewer.name
        if self._places.get(key, (None,))[0] != thread_id:
            return None
        _, place, timer = self._places.pop(key)
        timer.cancel()
        # With other rights than before it comes in anew, and is checked anew.
        if place.watch.viewer == viewer:
            return place
        place.watch.close()
        return None

    def _drop(self, key: tuple[Hub, str]) -> None:
        if key in self._places:
            _, place, timer = self._places.pop(key)
            timer.cancel()
            place.watch.close()


async def start_run(hub: Hub, viewer: Viewer, asked: Asked, parking: Parking) -> Run:
    """Do what a client asks for, and return what it is told.

    Args:
        hub: The room.
        viewer: Who asks.
        asked: The run.
        parking: The places of clients that were asked.

    Raises:
        NotPermittedError: The viewer may not do that.
        NotFoundError: An answer is to no call of this room. None of them is given.
        ConflictError: A message is sent while a call waits for an answer.
        LettaError: The room cannot be entered.
    """
    # What can be refused is refused first, so that no part of a wrong run is carried out.
    late = _check_answers(hub, viewer, asked.answers) if asked.answers else []
    done = _Done(hub, viewer, asked)
    if asked.text is not None:
        _check_nothing_waits(hub, viewer, asked)
    place = None
    # Any other run may be that of a page loaded anew, which has to be shown everything.
    if asked.answers or done.given or done.late:
        place = parking.take(hub, viewer, asked.thread_id)
    if place is None:
        # Before the message is sent, as its turn may begin at once.
        watch = await hub.watch(viewer)
        place = _Place(watch, Writer(), None, False)
    try:
        done.hand_in(place)
        for answer in asked.answers:
            if answer not in late:
                await hub.answer(viewer, answer.tool_call_id, answer.decision)
        told = [{"interruptId": answer.tool_call_id} for answer in late]
        told += [{"toolCallId": id_} for id_ in done.late]
        run = Run(hub, asked, place, parking, told)
        if asked.text is not None:
            taken = await hub.send(viewer, asked.text, key=asked.key)
            run.follow(taken["id"])
    except BaseException:
        place.watch.close()
        raise
    return run


def _check_nothing_waits(hub: Hub, viewer: Viewer, asked: Asked) -> None:
    """Refuse a message that would wait behind a call that this client could not end then."""
    if hub.is_waiting():
        raise ConflictError(
            "A tool call waits for an answer.",
            code="pending_approval",
            hint="Answer it by `resume` first; a run without a message tells what waits.",
        )
    if hub.page_calls.find(viewer.name, asked.offers):
        raise ConflictError(
            "A tool call waits for its result from this page.",
            code="pending_tool_call",
            hint="Send the result first, as the last message; then the message.",
        )


class _Done:
    """The results of the page's tools that a run brings: those that are waited for, and the rest.

    Args:
        hub: The room.
        viewer: The viewer.
        asked: The run.

    Raises:
        NotPermittedError: The viewer may not send.
        InvalidInputError: A result is too long, or no text.
    """

    def __init__(self, hub: Hub, viewer: Viewer, asked: Asked) -> None:
        self._hub = hub
        self.given: dict[str, ToolResult] = {}
        self.late: list[str] = []
        calls, limit = hub.page_calls, hub.options.max_message_characters
        # All others are the history of the client, which has those of the server's tools too.
        for id_, message in asked.results.items():
            if calls.is_for(id_, viewer.name):
                self.given[id_] = read_result(message, limit)
            elif calls.has_ended(id_) and not calls.is_repeated(id_, read_result(message, limit)):
                # One that is repeated is no news: clients send their history with every run.
                self.late.append(id_)
        # What the agent reads of it are words of this viewer.
        if self.given and not viewer.may_send:
            raise NotPermittedError("You may not send the agent anything here.")

    def hand_in(self, place: _Place) -> None:
        """Give the results.

        Args:
            place: The client's place; what goes on there is not told of them, as it has them.
        """
        for id_, result in self.given.items():
            # Another run may have brought it in the meantime.
            if self._hub.page_calls.has_ended(id_):
                self.late.append(id_)
                continue
            self._hub.page_calls.give(id_, result)
            if place.started:
                place.writer.skip_result(id_)


def _check_answers(hub: Hub, viewer: Viewer, answers: tuple[Answer, ...]) -> list[Answer]:
    """Return the answers that come too late, before any of the others is given."""
    if not viewer.may_approve:
        raise NotPermittedError("You may not answer the agent's questions here.")
    late = []
    for answer in answers:
        id_ = answer.tool_call_id
        if hub.is_waiting(id_):
            continue
        # A client cannot go on before it has answered all that it was asked: where the question is
        # no more, it may close it.
        if not hub.was_answered(id_) and not answer.dismissed:
            raise NotFoundError(
                "No call of this id waits.",
                hint='Close the question: {"interruptId": ..., "status": "cancelled"}.',
            )
        late.append(answer)
    return late


class Run:
    """Tell a client of one run.

    Args:
        hub: The room.
        asked: The run.
        place: The client's place.
        parking: Takes the place if the run ends with a question.
        late: The interrupts and calls whose answers and results came too late.
    """

    def __init__(
        self,
        hub: Hub,
        asked: Asked,
        place: _Place,
        parking: Parking,
        late: list[dict[str, str]],
    ) -> None:
        self._hub = hub
        self._asked = asked
        self._place = place
        self._parking = parking
        self._late = late
        self._parked = False
        self._sent_now = False
        self._goes_on = place.started
        # The calls for a page that have waited since before the snapshot.
        self._shown: frozenset[str] = frozenset()

    def follow(self, message_id: str) -> None:
        """Follow the turn of the message that the client has sent.

        Args:
            message_id: The id that the room gave it.
        """
        self._place.turn = message_id
        self._place.writer = Writer(own=message_id)
        # Asked now: by the time that a slow client is told of it, its turn may be over.
        self._sent_now = self._hub.is_at(message_id)

    def leave(self) -> None:
        """Give up the place, unless it is kept for the answer; it can be called more than once."""
        if not self._parked:
            self._place.watch.close()

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Yield the events of the run, as the stream has them."""
        async for event in self._run():
            yield ServerSentEvent(write_json(event.model_dump(by_alias=True)), sep="\n")

    async def _run(self) -> AsyncIterator[BaseEvent]:
        asked, place = self._asked, self._place
        yield RunStartedEvent(thread_id=asked.thread_id, run_id=asked.run_id)
        for note in self._note():
            yield note
        ending: BaseEvent | None = None
        if self._goes_on:
            # A page that has brought a part of the results only.
            ending = self._hand_over(frozenset(place.had))
        else:
            for told in await self._begin():
                yield told
            ending = self._find_early_end()
        while ending is None:
            # A room ends its log with an event that ends the run.
            event = await anext(place.watch)
            ending = self._find_end(event)
            for told in self._tell(event) if ending is None else place.writer.close():
                yield told
        yield ending

    def _note(self) -> list[BaseEvent]:
        """Return what the client is to know of its request: nothing of it is ignored silently."""
        notes: list[BaseEvent] = []
        if self._asked.unused:
            notes.append(CustomEvent(name="letta.unused", value=list(self._asked.unused)))
        late = [CustomEvent(name="letta.too_late", value=told) for told in self._late]
        return [*notes, *late]

    def _find_early_end(self) -> BaseEvent | None:
        if self._place.turn is None:
            return self._finish(RunFinishedSuccessOutcome())
        # A call that waits since before the snapshot comes in no event.
        return (self._ask() or self._hand_over(self._shown)) if self._place.started else None

    async def _begin(self) -> list[BaseEvent]:
        """Return what a client is told that comes new; it learns what turn there is to follow."""
        place = self._place
        snapshot = await anext(place.watch)
        shown = snapshot.data
        running = shown["running"]
        queue = [*([running] if running else []), *shown["queue"]]
        own = place.turn is not None
        if own and not self._sent_now and place.turn not in [item["id"] for item in queue]:
            # Sent a second time after its turn was over: all of it is in the transcript.
            place.turn, own = None, False
        elif not own:
            place.turn = queue[0]["id"] if queue else None
        place.started = running is not None and running["id"] == place.turn
        place.asking = {call["tool_call_id"]: call for call in shown["approvals"]}
        # This page may be the one that had them, loaded anew.
        place.had.update(self._find_handed())
        self._shown = frozenset(call["tool_call_id"] for call in shown["handed"])
        if own:
            return []
        state = {"running": running, "queue": shown["queue"]}
        history = write_history(shown["messages"])
        return [MessagesSnapshotEvent(messages=history), StateSnapshotEvent(snapshot=state)]

    def _tell(self, event: Event) -> list[BaseEvent]:
        place = self._place
        if event.kind == "queue":
            # The room names the turn that runs before it tells anything of it.
            running = event.data["running"]
            place.started = running is not None and running["id"] == place.turn
        elif event.kind == "answered":
            place.asking.pop(event.data["tool_call_id"], None)
        elif event.kind == "message" and place.started:
            return place.writer.write(event.data)
        return []

    def _find_end(self, event: Event) -> BaseEvent | None:
        """Return the last event if the run is over."""
        asked, place, data = self._asked, self._place, event.data
        if event.kind == "message" and data["type"] == "result" and place.started:
            return write_end(data, asked.thread_id, asked.run_id)
        if event.kind == "failed" and data["id"] == place.turn:
            if data["code"] == "cancelled":
                return self._finish(RunFinishedCancelledOutcome())
            return RunErrorEvent(message=data["message"], code=data["code"])
        if event.kind == "dropped":
            return RunErrorEvent(message=data["message"], code=data["code"])
        if event.kind == "closed":
            return RunErrorEvent(message=data["reason"], code="session_closed")
        if event.kind == "approval" and place.started:
            place.asking[data["tool_call_id"]] = data
            return self._ask()
        if event.kind == "handed" and place.started:
            return self._hand_over(frozenset({data["tool_call_id"]}))
        return None

    def _ask(self) -> BaseEvent | None:
        """Return the question if it waits still, and this viewer may answer it; others wait."""
        place, asked = self._place, self._asked
        # A question that is read in the log may have its answer further on.
        calls = [call for id_, call in place.asking.items() if self._hub.is_waiting(id_)]
        if not calls or not place.watch.viewer.may_approve:
            return None
        self._park()
        return write_interrupt(calls, asked.thread_id, asked.run_id)

    def _find_handed(self) -> list[str]:
        calls, viewer = self._hub.page_calls, self._place.watch.viewer
        return calls.find(viewer.name, self._asked.offers) if viewer.may_send else []

    def _hand_over(self, calls: frozenset[str]) -> BaseEvent | None:
        """Return the end of the run if this page is to carry out one of the calls that wait.

        It gets all that wait, and that no other page has taken.
        """
        waiting = self._find_handed()
        if not calls.intersection(waiting):
            return None
        take, had = self._hub.page_calls.take, self._place.had
        mine = [id_ for id_ in waiting if take(id_) or id_ in had]
        if not mine:
            return None
        had.update(mine)
        self._park()
        return self._finish(RunFinishedSuccessOutcome(pending_tool_call_ids=mine))

    def _park(self) -> None:
        self._parking.put(self._hub, self._asked.thread_id, self._place)
        self._parked = True

    def _finish(self, outcome: Any) -> RunFinishedEvent:
        asked = self._asked
        return RunFinishedEvent(thread_id=asked.thread_id, run_id=asked.run_id, outcome=outcome)
