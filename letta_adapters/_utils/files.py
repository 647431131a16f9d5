"""Internal: files of this package on this machine, each written whole and for this user alone.

Several processes may read and write them at once. A write that fails is a typed error, which says
whether the disk is full.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from letta_adapters.errors import (
    ConfigurationError,
    DiskFullError,
    LettaError,
    LettaTimeoutError,
)

_POLL_SECONDS: Final = 0.02
# No space, no quota, or a limit of this process on the size of files.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# The bytes that a small write needs.
_SMALL: Final = 64 * 1024


def make_private_folder(folder: Path) -> None:
    """Make a folder, if there is none, that nobody else may look into.

    Raises:
        ConfigurationError: It cannot be made.
        DiskFullError: There is no space.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise disk_error(error, folder) from error


def write_private(path: Path, text: str) -> None:
    """Write a file with mode 0600 as a whole or not at all; make its folder if there is none.

    Raises:
        ConfigurationError: It cannot be written (a read-only disk).
        DiskFullError: There is no space.
    """
    make_private_folder(path.parent)
    # Another name first, then a rename: no reader ever sees half a file.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        # Mode 0600 from the first moment: a later chmod would leave a gap.
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise disk_error(error, path) from error


def is_ours_alone(path: Path) -> bool:
    """Return whether nobody but this user (and root) can have written the file.

    On Windows this is not looked at, and always true.
    """
    if sys.platform == "win32":
        return True
    found = path.stat()
    return found.st_uid in (os.geteuid(), 0) and not found.st_mode & 0o022


@asynccontextmanager
async def hold_lock(path: Path, seconds: float) -> AsyncIterator[None]:
    """Hold a lock against other processes, threads and tasks; the system frees it at the end.

    Args:
        path: The lock's file; it is made, and stays.
        seconds: The time to wait for it.

    Raises:
        ConfigurationError: The file cannot be made.
        LettaTimeoutError: Another holds it for too long.
    """
    make_private_folder(path.parent)
    until = time.monotonic() + seconds
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        # Asked again and again: a wait in the system would block the event loop.
        while not _try(fd, path):
            if time.monotonic() > until:
                raise LettaTimeoutError(
                    f"Another process has held {path} for {seconds:g} seconds.",
                    hint="End it, or wait until it is done.",
                    accepted=False,
                )
            await asyncio.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            _unlock(fd)
    finally:
        os.close(fd)


def _try(fd: int, path: Path) -> bool:
    try:
        return _lock(fd)
    except OSError as error:  # a file system without locks
        raise disk_error(error, path) from error


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(fd: int) -> None:
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(fd: int) -> bool:
        # The lock belongs to the open file, not to the process, so two threads keep each other out.
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        # Not left to close(): a child that was forked meanwhile has the same open file.
        fcntl.flock(fd, fcntl.LOCK_UN)


def disk_error(error: OSError, where: Path) -> LettaError:
    """Return the typed error for a write in the directory ``where`` that failed."""
    said = error.strerror or str(error)
    if error.errno in _FULL:
        return DiskFullError(f"The disk that holds {where} is full ({said}).", accepted=False)
    return ConfigurationError(
        f"{where} cannot be used ({said}).",
        hint="Make it writable, or use another Local(data_dir=...).",
    )


@contextmanager
def explain_write_errors(where: Path) -> Iterator[None]:
    """Turn an OSError of a write in the directory ``where`` into a typed error."""
    try:
        yield
    except LettaError:  # some of them are OSErrors as well
        raise
    except OSError as error:
        raise disk_error(error, where) from error


def is_full(where: Path) -> bool:
    """Return whether a small file does not fit into the directory ``where``."""
    try:
        # By writing one: free space that the system reports may be reserved, or beyond a quota.
        with tempfile.TemporaryFile(dir=where) as file:
            file.write(b"\0" * _SMALL)
    except OSError as error:
        return error.errno in _FULL
    return False
