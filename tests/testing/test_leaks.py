"""The scanner: it must see what the sanitizer might miss, and nothing in what is clean."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from letta_adapters.testing import LeakError, SanitizeRules, save_cassette
from letta_adapters.testing.cassette import (
    Cassette,
    Interaction,
    RecordedRequest,
    RecordedResponse,
)
from letta_adapters.testing.leaks import find_secrets, gate, main, scan_file, scan_text, scan_tree
from tests.testing._recordings import Maker

SECRET = "Opaque/Val ue+12345"
JSON = (("content-type", "application/json"),)


def file_of(
    answer: Any,
    *,
    uri: str = "http://letta.test/v1/x",
    headers: Any = JSON,
    ask: Any = None,
) -> str:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    sent = b"" if ask is None else json.dumps(ask).encode()
    request = RecordedRequest("POST", uri, headers, sent)
    return Cassette([Interaction(request, RecordedResponse(200, "OK", JSON, body))]).dumps()


def kinds(text: str, **options: Any) -> set[str]:
    return {leak.kind for leak in scan_text(text, environment={}, **options)}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("key", "sk-" + "proj-abcdef0123456789"),
        ("key", "ghp_" + "a1B2" * 9),
        ("key", "AKIA" + "ABCDEFGH12345678"),
        ("key", "Authorization: Bearer " + "abcdef0123456789"),
        ("key", "eyJhbGciOiJI" + ".eyJzdWIiOiIx"),
        ("key", "-----BEGIN RSA PRIVATE KEY-----"),
        ("key", "postgres://me:pass1word@db/x"),
        ("e-mail", "write to bob.b@corp.io"),
        ("home", "in /home/alice/work"),
        ("home", "in /mnt/c/Users/alice/work"),
        ("home", "in C:\\Users\\alice\\work"),
        ("home", "in \\\\host\\home\\alice"),
        ("home", "File /" + "root/.cache"),
        ("id", "agent-e422b946-1244-4f9b-bc48-3b71b43e216f"),
        ("id", "E422B946-1244-4f9b-bc48-3b71b43e216f".lower()),
        ("id", "call_e698bc6f"),
        ("id", "deadbee1" * 4),
        ("time", "2026-11-22T21:53:02Z"),
        ("time", "2026-11-22 09:59:05 PM UTC+0000"),
        ("time", "2026-01-01T00:00:01Z"),
    ],
)
def test_sees(kind: str, text: str) -> None:
    for form in (text, json.dumps(json.dumps(text)), quote(text), _base64(text)):
        assert kinds(file_of({"t": f"so {form} it"})) >= {kind}, form
    parts = [{"id": "m", "content": text[:5]}, {"id": "m", "content": text[5:]}]
    body = b"".join(b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts)
    assert kinds(file_of(body)) >= {kind}


def _base64(text: str) -> str:
    return base64.b64encode(f"some text {text}".encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com, git@github.com",
        "/home/user/x, C:\\Users\\user\\x, https://a.org/home/page",
        "2026-01-01T00:00:00.000000Z 2026-01-01 12:00:00 AM",
        "message-00000000-307f-4000-a000-00000000017f call_000000000001 call_weather",
        "Bearer REDACTED, gpt-4o-2024-08-06, task-management-system-9",
        "00000000a0000000000000000000000001",
    ],
)
def test_is_silent_about(text: str) -> None:
    assert kinds(file_of({"t": text})) == set()


def test_sees_keys_headers_hosts_and_epochs() -> None:
    assert kinds(file_of({}, headers=(("Authorization", "REDACTED"),))) == {"header"}
    assert kinds(file_of({}, uri="http://10.1.2.3/v1")) == {"host"}
    assert kinds(file_of({"created": 1795384742, "n": 1795384742})) == {"time"}
    assert kinds(file_of({"api_key": "abc"})) == {"sensitive"}
    assert kinds(file_of({"a": [{"secrets": {"X": "y z"}}]})) == {"sensitive"}
    assert kinds(file_of({"arguments": '{"password": "abc"}'})) == {"sensitive"}
    assert kinds(file_of({}, ask={"token": "abc"})) == {"sensitive"}
    fine = {"api_key": "REDACTED", "properties": {"password": {"type": "string"}}, "token": None}
    block = {"secrets": [{"key": "A", "id": "block-1", "value": "REDACTED", "value_enc": ""}]}
    assert kinds(file_of({**fine, **block, "max_tokens": 5})) == set()


def test_sees_this_machine_and_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "wolke7.corp.lan")
    monkeypatch.setattr("getpass.getuser", lambda: "theodora9")
    assert kinds(file_of({"t": "on WOLKE7 now"})) == {"host"}
    assert kinds(file_of({"t": "theodora9 said"})) == {"host"}
    assert kinds(file_of({"t": "wolke71"})) == set()
    monkeypatch.setattr("getpass.getuser", _no_user)
    assert kinds(file_of({"t": "theodora9 said"})) == set()


def test_a_login_that_is_a_word_counts_where_machines_write_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "grace")
    assert kinds(file_of({"t": "Who was Grace Hopper?"})) == set()
    for text in ("in /srv/grace/x", "USER=grace", "ssh grace@box"):
        assert kinds(file_of({"t": text})) == {"host"}


def _no_user() -> str:
    raise KeyError("no such user")


@pytest.mark.parametrize(
    "encode",
    [
        lambda s: s,
        lambda s: json.dumps(json.dumps(s)),
        lambda s: quote(quote(s, safe=""), safe=""),
        lambda s: s.replace("/", "\\/"),
        lambda s: base64.b64encode(f"xx{s}yy".encode()).decode(),
        lambda s: "p/" + base64.urlsafe_b64encode(f"x{s}y".encode()).decode(),
        lambda s: base64.b64encode(json.dumps({"a": s}).encode()).decode().rstrip("="),
    ],
)
def test_sees_known_secrets_in_every_encoding(encode: Any) -> None:
    text = file_of({"t": f"so {encode(SECRET)} it"})
    assert kinds(text, secrets=[SECRET]) >= {"secret"}
    found = scan_text(text, environment={"MY_API_KEY": SECRET, "PATH": "it", "X_TOKEN": "so"})
    assert {leak.kind for leak in found} >= {"secret"}


@pytest.mark.parametrize("cut", range(1, len(SECRET)))
def test_sees_known_secrets_split_over_deltas(cut: int) -> None:
    parts = [
        {"id": "m", "tool_call": {"tool_call_id": "c", "arguments": piece}}
        for piece in (SECRET[:cut], SECRET[cut:])
    ]
    other = {"id": "m", "tool_call": {"tool_call_id": "d", "arguments": "between"}}
    events = [parts[0], other, parts[1]]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    assert kinds(file_of(body), secrets=[SECRET]) == {"secret"}


def test_sees_secrets_in_binary_bodies_and_other_files(tmp_path: Path) -> None:
    text = file_of(b"\xff\xfe" + SECRET.encode())
    assert kinds(text, secrets=[SECRET]) == {"secret"}
    notes = tmp_path / "notes.txt"
    notes.write_text("fine\nmail bob@corp.io\n")
    (leak,) = scan_file(notes)
    assert (leak.line, leak.kind) == (2, "e-mail")
    assert scan_tree(tmp_path) == scan_tree(notes) == [leak]
    broken = tmp_path / "broken.yaml"
    broken.write_text("- request:\n  a: [bob@corp.io")
    assert [leak.line for leak in scan_file(broken)] == [2]


def test_reports_do_not_leak() -> None:
    (leak,) = scan_text("bob.the.builder@corp.io", environment={})
    assert str(leak) == "<text>:1: e-mail: bob.…(23 characters)"
    assert scan_text("bob@c.io", environment={}, allow=["bob@c.io"]) == []


def test_reports_lines() -> None:
    text = file_of({"a": "x"}) + file_of({"a": "bob@corp.io"}).split("interactions:\n")[1]
    (leak,) = scan_text(text, environment={})
    assert "bob@corp.io" in text.split("\n")[leak.line - 1]


def test_the_gate_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate(file_of({}))
    with pytest.raises(LeakError, match="1 leaks") as caught:
        gate(file_of({"t": "bob@corp.io"}), source="x.yaml")
    assert caught.value.leaks[0].source == "x.yaml"
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(file_of({}))
    assert main([str(tmp_path)]) == 0
    bad.write_text(file_of({"t": "bob@corp.io"}))
    assert main([str(tmp_path)]) == 1
    assert f"{bad}:15: e-mail: bob@…" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == 2
    assert main([]) == 2


def test_the_module_is_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "letta_adapters.testing.leaks", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 0
    (tmp_path / "x.txt").write_text("bob@corp.io")
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 1


def test_a_recording_that_still_leaks_is_not_written(tmp_path: Path) -> None:
    # A name nobody could know to be private, except that the recording itself shows it.
    secret = "horse" + "battery1" + "2345678"
    sent = RecordedRequest("POST", "http://letta.test/x", (("Api-Key-Old", secret),), b"{}")
    item = Interaction(sent, RecordedResponse(200, "OK", JSON, b'{"t": "x"}'))
    assert find_secrets(Cassette([item])) == [secret]
    path = tmp_path / "deep" / "x.yaml"
    kept = SanitizeRules(keep=frozenset({"bob@corp.io"}), environment={})
    item = Interaction(
        RecordedRequest("POST", "http://letta.test/x", JSON, b'{"mail": "bob@corp.io"}'),
        item.response,
    )
    save_cassette(Cassette([item]), path, rules=kept)
    assert Cassette.load(path).interactions[0].request.body == b'{"mail": "bob@corp.io"}'
    path.unlink()
    headers = SanitizeRules(response_headers=frozenset({"x-org"}), environment={})
    leaky = RecordedResponse(200, "OK", (("x-org", "1"),), b"{}")
    with pytest.raises(LeakError, match="header"):
        save_cassette(Cassette([Interaction(item.request, leaky)]), path, rules=headers)
    assert not path.exists()


def test_sees_something_in_raw_recordings() -> None:
    for seed in range(20):
        made = Maker(seed).make()
        secrets = [*made.secrets, made.auth]
        found = scan_text(made.cassette.dumps(), secrets=secrets, environment=made.environment)
        assert {"header", "host", "id", "time"} <= {leak.kind for leak in found}


def test_learns_from_a_raw_recording() -> None:
    ask = json.dumps({"secrets": {"A": "opaque-Value-12"}, "password": "short1"}).encode()
    events = b'data: {"api_key": "opaque-Value-34"}\n\ndata: [DONE]\n\n'
    headers = (("Authorization", "Bearer abc-Def-123456"), ("Cookie", "a=b; sid=abcdef123456"))
    item = Interaction(
        RecordedRequest("POST", "http://letta.test/x", headers, ask),
        RecordedResponse(200, "OK", JSON, events),
    )
    assert find_secrets(Cassette([item])) == [
        "abc-Def-123456",
        "abcdef123456",
        "opaque-Value-12",
        "opaque-Value-34",
    ]
