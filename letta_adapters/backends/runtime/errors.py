"""Internal: errors of the embedded runtime; each carries the command that fixes it.

::

    LettaError
    ├── RuntimeUnavailableError   nothing to start          code "runtime_unavailable"
    │                             no git                    code "git_missing"
    ├── RuntimeVersionError       not one we can speak to   code "runtime_version"
    ├── RuntimeOccupiedError      the state is in use       code "runtime_occupied"
    ├── RuntimeStartError         it did not come up        code "runtime_start_failed"
    └── ConnectionFailedError
        └── RuntimeCrashedError   it ended while in use     code "runtime_crashed"
"""

from __future__ import annotations

from typing import Any

from letta_adapters.errors import ConnectionFailedError, LettaError

INSTALL = 'pip install "letta>=0.34"'
UPGRADE = 'pip install --upgrade "letta>=0.34"'


class RuntimeUnavailableError(LettaError):
    """Something the embedded runtime needs is not installed."""

    default_code = "runtime_unavailable"
    default_hint = f"Install it: {INSTALL}"


class RuntimeVersionError(LettaError):
    """The runtime is there, but of a version (or with a protocol) this package cannot use."""

    default_code = "runtime_version"
    default_hint = f"Change it: {UPGRADE}"


class RuntimeOccupiedError(LettaError):
    """The state directory is in use and cannot be shared; ``owner_pid`` is set where known."""

    default_code = "runtime_occupied"
    default_hint = "End that process, or use another Local(data_dir=...)."

    def __init__(self, message: str, *, owner_pid: int | None = None, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.owner_pid = owner_pid


class _RuntimeEndedError(LettaError):
    """The runtime has ended.

    ``stderr_tail`` is its last output; ``returncode`` is ``None`` if it had to be stopped.
    """

    def __init__(
        self, message: str, *, stderr_tail: str = "", returncode: int | None = None, **kwargs: Any
    ) -> None:
        if stderr_tail:
            message = f"{message}\nIts last output:\n{stderr_tail}"
        super().__init__(message, **kwargs)
        self.stderr_tail = stderr_tail
        self.returncode = returncode


class RuntimeStartError(_RuntimeEndedError):
    """The runtime ended, or stayed silent, while it was started; see ``stderr_tail``."""

    default_code = "runtime_start_failed"


class RuntimeCrashedError(_RuntimeEndedError, ConnectionFailedError):
    """The runtime ended while it was in use. A turn in flight is lost; it is not run again."""

    default_code = "runtime_crashed"
    default_hint = "The next session starts it anew. The lost message is not sent again by itself."
