"""Internal: decide when a request is the recorded one: method, path, query, normalised body.

A recording is sanitized and the client makes fresh ids in every run, so both sides are brought to
one form first: the text is cleaned exactly as the sanitizer cleans it, and ids that the client made
up become ``*``. Ids that a recorded *response* introduced are left alone, since a client that
answers the wrong tool call must not match.

A recording does not say what was taken out of it, and that differs by the machine and the day. So
where the recorded side has one of the sanitizer's placeholders, whatever is sent in its place
matches; all else must be equal. Frames of a WebSocket are compared by the same rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any, Final
from urllib.parse import parse_qsl

import httpx

from letta_adapters.testing.cassette import SENT, Interaction, RecordedRequest
from letta_adapters.testing.sanitizer.patterns import (
    BOUNDARY,
    CLIENT_ID_KEYS,
    ID_TOKEN,
    MULTIPART_BOUNDARY,
)

Cleaner = Callable[[RecordedRequest], RecordedRequest]

# In a body longer than this, ids are looked up one by one.
_LONG_BODY = 50_000
_LONGEST_PREFIX = 72


@dataclass(frozen=True)
class RequestKey:
    """The parts that two requests must have in common; hashable."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    body: str

    @property
    def text(self) -> str:
        """Return path, query and body in a row: everything that contains ids, in order."""
        return "\n".join((self.path, *(value for _, value in self.query), self.body))

    def replace_ids(self, rename: Callable[[str], str], ids: Container[str]) -> RequestKey:
        """Return the key with ``rename`` applied to each of ``ids`` in it."""

        def other(text: str) -> str:
            return ID_TOKEN.sub(lambda m: rename(m[0]) if m[0] in ids else m[0], text)

        query = tuple((name, other(value)) for name, value in self.query)
        return RequestKey(self.method, other(self.path), query, other(self.body))

    def score(self, other: RequestKey) -> int:
        """Return how alike two keys are, for the list of near misses."""
        # The path says most about what a request is for.
        return (
            4 * (self.path == other.path)
            + 2 * (self.method == other.method)
            + (self.query == other.query)
            + (self.body == other.body)
        )


class ServerIds:
    """The ids that occur in a response before they occur in any request: ``token in ids``.

    A long body (a stream repeats its ids in every event) is not read until an id is asked for:
    finding all ids in it would take longer than playing it.
    """

    def __init__(self, cassette: Iterable[Interaction]) -> None:
        self._sent: dict[str, int] = {}
        self._came: dict[str, int] = {}
        self._long: list[tuple[dict[str, int], int, str]] = []
        self._known: dict[str, bool] = {}
        for number, interaction in enumerate(cassette):
            request, response = interaction.request, interaction.response
            sent = f"{request.uri} {request.body.decode('utf-8', 'replace')}"
            self._note(self._sent, number, sent)
            self._note(self._came, number, response.body.decode("utf-8", "replace"))

    def __contains__(self, token: object) -> bool:
        name = str(token)
        if name not in self._known:
            # Only now are long bodies searched, and for this one id.
            for first, number, text in self._long:
                if number < first.get(name, number + 1) and _holds(text, name):
                    first[name] = number
            # An id that came before it was sent was made by the server. If it came with the answer
            # to the request that sent it, it only echoes the client's.
            came, sent = self._came.get(name), self._sent.get(name)
            self._known[name] = came is not None and (sent is None or came < sent)
        return self._known[name]

    def _note(self, first: dict[str, int], number: int, text: str) -> None:
        if len(text) > _LONG_BODY:
            self._long.append((first, number, text))
            return
        for token in ID_TOKEN.findall(text):
            first.setdefault(token, number)


def _holds(text: str, token: str) -> bool:
    start = text.find(token)
    while start >= 0:
        # The text before is searched, too: the token may be the end of a longer id.
        before = max(start - _LONGEST_PREFIX, 0)
        found = ID_TOKEN.finditer(text, before, start + len(token) + 1)
        if any(match.start() == start and match[0] == token for match in found):
            return True
        start = text.find(token, start + 1)
    return False


