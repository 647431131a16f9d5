"""The only way to write a cassette: sanitize, let the independent scanner look, then write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from letta_adapters.testing import leaks
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
    scanner (which shares no code with the sanitizer) still finds something.
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
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # newline="": the text is the same bytes on every system.
    with target.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
    return clean
