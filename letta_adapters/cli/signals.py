"""Internal: take the signals that end a process, for as long as something has to be stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

#: Those of this system by which a process is asked to end, but for Ctrl-C.
ENDING: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def taken(end: Callable[[int, Any], None], *, unless: Callable[[Any], bool]) -> Iterator[None]:
    """Call ``end`` for these signals, and give them back afterwards; in the main thread only.

    Args:
        end: The handler.
        unless: Returns whether a signal stays as it is, of what handles it now.
    """
    handlers = {number: signal.getsignal(number) for number in ENDING}
    before = {number: handler for number, handler in handlers.items() if not unless(handler)}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
