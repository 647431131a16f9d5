"""Internal: play several conversations that were recorded on one connection, each independently.

Parallel sessions send in another order in every run, but the order within a conversation stays the
same. So each recorded conversation is a *lane* that is played by itself: a server's frame comes
when the frame of ours before it, in its own conversation, was sent. A live conversation is known to
be one of the recorded ones with the first frame in which these differ. Until then, those that are
equal so far are assigned in order, and they change places when a frame does not fit, with one that
has not begun as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from letta_adapters.testing.cassette import Interaction, split_events

Timed = tuple[float, str]
# An id, such as ``local-conv-12``, ``ui-msg-7``, ``turn-<uuid>`` or a uuid; not a word or a date.
_ID = re.compile(
    r"[a-z]+(?:[-_][0-9A-Za-z]+)*[-_]\d[0-9A-Za-z-]*|[0-9a-f]{8}(?:-[0-9a-f]{4,12}){4}"
)
# Says how a recorded frame and a sent one differ: ``""`` if they do not.
Differ = Callable[[str, str], str]


@dataclass
class Step:
    """A frame of ours, and those that followed in its conversation, each with its delay in ms."""

    sent: str
    came: list[Timed] = field(default_factory=list)


@dataclass
class Lane:
    """A recorded conversation, or a request that belongs to none (``conversation`` is ``""``)."""

    conversation: str
    steps: list[Step] = field(default_factory=list)
    at: int = 0
    # The conversation's id in this run; the live texts that replace recorded ones; the frames that
    # the client was given.
    live: str = ""
    names: dict[str, str] = field(default_factory=dict)
    given: list[str] = field(default_factory=list)

    @property
    def next(self) -> str | None:
        """Return the frame that the client sends next, in the names of this run."""
        return (
            replace_names(self.steps[self.at].sent, self.names)
            if self.at < len(self.steps)
            else None
        )

    def frames_until(self, step: int) -> list[str]:
        """Return the frames given to the client, and those that will be before a later step."""
        coming = (frame for one in self.steps[self.at : step] for _, frame in one.came)
        return self.given + [replace_names(frame, self.names) for frame in coming]


def read_frames(interaction: Interaction) -> Iterator[Timed]:
    """Yield the frames that came after a frame of ours: the delay in ms, and the text."""
    events = split_events(interaction.response.body)
    timing = interaction.response.timing or ((0, 0),) * len(events)
    for event, (delay, _) in zip(events, timing, strict=True):
        yield delay, event.decode().removeprefix("data: ").rstrip("\n")


def split_lanes(items: Sequence[Interaction]) -> list[Lane]:
    """Return the lanes of a connection, in the order they begin.

    Args:
        items: The frames of ours on it, each with the frames that came until the next one.
    """
    places = _find_places(items)
    lanes: dict[str, Lane] = {}
    requests: dict[str, Lane] = {}
    for number, item in enumerate(items):
        text = item.request.body.decode()
        place = places[number]
        lane = lanes.setdefault(place or f"#{number}", Lane(place))
        lane.steps.append(Step(text))
        if isinstance(request_id := _read(text).get("request_id"), str):
            requests[request_id] = lane
        for delay, came in read_frames(item):
            frame = _read(came)
            # An answer belongs to the lane that asked, other frames to their conversation. What
            # names neither belongs to the frame sent last.
            of_request = requests.get(str(frame.get("request_id")))
            of_place = lanes.get(_conversation(frame))
            (of_request or of_place or lane).steps[-1].came.append((delay, came))
    return list(lanes.values())


def _find_places(items: Sequence[Interaction]) -> list[str]:
    """Return the conversation of each frame of ours.

    The frame itself says so, or the answer to it does.
    """
    asked: dict[str, str] = {}
    for item in items:
        for _, text in read_frames(item):
            frame = _read(text)
            if place := _conversation(frame):
                asked.setdefault(str(frame.get("request_id")), place)
    frames = [_read(item.request.body.decode()) for item in items]
    return [_conversation(f) or asked.get(str(f.get("request_id")), "") for f in frames]


def _read(text: str) -> dict[str, Any]:
    frame = json.loads(text)
    return frame if isinstance(frame, dict) else {}


def _conversation(frame: dict[str, Any]) -> str:
    runtime = frame.get("runtime")
    place = runtime.get("conversation_id") if isinstance(runtime, dict) else None
    agent = runtime.get("agent_id") if isinstance(runtime, dict) else None
    # The default conversation has the same name for every agent, so the agent's id is a part.
    return f"{agent or ''} {place}" if isinstance(place, str) and place else ""


def replace_names(text: str, names: dict[str, str]) -> str:
    """Return a frame's text with the named texts replaced, all at once."""
    if not names:
        return text
    # Longer names first, and in one pass: names can contain each other, and can be exchanged.
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"(?<![\w-])(?:{known})(?![\w-])", lambda found: names[found[0]], text)


