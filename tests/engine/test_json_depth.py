"""The end of JSON that arrives in pieces, and what it means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from letta_adapters.engine.assembler import JSONDepth, parse_arguments
from tests.engine._events import CITY

CLOSING = [
    '{"a": 1}',
    '{"text": "a } in a string, a { and a \\" quote \\\\"}',
    '{"a": {"b": [1, {"c": "]}"}]}}',
    '{"path": "C:\\\\"}',
    '{"a": "\\u007d\\n\\t"}',
    "[1, [2]]",
    '{"é": "\u2028"}',
]


@pytest.mark.parametrize("text", CLOSING)
def test_depth_closes_at_the_last_character_wherever_it_is_cut(text: str) -> None:
    json.loads(text)
    for size in range(1, len(text) + 1):
        depth = JSONDepth()
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert [depth.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    for at in range(len(text) + 1):
        depth = JSONDepth()
        assert depth.feed(text[:at]) is (at == len(text))
        depth.feed("")
        assert depth.feed(text[at:]) is True


@pytest.mark.parametrize("text", ["", "  ", '"{}"', "17", '{"a": "', '{"a": "\\', "{{}", "}", "\\"])
def test_depth_of_what_is_not_closed(text: str) -> None:
    assert JSONDepth().feed(text) is False


def test_a_stray_closing_bracket_closes_nothing() -> None:
    depth = JSONDepth()
    assert [depth.feed(piece) for piece in ("}", "{", '"a":1', "}")] == [False, False, False, True]


def test_depth_reads_each_piece_once_and_keeps_no_text() -> None:
    depth = JSONDepth()
    for _ in range(3):
        depth.feed('{"a": "some text')
    state = [getattr(depth, name) for name in JSONDepth.__slots__]
    assert all(isinstance(value, (int, bool)) for value in state)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (CITY, {"city": "Paris"}),
        ("", {}),
        ("  ", {}),
        ("[1]", {}),
        ("null", {}),
        ("{", {}),
        ('{"a":1}{"b":2}', {}),
    ],
)
def test_tool_input_is_a_dict_whatever_the_model_wrote(raw: str, value: dict[str, Any]) -> None:
    assert parse_arguments(raw) == value
