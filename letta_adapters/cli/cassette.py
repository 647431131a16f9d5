"""Internal: implement ``letta-adapters cassette scan | clean | diff``, without pytest."""

from __future__ import annotations

import difflib
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from letta_adapters.cli.exits import FAILED, OK
from letta_adapters.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from letta_adapters.testing import Cassette

_INSTALL = 'pip install "letta-adapters[testing]"'


def run(args: Namespace) -> int:
    """Carry out the action and return the exit code."""
    # PyYAML comes with an extra only, so a missing one is explained.
    if find_spec("yaml") is None:
        raise ConfigurationError("Recordings need PyYAML.", hint=f"Install it: {_INSTALL}")
    actions = {"scan": _scan, "clean": _clean, "diff": _diff}
    return actions[args.action](args)


def _scan(args: Namespace) -> int:
    from letta_adapters.testing.leaks import scan_file

    found = [leak for path in _files(args.paths) for leak in scan_file(path, secrets=args.secret)]
    for leak in found:
        _say(str(leak))
    return FAILED if found else OK


def _clean(args: Namespace) -> int:
    from letta_adapters.testing import LeakError, save_cassette

    code = OK
    for path in _files(args.paths):
        cassette = _load(path)
        before = path.read_text(encoding="utf-8")
        try:
            written = save_cassette(cassette, path, secrets=args.secret).dumps()
        except LeakError as error:
            sys.stderr.write(f"{path}: not written, something is left:\n{error}\n")
            # The other files are still cleaned.
            code = FAILED
        else:
            _say(f"{path}: {'clean already' if written == before else 'cleaned'}")
    return code


def _diff(args: Namespace) -> int:
    old, new = (_lines(path) for path in (args.old, args.new))
    changes = list(difflib.unified_diff(old, new, str(args.old), str(args.new), lineterm="", n=2))
    for line in changes:
        _say(line)
    return FAILED if changes else OK


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _lines(path: Path) -> list[str]:
    """Return a recording's lines as it would be saved.

    So everything is gone in which two recordings always differ, such as ids and times.
    """
    from letta_adapters.testing import sanitize_cassette

    return sanitize_cassette(_load(path)).dumps().splitlines()


def _load(path: Path) -> Cassette:
    from letta_adapters.testing import Cassette, CassetteFormatError

    try:
        return Cassette.load(path)
    except CassetteFormatError as error:
        raise InvalidInputError(f"{path} is no recording: {error}") from error


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    # A name that was mistyped must not pass for a folder without leaks.
    for path in paths:
        if not path.exists():
            raise InvalidInputError(f"{path} does not exist.")
        yield from sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
