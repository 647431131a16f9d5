"""Applying a message again changes nothing."""

from __future__ import annotations

import json

from letta_adapters.engine.transcript import Transcript
from letta_adapters.messages import (
    ErrorMessage,
    InitMessage,
    Message,
    StreamEvent,
)
from tests.engine._events import (
    RUN,
    RUN_2,
    Fed,
    assistant,
    base,
    call_delta,
    reasoning,
    returned,
    tool_return,
    wire,
)
from tests.engine._messages import RETRY, failed, fragment, rows_of, said, success

EVERYTHING: list[Message] = [
    InitMessage("agent-1", "conv-1", "s-1", "rest"),
    fragment(assistant("ha", step=5)),
    RETRY,
    *Fed(
        wire(
            reasoning("H"),
            reasoning("H"),
            assistant("ha"),
            assistant("ha"),
            call_delta("call_9", name="f", arguments="{"),
            call_delta("call_9", arguments="}"),
            tool_return(returned("call_9")),
            base("news", step=4),
        ),
        partial=True,
    ).messages,
    fragment(assistant("unfinished", step=6)),
    ErrorMessage("Cut.", "stream_truncated"),
    failed(RUN),
    said("next turn", "o-9", RUN_2),
    success(RUN_2),
]


def test_applying_each_message_twice_changes_nothing() -> None:
    once, twice = Transcript(), Transcript()
    for message in EVERYTHING:
        once.apply(message)
        twice.apply(message)
        twice.apply(message)
        assert twice.rows == once.rows, message


def test_applying_the_whole_stream_again_changes_nothing() -> None:
    transcript = Transcript()
    for message in EVERYTHING:
        transcript.apply(message)
    before = transcript.rows
    assert [r.text for r in before] == [
        "HH",
        "haha",
        "{}",
        "news",
        "unfinished",
        "Cut.",
        "next turn",
    ]
    for message in EVERYTHING:
        transcript.apply(message)
    assert transcript.rows == before


def test_fragments_are_not_kept_beyond_their_turn() -> None:
    transcript = Transcript()
    for message in (fragment(assistant("a")), said("a"), success()):
        transcript.apply(message)
    assert transcript._fragments == {}


def test_equal_fragments_are_two_fragments() -> None:
    rows = rows_of(fragment(assistant("ha")), fragment(assistant("ha")))
    assert [r.text for r in rows] == ["haha"]


def test_a_fragment_that_went_through_json_and_comes_again_changes_nothing() -> None:
    fed = Fed(wire(assistant("ha"), assistant("ha")), partial=True).messages
    fragments = [m for m in fed if isinstance(m, StreamEvent)]
    copies = [StreamEvent(json.loads(json.dumps(m.event)), m.fragment) for m in fragments]
    assert len(copies) == 2
    transcript = Transcript()
    for message in [*fragments, *copies, *fragments]:
        transcript.apply(message)
    assert [r.text for r in transcript.rows] == ["haha"]


def test_a_numbered_event_that_went_through_json_and_comes_again_changes_nothing() -> None:
    event = assistant("ha") | {"seq_id": 7}
    transcript = Transcript()
    for _ in range(3):
        transcript.apply(StreamEvent(json.loads(json.dumps(event))))
    assert [r.text for r in transcript.rows] == ["ha"]
