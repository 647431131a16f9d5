"""Run benchmarks: ``python -m benchmarks [NAME|all] [--quick] [--rows ROW,ROW]``.

The names are those of the modules in this folder.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

NAMES = (
    "imports",
    "streaming",
    "app_server",
    "turns",
    "pages",
    "concurrency",
    "memory",
    "calls",
    "frameworks",
    "growth",
    "sessions",
    "replaying",
    "page",
)
# Of `concurrency`; each says how long it takes.
ROWS = ("at-once", "growth", "memory", "tls", "embedded")


def main() -> int:
    """Run the named benchmarks. The exit code is 1 only when data was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=(*NAMES, "all"))
    parser.add_argument("--quick", action="store_true", help="few rounds: does it run at all?")
    parser.add_argument(
        "--rows",
        metavar="ROW,ROW",
        help=f"these rows of `concurrency` alone: {', '.join(ROWS)}",
    )
    arguments = parser.parse_args()
    options = {"quick": arguments.quick}
    if arguments.rows is not None:
        options["rows"] = rows = arguments.rows.split(",")
        if arguments.what != "concurrency" or not set(rows) <= set(ROWS):
            parser.error(f"--rows is for concurrency, whose rows are {', '.join(ROWS)}")
    complete = True
    for name in NAMES if arguments.what == "all" else (arguments.what,):
        benchmark = import_module(f"benchmarks.{name}")
        complete = benchmark.run(**options) and complete
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
