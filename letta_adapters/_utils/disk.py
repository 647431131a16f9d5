"""Typed errors for failed writes in one of this package's directories."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from letta_adapters.errors import ConfigurationError, DiskFullError, LettaError

# No space, no quota, or a limit of this process on the size of files.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# The bytes that a small write needs.
_SMALL: Final = 64 * 1024


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
def writing(where: Path) -> Iterator[None]:
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
