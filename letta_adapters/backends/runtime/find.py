"""Internal: find the runtime (node and the app inside the ``letta`` wheel) and ``git``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from letta_adapters.backends.runtime import _compat
from letta_adapters.backends.runtime.errors import (
    INSTALL,
    UPGRADE,
    RuntimeUnavailableError,
    RuntimeVersionError,
)
from letta_adapters.engine.app_server import PROTOCOL_VERSION

MINIMUM_VERSION = (0, 34)
_GIT_HINTS = {
    "linux": "Install it: apt-get install git (or your system's equivalent)",
    "darwin": "Install it: xcode-select --install",
    "win32": "Install it: winget install Git.Git",
}
# The systems that the wheel is built for (letta 0.34).
_BUILT_FOR = ("manylinux_2_28_", "macosx_14_", "win")


@dataclass(frozen=True, slots=True)
class Installation:
    """The two files to run, and their version (``"0.34.12"``)."""

    node: Path
    app: Path
    version: str


def find_installation() -> Installation:
    """Return the installed ``letta`` wheel's runtime; nothing of it is imported.

    Raises:
        RuntimeUnavailableError: There is no wheel, or half of one.
        RuntimeVersionError: It is too old.
    """
    spec = importlib.util.find_spec(_compat.PACKAGE)
    roots = list(spec.submodule_search_locations or ()) if spec else []
    if not roots:
        raise _no_wheel()
    payload = Path(roots[0]) / _compat.PAYLOAD
    node = payload / (f"{_compat.NODE}.exe" if sys.platform == "win32" else _compat.NODE)
    app = payload / _compat.APP
    if not node.is_file() or not app.is_file():
        raise RuntimeUnavailableError(
            "The installed 'letta' package is incomplete.",
            hint=f"Install it again: {INSTALL} --force-reinstall",
        )
    version = _manifest_version(payload)
    check_version(version)
    return Installation(node, app, version)


def check_version(version: str, protocol: int = PROTOCOL_VERSION) -> None:
    """Raise :class:`RuntimeVersionError` unless this package can speak to that runtime."""
    # Major and minor alone decide; a patch number or a suffix such as rc1 does not.
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers < MINIMUM_VERSION:
        raise RuntimeVersionError(
            f"Letta Code {version} is too old: at least 0.34 is needed.",
            hint=f"Upgrade it: {UPGRADE}",
        )
    if protocol != PROTOCOL_VERSION:
        raise RuntimeVersionError(
            f"Letta Code {version} speaks App Server protocol {protocol}, and this version of "
            f"letta-adapters protocol {PROTOCOL_VERSION}.",
            hint='Upgrade both: pip install --upgrade letta-adapters "letta>=0.34"',
        )


def check_git(env: Mapping[str, str]) -> None:
    """Raise :class:`RuntimeUnavailableError` if ``git`` is not in PATH.

    The runtime keeps agent memory in git repositories; without git it fails late and oddly.
    """
    if shutil.which("git", path=env.get("PATH", "")) is None:
        hint = _GIT_HINTS.get(sys.platform, "Install git with your system's package manager.")
        raise RuntimeUnavailableError(
            "The embedded Letta runtime needs 'git', which is not in PATH.",
            code="git_missing",
            hint=hint,
        )


def _manifest_version(payload: Path) -> str:
    try:
        return str(json.loads((payload / _compat.MANIFEST).read_text("utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return importlib.metadata.version("letta")


def _no_wheel() -> RuntimeUnavailableError:
    try:
        other = importlib.metadata.version("letta")
    except importlib.metadata.PackageNotFoundError:
        missing = "The embedded Letta runtime is not installed (the 'letta' package)"
        if _is_built_here():
            return RuntimeUnavailableError(f"{missing}.")
        return RuntimeUnavailableError(
            f"{missing}, and it is not built for this system: it needs Linux with glibc 2.28 or "
            "later (not Alpine), macOS 14 or later, or Windows.",
            code="unsupported_platform",
            hint="Use a server elsewhere: Rest(...) or Remote(...).",
        )
    return RuntimeUnavailableError(
        f"The installed 'letta' {other} has no embedded runtime (it comes with 0.34 and later).",
        hint=f"Upgrade it: {UPGRADE}",
    )


def _is_built_here() -> bool:
    """Return whether the ``letta`` wheel is built for this system, by the tags pip goes by."""
    from packaging.tags import sys_tags

    return any(tag.platform.startswith(_BUILT_FOR) for tag in sys_tags())
