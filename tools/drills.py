"""Repeat the tests of everything that must never go wrong: ``python -m tools.drills [--times 20]``.

Each drill is one or more tests of the suite, against the real ``letta`` wheel: afterwards no
process is left, no message was run again, and the conversation can be used.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from typing import Any

import pytest

DRILLS = {
    "SIGKILL of the runtime in a turn": (
        "tests/backends/runtime/test_leftovers.py::test_a_turn_in_flight_is_not_run_again[server]",
    ),
    "SIGKILL of Python in a turn": (
        "tests/backends/runtime/test_leftovers.py::test_a_turn_in_flight_is_not_run_again[python]",
        "tests/backends/runtime/test_processes.py::test_no_process_is_left_behind[SIGKILL-True]",
    ),
    "SIGKILL of Python below a sub-reaper": (
        "tests/backends/runtime/test_processes.py::test_no_process_is_left_behind_below_a_sub_reaper",
    ),
    "SIGTERM in a turn": (
        "tests/backends/runtime/test_processes.py::test_no_process_is_left_behind[SIGTERM-True]",
    ),
    "Ctrl-C in `letta-adapters chat`": (
        "tests/cli/test_terminal.py::test_ctrl_c_in_a_turn_stops_it_and_keeps_what_was_typed",
    ),
    "hand-over while another process streams": (
        "tests/backends/runtime/test_sharing.py::"
        "test_a_stream_loses_nothing_when_the_process_that_started_the_server_ends[return]",
        "tests/backends/runtime/test_sharing.py::"
        "test_a_stream_loses_nothing_when_the_process_that_started_the_server_ends[SIGKILL]",
    ),
    "heap recycling under two processes": (
        "tests/backends/runtime/test_recycling.py::"
        "test_no_turn_of_any_process_is_lost_while_the_runtime_is_exchanged",
    ),
    "socket cut in a turn": (
        "tests/backends/app_server/test_stopping.py::test_a_lost_connection_is_no_shorter_answer",
    ),
    "abort during an unanswered tool call": (
        "tests/backends/app_server/test_stopping.py::test_abort_while_a_client_tool_runs",
    ),
    "the hook in a worktree": (
        "tests/backends/runtime/test_environment.py::"
        "test_a_hook_in_a_worktree_leaves_the_users_repository_alone",
    ),
    "first use by ten processes": (
        "tests/test_first_use.py::test_ten_processes_at_first_use_all_answer_with_one_agent",
    ),
    # What was tried by a model in the working directory of an attacker, what the callback was asked
    # about, and what ran although nobody allowed it.
    "the intruder": (
        "tests/permissions/test_intruder.py::"
        "test_a_callback_that_denies_is_asked_about_everything[standard]",
        "tests/permissions/test_intruder.py::"
        "test_a_callback_that_denies_is_asked_about_everything[unrestricted]",
        "tests/permissions/test_intruder.py::"
        "test_without_a_callback_only_the_default_answer_runs[standard-default]",
    ),
    "callback that raises": (
        "tests/backends/app_server/test_stopping.py::test_a_callback_that_gives_no_answer[raises]",
    ),
    # python -m tools.rig run -- python -m tools.drills --only "on the Letta API"
    "SIGKILL of Python while an approval waits, on the Letta API": (
        "tests/live/test_restart.py::test_an_approval_outlives_the_process_that_asked",
    ),
    "SIGKILL of Python in a client-side tool, on the Letta API": (
        "tests/live/test_restart.py::test_a_tool_that_had_begun_is_asked_about_again",
    ),
    "callback that never returns": (
        "tests/backends/app_server/test_stopping.py::"
        "test_a_callback_that_gives_no_answer[never returns]",
    ),
}


# The end of the names of drills that need a Letta API server with a scripted model.
_ON_API = ", on the Letta API"


class _Repeated:
    """A pytest plugin that runs every test so many times, and counts how often each passed."""

    def __init__(self, times: int) -> None:
        self._times = times
        self.passed = 0
        self.failed: list[str] = []
        self.counted: Counter[str] = Counter()

    def pytest_generate_tests(self, metafunc: Any) -> None:
        metafunc.fixturenames.append("drill_number")
        metafunc.parametrize("drill_number", range(self._times), ids=lambda n: f"drill{n}")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(f"{report.nodeid} ({report.when})")
        elif report.when == "call" and report.passed:
            self.passed += 1
        if report.when == "call":
            self.counted.update({name: n for name, n in report.user_properties if type(n) is int})


def run(tests: tuple[str, ...], times: int) -> tuple[int, list[str], float, Counter[str]]:
    """Run the tests so many times; return how many passed, failures, seconds, and counts."""
    started = time.monotonic()
    passed, failed = 0, []
    counted: Counter[str] = Counter()
    for test in tests:
        path, _, name = test.partition("::")
        wanted, _, case = name.partition("[")
        repeated = _Repeated(times)
        select = wanted if not case else f"{wanted} and ({' and '.join(case[:-1].split())})"
        arguments = ["-q", "-p", "no:cacheprovider", "--no-header", "-k", select, path]
        if path.startswith("tests/live/"):
            arguments += ["-m", "live"]  # else they are left out
        pytest.main(arguments, plugins=[repeated])
        passed += repeated.passed
        failed += repeated.failed
        counted += repeated.counted
        counted.update(dict.fromkeys(repeated.counted, 0))
    return passed, failed, time.monotonic() - started, counted


def main() -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.drills", description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", default="", help="a part of a drill's name")
    options = parser.parse_args()
    rows, bad = [], []
    for name, tests in DRILLS.items():
        if name.endswith(_ON_API) and "LETTA_RIG_MODEL" not in os.environ:
            rows.append(f"| {name} | not run: needs `python -m tools.rig run` | |")
        elif options.only.lower() in name.lower():
            passed, failed, seconds, counted = run(tests, options.times)
            told = "".join(f"; {what}: {number}" for what, number in counted.items())
            wanted = len(tests) * options.times
            rows.append(f"| {name} | {passed} of {wanted}{told} | {seconds:.0f} s |")
            bad += failed
            if passed != len(tests) * options.times:
                bad.append(f"{name}: {passed} passed")
    print("\n| drill | passed | took |\n|---|---|---|\n" + "\n".join(rows))
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