def make_request_key(request: RecordedRequest, keep: Callable[[str], bool]) -> RequestKey:
    """Return the key of a (cleaned) request; ids for which ``keep`` is false become ``*``."""
    url = httpx.URL(request.uri)
    query = parse_qsl(url.query.decode("ascii"), keep_blank_values=True)
    return RequestKey(
        method=request.method.upper(),
        path=_mask(url.path, keep) or "/",
        query=tuple(sorted((name, _mask(value, keep)) for name, value in query)),
        body=_body_key(request, keep),
    )


def read_json_body(body: bytes) -> Any:
    """Return the body as JSON, or ``None`` if it is none (a JSON ``null`` body does not occur)."""
    if body[:1] not in b'{["':
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # no JSON, or nested by the thousand
        return None


@lru_cache(maxsize=2048)
def _parse(body: str) -> Any:
    """Return a key's body as JSON, not to be changed.

    It is cached, since keys are compared over and over.
    """
    return read_json_body(body.encode("utf-8", "replace"))


def _body_key(request: RecordedRequest, keep: Callable[[str], bool]) -> str:
    value = read_json_body(request.body) if request.body else None
    # Equal by meaning: neither the order of keys nor the spacing counts.
    if value is not None:
        return json.dumps(_mask_json(value, keep), sort_keys=True, ensure_ascii=False)
    content_type = request.header("content-type")
    text = request.body.decode("utf-8", "backslashreplace")
    if "x-www-form-urlencoded" in content_type:
        fields = parse_qsl(text, keep_blank_values=True)
        return json.dumps(sorted((k, _mask(v, keep)) for k, v in fields))
    # A multipart boundary is a random text, new in every request.
    boundary = MULTIPART_BOUNDARY.search(content_type)
    return _mask(text.replace(f"--{boundary[1]}", f"--{BOUNDARY}") if boundary else text, keep)


def _mask(text: str, keep: Callable[[str], bool]) -> str:
    return ID_TOKEN.sub(lambda match: match[0] if keep(match[0]) else "*", text)


def _mask_json(value: Any, keep: Callable[[str], bool]) -> Any:
    if isinstance(value, str):
        return _mask(value, keep)
    if isinstance(value, list):
        return [_mask_json(item, keep) for item in value]
    if isinstance(value, dict):
        # Under these keys the client sends an id of its own in any form, not only one that looks
        # like an id.
        made: dict[str, Any] = {}
        for key, item in value.items():
            name = _mask(key, keep)
            # Two ids are two keys still, or the value of one of them would not count.
            while name in made:
                name += "*"
            fresh = key in CLIENT_ID_KEYS and isinstance(item, str)
            made[name] = "*" if fresh else _mask_json(item, keep)
        return made
    return value


class ComparableRequest:
    """A cleaned request, compared without its cassette, which vcrpy does not give to its matchers.

    All ids are masked in ``key``. One that is not in the sanitizer's numbered form was made up by
    the client just now, and equals any id; two numbered ids must be the same.
    """

    def __init__(self, request: RecordedRequest) -> None:
        self.key = make_request_key(request, lambda _token: False)
        self._ids = _list_ids(request)
        # Without a placeholder only equal keys match, which is much cheaper to decide.
        self._is_open = has_placeholder(self.key.text)

    def equals(self, other: ComparableRequest) -> bool:
        """Return whether the two are one request, but for texts that placeholders hide."""
        if self.key != other.key and not (
            (self._is_open or other._is_open) and covers(other.key, self.key)
        ):
            return False
        return len(self._ids) == len(other._ids) and all(
            a == b or not (is_numbered(a) and is_numbered(b))
            for a, b in zip(self._ids, other._ids, strict=True)
        )


def is_numbered(token: str) -> bool:
    """Return whether an id is in the sanitizer's form (or one that a test made up on purpose)."""
    return "00000000" in token


