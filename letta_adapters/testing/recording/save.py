"""Write cassettes, in the only way there is: sanitize, scan independently, rehearse, write.

A file is complete or as it was before: the text is written beside it first, and then moved.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from letta_adapters.testing import leaks
from letta_adapters.testing.cassette import Cassette
from letta_adapters.testing.recording.rehearsal import rehearse
from letta_adapters.testing.sanitizer.sanitize import SanitizeRules, sanitize


def save_cassette(
    cassette: Cassette,
    path: str | Path,
    *,
    rules: SanitizeRules | None = None,
    secrets: Iterable[str] = (),
) -> Cassette:
    """Sanitize a recording and write it to ``path``; return the sanitized cassette.

    ::

        recorder = RecordingTransport()
        async with httpx.AsyncClient(transport=recorder, base_url=url) as client:
            ...
        save_cassette(recorder.cassette, "cassettes/hello.yaml")

    Args:
        cassette: The recording, as it was made.
        path: The file; its folder is made if need be.
        rules: The sanitizer's rules.
        secrets: More texts to remove, beside those in the environment and in the recording itself.

    Raises:
        LeakError: The scanner, which shares no code with the sanitizer, still finds something;
            nothing was written.
        RehearsalError: The recording does not answer its own requests, in the order they came in
            and with those that overlapped the other way round; nothing was written.
        CassetteSaveError: The file cannot be written.
    """
    known = tuple(secrets)
    clean = sanitize(cassette, rules=rules, secrets=known)
    text = clean.dumps()
    used = rules or SanitizeRules()
    # The scanner also gets the secrets that the raw recording shows by the scanner's own rules.
    leaks.gate(
        text,
        source=str(path),
        secrets=[*known, *leaks.secrets_in(cassette)],
        allow=used.keep,
        patterns=used.patterns,
    )
    # Parsed from the text, as every later run reads it.
    rehearse(cassette, Cassette.loads(text), rules=rules, secrets=known)
    _write(text, Path(path))
    return clean


class CassetteSaveError(AssertionError):
    """The error for a recording that could not be written; the file of that name is as it was."""


def _write(text: str, target: Path) -> None:
    beside = target.parent / f".letta-{uuid4().hex}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # newline="": the text is the same bytes on every system.
            with beside.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
            beside.replace(target)
        # Also on Ctrl-C: no half-written file must stay in the repository.
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
