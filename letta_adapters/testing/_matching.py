"""When is a request the recorded one? Method, path, query and a normalised body.

A recording is sanitized and the client makes fresh ids in every run, so both sides are brought to
one form first: the text is cleaned exactly as the sanitizer cleans it, and ids that the client made
up become ``*``. Ids that a recorded *response* introduced are left alone: a client which answers
the wrong tool call must not match.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl

import httpx

from letta_adapters.testing._patterns import BOUNDARY, CLIENT_ID_KEYS, ID_TOKEN, MULTIPART_BOUNDARY
from letta_adapters.testing._wildcards import same_text, same_value
from letta_adapters.testing.cassette import Cassette, RecordedRequest

Cleaner = Callable[[RecordedRequest], RecordedRequest]


@dataclass(frozen=True)
class RequestKey:
    """What two requests must have in common; hashable."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    body: str

    @property
    def text(self) -> str:
        """Path, query and body in a row: where a key's ids stand, in order."""
        return "\n".join((self.path, *(value for _, value in self.query), self.body))

    def renamed(self, rename: Callable[[str], str], ids: Container[str]) -> RequestKey:
        """The key with ``rename`` applied to each of ``ids`` in it."""

        def other(text: str) -> str:
            return ID_TOKEN.sub(lambda m: rename(m[0]) if m[0] in ids else m[0], text)

        query = tuple((name, other(value)) for name, value in self.query)
        return RequestKey(self.method, other(self.path), query, other(self.body))

    def score(self, other: RequestKey) -> int:
        """How alike two keys are, for the list of near misses."""
        return (
            4 * (self.path == other.path)
            + 2 * (self.method == other.method)
            + (self.query == other.query)
            + (self.body == other.body)
        )


def server_made_ids(cassette: Cassette) -> frozenset[str]:
    """Ids that occur in a response before they occur in any request."""
    from_client: set[str] = set()
    from_server: set[str] = set()
    for interaction in cassette:
        request, response = interaction.request, interaction.response
        sent = f"{request.uri} {request.body.decode('utf-8', 'replace')}"
        from_client |= set(ID_TOKEN.findall(sent)) - from_server
        from_server |= set(ID_TOKEN.findall(response.body.decode("utf-8", "replace"))) - from_client
    return frozenset(from_server)


def request_key(request: RecordedRequest, keep: Callable[[str], bool]) -> RequestKey:
    """The key of a (cleaned) request; ids for which ``keep`` is false become ``*``."""
    url = httpx.URL(request.uri)
    query = parse_qsl(url.query.decode("ascii"), keep_blank_values=True)
    return RequestKey(
        method=request.method.upper(),
        path=_mask(url.path, keep) or "/",
        query=tuple(sorted((name, _mask(value, keep)) for name, value in query)),
        body=_body_key(request, keep),
    )


def json_body(body: bytes) -> Any:
    """The body as JSON, or ``None`` if it is none (a JSON ``null`` body does not occur)."""
    if body[:1] not in b'{["':
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None


def _body_key(request: RecordedRequest, keep: Callable[[str], bool]) -> str:
    value = json_body(request.body) if request.body else None
    if value is not None:
        return json.dumps(_mask_json(value, keep), sort_keys=True, ensure_ascii=False)
    content_type = request.header("content-type")
    text = request.body.decode("utf-8", "backslashreplace")
    if "x-www-form-urlencoded" in content_type:
        return json.dumps(sorted((k, _mask(v, keep)) for k, v in parse_qsl(text)))
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
        return {
            _mask(key, keep): "*"
            if key in CLIENT_ID_KEYS and isinstance(item, str)
            else _mask_json(item, keep)
            for key, item in value.items()
        }
    return value


def same_request(ours: RecordedRequest, theirs: RecordedRequest) -> bool:
    """Compare two cleaned requests without a cassette at hand (vcrpy's matchers get none).

    ``theirs`` is the recorded one; what a placeholder hides may be anything. An id that is not in
    the sanitizer's numbered form was made up by the client just now, and matches any id; two
    numbered ids must be equal.
    """
    if not covers(key_of(theirs), key_of(ours)):
        return False
    ours_ids, theirs_ids = _ids_in_order(ours), _ids_in_order(theirs)
    return len(ours_ids) == len(theirs_ids) and all(
        a == b or not (is_numbered(a) and is_numbered(b))
        for a, b in zip(ours_ids, theirs_ids, strict=True)
    )


@lru_cache(maxsize=4096)
def key_of(request: RecordedRequest) -> RequestKey:
    """The key of a (cleaned) request with all ids masked."""
    return request_key(request, lambda _token: False)


def is_numbered(token: str) -> bool:
    """Whether an id is in the sanitizer's form (or one that a test made up on purpose)."""
    return "00000000" in token


def differences(ours: RequestKey, theirs: RequestKey) -> Iterable[str]:
    """What tells two keys apart, one short line each."""
    for name in ("method", "path", "query"):
        asked, recorded = getattr(ours, name), getattr(theirs, name)
        if asked != recorded:
            yield f"{name}: {asked!r} was asked, {recorded!r} is recorded"
    if ours.body != theirs.body:
        a, b = json_body(ours.body.encode()), json_body(theirs.body.encode())
        if a is None or b is None:
            yield f"body: {_short(ours.body)} was asked, {_short(theirs.body)} is recorded"
        else:
            yield from islice(_json_differences(a, b, "body"), 5)


def covers(recorded: RequestKey, live: RequestKey) -> bool:
    """Whether ``live`` is ``recorded`` but for what stands where the sanitizer put a placeholder.

    What that hid is not known any more, and differs by the machine and the day.
    """
    if recorded == live:
        return True
    if recorded.method != live.method or len(recorded.query) != len(live.query):
        return False
    queries = zip(recorded.query, live.query, strict=True)
    if not same_text(recorded.path, live.path) or not all(
        a[0] == b[0] and same_text(a[1], b[1]) for a, b in queries
    ):
        return False
    ours, theirs = json_body(recorded.body.encode()), json_body(live.body.encode())
    if ours is None or theirs is None:
        return same_text(recorded.body, live.body)
    return same_value(ours, theirs)


def _json_differences(a: Any, b: Any, path: str) -> Iterable[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            ours, theirs = a.get(key, "(absent)"), b.get(key, "(absent)")
            yield from _json_differences(ours, theirs, f"{path}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _json_differences(x, y, f"{path}[{index}]")
    elif a != b:
        yield f"{path}: {_short(a)} was asked, {_short(b)} is recorded"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 90 else f"{text[:60]}…{text[-25:]}"


def _ids_in_order(request: RecordedRequest) -> list[str]:
    value = json_body(request.body) if request.body else None
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
        for key in sorted(value):
            found.extend(ID_TOKEN.findall(key))
            if key not in CLIENT_ID_KEYS:
                _collect(value[key], found)
