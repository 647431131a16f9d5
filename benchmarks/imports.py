"""Measure import times, each in a fresh interpreter (whose own start-up is not counted)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.report import show, spread, versions

STATEMENTS = (
    "import letta_adapters",
    "import pydantic",
    "from pydantic import BaseModel",
    "import httpx",
    "from letta_adapters import LettaClient",
    "from letta_adapters import AsyncLettaClient",
    "from letta_client import Letta",
)
_BASELINE = "import pydantic"
_ROUNDS = 15
_CODE = """
import json, sys, time
before = len(sys.modules)
wall, cpu = time.perf_counter(), time.process_time()
{}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps([wall * 1000, cpu * 1000, len(sys.modules) - before]))
"""


def run(*, quick: bool = False) -> bool:
    """Measure and print."""
    rounds = 3 if quick else _ROUNDS
    print(f"\nImports: {versions('pydantic', 'httpx', 'letta-client')}, {rounds} rounds")
    found: dict[str, list[list[float]]] = {statement: [] for statement in STATEMENTS}
    for number in range(rounds + 1):
        for statement in STATEMENTS:
            sample = _sample(statement)
            if number:  # the first round fills the caches of the file system
                found[statement].append(sample)
    baseline = [cpu for _, cpu, _ in found[_BASELINE]]
    rows = []
    for statement, samples in found.items():
        walls, cpus, modules = zip(*samples, strict=True)
        ratios = [cpu / base for cpu, base in zip(cpus, baseline, strict=True)]
        count = f"{median(modules):.0f}"
        rows.append((statement, spread(cpus), spread(walls), spread(ratios, 2), count))
    show("median [quartiles]", ("", "CPU ms", "wall ms", f"x {_BASELINE}", "modules"), rows)
    return True


def _sample(statement: str) -> list[float]:
    command = [sys.executable, "-c", _CODE.format(statement)]
    here = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=here, stdout=subprocess.PIPE, check=True, text=True)
    sample: list[float] = json.loads(done.stdout)
    return sample
