"""Build the documentation's site, and fail for a warning of whoever takes part in it.

``python -m tools.pages.build`` needs the extra ``docs`` and writes ``build/site``. Zensical's own
``--strict`` does not count what griffe says of docstrings.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_WARNING: Final = re.compile(r"^(griffe|mkdocs\w*|WARNING|Warning|ERROR|Error)\b.*", re.MULTILINE)
_FOREIGN: Final = re.compile(r'\b(?:href|src)="(https?://[^"]+\.(?:js|css|woff2?|svg|png))"')


def find_warnings(output: str) -> list[str]:
    """Return the lines of a build's output that are warnings."""
    return [found[0] for found in _WARNING.finditer(output)]


def find_foreign(page: str) -> list[str]:
    """Return what a page would load from other hosts, whoever reads it then being known there."""
    return [found[1] for found in _FOREIGN.finditer(page)]


def main() -> int:
    """Build the site; return 1 if anything was wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    warnings = find_warnings(done.stdout)
    pages = sorted((ROOT / "build" / "site").rglob("index.html"))
    foreign = {url for page in pages for url in find_foreign(page.read_text("utf-8"))}
    wrong = bool(done.returncode or warnings or foreign)
    if wrong:
        print(done.stdout, *foreign, sep="\n")
    print(f"site: {len(pages)} pages, {len(warnings)} warnings, {len(foreign)} foreign files")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