def list_differences(ours: RequestKey, theirs: RequestKey) -> Iterable[str]:
    """Yield the differences between two keys, one short line each."""
    for name in ("method", "path", "query"):
        asked, recorded = getattr(ours, name), getattr(theirs, name)
        if asked != recorded:
            yield f"{name}: {asked!r} was asked, {recorded!r} is recorded"
    if ours.body != theirs.body:
        a, b = _parse(ours.body), _parse(theirs.body)
        if a is None or b is None:
            yield f"body: {_short(ours.body)} was asked, {_short(theirs.body)} is recorded"
        else:
            yield from islice(_list_json_differences(a, b, "body"), 5)


def covers(recorded: RequestKey, live: RequestKey) -> bool:
    """Return whether ``live`` is ``recorded`` but for texts where the sanitizer put a placeholder.

    The text that a placeholder hides is not known any more, and differs by the machine and the day.
    """
    if recorded == live:
        return True
    if recorded.method != live.method or len(recorded.query) != len(live.query):
        return False
    queries = zip(recorded.query, live.query, strict=True)
    if not matches_text(recorded.path, live.path) or not all(
        a[0] == b[0] and matches_text(a[1], b[1]) for a, b in queries
    ):
        return False
    # JSON is compared value by value, so that a placeholder cannot match beyond its string.
    ours, theirs = _parse(recorded.body), _parse(live.body)
    if ours is None or theirs is None:
        return matches_text(recorded.body, live.body)
    return matches_value(ours, theirs)


