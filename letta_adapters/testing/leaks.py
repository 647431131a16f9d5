"""Find texts that must not be in a cassette, with no code and no patterns of the sanitizer.

It is used twice: as the check that every recording must pass before it is written, and in CI::

    python -m letta_adapters.testing.leaks cassettes/

which prints ``file:line: kind: excerpt`` for each finding and exits with 1 if there is any.
Excerpts are cut short, so that the report does not leak what it reports.

The kinds are ``secret`` (a known one, in any encoding, also spread over a stream's deltas), ``key``
(looks like one), ``sensitive`` (a value under a sensitive key), ``e-mail``, ``home``, ``host``,
``header`` (not on the short list), ``id`` (not renumbered), ``time`` (not the constant).

The sanitizer knows services by the prefixes of their keys. This module knows few of them: a short
prefix and a long run of letters that no person typed are enough. So a key of a service that the
sanitizer does not know is refused here.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import json
import math
import os
import re
import socket
import sys
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

_HEADERS = {
    "request": {"accept", "content-type"},
    "response": {"content-type", "location", "retry-after"},
}
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PATTERNS = {
    "key": re.compile(
        r"\b(?:sk|pk|rk)[-_](?=[-\w]*\d)[-\w]{12,}|\bgh[a-z]_\w{16,}|\bgithub_pat_\w{20,}"
        r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}|\bAIza[-\w]{20,}|\bxox[a-z]-[-\w]{10,}"
        r"|\bhf_\w{20,}|\beyJ[-\w]{8,}\.eyJ[-\w]{8,}|\bglpat-[-\w]{10,}"
        r"|-----BEGIN [A-Z ]*PRIVATE KEY"
        r"|\bBearer (?!REDACTED)[-\w.~+/]{8,}|://[^/\s:@\"']+:(?!REDACTED)[^/\s@\"'\\]+@"
    ),
    "e-mail": re.compile(
        # The n of an escaped line end is no part of the address that follows it.
        r"(?i)(?:(?<=\\[nrtbf])|(?<=\\u[0-9a-f]{4})|(?<![\w\\]))"
        r"(?!git@|[\w.+'-]*user@example\.com\b)\w[\w.+'-]*@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}\b"
    ),
    "home": re.compile(
        r"(?<![\w.\\/])(?:/mnt/\w|/var|/export)?/+(?:home|Users)/+(?!user\b)[^\s/\"'\\<>,;:|*?]+"
        r"|\b[A-Za-z]:[\\/]+Users[\\/]+(?!user\b)[^\s\\/\"'<>,;:|*?]+"
        r"|\\+(?:home|Users)\\+(?!user\b)[^\s\\/\"'<>,;:|*?]+|(?<![\w./\\])/r[o]ot/"
    ),
    "id": re.compile(
        rf"\b(?:[a-z][a-z0-9_]*-)?(?!00000000-){_UUID}\b"
        r"|\b(?:call|toolu|srvtoolu)_(?!00000000)(?=[A-Za-z]*\d)[0-9A-Za-z]{8,}\b"
        r"|(?<![\w-])(?!00000000)(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{32,64}\b"
    ),
}
_TIME = re.compile(r"\b(?:19|20)\d\d-[01]\d-[0-3]\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: [AP]M)?")
# Messages whose texts stay as they were said.
_PEOPLE = {"user_message", "assistant_message", "reasoning_message", "tool_call_message"} | {
    "approval_request_message", "hidden_reasoning_message"
}  # fmt: skip
_STAMPS = re.compile(r"date|created|updated|timestamp|\w+_at|\w+_time")
_CONSTANT_TIME = re.compile(r"2026-01-01[T ](?:00:00(?::00(?:\.0+)?)?|12:00(?::00)? AM)")
_TELLING = re.compile(
    r"(?i)(?:.*[-_])?(?:api[-_]?key|access[-_]?key|private[-_]?key|secret(?:[-_]key)?|password|passwd"
    r"|passphrase|authorization|auth[-_](?:token|header)|access[-_]token|refresh[-_]token|token"
    r"|cookie|set-cookie)|.*_enc|apikey|accesstoken|authtoken|clientsecret"
)
_TELLING_PARENT = {"secrets", "env", "env_vars", "custom_headers", "environment_variables"} | {
    "tool_exec_environment_variables"
}
_STRUCTURAL = {"key", "id", "type", "name", "description", "agent_id", "organization_id"} | {
    "created_at", "updated_at", "created_by_id", "last_updated_by_id"
}  # fmt: skip
_MASKED = re.compile(
    r"(?i)(?:REDACTED)+\w{0,7}|none|null|true|false|string|\d{1,7}|<[^<>]*>|\$\{?\w+\}?|\*+|\.+|x+"
    r"|password|secret|postgres|changeme|dummy|empty|not-needed|test-?key|"
)
_ENVIRONMENT = re.compile(
    r"(?i).*(?:api_?key|token|secret|password|passwd|passphrase|private_key|access_key)s?"
)
_ORDINARY = "[A-Za-z][a-z]{0,14}|[A-Z]{1,15}"
_ANYBODY = {"root", "user", "runner", "ubuntu", "debian", "admin", "letta", "agent", "test"} | {
    "localhost", "host", "main", "server", "docker", "node", "python", "default", "home", "users",
    "localdomain", "web", "dev", "build", "db", "data", "ci", "box", "machine", "worker", "desktop",
    "laptop", "app", "guest", "public", "shared", "vscode", "codespace", "tests",
}  # fmt: skip
_SOCKET_METHODS = {"WEBSOCKET", "SEND"}
# Events that are equal in these fields continue each other.
_OWNERS = {"id", "message_type", "tool_call_id", "index"}
_EPOCH_KEYS = {"created", "created_at", "updated_at", "timestamp"}


@dataclass(frozen=True)
class Leak:
    """A finding: ``source`` and ``line`` (from 1), its ``kind``, and a shortened ``excerpt``."""

    source: str
    line: int
    kind: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.kind}: {self.excerpt}"


class LeakError(AssertionError):
    """The error for a recording that may not be saved; ``leaks`` has the findings."""

    def __init__(self, leaks: list[Leak]) -> None:
        self.leaks = leaks
        listed = "\n  ".join(map(str, leaks[:20]))
        super().__init__(f"{len(leaks)} leaks in a cassette, nothing was written:\n  {listed}")


@dataclass
class _Scan:
    """The scan of one text, with the findings so far."""

    source: str
    secrets: Collection[str]
    allow: Collection[str]
    patterns: Mapping[str, str] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    machine: re.Pattern[str] | None = field(default_factory=lambda: _compile_machine_names())
    found: dict[Leak, None] = field(default_factory=dict)

    def report(self, line: int, kind: str, text: str) -> None:
        if text not in self.allow:
            # A report must not contain the secret that it reports.
            shown = text if len(text) <= 8 else f"{text[:4]}…({len(text)} characters)"
            self.found.setdefault(Leak(self.source, line, kind, shown))

    def text(self, line: int, text: str) -> None:
        """Search one text in all its readings."""
        for reading in _read_all_ways(text):
            for kind, found in self.findings(reading):
                self.report(line, kind, found)

    def times(self, line: int, text: str) -> None:
        """Report points in time that are neither the constant nor what a request asked about."""
        for reading in _read_all_ways(text):
            for match in _TIME.finditer(reading):
                if match[0] not in self.asked and not _CONSTANT_TIME.fullmatch(match[0]):
                    self.report(line, "time", match[0])

    def findings(self, reading: str) -> Iterator[tuple[str, str]]:
        yield from (("secret", secret) for secret in self.secrets if secret in reading)
        yield from (("key", key) for key in find_keys(reading))
        for kind, pattern in _PATTERNS.items():
            yield from ((kind, match[0]) for match in pattern.finditer(reading))
        for rule, replacement in self.patterns.items():
            found = (match[0] for match in re.finditer(rule, reading))
            yield from (("pattern", text) for text in found if text != replacement)
        if self.machine and (named := self.machine.search(reading)):
            yield "host", named[0]

    def interaction(self, line: int, item: Mapping[str, Any]) -> None:
        for side, allowed in _HEADERS.items():
            for name in item[side].get("headers") or {}:
                if name.lower() not in allowed:
                    self.report(line, "header", name)
        host = urlsplit(item["request"]["uri"]).hostname or ""
        # Names below `.test` are reserved: nobody can have such a host.
        if not host.endswith(".test"):
            self.report(line, "host", host)
        for body in (item["request"].get("body"), item["response"]["body"].get("string")):
            self.body(line, body)

    def body(self, line: int, body: Any) -> None:
        if isinstance(body, bytes):
            self.binary(line, body)
            return
        events = [_parse_json(text) for text in _list_data(body or "")] or [_parse_json(body or "")]
        if events == [None]:
            self.times(line, body or "")
        for event in events:
            self.values(line, event)
        self.joined(line, events)

    def binary(self, line: int, body: bytes) -> None:
        """Search bytes in their possible readings: one byte a character, several, or compressed."""
        readings = [body.decode("latin-1")]
        if body.count(0) * 5 > len(body):
            readings += [body.replace(b"\0", b"").decode("latin-1")]
        # In zlib's numbers: gzip, zlib, and deflate without a header.
        for window in (31, 15, -15):
            with contextlib.suppress(zlib.error):
                inflated = zlib.decompressobj(window).decompress(body, 10_000_000)
                readings.append(inflated.decode("latin-1"))
        for reading in readings:
            for kind, found in self.findings(reading):
                # Among a picture's bytes some look like a date, an id or a name.
                if kind in ("secret", "key", "e-mail"):
                    self.report(line, kind, found)

    def joined(self, line: int, events: list[Any]) -> None:
        for joined in _join_events(events):
            self.text(line, joined)
            self.values(line, _parse_json(joined))
        # People may mention a time; only texts of the server's must not.
        for joined in _join_events([event for event in events if not _is_said(event)]):
            self.times(line, joined)

    def sockets(self, numbered: list[tuple[int, Mapping[str, Any]]]) -> None:
        """Search the frames of each WebSocket joined, whatever its client sent between them."""
        lines: dict[str, int] = {}
        events: dict[str, list[Any]] = {}
        for line, item in numbered:
            if item["request"]["method"] in _SOCKET_METHODS:
                socket_name = item["request"]["uri"].partition("?")[2]
                lines.setdefault(socket_name, line)
                body = item["response"]["body"].get("string") or ""
                events.setdefault(socket_name, []).extend(map(_parse_json, _list_data(body)))
        for name, line in lines.items():
            self.joined(line, events[name])

    def values(self, line: int, value: Any, path: tuple[str, ...] = (), said: bool = False) -> None:
        if isinstance(value, dict):
            said = said or value.get("message_type") in _PEOPLE
            for key, item in value.items():
                self.values(line, item, (*path, str(key)), said)
        elif isinstance(value, list):
            for item in value:
                self.values(line, item, path, said)
        elif isinstance(value, str):
            if not said or _STAMPS.fullmatch(path[-1] if path else ""):
                self.times(line, value)
            if _is_telling(path) and not _MASKED.fullmatch(value):
                self.report(line, "sensitive", f"{path[-1]}={value}")
            # Tool arguments and results are often JSON inside a JSON string.
            if value[:1] in ("{", "["):
                self.values(line, _parse_json(value), said=said)
        elif isinstance(value, (int, float)) and _is_epoch(path, value):
            self.report(line, "time", str(value))


def scan_text(
    text: str,
    *,
    source: str = "<text>",
    secrets: Iterable[str] = (),
    allow: Collection[str] = (),
    environment: Mapping[str, str] | None = None,
    patterns: Mapping[str, str] | None = None,
) -> list[Leak]:
    """Return all findings in a cassette's (or any) text, in the order of lines.

    ::

        assert scan_text(Path("cassettes/hello.yaml").read_text()) == []

    Args:
        text: The text.
        source: Its name, for the findings.
        secrets: Texts to look for, in addition to the values of the environment's ``*_API_KEY``,
            ``*_TOKEN`` and so on.
        allow: Findings, as whole texts, that are none.
        environment: The variables to take secrets from, by default ``os.environ``.
        patterns: Further regular expressions to look for, with the texts that replace them.
    """
    variables = os.environ if environment is None else environment
    values = {
        value
        for name, value in variables.items()
        if _ENVIRONMENT.fullmatch(name) and not re.fullmatch(_ORDINARY, value)
    }
    # A shorter value would be found in ordinary words.
    known = {value for value in {*values, *secrets} if len(value) >= 6}
    hunted = [value for value in known if not _MASKED.fullmatch(value)]
    scan = _Scan(source, hunted, allow, patterns or {})
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        scan.text(number, line)
    # A finding in a body is reported at the line where its interaction starts.
    starts = [number for number, line in enumerate(lines, 1) if line.startswith("- request:")]
    items = _read_interactions(text) if starts else []
    numbered = list(zip(starts, items, strict=False))
    # A time that a request asked about may come back in any answer, so all requests are read first.
    scan.asked = _find_times_asked(items)
    for number, item in numbered:
        scan.interaction(number, item)
    scan.sockets(numbered)
    return sorted(scan.found, key=lambda leak: leak.line)


def scan_file(path: str | Path, **options: Any) -> list[Leak]:
    """Return all findings in one file; ``options`` are those of :func:`scan_text`."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return scan_text(text, source=str(path), **options)


