"""Internal: find everything that must be replaced in one text, in any of its encodings.

A :class:`Finder` turns a text into edits. It searches the text as it stands, then the text with
JSON escapes, percent-encoding or base64 undone, and maps what it finds there back.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from letta_adapters.testing.sanitizer import edits as _edits
from letta_adapters.testing.sanitizer.dates import DateFinder, Place
from letta_adapters.testing.sanitizer.edits import Edit, apply, fill, merge
from letta_adapters.testing.sanitizer.patterns import (
    EMAIL,
    HARMLESS_VALUE,
    HOME_PATHS,
    ID_TOKEN,
    KEY_SHAPES,
    LOCAL_HOST_PORT,
    LOCAL_URL,
    MAY_BE_SENSITIVE,
    MAY_HAVE_KEY,
    REDACTED,
    ROOT_HOME,
    SAFE_EMAIL,
    SENSITIVE_TEXT,
    TEMP_DIR,
    URL_BEFORE,
    find_generated_keys,
)
from letta_adapters.testing.sanitizer.secrets import Secrets

# Encodings within encodings, such as JSON in a JSON string in base64: real bodies nest less deep.
_MAX_DEPTH = 3
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_PATH_BEFORE = re.compile(r"(?:[A-Za-z]:)?[\w./\\~-]*\Z")
_PRINTABLE = re.compile(r"[\t\n\r\x20-\x7e\xa0-\U0010ffff]*")
# Names that many machines and users have, and that mean nothing about anybody.
_GENERIC_WORD = (
    "root|users?|admin|ubuntu|debian|runner|docker|node|app|letta|agent|tests?|host|main|server"
    "|guest|public|shared|default|home|vscode|codespace|python|localhost|localdomain|web|dev|build"
    "|db|data|ci|box|machine|worker|desktop|laptop"
)
_GENERIC_NAME = re.compile(rf"(?:{_GENERIC_WORD})(?:-(?:{_GENERIC_WORD}))*|.{{0,3}}", re.IGNORECASE)
# Words that announce the name of a machine or of its user.
_TELLING = ("hostname", "host", "username", "user", "login", "whoami", "computername", "nodename")
_GAPS = (" ", ": ", ":", " is ", '": "', "': '", "\\t")
_HASH = re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{32,}(?![0-9A-Za-z])")
USER = "user"
EMAIL_PLACEHOLDER = "user@example.com"
HOST = "host.test"


@dataclass
class Finder:
    """Finds the spans to replace in a text.

    ``secrets`` and ``dates`` find known secrets and points in time. ``translate_id`` translates ids
    (or only notes them), ``translate_cut_id`` the rest of one at the end of a body that breaks off.
    ``origins`` maps servers' addresses to their placeholders, ``hosts`` are more host names to
    hide, ``keep`` are texts that must stay, and ``patterns`` maps further regular expressions to
    their replacements.
    """

    secrets: Secrets
    dates: DateFinder = field(default_factory=DateFinder)
    translate_id: Callable[[str], str] = lambda token: token
    translate_cut_id: Callable[[str], str] = lambda token: token
    origins: dict[str, str] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    keep: frozenset[str] = frozenset()
    patterns: Mapping[str, str] = field(default_factory=dict)
    words: tuple[tuple[re.Pattern[str], str], ...] = field(init=False, default=())

    _memo: dict[tuple[str, int, Place], list[Edit]] = field(
        init=False, default_factory=dict, repr=False
    )
    _memo_secrets: int = field(init=False, default=0, repr=False)

    def __post_init__(self) -> None:
        # Error texts and tracebacks name the machine and the user that made the recording.
        names = [(name, HOST) for name in list_host_names()]
        names += [(name, USER) for name in list_user_names()]
        given = [(_compile_word(name), HOST) for name in self.hosts]
        self.words = (*((_compile_own_name(name), text) for name, text in names), *given)
        for name in (*(name for name, _ in names if not name.isalpha()), *self.hosts):
            self.secrets.watch_cut(name)

    def edits(self, text: str, depth: int = 0, place: Place = Place.SERVER) -> list[Edit]:
        """Return everything to replace in ``text``; the spans may overlap."""
        if len(text) < 4:
            return []
        # A newly learned secret may be in a text that was searched before.
        if self._memo_secrets != len(self.secrets):
            self._memo.clear()
            self._memo_secrets = len(self.secrets)
        # A stream repeats most of its strings in every event.
        known = self._memo.get((text, depth, place))
        if known is None:
            known = self._memo[text, depth, place] = self._edits(text, depth, place)
        return known

    def _edits(self, text: str, depth: int, place: Place) -> list[Edit]:
        found = [
            edit
            for edit in self._plain(text, place)
            if (was := text[edit.start : edit.end]) != edit.text and was not in self.keep
        ]
        if depth < _MAX_DEPTH:
            for view in (_edits.unescape(text), _edits.unquote(text)):
                if view is not None:
                    found += view.back(self.edits(view.text, depth + 1, place))
            found += self._base64(text, depth, place)
            wrapped = _edits.unwrap(text)
            if wrapped is not None:
                found += wrapped.back(self._base64(wrapped.text, depth, place))
        return found

    def clean(self, text: str, place: Place = Place.SERVER) -> str:
        """Return ``text`` with everything replaced."""
        return apply(text, merge(self.edits(text, 0, place)))

    def _plain(self, text: str, place: Place) -> Iterator[Edit]:
        yield from self.secrets.edits(text)
        for pattern, replacement in self.patterns.items():
            for match in re.finditer(pattern, text):
                yield Edit(*match.span(), replacement, 1)
        yield from _find_key_like(text)
        if "@" in text:
            for match in EMAIL.finditer(text):
                if not SAFE_EMAIL.match(match[0]):
                    self.secrets.watch_cut(match[0])
                    yield Edit(*match.span(), EMAIL_PLACEHOLDER, 3)
        if "/" in text or "\\" in text:
            yield from _find_home_paths(text)
            for match in TEMP_DIR.finditer(text):
                yield Edit(*match.span(), "tmp00000000", 8)
        yield from self._hosts(text)
        for match in ID_TOKEN.finditer(text):
            new = self.translate_id(match[0])
            if new != match[0]:
                yield Edit(*match.span(), new, 6)
        yield from self.dates.edits(text, place)

    def _hosts(self, text: str) -> Iterator[Edit]:
        for origin, replacement in self.origins.items():
            for match in re.finditer(re.escape(origin) + r"(?![\w.:])", text):
                yield Edit(*match.span(), replacement, 4)
        if ":" in text:
            for pattern in (LOCAL_URL, LOCAL_HOST_PORT):
                for match in pattern.finditer(text):
                    yield Edit(*match.span(), HOST, 5)
        for pattern, replacement in self.words:
            for match in pattern.finditer(text):
                yield Edit(*match.span(), replacement, 5)

    def _base64(self, text: str, depth: int, place: Place) -> Iterator[Edit]:
        for match in _BASE64.finditer(text):
            token = match[0]
            # Ids have edits of their own, and a long lower-case word is a word, not base64.
            if ID_TOKEN.fullmatch(token) or (token.isalpha() and token.islower()):
                continue
            whole = self._base64_text(token, depth, place)
            if whole is not None:
                yield Edit(*match.span(), whole, -1)
                continue
            for start, end in self._base64_fragments(token, depth, place):
                yield fill(match.start() + start, match.start() + end, 1)

    def _base64_text(self, token: str, depth: int, place: Place) -> str | None:
        """Return the token with its text cleaned, or ``None`` if nothing in it needs to be."""
        try:
            text = _decode_base64(token).decode("utf-8")
        except UnicodeDecodeError:
            return None
        if not _PRINTABLE.fullmatch(text):
            return None
        edits = merge(self.edits(text, depth + 1, place))
        if not edits:
            return None
        coded = base64.b64encode(apply(text, edits).encode("utf-8")).decode("ascii")
        if "-" in token or "_" in token:
            coded = coded.replace("+", "-").replace("/", "_")
        return coded if token.endswith("=") or len(token) % 4 == 0 else coded.rstrip("=")

    def _base64_fragments(self, token: str, depth: int, place: Place) -> Iterator[tuple[int, int]]:
        # The letters before the text may belong to the base64 alphabet, too (a path, a prefix), or
        # the text may be a part of a longer run. So it may begin at any of four alignments.
        for shift in range(4):
            content = _decode_base64(token[shift:]).decode("latin-1")
            printable = sum(map(len, _RUNS.findall(content)))
            # Bytes that decode to noise contain fragments of every short pattern, so only known
            # secrets count in them.
            look = (
                self.edits if printable > 0.8 * len(content) else _search_only_secrets(self.secrets)
            )
            for edit in look(content, depth + 1, place):
                # The path before a user name is replaced with it: filler after `/home/` would
                # decode to a name again.
                start = edit.start if edit.text != USER else _path_start(content, edit.start)
                yield shift + start * 4 // 3, min(shift + -(-edit.end * 4 // 3), len(token))


def _path_start(text: str, end: int) -> int:
    found = _PATH_BEFORE.search(text, 0, end)
    return found.start() if found else end


def _compile_word(name: str) -> re.Pattern[str]:
    # A short name may be a part of any word, so it counts only as a whole word.
    around = r"(?<!\w)", r"(?!\w)"
    before, after = around if len(name) < 8 else ("", "")
    return re.compile(before + re.escape(name) + after, re.IGNORECASE)


def _compile_own_name(name: str) -> re.Pattern[str]:
    """Return the pattern for a name of this machine or its user.

    A name with digits or signs in it is found anywhere: nobody else can mean it. One of letters
    alone is also a word (Grace, Athena), and a recording that hides it in a question would not
    match on any other machine. So it counts only where a machine writes it, as in a path or a
    login.
    """
    if not name.isalpha():
        return _compile_word(name)
    word = re.escape(name)
    told = "|".join(rf"(?<=\b{before}{gap})" for before in _TELLING for gap in _GAPS)
    return re.compile(
        rf"(?:(?<=[/\\=@~])|{told}){word}(?!\w)|(?<!\w){word}(?=[@/\\]|:\d)", re.IGNORECASE
    )


_RUNS = re.compile(r"[\x20-\x7e]{4,}")


def _search_only_secrets(secrets: Secrets) -> Callable[[str, int, Place], Iterable[Edit]]:
    return lambda text, _depth, _place: secrets.edits(text)


def _decode_base64(token: str) -> bytes:
    plain = token.rstrip("=").replace("-", "+").replace("_", "/")
    if len(plain) % 4 == 1:
        plain = plain[:-1]
    # Cannot fail: the pattern lets only the alphabet through, and the padding is right.
    return base64.b64decode(plain + "=" * (-len(plain) % 4))


def _find_key_like(text: str) -> Iterator[Edit]:
    for pattern in KEY_SHAPES if MAY_HAVE_KEY.search(text) else ():
        for match in pattern.finditer(text):
            # Ids look like keys, but have edits of their own.
            if not HARMLESS_VALUE.fullmatch(match[0]) and not ID_TOKEN.fullmatch(match[0]):
                yield Edit(*match.span(), REDACTED, 2)
    for start, end in find_generated_keys(text):
        if not ID_TOKEN.search(text, start, end):
            yield Edit(start, end, REDACTED, 5)
    for match in SENSITIVE_TEXT.finditer(text) if MAY_BE_SENSITIVE.search(text) else ():
        group = match.lastindex or 0
        if not HARMLESS_VALUE.fullmatch(match[group].strip()):
            yield Edit(*match.span(group), REDACTED, 2)


def remove_private_forms(text: str) -> str:
    """Return ``text`` without texts that are private by their form: the same on every machine."""
    emails = (Edit(*match.span(), EMAIL_PLACEHOLDER, 3) for match in EMAIL.finditer(text))
    # In a body such hashes are ids, which are numbered. A test's name has no numbering.
    hashes = (Edit(*match.span(), REDACTED, 5) for match in _HASH.finditer(text))
    return apply(text, merge([*_find_key_like(text), *_find_home_paths(text), *emails, *hashes]))


def _find_home_paths(text: str) -> Iterator[Edit]:
    for pattern in HOME_PATHS:
        for match in pattern.finditer(text):
            # A web page below /home or /users is no home directory.
            if match[1] != USER and not URL_BEFORE.search(text, 0, match.start()):
                yield Edit(*match.span(1), USER, 3)
    for match in ROOT_HOME.finditer(text):
        yield Edit(*match.span(), f"/home/{USER}", 3)


def list_host_names() -> tuple[str, ...]:
    """Return this machine's names, unless many machines are called so."""
    name = socket.gethostname()
    names = {name, name.partition(".")[0]}
    return tuple(sorted(name for name in names if not _GENERIC_NAME.fullmatch(name)))


def list_user_names() -> tuple[str, ...]:
    """Return the name of the user logged in here, unless many users are called so."""
    names = {Path.home().name}
    with contextlib.suppress(KeyError, OSError):  # a user without a name
        names.add(getpass.getuser())
    return tuple(sorted(name for name in names if not _GENERIC_NAME.fullmatch(name)))
