"""Internal: learn known secrets from the environment and a recording, and find them in texts."""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from letta_adapters.testing.sanitizer.edits import Edit, fill
from letta_adapters.testing.sanitizer.patterns import (
    ENV_SECRET,
    HARMLESS_VALUE,
    ID_TOKEN,
    ISO_DATE,
    REDACTED,
    SECRET_HEADER,
    SENSITIVE_CONTAINERS,
    SENSITIVE_KEY,
    SENSITIVE_TEXT,
    URL_PASSWORD,
)

Path = tuple["str | int", ...]

_URL = re.compile(r"\w+://[^@\s]*\Z")
_OPAQUE = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z]).+|(?=.*[a-z])(?=.*[A-Z]).+", re.DOTALL)
# A plain word. Replacing it everywhere would change texts that tests assert on, and only on this
# machine.
_WORD = re.compile(r"(?:[A-Z]?[a-z]+|[A-Z]+)")
_MAX_WORD = 15
# So many characters of a secret in a row are enough to replace them.
_WINDOW = 8
_BASE64_WINDOW = 12
_MIN_CUT = 6
# No secret is shorter, so that this many letters of each can be compared first.
_BEGINNING = 4
_COOKIE_ATTRIBUTES = {"path", "domain", "expires", "max-age", "samesite"}


class Secrets:
    """A growing set of texts that must not survive in a recording, in any usual encoding."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}
        # Text to find -> whether a replacement must have its length (it is part of a base64 run).
        self._needles: dict[str, bool] = {}
        self._heads: dict[str, list[str]] = {}
        self._tails: dict[str, list[str]] = {}
        self._cut: dict[str, None] = {}
        # The beginnings of everything above: most texts are short and contain none of them.
        self._beginnings: set[str] = set()

    def __len__(self) -> int:
        return len(self._known) + len(self._cut)

    def add(self, value: str, *, certain: bool = False) -> None:
        """Learn a secret.

        Unless it is ``certain``, it must look like one. A short word or an id under a sensitive key
        is replaced there, but replacing it everywhere would wreck the recording.
        """
        value = value.strip()
        if value in self._known or not _worth_hunting(value, certain):
            return
        self._known[value] = None
        if len(value) >= 2 * _MIN_CUT:
            self.watch_cut(value)
        for needle, same_length in _encodings(value):
            self._needles.setdefault(needle, same_length)
            self._beginnings.add(needle[:_BEGINNING])
            self._watch_ends(needle, _BASE64_WINDOW if same_length else _WINDOW)
        # The lines of a PEM key may be wrapped, or quoted one by one.
        for line in value.splitlines() if "\n" in value else ():
            if len(line) >= 16:
                self.add(line, certain=certain)

    def edits(self, text: str) -> Iterator[Edit]:
        """Yield edits for every known secret in ``text``, and for long beginnings and ends."""
        if not self._may_hold(text):
            yield from self._cut_edits(text)
            return
        for needle, same_length in self._needles.items():
            start = text.find(needle)
            while start >= 0:
                end = start + len(needle)
                yield fill(start, end, 0) if same_length else Edit(start, end, REDACTED, 0)
                start = text.find(needle, end)
        # A log or a stream may cut a secret anywhere, and even a part of one must not stay.
        for head, needles in self._heads.items():
            for start in _occurrences(text, head):
                end = start + max(_common_head(text, start, needle) for needle in needles)
                yield fill(start, end, 1)
        for tail, needles in self._tails.items():
            for place in _occurrences(text, tail):
                end = place + len(tail)
                start = end - max(_common_tail(text, end, needle) for needle in needles)
                yield fill(start, end, 1)
        yield from self._cut_edits(text)

    def _may_hold(self, text: str) -> bool:
        pieces = (text[start : start + _BEGINNING] for start in range(len(text) - _BEGINNING + 1))
        return not self._beginnings.isdisjoint(pieces)

    def watch_cut(self, value: str) -> None:
        """Find also the beginning of ``value`` where a text breaks off within it.

        This is for texts that are recognised by their form (an e-mail address), which a part does
        not have.
        """
        if len(value) > _MIN_CUT:
            self._cut.setdefault(value)

    def _cut_edits(self, text: str) -> Iterator[Edit]:
        for value in self._cut:
            start = text.find(value[:_MIN_CUT], max(len(text) - len(value) + 1, 0))
            if start >= 0 and value.startswith(text[start:]):
                # Lowest in precedence: the text that ends here may be complete, and known by its
                # form.
                yield fill(start, len(text), 9)

    def learn_environment(self, environment: Mapping[str, str] | None = None) -> None:
        """Learn the secrets in environment variables, except plain words.

        Those are the values of variables named like ``*_KEY``, ``*_TOKEN`` and ``*_PASS``, and the
        passwords of every URL, whatever its variable is called (``DATABASE_URL``).
        """
        source = os.environ if environment is None else environment
        for name, value in source.items():
            for password in URL_PASSWORD.findall(value):
                self.add(password, certain=not is_word(password))
            if ENV_SECRET.fullmatch(name) and len(value) >= 6:
                self.add(value, certain=not is_word(value))

    def learn_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Learn credentials from the values of headers named like credentials."""
        for name, value in headers:
            if SECRET_HEADER.fullmatch(name):
                for part in _header_secrets(name.lower(), value):
                    self.add(part, certain=len(part) >= _WINDOW and not is_word(part))

    def learn_json(self, value: Any) -> None:
        """Learn the texts under sensitive keys, also inside strings that are JSON themselves."""
        for path, leaf in walk(value):
            if is_sensitive(path):
                self.add(leaf)
            elif leaf[:1] in ("{", "["):
                self.learn_text(leaf)

    def learn_text(self, text: str) -> None:
        """Learn from JSON text, or from parts of any other text that look like an assignment."""
        for password in URL_PASSWORD.findall(text):
            self.add(password)
        bare = text.lstrip("\ufeff \t\r\n")
        try:
            value = json.loads(bare) if bare[:1] in ("{", "[") else None
        except (ValueError, RecursionError):  # no JSON, or nested by the thousand
            value = None
        if isinstance(value, (dict, list)):
            self.learn_json(value)
            return
        for match in SENSITIVE_TEXT.finditer(text):
            self.add(match[match.lastindex or 0])

    def _watch_ends(self, needle: str, window: int) -> None:
        # A beginning or end without digits or mixed case is a word that any text may contain, so
        # more of the secret is taken until it is not.
        for size in range(window, len(needle)):
            if _OPAQUE.fullmatch(needle[:size]):
                self._heads.setdefault(needle[:size], []).append(needle)
                break
        for size in range(window, len(needle)):
            if _OPAQUE.fullmatch(needle[-size:]):
                self._tails.setdefault(needle[-size:], []).append(needle)
                self._beginnings.add(needle[-size:][:_BEGINNING])
                break


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield every string in a JSON value, with the keys and indices that lead to it."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk(item, (*path, index))