def scan_tree(folder: str | Path, **options: Any) -> list[Leak]:
    """Return all findings in a file, or in every file below a folder."""
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
    return [leak for path in files for leak in scan_file(path, **options)]


def gate(text: str, **options: Any) -> None:
    """Check a text that is to be written; ``options`` are those of :func:`scan_text`.

    Raises:
        LeakError: There are findings.
    """
    leaks = scan_text(text, **options)
    if leaks:
        raise LeakError(leaks)


def find_secrets(cassette: Any) -> list[str]:
    """Return the secrets that a raw :class:`Cassette` itself shows.

    Those are credentials in headers, and values under sensitive keys that can be nothing else.
    """
    found: list[str] = []
    for item in cassette:
        for name, value in (*item.request.headers, *item.response.headers):
            if re.search(r"(?i)auth|api-?key|token|password|cookie", name):
                words = re.split(r"[;=\s]+", value)
                found += [word for word in words if re.search(r"\d", word) and len(word) >= 10]
        for body in (item.request.body, item.response.body):
            text = body.decode("utf-8", "ignore")
            for event in [_parse_json(line) for line in _list_data(text)] or [_parse_json(text)]:
                found += [value for path, value in _walk_strings(event) if _is_telling(path)]
    # Shorter texts, and words, would be found in ordinary sentences.
    return [value for value in found if len(value) >= 12 and re.search(r"\d", value)]


