"""Internal: the exit codes of the command line, and the one that an error means."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from letta_adapters.errors import LettaError

OK, FAILED, USAGE, NO_ACCESS, TIMED_OUT, UNREACHABLE = range(6)
# What a shell makes of a process that a signal has ended.
HUNG_UP, INTERRUPTED, TERMINATED = (128 + number for number in (1, 2, 15))

EXIT_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        OK: "it worked",
        FAILED: "it did not (the reason is on stderr)",
        USAGE: "wrong usage, found before anything was sent",
        NO_ACCESS: "no key, a key that was refused, or nothing to talk to is configured",
        TIMED_OUT: "the time was up",
        UNREACHABLE: "the server could not be reached, or the connection was lost",
        HUNG_UP: "the terminal was closed",
        INTERRUPTED: "stopped by Ctrl-C",
        TERMINATED: "ended by SIGTERM",
    }
)


class Ended(SystemExit):
    """A signal has asked this process to end; its exit code says which."""

    code: int

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def exit_code(error: BaseException) -> int:
    """Return the exit code that an error means."""
    from letta_adapters.errors import (
        AuthenticationError,
        ConfigurationError,
        ConnectionFailedError,
        LettaTimeoutError,
        ProviderAuthenticationError,
    )

    kinds: dict[int, tuple[type[LettaError], ...]] = {
        NO_ACCESS: (AuthenticationError, ConfigurationError, ProviderAuthenticationError),
        TIMED_OUT: (LettaTimeoutError,),
        UNREACHABLE: (ConnectionFailedError,),
    }
    return next((code for code, kind in kinds.items() if isinstance(error, kind)), FAILED)
