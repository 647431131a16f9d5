"""Internal: play the same cassettes through plain vcrpy, for code that cannot be given a transport.

Only parts that vcrpy 8.5 and later versions share are used. Known limits of that player (a response
comes in one piece; patching is global to the process, so there is one cassette at a time) are not
repaired here: use :class:`letta_adapters.testing.CassetteTransport` wherever a client can be given
a transport.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import vcr as vcrpy
from vcr.persisters.filesystem import CassetteNotFoundError
from vcr.serialize import deserialize

from letta_adapters.testing.cassette import (
    Cassette,
    Interaction,
    RecordedRequest,
    RecordedResponse,
    as_bytes,
    list_headers,
    load_yaml,
)
from letta_adapters.testing.recording.matching import (
    ComparableRequest,
    RequestKey,
    list_differences,
)
from letta_adapters.testing.recording.save import save_cassette
from letta_adapters.testing.sanitizer.sanitize import BASE_URL, RequestCleaner, SanitizeRules

# vcrpy's own matcher for methods, and three of this module for cleaned requests.
MATCH_ON = ("method", "path", "query", "letta_body")

Matcher = Callable[[Any, Any], None]


def make_matchers(
    rules: SanitizeRules | None = None,
    secrets: Iterable[str] = (),
    recorded: Iterable[Any] = (),
    cleaner: Callable[[], RequestCleaner] | None = None,
) -> dict[str, Matcher]:
    """Return vcrpy matchers for paths, queries and bodies, which compare what the sanitizer leaves.

    Bodies are equal by meaning; ids made by the client are ignored, and a placeholder matches
    anything, unless one of ``recorded`` is the request exactly. A matcher raises ``AssertionError``
    if the requests differ. Matchers remember the secrets that they saw in requests (a key sent as
    such, then within a message), so every ``VCR`` needs its own.

    Args:
        rules: The rules that the recording was saved with.
        secrets: The secrets that it was saved with.
        recorded: The recorded requests.
        cleaner: Makes the cleaner for requests, when the first one is compared; by default of
            ``rules`` and ``secrets``.
    """
    comparison = _Comparison(cleaner or (lambda: RequestCleaner(rules, secrets)), recorded)

    # vcrpy's errors name the functions, hence these short names.
    def path(r1: Any, r2: Any) -> None:
        comparison.check("path", r1, r2)

    def query(r1: Any, r2: Any) -> None:
        comparison.check("query", r1, r2)

    def letta_body(r1: Any, r2: Any) -> None:
        comparison.check("body", r1, r2)

    return {"path": path, "query": query, "letta_body": letta_body}


class _Comparison:
    """A cache of cleaned requests, by part.

    vcrpy compares every request with every recorded one, one part at a time.
    """

    def __init__(self, make: Callable[[], RequestCleaner], recorded: Iterable[Any]) -> None:
        self._make, self._recorded = make, recorded
        # The request is kept as well: as long as it lives, no other object has its number.
        self._seen: dict[tuple[int, str], tuple[Any, ComparableRequest]] = {}

    @cached_property
    def _clean(self) -> RequestCleaner:
        return self._make()

    @cached_property
    def _exact(self) -> set[tuple[RequestKey, ...]]:
        return {self._keys(request) for request in self._recorded}

    def check(self, what: str, live: Any, recorded: Any) -> None:
        ours, theirs = self._take_part(live, what), self._take_part(recorded, what)
        if not ours.equals(theirs):
            raise AssertionError("\n".join(list_differences(ours.key, theirs.key)) or "ids differ")
        # vcrpy asks for each recorded request alone, and takes the first that matches.
        # A placeholder would match, but another recorded request matches without one: that one is
        # meant.
        if ours.key != theirs.key and self._keys(live) in self._exact:
            raise AssertionError("another recorded request is this one exactly")

    def _take_part(self, request: Any, what: str) -> ComparableRequest:
        number = id(request), what
        if number not in self._seen:
            self._seen[number] = request, ComparableRequest(self._clean(_take_part(request, what)))
        return self._seen[number][1]

    def _keys(self, request: Any) -> tuple[RequestKey, ...]:
        return tuple(self._take_part(request, what).key for what in ("path", "query", "body"))


class LettaSerializer:
    """A vcrpy serializer that writes this package's YAML layout and reads any version 1 YAML."""

    @staticmethod
    def serialize(cassette_dict: dict[str, Any]) -> str:
        """Return vcrpy's dict as text."""
        return Cassette.from_dict(cassette_dict).dumps()

    @staticmethod
    def deserialize(cassette_string: str) -> Any:
        """Return the text as vcrpy's dict."""
        return load_yaml(cassette_string)