def main(arguments: list[str] | None = None) -> int:
    """Scan the given paths, print the findings, and return 1 if there are any."""
    paths = sys.argv[1:] if arguments is None else arguments
    if not paths:
        sys.stderr.write("usage: python -m letta_adapters.testing.leaks PATH...\n")
        return 2
    missing = [path for path in paths if not Path(path).exists()]
    leaks = [leak for path in paths if path not in missing for leak in scan_tree(path)]
    sys.stdout.writelines(f"{leak}\n" for leak in leaks)
    sys.stderr.writelines(f"no such file: {path}\n" for path in missing)
    return 2 if missing else int(bool(leaks))


def _read_all_ways(text: str, depth: int = 0) -> Iterator[str]:
    yield text
    # Real bodies nest encodings, such as JSON in JSON in base64, but no deeper.
    if depth == 3:
        return
    if "\\" in text:
        yield from _read_all_ways(re.sub(r"\\(u[0-9a-fA-F]{4}|.)", _unescape, text), depth + 1)
    if "%" in text and (plain := unquote(text)) != text:
        yield from _read_all_ways(plain, depth + 1)
    # Shorter runs hold less than twelve bytes, and most words are such runs.
    for token in re.findall(r"[\w+/-]{16,}", text):
        # A text within a longer run of base64 letters may begin at any of four places.
        for shift in range(4):
            decoded = _decode_base64(token[shift:])
            if decoded:
                yield from _read_all_ways(decoded, depth + 1)


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 5:
        return chr(int(code[1:], 16))
    return {"n": "\n", "t": "\t", "r": "\r"}.get(code, code)


