"""Attack the client from the wire, and print the outcome: the figures of docs/security.md.

    python -m tools.attack [--quick] [--seed N] [--verbose]

The attacks are a hostile server on loopback (HTTP, server-sent events, WebSocket), turns that are
distorted in ways made from the seed, replies of the wrong shape to every call, and secrets planted
in recordings. Each attempt must end within a bound, with the right text or with an error of this
package, and leave nothing running. The exit status is 1 if one did not.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from tools.attack import hostile, mutations, replies, sockets
from tools.attack.judge import BAD, GOOD, Tally
from tools.planted import plant

MUTATIONS = 2500
QUICK_MUTATIONS = 150
Attack = Callable[[], Coroutine[Any, Any, Tally]]


def attacks(seed: int, *, quick: bool) -> list[Attack]:
    """Return the attacks from the wire; ``quick`` ones are samples of the same."""
    count = QUICK_MUTATIONS if quick else MUTATIONS
    return [
        lambda: hostile.resets_everywhere(every=71 if quick else 1),
        lambda: hostile.hostile_answers(every=9 if quick else 1),
        hostile.leads_elsewhere,
        lambda: mutations.rest_mutations(seed, count),
        lambda: mutations.frame_mutations(seed, count),
        lambda: sockets.hostile_sockets(every=3 if quick else 1),
        lambda: replies.odd_replies(every=17 if quick else 1),
    ]


def run(seed: int, *, quick: bool, say: Callable[[str], object]) -> list[str]:
    """Make all attacks and print the table; return the outcomes that must not happen."""
    bad: list[str] = []
    columns = ("tried", *GOOD, *BAD)
    say("| attack | " + " | ".join(columns) + " | seconds |")
    say("|---|" + "---|" * (len(columns) + 1))
    for attack in attacks(seed, quick=quick):
        started = time.monotonic()
        tally = asyncio.run(attack())
        figures = (tally.tried, *(tally.counts[name] for name in columns[1:]))
        cells = " | ".join(f"{figure:,}" for figure in figures)
        say(f"| {tally.name} | {cells} | {time.monotonic() - started:.0f} |")
        bad += tally.bad
    counts = plant(seed, every=40 if quick else 1)
    say(
        f"\nSecrets planted in recordings: {counts['planted']:,}; survived unseen "
        f"{counts['survived']}, refused by the gate {counts['refused']}. Ordinary texts: "
        f"{counts['ordinary']}, altered {counts['altered']}."
    )
    if counts["survived"]:
        bad.append(f"{counts['survived']} secrets survived (python -m tools.planted --verbose)")
    return bad


def main() -> int:
    """Attack, print, and say whether all held."""
    parser = argparse.ArgumentParser(prog="python -m tools.attack", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a sample, in seconds")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    # What the client logs of each odd frame would hide the figures.
    logging.getLogger("letta_adapters").setLevel(logging.CRITICAL)
    bad = run(given.seed, quick=given.quick, say=lambda line: print(line, flush=True))
    for line in bad:
        print(line, file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())
