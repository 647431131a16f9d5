"""However the network cuts a stream, its messages are the same."""

from __future__ import annotations

import random
from collections.abc import Iterable

from letta_adapters.engine.rest import RestTurn
from letta_adapters.messages import Message

_EVERY_OFFSET = 32 * 1024
_RANDOM_CUTS = 2_000


def messages_of(pieces: Iterable[bytes], *, partial: bool = True) -> list[Message]:
    """All messages of a response body that arrives in these pieces, up to the result."""
    turn = RestTurn(include_partial_messages=partial)
    messages = [message for piece in pieces for message in turn.feed(piece)]
    messages += turn.end_segment()
    messages += turn.confirm_pending([call.tool_call_id for call in turn.paused])
    return messages + turn.finish(duration_ms=0)


def assert_recut_invariant(stream: bytes) -> None:
    """Any cut of ``stream`` in two, and any in single bytes, gives the messages of the whole.

    A stream of up to 32 kB is cut at every offset. A larger one, where that would take minutes, is
    cut in two at 2,000 offsets drawn with a fixed seed.
    """
    whole = messages_of([stream])
    single = [stream[i : i + 1] for i in range(len(stream))]
    assert messages_of(single) == whole, "byte by byte"
    without_fragments = [message for message in whole if message.type != "stream_event"]
    assert messages_of(single, partial=False) == without_fragments, "complete messages only"
    offsets: Iterable[int] = range(len(stream) + 1)
    if len(stream) > _EVERY_OFFSET:
        offsets = random.Random(0).sample(range(len(stream)), _RANDOM_CUTS)
    for at in offsets:
        assert messages_of([stream[:at], stream[at:]]) == whole, f"cut at {at}"