def _list_json_differences(a: Any, b: Any, path: str) -> Iterable[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            ours, theirs = a.get(key, "(absent)"), b.get(key, "(absent)")
            yield from _list_json_differences(ours, theirs, f"{path}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _list_json_differences(x, y, f"{path}[{index}]")
    elif a != b:
        yield f"{path}: {_short(a)} was asked, {_short(b)} is recorded"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 90 else f"{text[:60]}…{text[-25:]}"


def _list_ids(request: RecordedRequest) -> list[str]:
    value = read_json_body(request.body) if request.body else None
    found = ID_TOKEN.findall(request.uri)
    if value is None:
        return found + ID_TOKEN.findall(request.body.decode("utf-8", "replace"))
    _collect(value, found)
    return found


def _collect(value: Any, found: list[str]) -> None:
    if isinstance(value, str):
        found.extend(ID_TOKEN.findall(value))
    elif isinstance(value, list):
        for item in value:
            _collect(item, found)
    elif isinstance(value, dict):
        # Sorted, as in the key: two clients may write the fields of one request in another order.
        for key in sorted(value):
            found.extend(ID_TOKEN.findall(key))
            if key not in CLIENT_ID_KEYS:
                _collect(value[key], found)


# -- texts with placeholders --------------------------------------------------------------------

_CLOCK = (
    r"\d{1,2}:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:\s?[AP]M)?"
    r"(?:Z|\s?(?:UTC|GMT)?[+-]\d\d:?\d\d|\s(?:UTC|GMT))?"
)
_CONSTANT_CLOCK = (
    r"(?:00:00|12:00)(?::00(?:\.0+)?)?(?:\s?AM)?(?:Z|\s?(?:UTC|GMT)?[+-]00:?00|\s(?:UTC|GMT))?"
)
_PROSE = r"(?:Thu(?:rsday)?,? )?(?:Jan(?:uary)?\.? 1,? 2026|1 Jan(?:uary)?,? 2026)"
_MONTH = r"[A-Z][a-z]{2,8}\.?"
# No part of this pattern can match in two ways, so that even a text with many dates in it is read
# only once.
_ANY_PROSE = (
    rf"(?:[A-Z][a-z]{{2,8}},? )?(?:{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? (?:19|20)\d\d"
    rf"|\d{{1,2}}(?:st|nd|rd|th)? {_MONTH},? (?:19|20)\d\d)"
)
# By kind: the placeholder, and a pattern of what it may stand for. Nothing stands there for
# REDACTED, which may hide any text.
_KINDS = {
    "secret": (r"(?:REDACTED)+(?:R(?:E(?:D(?:A(?:C(?:T(?:E)?)?)?)?)?)?)?", ""),
    "moment": (rf"2026-01-01[T ]{_CONSTANT_CLOCK}", rf"(?:19|20)\d\d-\d\d-\d\d[T ]{_CLOCK}"),
    "day": (r"2026-01-01", r"(?:19|20)\d\d-\d\d-\d\d"),
    "prose_moment": (
        rf"{_PROSE},? (?:at )?{_CONSTANT_CLOCK}",
        rf"{_ANY_PROSE},? (?:at )?{_CLOCK}",
    ),
    "prose_day": (_PROSE, _ANY_PROSE),
    "python_date": (r"(?<=datetime\()2026, 1, 1(?:, 0)*(?=[,)])", r"\d{4}(?:, \d{1,6}){2,6}"),
    "mail": (r"user@example\.com", r"[^\s@\"'<>]+@[^\s@\"'<>]+"),
    "origin": (
        r"http://(?:letta\d*|host|endpoint)\.test(?:/v1)?",
        r"\w{2,8}://[^\s\"'<>/]+(?:/[^\s\"'<>/]+){0,2}?",
    ),
    "host": (r"(?:host|letta\d*)\.test", r"[^\s\"'<>/@]+"),
    # A login where a machine writes one; or in a sentence, where it may only stand for a name that
    # is no word.
    "login": (
        r"(?<=[/\\=@~])user(?!\w)|(?<!\w)user(?=[@/\\]|:\d)",
        r"[^\s/\\\"'<>@:=]+",
    ),
    "name": (r"(?<![\w.\"'-])user(?![\w\"'-])", r"(?:user|(?=[A-Za-z.]*[^\sA-Za-z.])[\w.-]+)"),
}
_PLACEHOLDER = re.compile("|".join(f"(?P<{kind}>{form})" for kind, (form, _) in _KINDS.items()))


def has_placeholder(text: str) -> bool:
    """Return whether there is a placeholder in ``text``."""
    return _PLACEHOLDER.search(text) is not None


def matches_text(recorded: str, live: str) -> bool:
    """Return whether two texts are equal but for the parts that placeholders stand for.

    Either text may have one: a word that is not private on one machine is somebody's name on
    another.
    """
    return recorded == live or _covers_text(recorded, live) or _covers_text(live, recorded)


def _covers_text(recorded: str, live: str) -> bool:
    pieces = _split_pieces(recorded)
    if pieces is None:
        return False
    # Between two placeholders for any text, the next piece is taken where it is first found: no
    # later place could do better. So the time is linear in the text's length, whatever is in it.
    first, *rest = pieces
    found = first.match(live)
    for number, piece in enumerate(rest, 1):
        if found is None:
            return False
        # A placeholder replaced something, so it stands for at least one character.
        start = found.end() + 1
        found = _at_end(piece, live, start) if number == len(rest) else piece.search(live, start)
    return found is not None and (bool(rest) or found.end() == len(live))


def _at_end(piece: re.Pattern[str], live: str, start: int) -> re.Match[str] | None:
    # The last piece must end the text, so its first occurrence may be too early.
    found = piece.search(live, start)
    while found is not None and found.end() != len(live):
        found = piece.search(live, found.start() + 1)
    return found


@lru_cache(maxsize=4096)
def _split_pieces(recorded: str) -> tuple[re.Pattern[str], ...] | None:
    """Return patterns of the pieces between placeholders for any text; ``None`` without any."""
    parts: list[list[str]] = [[]]
    position = 0
    for match in _PLACEHOLDER.finditer(recorded):
        parts[-1].append(re.escape(recorded[position : match.start()]))
        if match.lastgroup == "secret":
            parts.append([])
        else:
            parts[-1].append(_KINDS[str(match.lastgroup)][1])
        position = match.end()
    if not position:
        return None
    parts[-1].append(re.escape(recorded[position:]))
    return tuple(re.compile("".join(part), re.DOTALL) for part in parts)


def matches_value(recorded: Any, live: Any) -> bool:
    """Return whether two JSON values are equal but for the parts that placeholders stand for."""
    if isinstance(recorded, str) and isinstance(live, str):
        return matches_text(recorded, live)
    if isinstance(recorded, list) and isinstance(live, list):
        pairs = zip(recorded, live, strict=False)
        return len(recorded) == len(live) and all(matches_value(a, b) for a, b in pairs)
    if isinstance(recorded, Mapping) and isinstance(live, Mapping):
        if recorded.keys() == live.keys():
            return all(matches_value(recorded[key], live[key]) for key in recorded)
        # Keys may contain placeholders, too: a key may be a path or a name.
        ours, theirs = sorted(recorded.items()), sorted(live.items())
        return len(ours) == len(theirs) and all(
            matches_text(a, b) and matches_value(x, y)
            for (a, x), (b, y) in zip(ours, theirs, strict=True)
        )
    return type(recorded) is type(live) and bool(recorded == live)


# -- frames of a WebSocket ----------------------------------------------------------------------

# Fields that are new in every run: the value sent now takes the recorded one's place.
_FRESH: Final = frozenset({"request_id", "client_message_id", "cwd"})


def make_frame_comparison(
    clean: Callable[[RecordedRequest], RecordedRequest],
) -> Callable[[str, str], str]:
    """Return a function that compares a recorded frame with a sent one: ``""``, or how they differ.

    Args:
        clean: Writes a request as the sanitizer would on this machine, today.
    """

    def differ(recorded: str, sent: str) -> str:
        # The recorded frame is cleaned, too: a name that is private here may stand in it in plain.
        request = RecordedRequest(SENT, "", (("content-type", "application/json"),), b"")
        was, now = (clean(replace(request, body=text.encode())) for text in (recorded, sent))
        return _find_difference(json.loads(was.body), json.loads(now.body), "")

    return differ


def _find_difference(recorded: Any, sent: Any, path: str) -> str:
    """Return how a (cleaned) frame differs from the recorded one, or ``""``."""
    if isinstance(recorded, Mapping) and isinstance(sent, Mapping):
        if recorded.keys() != sent.keys():
            return f"{path or 'the frame'} has {sorted(sent)} instead of {sorted(recorded)}"
        parts = [(recorded[name], sent[name], f"{path}.{name}") for name in recorded]
    elif isinstance(recorded, list) and isinstance(sent, list) and len(recorded) == len(sent):
        numbered = enumerate(zip(recorded, sent, strict=True))
        parts = [(a, b, f"{path}[{n}]") for n, (a, b) in numbered]
    elif matches_value(recorded, sent) or (_is_fresh(path) and type(recorded) is type(sent) is str):
        return ""
    else:
        return f"{path} is {sent!r} instead of {recorded!r}"
    return next((found for part in parts if (found := _find_difference(*part))), "")


def find_fresh_texts(recorded: Any, sent: Any, path: str = "") -> dict[str, str]:
    """Map each recorded text that is new in every run to the one sent now, both inside JSON."""
    if isinstance(recorded, Mapping):
        parts = [(recorded[name], sent[name], f"{path}.{name}") for name in recorded]
    elif isinstance(recorded, list):
        parts = [(a, b, path) for a, b in zip(recorded, sent, strict=True)]
    elif _is_fresh(path) and recorded != sent:
        return {recorded: json.dumps(sent)[1:-1]}
    else:
        return {}
    return {was: now for part in parts for was, now in find_fresh_texts(*part).items()}


def _is_fresh(path: str) -> bool:
    return path.rpartition(".")[2] in _FRESH
