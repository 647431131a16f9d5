"""Look at processes that may end while they are looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TypeVar

import psutil

T = TypeVar("T")


def ask(
    processes: Iterable[psutil.Process], question: Callable[[psutil.Process], T]
) -> list[tuple[psutil.Process, T]]:
    """Ask each process, and leave out the ones that have ended or may not be looked at."""
    answers = []
    for process in processes:
        # A process can go between the listing and the question, and again within the question.
        with contextlib.suppress(psutil.Error, OSError):
            answers.append((process, question(process)))
    return answers


def commands(processes: Iterable[psutil.Process]) -> list[str]:
    """Return the command lines of the processes that still run."""
    return [" ".join(command) for _, command in ask(processes, psutil.Process.cmdline)]
