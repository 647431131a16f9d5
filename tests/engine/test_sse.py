"""Bytes → events: the rules of ``text/event-stream`` and what Letta's JSON does to naive ones."""

from __future__ import annotations

import pytest

from letta_adapters.engine.sse import SSEDecoder

Events = list[tuple[str | None, bytes]]


def decode(*chunks: bytes) -> Events:
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def every_cut(stream: bytes) -> list[Events]:
    """The events of a stream that is cut in two at every offset, and in single bytes."""
    cuts = [decode(stream[:at], stream[at:]) for at in range(len(stream) + 1)]
    return [*cuts, decode(*(stream[i : i + 1] for i in range(len(stream))))]


def test_an_event_is_a_data_line_and_a_blank_line() -> None:
    assert decode(b'data: {"a":1}\n\n') == [(None, b'{"a":1}')]


def test_error_is_the_only_named_event() -> None:
    assert decode(b"event: error\ndata: {}\n\ndata: [DONE]\n\n") == [
        ("error", b"{}"),
        (None, b"[DONE]"),
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_line_ends(end: bytes) -> None:
    stream = end.join([b"event: error", b"data: 1", b"", b"data: 2", b"", b""])
    for events in every_cut(stream):
        assert events == [("error", b"1"), (None, b"2")]


def test_line_ends_may_be_mixed_in_one_stream() -> None:
    stream = b"data: 1\r\n\r\ndata: 2\n\ndata: 3\r\rdata: 4\r\n\n"
    for events in every_cut(stream):
        assert [data for _, data in events] == [b"1", b"2", b"3", b"4"]


def test_a_cut_between_cr_and_lf_is_one_line_end() -> None:
    assert decode(b"data: 1\r", b"\ndata: 2\r", b"\n\r", b"\n") == [(None, b"1\n2")]


def test_a_lone_lf_after_a_cut_cr_adds_nothing() -> None:
    assert decode(b"data: 1\r", b"\n", b"\r", b"", b"\n", b"data: 2\n\n") == [
        (None, b"1"),
        (None, b"2"),
    ]


def test_a_whole_event_after_a_cut_cr() -> None:
    assert decode(b"data: 1\r\r", b"data: 2\n\n", b"\n") == [(None, b"1"), (None, b"2")]


@pytest.mark.parametrize(
    "char", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"], ids=lambda c: f"U+{ord(c):04X}"
)
def test_what_python_calls_a_line_end_does_not_split(char: str) -> None:
    body = f'{{"content":"a{char}b"}}'.encode()
    for events in every_cut(b"data: " + body + b"\n\n"):
        assert events == [(None, body)]


def test_a_byte_order_mark_is_skipped_however_it_is_cut() -> None:
    for events in every_cut(b"\xef\xbb\xbfdata: 1\n\ndata: 2\n\n"):
        assert events == [(None, b"1"), (None, b"2")]


def test_a_byte_order_mark_later_on_is_part_of_the_field_name() -> None:
    assert decode(b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n") == [(None, b"1")]
    assert decode(b"data: 1\n\n", b"\xef\xbb\xbfdata: 2\n\n") == [(None, b"1")]


def test_comments_ids_and_retries_carry_nothing() -> None:
    stream = b": keep-alive\n\nid: 7\nretry: 10\n\n:\ndata: 1\nid: 8\nunknown: x\n\n"
    for events in every_cut(stream):
        assert events == [(None, b"1")]


def test_several_data_lines_are_one_event() -> None:
    for events in every_cut(b'data: {"a":\ndata: 1}\n\n'):
        assert events == [(None, b'{"a":\n1}')]


def test_one_space_after_the_colon_is_optional_and_only_one_is_cut() -> None:
    assert decode(b"data:1\n\ndata:  2\n\ndata\n\n") == [(None, b"1"), (None, b" 2"), (None, b"")]


def test_a_name_without_data_is_forgotten() -> None:
    assert decode(b"event: error\n\ndata: 1\n\n") == [(None, b"1")]


def test_a_name_does_not_leak_into_the_next_event() -> None:
    assert decode(b"event: error\ndata: 1\n\n", b"data: 2\n\n") == [("error", b"1"), (None, b"2")]


def test_an_empty_name_is_no_name() -> None:
    assert decode(b"event:\ndata: 1\n\n") == [(None, b"1")]


def test_a_name_that_is_no_utf8_does_not_break_the_stream() -> None:
    assert decode(b"event: \xff\ndata: 1\n\n") == [("\ufffd", b"1")]


def test_the_shortcut_for_whole_events_respects_what_is_open() -> None:
    assert decode(b"event: error\n", b"data: 1\n\n") == [("error", b"1")]
    assert decode(b"data: 1\n", b"data: 2\n\n") == [(None, b"1\n2")]
    assert decode(b"da", b"data: 2\n\n") == []
    assert decode(b"data: a\r\n\n") == [(None, b"a")]


def test_several_events_in_one_chunk() -> None:
    assert decode(b"data: 1\n\ndata: 2\n\ndata: 3\n") == [(None, b"1"), (None, b"2")]


def test_a_large_event_in_small_pieces_is_joined_once() -> None:
    # 4 MB in 4 kB pieces: joining at each piece would copy 2 GB. What shows that it is linear:
    # the decoder keeps the very pieces it was given, untouched, until the line ends.
    decoder = SSEDecoder()
    pieces = [b"data: " + b"x" * 4090] + [b"%04096d" % number for number in range(1023)]
    for piece in pieces:
        assert decoder.feed(piece) == []
    assert len(decoder._partial) == len(pieces)
    assert all(kept is given for kept, given in zip(decoder._partial, pieces, strict=True))
    assert decoder.feed(b"\n\n") == [(None, b"".join(pieces)[6:])]
    assert decoder._partial == []
