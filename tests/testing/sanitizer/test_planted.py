"""What a recording must not keep, in the forms and the places where it hides."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

from letta_adapters.testing import (
    Cassette,
    CassetteMissError,
    CassetteTransport,
    Interaction,
    LeakError,
    RecordedRequest,
    RecordedResponse,
    SanitizeRules,
    sanitize_cassette,
    scan_text,
)
from letta_adapters.testing.leaks import gate
from tools.planted import plant

JSON = (("content-type", "application/json"),)
VALUE = "hunter" + "2x9"


def request(
    body: bytes, headers: tuple[tuple[str, str], ...] = JSON, uri: str = "http://letta.test/v1/x"
) -> Cassette:
    answer = RecordedResponse(200, "OK", JSON, b"{}")
    return Cassette([Interaction(RecordedRequest("POST", uri, headers, body), answer)])


def saved(cassette: Cassette, environment: dict[str, str] | None = None) -> str:
    return sanitize_cassette(cassette, rules=SanitizeRules(environment=environment or {})).dumps()


@pytest.mark.slow
def test_no_planted_secret_survives_and_ordinary_texts_stay() -> None:
    counts = plant(731, every=6)
    assert counts["planted"] == 350
    assert counts["survived"] == 0
    assert counts["altered"] <= counts["ordinary"] // 50


@pytest.mark.slow
def test_nearly_all_keys_of_services_that_nobody_listed_go_too() -> None:
    counts = plant(2718, every=4, unlisted=True)
    assert counts["planted"] > 200
    assert counts["survived"] * 20 <= counts["planted"]


@pytest.mark.parametrize(
    "text",
    [
        "getUserByIdentifier42FromDatabase",
        "claude-3-5-sonnet-20241022",
        "manylinux_2_17_x86_64-cp311-cp311",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
        "row1-col2-row3-col4-row5-col6",
        "test_a_call_is_not_made_twice_while_its_run_goes_on_2",
        "https://github.com/letta-ai/letta-code/pull/42/files#discussion_r1234567",
    ],
)
def test_names_made_of_words_stay(text: str) -> None:
    assert text in saved(request(json.dumps({"content": text}).encode()))


@pytest.mark.parametrize(
    "text",
    [
        f"redis://:{VALUE}@cache:6379/0",
        f"password: {VALUE}",
        "password: swordfish",
        f"DB_PASS={VALUE}",
        f"export SECRET_KEY={VALUE}",
        f"<password>{VALUE}</password>",
        f"tool --token {VALUE}",
    ],
)
def test_what_stands_where_secrets_stand_goes(text: str) -> None:
    file = saved(request(json.dumps({"content": text}).encode()))
    assert VALUE not in file
    assert "swordfish" not in file


@pytest.mark.parametrize(
    "text",
    [
        "Password: required for login",
        "token: string",
        "my token is expired",
        "key-value-store-number-2-of-3",
        "secret_santa_list_2024",
        "the session is over",
    ],
)
def test_words_about_secrets_stay(text: str) -> None:
    assert text in saved(request(json.dumps({"content": text}).encode()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", VALUE),
        ("DJANGO_SECRET_KEY", VALUE),
        ("DATABASE_URL", f"postgresql://app:{VALUE}@db:5432/x"),
        ("CELERY_BROKER", f"redis://:{VALUE}@cache:6379/0"),
        ("DB_PASS", VALUE),
        ("SMTP_PWD", VALUE),
    ],
)
def test_what_the_environment_keeps_secret_goes(name: str, value: str) -> None:
    file = saved(request(json.dumps({"content": f"I say {VALUE}."}).encode()), {name: value})
    assert VALUE not in file


def test_a_compressed_request_is_recorded_plain_and_still_replays() -> None:
    body = json.dumps({"content": f"password: {VALUE}"}).encode()
    cassette = request(gzip.compress(body), (*JSON, ("content-encoding", "gzip")))
    clean = sanitize_cassette(cassette, rules=SanitizeRules(environment={}))
    assert clean.interactions[0].request.body == b'{"content": "password: REDACTED"}'
    with httpx.Client(transport=CassetteTransport(clean)) as client:
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        answer = client.post("http://letta.test/v1/x", content=gzip.compress(body), headers=headers)
    assert answer.json() == {}


def test_wide_letters_are_read() -> None:
    body = f"My password: {VALUE}".encode("utf-16")
    clean = sanitize_cassette(request(body, (("content-type", "text/plain"),)))
    assert clean.interactions[0].request.body.decode("utf-16") == "My password: REDACTED"


def test_bytes_keep_their_length() -> None:
    body = b"\xff\xfe\xfd" + f" password={VALUE} ".encode() + b"\xff"
    kept = sanitize_cassette(request(body)).interactions[0].request.body
    assert VALUE.encode() not in kept
    assert len(kept) == len(body)


def test_a_number_under_a_telling_key_goes() -> None:
    assert "48151623" not in saved(request(b'{"password": 48151623}'))


@pytest.mark.parametrize(
    "text", ["acme-live_" + "q7ZpX2vT9sLk3WmN8rBdQ4", f"password: {VALUE}", f"DB_PASS={VALUE}"]
)
def test_the_gate_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(LeakError):
        gate(request(json.dumps({"content": text}).encode()).dumps(), environment={})


def test_the_gate_reads_bytes() -> None:
    for body in (
        b"\xff " + f"password={VALUE}".encode(),
        gzip.compress(f"password={VALUE}".encode()),
        f"password={VALUE}".encode("utf-16"),
    ):
        found = scan_text(request(body, ()).dumps(), environment={})
        assert {leak.kind for leak in found} == {"key"}


def test_what_a_placeholder_covers_is_anything_at_replay() -> None:
    text = "Mail user@example.com about /home/user/x on 2026-01-01: password: REDACTED, user Hopper"
    live = "Mail ada.l@x.org about /home/ada/x on 2031-05-06: password: q9!x, grace7 Hopper"
    cassette = request(json.dumps({"content": text}).encode())
    with httpx.Client(transport=CassetteTransport(cassette)) as client:
        assert client.post("http://letta.test/v1/x", json={"content": live}).json() == {}


def test_what_no_placeholder_covers_must_be_equal() -> None:
    cassette = request(json.dumps({"content": "On 2026-01-01: yes", "role": "user"}).encode())
    with httpx.Client(transport=CassetteTransport(cassette)) as client:
        for body in (
            {"content": "On 2031-05-06: no", "role": "user"},
            {"content": "On 2031-05-06: yes", "role": "system"},
            {"content": "On Monday: yes", "role": "user"},
            {"content": "On 2031-05-06: yes", "role": "admin"},
        ):
            with pytest.raises(CassetteMissError):
                client.post("http://letta.test/v1/x", json=body)
