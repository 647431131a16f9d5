"""Run benchmarks: ``python -m benchmarks [NAME|all] [--quick]``.

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
    "concurrency",
    "memory",
    "calls",
    "frameworks",
    "sessions",
    "replaying",
)


def main() -> int:
    """Run the named benchmarks. The exit code is 1 only when data was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=(*NAMES, "all"))
    parser.add_argument("--quick", action="store_true", help="few rounds: does it run at all?")
    arguments = parser.parse_args()
    complete = True
    for name in NAMES if arguments.what == "all" else (arguments.what,):
        benchmark = import_module(f"benchmarks.{name}")
        complete = benchmark.run(quick=arguments.quick) and complete
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
