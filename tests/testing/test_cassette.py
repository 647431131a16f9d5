"""The file: what is written is read back byte for byte, by us and by any YAML reader."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from letta_adapters.testing import cassette
from letta_adapters.testing.cassette import (
    Cassette,
    CassetteFormatError,
    Interaction,
    RecordedError,
    RecordedRequest,
    RecordedResponse,
    as_bytes,
    list_headers,
    split_events,
)

ODD = [
    "",
    " ",
    "\n",
    "\n\n",
    "\nx",
    " x",
    "x ",
    "x\n",
    "x\n\n\n",
    "x \n y",
    "\tx\n\t",
    "x\n  \n",
    "a\r\nb\r",
    "a\u2028b\u0085c\u2029d",
    'q"\\\n "z',
    "\ufeffbom",
    "nul\0 bell\x07 del\x7f",
    "\U0001f600 é 漢",
    "- a: 1\n# b\n...\n---\n",
    "true",
    "\ufffe\uffff",
    "x\n\u2028\n y",
]


def one(text: str | bytes, **response: object) -> Cassette:
    body = text if isinstance(text, bytes) else text.encode()
    headers = (("accept", "*/*"), ("content-type", "text/plain; a: #b"))
    return Cassette(
        [
            Interaction(
                RecordedRequest("POST", "http://letta.test/v1/?a=b&c=%20d", headers, body),
                RecordedResponse(200, "OK", headers[1:], body, **response),
            )
        ]
    )


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_survive(text: str) -> None:
    recorded = one(text)
    written = recorded.dumps()
    assert Cassette.loads(written) == recorded
    assert Cassette.from_dict(yaml.load(written, Loader=yaml.SafeLoader)) == recorded
    assert "!!binary" not in written
    assert not any(char in written for char in "\u2028\u0085\u2029\r\0")


def test_random_texts_survive_both_yaml_readers() -> None:
    rng = random.Random(5)
    alphabet = 'ab "\\\n\n  :#-{}[]\t\r\u2028\u0085é\U0001f600\0'
    for _ in range(400):
        recorded = one("".join(rng.choice(alphabet) for _ in range(rng.randrange(40))))
        written = recorded.dumps()
        assert Cassette.loads(written) == recorded, repr(written)
        assert Cassette.from_dict(yaml.load(written, Loader=yaml.SafeLoader)) == recorded


def test_bodies_that_are_no_text_become_binary() -> None:
    recorded = one(bytes(range(256)))
    assert "!!binary" in recorded.dumps()
    assert Cassette.loads(recorded.dumps()) == recorded


def test_an_event_is_a_line_and_json_stands_as_it_came() -> None:
    written = one('data: {"a": "b"}\n\ndata: [DONE]\n\n').dumps()
    assert '\n        data: {"a": "b"}\n\n        data: [DONE]\n' in written
    assert '\n        {"x": [1,  2]}\n' in one('{"x": [1,  2]}').dumps()


def test_extra_keys_and_empty_things() -> None:
    error = RecordedError("ReadTimeout", 7)
    recorded = one("x", timing=((0, 3), (20, 4)), error=error)
    assert Cassette.loads(recorded.dumps()) == recorded
    assert Cassette.loads(one("x", timing=()).dumps()).interactions[0].response.timing == ()
    assert Cassette.loads(Cassette().dumps()) == Cassette()
    assert len(recorded) == 1


def test_the_same_cassette_is_the_same_text() -> None:
    recorded = one("x")
    assert Cassette.loads(recorded.dumps()).dumps() == recorded.dumps()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "version: 2\ninteractions: []",
        "version: 1",
        "a: [",
        "version: 1\ninteractions: [1]",
    ],
)
def test_what_is_no_cassette_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(CassetteFormatError):
        Cassette.loads(text)
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(CassetteFormatError, match=r"bad\.yaml"):
        Cassette.load(path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CassetteFormatError):
        Cassette.load(path)


def test_reads_what_vcrpy_may_hold() -> None:
    assert list_headers({"a": ["b", "c"], "d": b"e"}) == (("a", "b"), ("a", "c"), ("d", "e"))
    assert list_headers(None) == ()
    assert as_bytes(None) == b""
    assert as_bytes(iter([b"a", "b"])) == b"ab"
    assert as_bytes(bytearray(b"x")) == b"x"
    with Path(__file__).open("rb") as file:
        assert as_bytes(file) == Path(__file__).read_bytes()
    request = RecordedRequest("GET", "http://letta.test", (("Accept", "x"),))
    assert (request.header("accept"), request.header("b")) == ("x", "")


def test_split_events() -> None:
    assert split_events(b"") == []
    assert split_events(b"a\n\nb\r\n\r\nc\r\rd") == [b"a\n\n", b"b\r\n\r\n", b"c\r\r", b"d"]


def test_the_slow_yaml_reader_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert Cassette.loads(one("x").dumps()) == one("x")


def test_importing_the_package_imports_no_machinery() -> None:
    code = (
        "import sys, letta_adapters, letta_adapters.testing as t\n"
        "assert not {'vcr', 'yaml', 'httpx'} & set(sys.modules), sys.modules\n"
        "assert 'CassetteTransport' in dir(t)\n"
        "assert callable(t.sanitize_cassette) and t.Cassette\n"
        "try: t.nonsense\n"
        "except AttributeError: print('fine')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "fine\n"


def test_every_public_name_is_there() -> None:
    import letta_adapters.testing as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    assert package.Cassette is cassette.Cassette