class Lanes:
    """Finds, for each frame that is sent, the lane that it continues.

    Args:
        items: As for :func:`split_lanes`.
        differ: Compares a recorded frame with a sent one.
    """

    def __init__(self, items: Sequence[Interaction], differ: Differ) -> None:
        self.lanes = split_lanes(items)
        self._differ = differ

    @property
    def several(self) -> bool:
        """Return whether there is more than one conversation."""
        return len({lane.conversation for lane in self.lanes} - {""}) > 1

    @property
    def unsent(self) -> list[str]:
        """Return the recorded frames that were not sent."""
        return [step.sent for lane in self.lanes for step in lane.steps[lane.at :]]

    def take(self, text: str) -> Lane | None:
        """Return the lane whose next frame this is; ``None`` if there is none."""
        lane = self._in_its_lane(text)
        if lane is None:
            # A frame of no known conversation begins one: the first recorded one that begins so.
            fresh = (one for one in self.lanes if not one.live and self._fits(one, text))
            lane = next(fresh, None)
        return lane

    def given(self, lane: Lane, texts: Iterable[str]) -> None:
        """Note the frames that the client was given for the lane's current step; end the step."""
        lane.at += 1
        for text in texts:
            lane.given.append(text)
            if lane.conversation and not lane.live:
                lane.live = _conversation(_read(text))

    def _fits(self, lane: Lane, text: str) -> bool:
        expected = lane.next
        return expected is not None and not self._differ(expected, text)

    def _in_its_lane(self, text: str) -> Lane | None:
        frame = _read(text)
        place, request_id = _conversation(frame), frame.get("request_id")
        for lane in self.lanes:
            if not lane.live:
                continue
            # A response to a server's request names no conversation, only the request.
            if place == lane.live or (not place and _has_asked(lane, request_id)):
                return lane if self._fits(lane, text) else self._try_exchange(lane, text)
        return None

    def _try_exchange(self, lane: Lane, text: str) -> Lane | None:
        """Let two lanes that are equal so far change places, if that makes the frame fit."""
        for other in self.lanes:
            if other is lane or not other.conversation:
                continue
            # The other one may not have begun, or come as far. If it has come further, what would
            # be exchanged is spent.
            if not other.at <= lane.at <= len(other.steps) or not self._same_so_far(lane, other):
                continue
            self._exchange(lane, other)
            if self._fits(lane, text):
                return lane
            self._exchange(lane, other)
        return None

    def _same_so_far(self, lane: Lane, other: Lane) -> bool:
        pairs = zip(lane.steps[: lane.at], other.steps[: lane.at], strict=True)
        theirs = other.frames_until(lane.at)
        names = _pair_texts(theirs, lane.given)
        return all(
            not self._differ(one.sent, replace_names(two.sent, names)) for one, two in pairs
        ) and _read_deltas(lane.given) == _read_deltas(theirs)

    def _exchange(self, lane: Lane, other: Lane) -> None:
        # Only the rest is exchanged: each lane keeps its live conversation, and the recorded texts
        # of its new rest get the names which the client knows it by.
        at = lane.at
        ours = {**lane.names, **_name_live(lane)}
        theirs = {**other.names, **_name_live(other)}
        came = other.frames_until(at)
        to_ours, to_theirs = _pair_texts(came, lane.given), _pair_texts(lane.given, came)
        lane.steps[at:], other.steps[at:] = other.steps[at:], lane.steps[at:]
        lane.names = {was: to_ours.get(now, now) for was, now in theirs.items()} | to_ours
        other.names = {was: to_theirs.get(now, now) for was, now in ours.items()} | to_theirs