def is_sensitive(path: Path) -> bool:
    """Return whether a string at ``path`` is a secret by its place."""
    if not path:
        return False
    last = path[-1]
    # In a JSON schema, which describes a password and does not hold one, no string stands there.
    if isinstance(last, str) and _is_sensitive_key(last):
        return True
    if "properties" in path:
        return False
    if path[:-1] == ("set",):
        return True  # {"type": "secret_apply", "set": {name: value}}, a frame of Letta Code's
    for index, part in enumerate(path[:-1]):
        if isinstance(part, str) and part.lower() in SENSITIVE_CONTAINERS:
            # In a plain object of secrets the values are secret. In a list of variables only their
            # values are, not their names.
            rest = path[index + 1 :]
            if all(isinstance(key, str) for key in rest):
                return last not in ("id", "type", "description", "name", "created_at", "updated_at")
            return isinstance(last, int) or last in ("value", "value_enc")
    return False


def _is_sensitive_key(key: str) -> bool:
    squashed = key.lower().replace("-", "").replace("_", "")
    return key.endswith("_enc") or SENSITIVE_KEY.fullmatch(squashed) is not None


def is_word(value: str) -> bool:
    """Return whether a value is a plain word, which anybody may say without meaning the secret."""
    return len(value) <= _MAX_WORD and _WORD.fullmatch(value) is not None


def _worth_hunting(value: str, certain: bool) -> bool:
    if HARMLESS_VALUE.fullmatch(value) or len(value) < (4 if certain else 6):
        return False
    if certain:
        return True
    # Texts that stand under sensitive keys without being secret: words, ids, dates and addresses.
    if (
        is_word(value)
        or ID_TOKEN.fullmatch(value)
        or ISO_DATE.fullmatch(value)
        or _URL.match(value)
    ):
        return False
    return len(value) >= 16 or _OPAQUE.fullmatch(value) is not None or bool(re.search(r"\W", value))


def _encodings(value: str) -> Iterator[tuple[str, bool]]:
    # Most of these are found by decoding the text as well, but not where it is cut within an
    # escape.
    yield value, False
    raw = value.encode("utf-8", "surrogatepass")
    for variant in {
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(value)[1:-1])[1:-1],
        value.replace("/", "\\/"),
        value.replace("/", "\\\\/"),
        value.replace(" ", "+"),
        quote(value, safe="", errors="replace"),
        quote(value, safe="", errors="replace").lower(),
        raw.decode("latin-1"),
        raw.hex(),
        raw.hex().upper(),
        html.escape(value, quote=False),
        html.escape(value),
    } - {value}:
        yield variant, False
    for shift in range(3):
        core = _base64_core(raw, shift)
        if len(core) >= _WINDOW:
            yield core, True
            yield core.replace("+", "-").replace("/", "_"), True


def _base64_core(raw: bytes, shift: int) -> str:
    # Return the letters that any base64 text contains if `raw` begins at byte `shift` modulo 3 of
    # its content. The letters at both ends also depend on the neighbouring bytes, so they are left
    # out.
    coded = base64.b64encode(b"\0" * shift + raw).decode("ascii")
    first = (8 * shift + 5) // 6
    last = (8 * (shift + len(raw))) // 6
    return coded[first:last]


def _header_secrets(name: str, value: str) -> Iterator[str]:
    if "cookie" in name:
        for part in value.split(";"):
            cookie, _, content = part.strip().partition("=")
            if content and cookie.lower() not in _COOKIE_ATTRIBUTES:
                yield content
        return
    words = value.split()
    yield words[-1] if words else ""
    # HTTP Basic authentication: the password within may appear elsewhere without its user.
    if len(words) > 1 and words[0].lower() == "basic":
        try:
            decoded = base64.b64decode(words[-1])
        except ValueError:
            return
        password = decoded.partition(b":")[2]
        # Clients of old write it in Latin-1.
        for charset in ("utf-8", "latin-1"):
            with suppress(UnicodeDecodeError):
                yield password.decode(charset)


def _occurrences(text: str, piece: str) -> Iterator[int]:
    start = text.find(piece)
    while start >= 0:
        yield start
        start = text.find(piece, start + 1)


def _common_head(text: str, start: int, needle: str) -> int:
    size = min(len(text) - start, len(needle))
    return next((i for i in range(size) if text[start + i] != needle[i]), size)


def _common_tail(text: str, end: int, needle: str) -> int:
    size = min(end, len(needle))
    return next((i for i in range(size) if text[end - 1 - i] != needle[-1 - i]), size)
