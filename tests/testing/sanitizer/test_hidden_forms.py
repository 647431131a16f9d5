"""The sanitizer and secrets in forms that hide them: around JSON, in other spellings, in URLs."""

from __future__ import annotations

import base64
import html
import json
from typing import Any

import pytest

from letta_adapters.testing import Cassette, SanitizeRules, sanitize_cassette, scan_text
from letta_adapters.testing.cassette import Interaction, RecordedRequest, RecordedResponse

SSE = "text/event-stream"
WORD = "correcthorse"  # nothing but its key tells that it is secret


def cleaned(
    answer: bytes,
    *,
    kind: str = "application/json",
    headers: Any = (),
    uris: tuple[str, ...] = ("http://127.0.0.1:8283/v1/x",),
    **rules: Any,
) -> Cassette:
    response = RecordedResponse(200, "OK", (("content-type", kind),), answer)
    items = [Interaction(RecordedRequest("POST", uri, headers), response) for uri in uris]
    used = SanitizeRules(environment={}, **rules)
    result = sanitize_cassette(Cassette(items), rules=used)
    assert sanitize_cassette(result, rules=used) == result
    assert scan_text(result.dumps(), environment={}) == []
    return result


def body_of(*args: Any, **options: Any) -> bytes:
    return cleaned(*args, **options).interactions[0].response.body


@pytest.mark.parametrize("front", [b" ", b"\n\t", b"\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_what_stands_before_json_hides_none_of_its_keys(front: bytes) -> None:
    answer = {"secrets": {"DB": WORD}, "organization_id": "acme", "created_at": 1_790_000_000}
    clean = body_of(front + json.dumps(answer).encode())
    assert clean.startswith(front)
    assert json.loads(clean.decode("utf-8-sig")) == {
        "secrets": {"DB": "REDACTED"},
        "organization_id": "REDACTED",
        "created_at": 1_767_225_600,
    }


def test_blanks_before_the_json_of_an_event_hide_none_of_its_keys() -> None:
    event = b"data:   " + json.dumps({"env": {"DB": WORD}}).encode() + b"\n\n"
    assert body_of(event, kind=SSE) == b'data:   {"env": {"DB": "REDACTED"}}\n\n'


def test_the_scanner_reads_json_behind_a_byte_order_mark() -> None:
    response = RecordedResponse(
        200, "OK", (), b'\xef\xbb\xbf{"secrets": {"DB": "%s"}}' % WORD.encode()
    )
    text = Cassette([Interaction(RecordedRequest("GET", "http://letta.test/"), response)]).dumps()
    assert [leak.kind for leak in scan_text(text, environment={})] == ["sensitive"]


def test_an_object_called_properties_hides_no_password() -> None:
    answer = {"properties": {"password": WORD, "login": {"api_key": WORD, "type": "string"}}}
    assert json.loads(body_of(json.dumps(answer).encode())) == {
        "properties": {
            "password": "REDACTED",
            "login": {"api_key": "REDACTED", "type": "string"},
        }
    }


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_a_password_is_known_from_its_header_however_that_is_spelt(
    scheme: str, charset: str
) -> None:
    coded = base64.b64encode("ada:Swordfish-é77".encode(charset)).decode()
    headers = (("authorization", f"{scheme} {coded}"),)
    clean = body_of(json.dumps({"text": "it is Swordfish-é77."}).encode(), headers=headers)
    assert json.loads(clean) == {"text": "it is REDACTED."}


@pytest.mark.parametrize(
    ("secret", "encode"),
    [
        ('key<7&"Zz9', html.escape),
        ('key<7&"Zz9', lambda s: html.escape(s, quote=False)),
        ("swordfish77", lambda s: s.encode().hex().upper()),
    ],
    ids=["HTML", "HTML with quotes", "hexadecimal"],
)
def test_a_known_secret_is_found_as_pages_and_dumps_write_it(secret: str, encode: Any) -> None:
    page = f"<p>No such key: {encode(secret)}.</p>".encode()
    clean = body_of(page, kind="text/html", headers=(("x-api-key", secret),))
    assert clean == b"<p>No such key: REDACTED.</p>"


def test_json_nested_by_the_thousand_is_searched_as_text() -> None:
    body = b"[" * 5000 + b'"password=Opaque-77x"'
    assert body_of(body) == b"[" * 5000 + b'"password=REDACTED"'


def test_a_server_whose_name_begins_another_s_is_told_from_it() -> None:
    uris = ("http://corp/v1/x", "http://corp-internal-db.corp:8283/v1/x", "http://corp?a=b")
    assert [item.request.uri for item in cleaned(b"{}", uris=uris)] == [
        "http://letta.test/v1/x",
        "http://letta2.test/v1/x",
        "http://letta.test?a=b",
    ]


def test_an_address_that_stays_loses_the_password_in_it() -> None:
    result = cleaned(b"{}", uris=("http://ada:Swordfish77@host.test/x?a=1",))
    assert result.interactions[0].request.uri == "http://host.test/x?a=1"