def _decode_base64(token: str) -> str:
    token = token.replace("-", "+").replace("_", "/")
    try:
        raw = base64.b64decode(token[: len(token) - (len(token) % 4 == 1)] + "==")
    except ValueError:
        return ""
    text = raw.decode("latin-1")
    readable = len(re.findall(r"[\x20-\x7e\n\t]", text))
    return text if readable > 0.9 * len(text) else ""


def _is_said(event: Any) -> bool:
    inner = event.get("delta", event) if isinstance(event, dict) else None
    return isinstance(inner, dict) and inner.get("message_type") in _PEOPLE


def _find_times_asked(items: Iterable[Any]) -> frozenset[str]:
    texts = (f"{item['request']['uri']} {item['request'].get('body')}" for item in items)
    return frozenset(
        match[0]
        for text in texts
        for reading in _read_all_ways(text)
        for match in _TIME.finditer(reading)
    )


def _read_interactions(text: str) -> list[Any]:
    try:
        data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return list(data["interactions"])
    except (yaml.YAMLError, KeyError, TypeError):
        return []


def _parse_json(text: str) -> Any:
    try:
        # A mark of the byte order may begin a text, and would hide all that is in it.
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):  # no JSON, or nested by the thousand
        return None


def _list_data(body: str) -> list[str]:
    return [line[5:].strip() for line in re.split(r"\r?\n", body) if line.startswith("data:")]


