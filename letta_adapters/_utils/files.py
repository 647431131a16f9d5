"""Internal: files of this package on this machine, each written whole and for this user alone.

Several processes may read and write them at once. A write that fails is a typed error, which says
whether the disk is full.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from letta_adapters._utils.tasks import await_all
from letta_adapters.errors import (
    ConfigurationError,
    DiskFullError,
    InvalidInputError,
    LettaError,
    LettaTimeoutError,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")
_POLL_SECONDS: Final = 0.02
# No space, no quota, or a limit of this process on the size of files.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# A file system that has no hard links.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
# The bytes that a small write needs.
_SMALL: Final = 64 * 1024


async def on_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do work with files on a worker thread, as a disk may keep the event loop waiting.

    A caller that is cancelled still waits for its end, so that whatever the work has opened or
    written is known when the caller cleans up.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        await await_all([task])
    except asyncio.CancelledError:
        # Looked at, so that asyncio does not report a failure nobody asked about.
        task.exception()
        raise
    return task.result()


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


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes.

    Raises:
        InvalidInputError: It cannot be read, is no regular file, or is larger.
    """
    try:
        where = Path(path)
        # Not to wait for a pipe that nobody writes to.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(where, flags), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise InvalidInputError(f"{where} is no regular file.")
            data = stream.read(most + 1)
    except (OSError, TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        why = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"{path!r} cannot be read ({why}).") from error
    if len(data) > most:
        raise InvalidInputError(f"{where} is larger than {most >> 20} MiB.")
    return data


def publish(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write a user's file with mode 0600, as a whole or not at all.

    Args:
        path: Its path; the folder exists.
        data: Its content.
        overwrite: Whether to replace what has this name; a symbolic link is replaced itself.

    Raises:
        InvalidInputError: Something has this name, and is to stay.
        ConfigurationError: It cannot be written.
        DiskFullError: There is no space.
    """
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            put_in_place(temporary, path, overwrite=overwrite)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError as error:
        raise InvalidInputError(f"{path} exists.", hint="Pass overwrite=True.") from error
    except OSError as error:
        raise disk_error(error, path) from error


def put_in_place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Give a file that is written its name; raise FileExistsError if that is taken."""
    if overwrite:
        temporary.replace(path)
        return
    try:
        # Unlike a rename it fails if the name was taken meanwhile.
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links: the name is taken first, by an empty file.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        temporary.replace(path)


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
    until = time.monotonic() + seconds
    opened: list[int] = []
    try:
        # The thread puts the file here itself: a caller that is cancelled gets no result to close.
        await on_thread(_open_lock, path, opened)
        (fd,) = opened
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
        for file in opened:
            os.close(file)


def _open_lock(path: Path, opened: list[int]) -> None:
    make_private_folder(path.parent)
    try:
        opened.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise disk_error(error, path) from error


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


def is_full(where: Path, size: int = _SMALL) -> bool:
    """Return whether a small file, or one of another size, does not fit into a directory."""
    try:
        # By writing one: free space that the system reports may be reserved, or beyond a quota.
        with tempfile.TemporaryFile(dir=where) as file:
            file.write(b"\0" * size)
            file.flush()
    except OSError as error:
        return error.errno in _FULL
    return False
