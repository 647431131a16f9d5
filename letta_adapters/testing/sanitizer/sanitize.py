"""Internal: remove what is private and what is volatile from a recording; it stays playable.

There are two passes over the whole cassette: the first learns (secrets, ids, the days of the
recording), the second rewrites. Both are repeated until nothing changes, so that the result is a
fixed point: sanitizing it again changes nothing. The modules that this one uses find each kind of
text: ``secrets`` (known secrets, in all encodings), ``finder`` (one text), ``bodies`` (JSON, and
strings spread over a stream's deltas), ``ids``, ``dates``.

Placeholders are plain words, letters and digits, so that they are valid in JSON, YAML, URLs and
base64 alike: ``REDACTED``, ``user``, ``user@example.com``, ``host.test``, ``http://letta.test``,
numbered ids, ``2026-01-01T00:00:00``.

A secret that cannot be recognised is not removed: an opaque one that is neither in the environment,
nor in an authentication header, nor under a sensitive key. Pass such values as ``secrets``.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from letta_adapters.errors import InvalidInputError
from letta_adapters.testing.cassette import (
    Cassette,
    Headers,
    Interaction,
    RecordedRequest,
    RecordedResponse,
    group_connections,
    is_frame,
    split_events,
)
from letta_adapters.testing.sanitizer.bodies import Streams, clean_body, detect_charset, unpack
from letta_adapters.testing.sanitizer.dates import DateFinder, Place, find_times, get_today
from letta_adapters.testing.sanitizer.finder import Finder
from letta_adapters.testing.sanitizer.ids import IdMap
from letta_adapters.testing.sanitizer.json_text import read_json
from letta_adapters.testing.sanitizer.patterns import BOUNDARY, MULTIPART_BOUNDARY
from letta_adapters.testing.sanitizer.secrets import Secrets, is_sensitive

REQUEST_HEADERS = frozenset({"accept", "content-type"})
RESPONSE_HEADERS = frozenset({"content-type", "location", "retry-after"})
BASE_URL = "http://letta.test"
# The second round usually changes nothing; it may when a replacement makes a new text.
_MAX_ROUNDS = 4
# A comment of an event stream, which separates bodies that are read as one.
_SEAM = b": letta-seam\n\n"


@dataclass(frozen=True)
class SanitizeRules:
    r"""Rules for a recording that the sanitizer cannot know by itself.

    ::

        SanitizeRules(patterns={r"order \d+": "order 0"}, hosts=("db1.corp",))

    Attributes:
        base_url: The recorded server (with a path prefix, if it has one), which becomes
            ``http://letta.test``; by default the first request's origin.
        keep: Texts (whole ids, dates, e-mail addresses) never to replace.
        hosts: Further host names to hide.
        patterns: Further regular expressions to remove, with the plain texts to put there instead.
        request_headers: Request headers to keep beside the few that matter.
        response_headers: Response headers to keep beside the few that matter.
        environment: The variables to search for secrets, by default ``os.environ``.

    Raises:
        InvalidInputError: A pattern is no regular expression, or finds something in its own
            replacement again.
    """

    base_url: str | None = None
    keep: frozenset[str] = frozenset()
    hosts: tuple[str, ...] = ()
    patterns: Mapping[str, str] = field(default_factory=dict)
    request_headers: frozenset[str] = frozenset()
    response_headers: frozenset[str] = frozenset()
    environment: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for pattern, text in self.patterns.items():
            try:
                again = re.search(pattern, text)
            except re.error as error:
                raise InvalidInputError(f"{pattern!r} is no pattern: {error}.") from None
            if re.search(pattern, "") or (again and again[0] != text):
                raise InvalidInputError(
                    f"The pattern {pattern!r} finds something in its replacement {text!r}, or in "
                    "nothing: a recording would never be clean."
                )


def sanitize(
    cassette: Cassette, *, rules: SanitizeRules | None = None, secrets: Iterable[str] = ()
) -> Cassette:
    """Return a copy of ``cassette`` without anything private or volatile.

    The result is a fixed point of this function.

    ::

        clean = sanitize_cassette(recorder.cassette, secrets=["the value of a secret"])

    Args:
        cassette: The recording.
        rules: What the sanitizer cannot know by itself.
        secrets: Texts to remove wherever they occur, in addition to those found in the environment,
            in request headers and under sensitive keys.
    """
    used = rules or SanitizeRules()
    known = _learn_known(used, secrets)
    times = _find_times_asked(cassette)
    for _ in range(_MAX_ROUNDS):
        before, cassette = cassette, _round(cassette, used, known, times)
        if cassette == before:
            break
    return cassette


class RequestCleaner:
    """Cleans single requests as :func:`sanitize` does, but leaves ids alone (see ``matching``).

    It learns secrets from the requests it is given, as the sanitizer does from a recording's. The
    day of the recording is today.
    """

    def __init__(self, rules: SanitizeRules | None = None, secrets: Iterable[str] = ()) -> None:
        self._rules = rules or SanitizeRules()
        dates = DateFinder([get_today()])
        self._finder = Finder(_learn_known(self._rules, secrets), dates, **_take_given(self._rules))

    def __call__(self, request: RecordedRequest) -> RecordedRequest:
        """Return the request with path, query and body cleaned."""
        _learn_request(self._finder.secrets, request)
        return _Writer(self._finder, self._rules).request(request)


def _take_given(rules: SanitizeRules) -> dict[str, Any]:
    return {"hosts": rules.hosts, "keep": rules.keep, "patterns": rules.patterns}


def _learn_known(rules: SanitizeRules, secrets: Iterable[str]) -> Secrets:
    known = Secrets()
    known.learn_environment(rules.environment)
    for secret in secrets:
        known.add(secret, certain=True)
    return known


def _round(
    cassette: Cassette, rules: SanitizeRules, secrets: Secrets, times: frozenset[str]
) -> Cassette:
    # Secrets are learnt first, from everything: one may be used long before the place that shows
    # what it is.
    for interaction in cassette:
        _learn_request(secrets, interaction.request)
        secrets.learn_headers(interaction.response.headers)
    for stream in _join_streams(cassette):
        _learn_body(secrets, stream.body, is_sse=stream.is_sse)
    ids, dates, origins = IdMap(), DateFinder(), _map_origins(cassette, rules)
    # This pass only learns: ids are noted and dates collected, and what it writes is thrown away.
    reader = Finder(secrets, dates, _make_note(ids), origins=origins, **_take_given(rules))
    _Writer(reader, rules).cassette(cassette)
    for item in cassette:
        # The `date` header is not kept, but it says best when the recording was made.
        deque(dates.edits(item.response.header("date"), Place.STAMP), maxlen=0)
    ids.number()
    # Answers may repeat a time that the test asked about, and keep it. In requests every time of
    # the recording's days is replaced.
    asked, answered = (
        Finder(secrets, found, ids.get, ids.get_cut, origins, **_take_given(rules))
        for found in (DateFinder(dates.seen), DateFinder(dates.seen, times))
    )
    return _Writer(asked, rules, answered).cassette(cassette)


def _find_times_asked(cassette: Cassette) -> frozenset[str]:
    # A test asserts on answers. So a time that it asked about stays in them, even today's date.
    texts = (_decode_body(item.request).decode("utf-8", "ignore") for item in cassette)
    return frozenset(time for text in texts for time in find_times(text))


def _make_note(ids: IdMap) -> Callable[[str], str]:
    def note(token: str) -> str:
        ids.see(token)
        return token

    return note


@dataclass(frozen=True)
class _Stream:
    """Bodies that are one text.

    An HTTP body is one alone. A WebSocket's frames continue each other, whatever the client sent in
    between, so they are joined.
    """

    items: list[tuple[int, RecordedResponse]]

    @property
    def is_sse(self) -> bool:
        return self.items[0][1].is_sse

    @property
    def body(self) -> bytes:
        return _SEAM.join(_decode_body(item) for _, item in self.items)

    def apart(self, body: bytes) -> dict[int, bytes]:
        """Return the parts of the joined ``body``, by the number of their interaction."""
        parts = body.split(_SEAM) if len(self.items) > 1 else [body]
        return {number: part for (number, _), part in zip(self.items, parts, strict=True)}


def _join_streams(cassette: Cassette) -> list[_Stream]:
    items = cassette.interactions
    alone = [[number] for number, item in enumerate(items) if not is_frame(item)]
    return [
        _Stream([(number, items[number].response) for number in group])
        for group in (*alone, *group_connections(items))
    ]


@dataclass
class _Writer:
    """A writer of copies of interactions, with everything replaced that a finder finds."""

    finder: Finder
    rules: SanitizeRules
    answers: Finder | None = None

    def cassette(self, cassette: Cassette) -> Cassette:
        bodies: dict[int, bytes] = {}
        for stream in _join_streams(cassette):
            finder = self.answers or self.finder
            bodies |= stream.apart(clean_body(stream.body, stream.is_sse, finder))
        return Cassette(
            [
                Interaction(
                    self.request(item.request), self.response(item.response, bodies[number])
                )
                for number, item in enumerate(cassette)
            ]
        )

    def request(self, request: RecordedRequest) -> RecordedRequest:
        headers = self._headers(request.headers, REQUEST_HEADERS | self.rules.request_headers)
        return RecordedRequest(
            method=request.method,
            uri=self._uri(request.uri, Place.REQUEST),
            headers=headers,
            body=clean_body(_decode_body(request), False, self.finder, Place.REQUEST),
        )

    def response(self, response: RecordedResponse, body: bytes) -> RecordedResponse:
        """Return the response with ``body``, which is clean already."""
        headers = self._headers(response.headers, RESPONSE_HEADERS | self.rules.response_headers)
        error = response.error and replace(response.error, after_bytes=len(body))
        return RecordedResponse(
            status=response.status,
            reason=self.finder.clean(response.reason),
            headers=headers,
            body=body,
            timing=_fit_timing(response, body),
            error=error,
        )

    def _headers(self, headers: Headers, allowed: frozenset[str]) -> Headers:
        kept: list[tuple[str, str]] = []
        for name, value in headers:
            # Only a few headers matter to a replay; the others change with every server and proxy.
            if name.lower() in allowed:
                boundary = MULTIPART_BOUNDARY.search(value)
                if boundary:
                    value = value.replace(boundary[1], BOUNDARY)
                clean = self._uri(value) if name.lower() == "location" else self.finder.clean(value)
                kept.append((name.lower(), clean))
        return tuple(sorted(kept))

    def _uri(self, uri: str, place: Place = Place.SERVER) -> str:
        # The longest first: one server's address may be the beginning of another's.
        for origin in sorted(self.finder.origins, key=len, reverse=True):
            if _is_below(uri, origin):
                return self.finder.origins[origin] + self.finder.clean(uri[len(origin) :], place)
        parts = urlsplit(uri)
        origin = f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
        # An address that stays does so without a name and a password in it.
        plain = origin.replace(parts.netloc, parts.netloc.rpartition("@")[2])
        return plain + self.finder.clean(uri[len(origin) :], place)


def _decode_body(message: RecordedRequest | RecordedResponse) -> bytes:
    """Return the body, unpacked, with a multipart boundary that is always the same."""
    body = unpack(message.body, message.header("content-encoding"))
    boundary = MULTIPART_BOUNDARY.search(message.header("content-type"))
    if boundary is None:
        return body
    # The dashes are included: a short boundary alone may be a part of anything.
    return body.replace(f"--{boundary[1]}".encode(), f"--{BOUNDARY}".encode())


def _fit_timing(response: RecordedResponse, body: bytes) -> tuple[tuple[int, int], ...] | None:
    if response.timing is None:
        return None
    sizes = [len(event) for event in split_events(response.body)]
    # The recorded pieces are not the events of the body, so they cannot be assigned to the new
    # ones.
    if sizes != [count for _, count in response.timing]:
        return response.timing if body == response.body else None
    events = split_events(body)
    delays = [delay for delay, _ in response.timing]
    return tuple((delay, len(event)) for delay, event in zip(delays, events, strict=True))


def _map_origins(cassette: Cassette, rules: SanitizeRules) -> dict[str, str]:
    known = [rules.base_url.rstrip("/")] if rules.base_url else []
    for interaction in cassette:
        parts = urlsplit(interaction.request.uri)
        origin = f"{parts.scheme}://{parts.netloc}"
        if not any(_is_below(interaction.request.uri, other) for other in known):
            known.append(origin)
    names: dict[str, str] = {}
    for origin in known:
        # An address that was replaced before stays, so that cleaning again changes nothing.
        if not (urlsplit(origin).hostname or "").endswith(".test"):
            number = len(names) + 1
            names[origin] = BASE_URL if number == 1 else f"http://letta{number}.test"
    return names


def _is_below(uri: str, origin: str) -> bool:
    """Return whether an address is one of this server's, and not of one with a longer name."""
    return uri.startswith(origin) and uri[len(origin) :][:1] in ("", "/", "?", "#")


def _learn_request(secrets: Secrets, request: RecordedRequest) -> None:
    secrets.learn_headers(request.headers)
    parts = urlsplit(request.uri)
    # A password in an address is one, whatever it looks like.
    if parts.password:
        secrets.add(unquote(parts.password), certain=True)
    for name, value in parse_qsl(parts.query):
        if is_sensitive((name,)):
            secrets.add(value)
    _learn_body(secrets, _decode_body(request), is_sse=False)


def _learn_body(secrets: Secrets, body: bytes, *, is_sse: bool) -> None:
    text = body.decode(detect_charset(body) or "utf-8", "replace")
    if not is_sse:
        secrets.learn_text(text)
        return
    streams = Streams()
    for line in text.split("\n"):
        if line.startswith("data:"):
            data = line[5:].strip()
            secrets.learn_text(data)
            leaves, _ = read_json(data)
            streams.add(leaves, [leaf.view(data) for leaf in leaves])
    # A secret may be split over several events, so that only the joined text has it whole.
    for joined in streams.texts():
        secrets.learn_text(joined)