def _walk_strings(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk_strings(item, (*path, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _walk_strings(item, path)
    elif isinstance(value, str):
        yield path, value


def _join_events(events: list[Any]) -> Iterator[str]:
    """Yield the texts that a client would read: each message's strings joined, by field."""
    parts: dict[tuple[Any, ...], list[str]] = {}
    for event in events:
        if isinstance(event, dict):
            owner = str([value for key, value in _walk_scalars(event) if key in _OWNERS])
            for path, value in _walk_strings(event):
                if not re.search(r"(?:^|_)id$|^otid$|^date$|type$", path[-1] if path else ""):
                    parts.setdefault((owner, path), []).append(value)
    return ("".join(values) for values in parts.values() if len(values) > 1)


def _walk_scalars(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key), item if isinstance(item, (str, int)) else None
            yield from _walk_scalars(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk_scalars(item)


def _is_epoch(path: tuple[str, ...], value: float) -> bool:
    return bool(path) and path[-1] in _EPOCH_KEYS and value > 1e9 and value != 1767225600


def _is_telling(path: tuple[str, ...]) -> bool:
    if not path:
        return False
    # No string stands there in a JSON schema, which describes a password.
    if _TELLING.fullmatch(path[-1]):
        return True
    if "properties" in path:
        return False
    if path[:-1] == ("set",):  # a secret_apply frame
        return True
    inside = _TELLING_PARENT.intersection(path[:-1])
    return bool(inside) and path[-1] not in _STRUCTURAL


def _compile_machine_names() -> re.Pattern[str] | None:
    # The machine that records, not the one in the recording: it is whoever runs this whose name
    # would be published.
    names = {socket.gethostname(), socket.gethostname().split(".")[0], Path.home().name}
    with contextlib.suppress(KeyError, OSError):  # a user without a name
        names.add(getpass.getuser())
    telling = [
        n for n in sorted(names) if len(n) > 3 and not _ANYBODY.issuperset(n.lower().split("-"))
    ]
    # A name of letters alone may be anybody's in a sentence, but not in a path, an address or a
    # setting.
    alone = [rf"(?<!\w){re.escape(n)}(?!\w)" for n in telling if not n.isalpha()]
    within = [n for n in telling if n.isalpha()]
    alone += [rf"[/\\=@~]{n}(?!\w)|(?<!\w){n}(?:[@/\\]|:\d)" for n in within]
    return re.compile(f"(?i){'|'.join(alone)}") if alone else None


# -- how keys look ------------------------------------------------------------------------------

# A short prefix, and after a separator a long run of letters.
_RUN = re.compile(
    r"(?<![A-Za-z0-9_+/=.-])(?:[A-Za-z][A-Za-z0-9]{0,11}(?:[_-][A-Za-z0-9]{1,12}){0,2}[_.-])"
    r"(?P<tail>[A-Za-z0-9_-]{20,180})(?![A-Za-z0-9+/=])"
)
# Keys of services that put no separator after the prefix, which the pattern above requires.
_GLUED = re.compile(
    r"(?<![A-Za-z0-9_+/=-])(?:A[A-Z]{3}(?=[A-Z]*\d)[A-Z2-7]{16}|AIza[\w-]{35}|LTAI\w{16,}"
    r"|(?:dapi|SK)[0-9a-f]{32}|AKCp\w{50,}|GR1348941\S{20}|ABSK\S{80,}|EZ[AT]K\w{50,})(?!\w)"
)
_ASSIGNED = re.compile(
    r"(?i:pass(?:word|wd|phrase)?|pwd|secret(?:[-_]?key)?|(?:api|access)[-_ ]?key|token)"
    r"[\"']?\s?(?:=|:)\s?[\"']?"
    r"(?P<value>(?=[^\s\"'&]*(?:[a-z]\d|\d[a-z]|[a-z][A-Z]))[^\s\"'&,;(){}<>\[\]\\]{6,})"
)
_LOGIN = re.compile(r"[a-z]{2,12}://[^/\s:@\"'\\]*:(?P<value>[^/\s@\"'\\]{3,})@")
# The sanitizer's own placeholders.
_OURS = re.compile(r"(?:REDACTED|00000000)")


def find_keys(text: str) -> Iterator[str]:
    """Yield every part of ``text`` that looks like a key, a token or a password."""
    for match in _GLUED.finditer(text):
        yield match[0]
    for match in _RUN.finditer(text):
        if _is_random(match["tail"]) and not _OURS.search(match[0]):
            yield match[0]
    for pattern in (_ASSIGNED, _LOGIN):
        for match in pattern.finditer(text):
            if not _OURS.search(match["value"]):
                yield match["value"]


def _is_random(tail: str) -> bool:
    # Names are made of words; generated text mixes digits and letters of both cases all over.
    kinds = [bool(re.search(kind, tail)) for kind in ("[a-z]", "[A-Z]", "[0-9]")]
    turns = len(re.findall(r"(?<=[a-z])[A-Z0-9]|(?<=[0-9])[A-Za-z]|(?<=[A-Z])[0-9]", tail))
    return sum(kinds) == 3 and turns * 4 >= len(tail) and _entropy(tail) > 3.6


def _entropy(text: str) -> float:
    """Return the entropy in bits per letter."""
    shares = (count / len(text) for count in Counter(text).values())
    return -sum(share * math.log2(share) for share in shares)


if __name__ == "__main__":
    sys.exit(main())