class LettaPersister:
    """A vcrpy persister that uses UTF-8 everywhere, and sanitizes and checks what it saves.

    ``ignore_existing=True`` starts from nothing, so that a cassette can be recorded anew while the
    old file stays until the new one is saved.
    """

    def __init__(
        self,
        *,
        rules: SanitizeRules | None = None,
        secrets: Iterable[str] = (),
        ignore_existing: bool = False,
    ) -> None:
        self.rules = rules
        self.secrets = tuple(secrets)
        self.ignore_existing = ignore_existing
        self.loaded: list[Any] = []

    def load_cassette(self, cassette_path: str | Path, serializer: Any) -> Any:
        """Return vcrpy's (requests, responses).

        Raises:
            CassetteNotFoundError: There is no file.
            CassetteFormatError: It is no version 1 cassette.
        """
        path = Path(cassette_path)
        if self.ignore_existing or not path.is_file():
            raise CassetteNotFoundError
        Cassette.load(path)  # vcrpy's own error for a bad file says neither where nor what
        requests, responses = deserialize(path.read_text(encoding="utf-8"), serializer)
        # The matchers hold this very list.
        self.loaded[:] = requests
        return requests, responses

    def save_cassette(
        self, cassette_path: str | Path, cassette_dict: dict[str, Any], serializer: Any
    ) -> None:
        """Sanitize and write a cassette.

        Raises:
            LeakError: The scanner still finds something in it.
        """
        recorded = _read_cassette(cassette_dict["requests"], cassette_dict["responses"])
        save_cassette(recorded, cassette_path, rules=self.rules, secrets=self.secrets)


def letta_vcr(
    *,
    record_mode: str = "none",
    rules: SanitizeRules | None = None,
    secrets: Iterable[str] = (),
    ignore_existing: bool = False,
    cleaner: Callable[[], RequestCleaner] | None = None,
) -> Any:
    """Return a ``vcr.VCR`` for Letta cassettes: strict matching, clean saving, each played once.

    ::

        with letta_vcr().use_cassette("cassettes/hello.yaml"):
            ...

    A block that raises saves nothing. Where saving itself fails (:class:`LeakError`), vcrpy keeps
    httpx patched until the garbage collector comes by; :func:`use_letta_vcr` does not.

    Args:
        record_mode: vcrpy's mode; by default ``none``: a request that is not recorded fails.
        rules: The sanitizer's rules.
        secrets: More texts to remove.
        ignore_existing: Record anew, as if there were no file.
        cleaner: Makes the cleaner for requests, at the first one; by default of ``rules`` and
            ``secrets``.
    """
    # At level INFO vcrpy prints every raw response, unsanitized.
    logging.getLogger("vcr.cassette").setLevel(logging.WARNING)
    # Whatever a block that fails has recorded is dropped, as it may be only a part.
    configured = vcrpy.VCR(
        record_mode=record_mode,
        serializer="letta",
        match_on=MATCH_ON,
        decode_compressed_response=True,
        record_on_exception=False,
    )
    known = tuple(secrets)
    configured.register_serializer("letta", LettaSerializer)
    persister = LettaPersister(rules=rules, secrets=known, ignore_existing=ignore_existing)
    configured.register_persister(persister)
    for name, matcher in make_matchers(rules, known, persister.loaded, cleaner).items():
        configured.register_matcher(name, matcher)
    return configured


@contextmanager
def use_letta_vcr(path: str | Path, **options: Any) -> Iterator[Any]:
    """Play (or record) ``path`` through vcrpy within the block; yields vcrpy's cassette.

    ::

        with use_letta_vcr("cassettes/hello.yaml"):
            httpx.get("http://letta.test/v1/agents")

    ``options`` are those of :func:`letta_vcr`. vcrpy patches httpx for the whole process: never
    nest two of these, or run two at the same time.
    """
    # A new `VCR` for each block: its matchers remember the secrets they saw.
    playing = letta_vcr(**options).use_cassette(str(path))
    cassette = playing.__enter__()
    try:
        yield cassette
    except BaseException as error:
        playing.__exit__(type(error), error, error.__traceback__)
        raise
    # vcrpy saves first and then takes its patches back, so where saving fails they would stay until
    # the garbage collector comes by. Left with an error it takes them back, and saves nothing.
    try:
        playing.__exit__(None, None, None)
    except BaseException as error:
        playing.__exit__(type(error), error, error.__traceback__)
        raise


def read_vcr_cassette(cassette: Any) -> Cassette:
    """Return the raw contents of a vcrpy cassette object, as a :class:`Cassette`."""
    return _read_cassette(cassette.requests, cassette.responses)


def _read_cassette(requests: Iterable[Any], responses: Iterable[Any]) -> Cassette:
    pairs = zip(requests, responses, strict=True)
    return Cassette([_read_interaction(request, response) for request, response in pairs])


def _take_part(request: Any, what: str) -> RecordedRequest:
    """Return a request with nothing but the one part that is compared (and its headers)."""
    url = urlsplit(request.uri)
    target = {"path": url.path, "query": f"/?{url.query}", "body": "/"}[what]
    return RecordedRequest(
        method="ANY",
        uri=BASE_URL + target,
        headers=list_headers(request.headers),
        body=as_bytes(request.body) if what == "body" else b"",
    )


def _read_interaction(request: Any, response: dict[str, Any]) -> Interaction:
    status = response["status"]
    return Interaction(
        RecordedRequest(
            method=request.method,
            uri=request.uri,
            headers=list_headers(request.headers),
            body=as_bytes(request.body),
        ),
        RecordedResponse(
            status=int(status["code"]),
            reason=str(status.get("message") or ""),
            headers=list_headers(response["headers"]),
            body=as_bytes(response["body"]["string"]),
        ),
    )