def _name_live(lane: Lane) -> dict[str, str]:
    return {} if not lane.live else {lane.live.rpartition(" ")[2]: lane.live.rpartition(" ")[2]}


def _has_asked(lane: Lane, request_id: Any) -> bool:
    return any(
        _read(text).get("request_id") == request_id and "runtime" in _read(text)
        for text in lane.given
    )


def _pair_texts(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, str]:
    """Map texts that differ at the same places of two conversations' frames to each other."""
    found: dict[str, str] = {}
    one, two = _by_type(ours), _by_type(theirs)
    for kind in one.keys() & two.keys():
        _pair(one[kind], two[kind], found)
    return found


def _by_type(texts: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    # Frames of one type have one shape. The order among types is chance: statuses come when they
    # come.
    for text in texts:
        frame = _read(text)
        found.setdefault(str(frame.get("type")), []).append(frame)
    return found


def _pair(one: Any, two: Any, found: dict[str, str]) -> None:
    if isinstance(one, dict) and isinstance(two, dict):
        for name in one.keys() & two.keys():
            _pair(one[name], two[name], found)
    elif isinstance(one, list) and isinstance(two, list):
        for first, second in zip(one, two, strict=False):
            _pair(first, second, found)
    elif isinstance(one, str) and isinstance(two, str) and one != two and _ID.fullmatch(one):
        found.setdefault(json.dumps(one)[1:-1], json.dumps(two)[1:-1])


def _read_deltas(texts: Sequence[str]) -> list[Any]:
    # What was said is compared, and not whole frames: ids and times differ in any two
    # conversations.
    deltas = (_read(text).get("delta") for text in texts)
    fields = ("message_type", "content", "reasoning", "tool_return", "stop_reason")
    return [tuple(map(str, map(d.get, fields))) for d in deltas if isinstance(d, dict)]


def play_through(items: Sequence[Interaction], differ: Differ, *, reordered: bool) -> str:
    """Send a recording's own frames, as a client would that is given the frames of the lanes.

    Args:
        items: As for :func:`split_lanes`.
        differ: As for :class:`Lanes`.
        reordered: Let the conversation that began last go first wherever nothing holds it back: a
            frame that belongs to no conversation keeps its place.

    Returns:
        The frame that found no lane; ``""`` if all did.
    """
    recorded, played = split_lanes(items), Lanes(items, differ)
    # The names of each recorded conversation's texts in this run, learnt from the frames it was
    # given instead of its own.
    names: list[dict[str, str]] = [{} for _ in recorded]
    for number in _order(recorded, items, reordered=reordered):
        lane = recorded[number]
        step = lane.steps[lane.at]
        text = replace_names(step.sent, names[number])
        found = played.take(text)
        if found is None:
            return text
        came = [replace_names(frame, found.names) for _, frame in found.steps[found.at].came]
        played.given(found, came)
        names[number] |= _pair_texts([frame for _, frame in step.came], came)
        lane.at += 1
    return ""


def _order(
    lanes: Sequence[Lane], items: Sequence[Interaction], *, reordered: bool
) -> Iterator[int]:
    """Yield the lane of each frame of ours, in the order in which they are sent."""
    of = {item.request.body: n for n, lane in enumerate(lanes) for item in _find_items(lane, items)}
    in_order = [of[item.request.body] for item in items]
    if not reordered:
        yield from in_order
        return
    # Runs of conversations' frames, between frames that belong to none.
    run: list[int] = []
    for number in in_order:
        if lanes[number].conversation:
            run.append(number)
        else:
            yield from _last_first(run)
            run = []
            yield number
    yield from _last_first(run)


def _last_first(run: list[int]) -> Iterator[int]:
    """Yield each lane's frames in turns, beginning with the lane that began last."""
    left = list(run)
    while left:
        for number in sorted(set(left), reverse=True):
            left.remove(number)
            yield number


def _find_items(lane: Lane, items: Sequence[Interaction]) -> list[Interaction]:
    texts = {step.sent.encode() for step in lane.steps}
    return [item for item in items if item.request.body in texts]
