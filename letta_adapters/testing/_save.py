"""The only way to write a cassette: sanitize, let the independent scanner look, rehearse, write.

A file is there whole or as it was before: what is written goes beside it first.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from letta_adapters.testing import leaks
from letta_adapters.testing._rehearsal import rehearse
from letta_adapters.testing.cassette import Cassette
from letta_adapters.testing.sanitize import SanitizeRules, sanitize


def save_cassette(
    cassette: Cassette,
    path: str | Path,
    *,
    rules: SanitizeRules | None = None,
    secrets: Iterable[str] = (),
) -> Cassette:
    """Sanitize a recording and write it to ``path``; returns what was written.

    ``secrets`` are further strings to remove, beside those found in the environment and in the
    recording itself. Raises :class:`letta_adapters.testing.LeakError`, writing nothing, if the
    scanner (which shares no code with the sanitizer) still finds something, and
    :class:`letta_adapters.testing.RehearsalError` if the recording does not answer its own
    requests, in the order they came in and with those that overlapped the other way round.
    :class:`letta_adapters.testing.CassetteSaveError` if the file cannot be written.
    """
    known = tuple(secrets)
    clean = sanitize(cassette, rules=rules, secrets=known)
    text = clean.dumps()
    used = rules or SanitizeRules()
    leaks.gate(
        text,
        source=str(path),
        secrets=[*known, *leaks.secrets_in(cassette)],
        allow=used.keep,
        patterns=used.patterns,
    )
    rehearse(cassette, Cassette.loads(text), rules=rules, secrets=known)
    _write(text, Path(path))
    return clean


class CassetteSaveError(AssertionError):
    """A recording that could not be written; the file of that name is as it was."""


def _write(text: str, target: Path) -> None:
    beside = target.parent / f".letta-{uuid4().hex}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # newline="": the text is the same bytes on every system.
            with beside.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
            beside.replace(target)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise CassetteSaveError(
            f"the recording could not be written to {target}: {error.strerror or error}; "
            "what was there before is as it was. Make room, or let the folder be written to, and "
            "record again."
        ) from error
