"""Print tables and spreads."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from statistics import quantiles


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return ``median [lower quartile - upper quartile]``."""
    low, median, high = quantiles(values, n=4, method="inclusive")
    return f"{median:.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"


def show(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    print(f"\n{title}\n")
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  " + "  ".join(cells).rstrip())


def versions(*packages: str) -> str:
    """Return the versions of everything that was measured."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return ", ".join([python, *(f"{package} {version(package)}" for package in packages)])
