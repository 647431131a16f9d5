"""Internal: implement ``letta-adapters doctor``: check what is installed, configured and reachable.

Everything that is missing comes with a hint what to do.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from rich.text import Text

from letta_adapters import __version__
from letta_adapters.backends.app_server.inherited import MachineFiles
from letta_adapters.backends.config import CLOUD_URL, Local, Remote, Rest
from letta_adapters.backends.letta_code import own_directory
from letta_adapters.backends.runtime._compat import STATE_DIR
from letta_adapters.backends.runtime.damage import Damage, find_damage, set_aside
from letta_adapters.backends.runtime.environment import (
    find_places,
    open_to_others,
    runtime_environment,
)
from letta_adapters.backends.runtime.find import check_git, find_installation
from letta_adapters.backends.runtime.state_directory import StateDirectory
from letta_adapters.cli.exits import FAILED, OK
from letta_adapters.cli.render import clean, make_console, progress, show_hint
from letta_adapters.cli.target import make_backend
from letta_adapters.cli.variables import list_variables
from letta_adapters.errors import LettaError
from letta_adapters.sync.client import LettaClient

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

_BASE: Final = ("httpx", "pydantic", "websockets")
_EXTRAS: Final = {
    "rich": "cli",
    "langchain-core": "langchain",
    "mcp": "mcp",
    "llama-index-core": "llama-index",
    "vcrpy": "testing",
}
_PATIENCE: Final = {"connect_timeout": 5.0, "request_timeout": 15.0}
_NO_MODEL: Final = (
    "Set the key of a model provider (OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, ...) or "
    "LMSTUDIO_BASE_URL where the runtime starts. Without one, try: letta-adapters demo"
)


@dataclass(frozen=True)
class Check:
    """A finding: a ``note`` is not needed here, a ``problem`` must be solved."""

    state: Literal["ok", "note", "problem"]
    name: str
    text: str
    hint: str = ""


def run(args: argparse.Namespace) -> int:
    """Check everything; return 1 if no agent can be talked to."""
    console = make_console()
    spec = make_backend(args)
    good = _show(console, "Installed", check_installed(local=isinstance(spec, Local)))
    good &= _show(console, "Configured", check_settings(spec))
    good &= _show(console, "Environment", check_variables())
    if isinstance(spec, Local | Remote):
        good &= _show(console, "State", check_state(spec, aside=args.set_aside))
    # Without what is needed the connection fails anyway, with a less helpful message.
    if good:
        with progress(make_console(stderr=True), "Connecting"):
            # Collected while the spinner turns, and printed after it.
            found = list(check_reach(spec))
        good &= _show(console, "Reachable", iter(found))
    console.print()
    console.print("Everything that is needed is there." if good else "Something is missing.")
    return OK if good else FAILED


def _show(console: Console, title: str, checks: Iterator[Check]) -> bool:
    colours = {"ok": "green", "note": "yellow", "problem": "bold red"}
    words = {"ok": "ok", "note": "-", "problem": "PROBLEM"}
    console.print(Text(f"\n{title}", style="bold"))
    good = True
    for check in checks:
        line = Text(f"  {words[check.state]:8}", style=colours[check.state])
        line.append(f"{check.name:22} ", style="not bold default")
        line.append(clean(check.text), style="not bold default")
        console.print(line)
        if check.hint:
            show_hint(console, check.hint, indent=10)
        good &= check.state != "problem"
    return good


# -- what is installed ----------------------------------------------------------------------------


def check_installed(*, local: bool) -> Iterator[Check]:
    """Check Python, packages, the runtime and git; agents on this machine need the last two."""
    yield Check("ok", "Python", f"{platform.python_version()} on {platform.system()}")
    yield Check("ok", "letta-adapters", __version__)
    for name in _BASE:
        version = _version(name)
        hint = "" if version else f"Install it: pip install {name}"
        bad = _unfit(name, version)
        if bad:
            yield Check("problem", name, f"{version}, {bad}", f"pip install --upgrade {name}")
        else:
            yield Check("ok" if version else "problem", name, version or "not installed", hint)
    # Who uses agents elsewhere needs no runtime, but may want to know that there is none.
    missing: Literal["problem", "note"] = "problem" if local else "note"
    try:
        found = find_installation()
        yield Check("ok", "Letta Code", f"{found.version}, {found.app.parent.parent}")
    except LettaError as error:
        yield Check(missing, "Letta Code", error.message, error.hint)
    try:
        env = runtime_environment(Local())
        check_git(env)
        yield Check("ok", "git", str(shutil.which("git", path=env.get("PATH", ""))))
    except LettaError as error:
        yield Check(missing, "git", error.message, error.hint)
    for name, extra in _EXTRAS.items():
        version = _version(name)
        bad = _unfit(name, version)
        if bad:
            hint = f'It will not do: pip install --upgrade "letta-adapters[{extra}]"'
            yield Check("note", name, f"{version}, {bad}", hint)
            continue
        hint = "" if version else f'If you want it: pip install "letta-adapters[{extra}]"'
        yield Check("ok" if version else "note", name, version or "not installed", hint)


def _unfit(name: str, version: str) -> str:
    """Return how a version fails this package's own requirements; "" if it does not."""
    for text in importlib.metadata.requires("letta-adapters") or ():
        wanted = Requirement(text)
        if version and wanted.name == name and str(wanted.specifier):
            fits = wanted.specifier.contains(version, prereleases=True)
            return "" if fits else f"which is not {wanted.specifier}"
    return ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


# -- what is configured ---------------------------------------------------------------------------


def check_settings(spec: Rest | Local | Remote) -> Iterator[Check]:
    """Report the backend that is meant and the settings that are there, but never a secret."""
    if isinstance(spec, Rest):
        url = spec.base_url or os.environ.get("LETTA_BASE_URL") or CLOUD_URL
        yield Check("ok", "Backend", f"the Letta API at {_public(url)}")
        yield _setting("LETTA_API_KEY", "a server of your own may do without")
    elif isinstance(spec, Remote):
        url = spec.url or os.environ.get("LETTA_APP_SERVER_URL") or "(not named)"
        yield Check("ok", "Backend", f"an App Server at {_public(url)}")
        yield _setting("LETTA_APP_SERVER_TOKEN", "a server without a token does without")
    else:
        yield Check("ok", "Backend", "Letta Code on this machine")
        home = spec.data_dir or os.environ.get(STATE_DIR) or "~/.letta"
        yield Check("ok", "State", str(home))
        for folder in open_to_others(find_places(Local(data_dir=spec.data_dir))):
            text = f"other users of this machine can look into {folder}"
            yield Check(
                "note", "Privacy", text, f"Close it: chmod -R go= {shlex.quote(str(folder))}"
            )
        others = "LETTA_API_KEY, LETTA_BASE_URL or LETTA_APP_SERVER_URL"
        yield Check("note", "Elsewhere", "not configured", f"To use agents elsewhere set {others}.")
    if os.environ.get("LETTA_MODEL"):
        yield Check("ok", "LETTA_MODEL", os.environ["LETTA_MODEL"])


def check_variables() -> Iterator[Check]:
    """List the environment variables that this package reads: set or not, and never a value."""
    for variable, there in list_variables():
        text = f"{'set' if there else 'not set'}: {variable.about.replace('`', '')}"
        who = "" if variable.reader == "clients" else f" ({variable.reader})"
        yield Check("ok" if there else "note", variable.name, text + who)


def _setting(name: str, otherwise: str) -> Check:
    if os.environ.get(name):
        return Check("ok", name, "set")
    return Check("note", name, f"not set ({otherwise})")


def _public(url: str) -> str:
    """Return an address without the password it may contain."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "what is not an address"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


# -- what is stored -------------------------------------------------------------------------------


def check_state(spec: Local | Remote, *, aside: bool) -> Iterator[Check]:
    """Look for files that cannot be used; ``aside`` moves them where they harm nobody."""
    try:
        ours = own_directory(spec)
    except LettaError as error:
        yield Check("problem", "Files", error.message, error.hint)
        return
    found = []
    if ours is not None:
        settings = MachineFiles(ours).damaged()
        found += [Damage(path, "settings", path.stem, why) for path, why in settings]
    state = ours.parents[1] if ours is not None else None
    state_dir = None
    if isinstance(spec, Local):
        places = find_places(Local(data_dir=spec.data_dir, inherit_env=spec.inherit_env))
        state_dir = StateDirectory(places.meet)
        if spec.api is None:
            state = places.state
            found += find_damage(places.state, places.ledgers)
    if not found or state is None:
        yield Check("ok", "Files", f"whole, in {state}")
        return
    # A running runtime may write to these files, so nothing is moved under it.
    if aside and state_dir is not None and not (state_dir.alone() and state_dir.try_own()):
        yield Check("problem", "Files", "torn, and in use", "End what uses the runtime first.")
        return
    try:
        yield from (_set_aside(damage, state) if aside else _torn(damage) for damage in found)
    except OSError as error:
        yield Check("problem", "Set aside", f"it failed: {error}")
    finally:
        if aside and state_dir is not None:
            state_dir.release()


def _torn(damage: Damage) -> Check:
    hint = "To move it where it harms nobody: letta-adapters doctor --set-aside"
    return Check("problem", "Torn file", f"{damage}", hint)


def _set_aside(damage: Damage, state: Path) -> Check:
    kept = set_aside(damage, state)
    return Check("note", "Set aside", f"{damage}", f"It is kept as {kept}")


# -- what is reachable ----------------------------------------------------------------------------


def check_reach(spec: Rest | Local | Remote) -> Iterator[Check]:
    """Connect, and list the models."""
    # Each backend has time limits of its own, so only those that exist are set.
    patience = {k: v for k, v in _PATIENCE.items() if k in type(spec).model_fields}
    started = time.monotonic()
    try:
        with LettaClient(spec.model_copy(update=patience)) as client:
            handles = {str(model.get("handle")) for model in client.models.list()}
    except LettaError as error:
        yield Check("problem", "Connection", error.message, error.hint)
        return
    yield Check("ok", "Connection", f"works ({time.monotonic() - started:.1f} s)")
    if not handles:
        yield Check("problem", "Models", "none", _NO_MODEL)
        return
    providers = sorted({handle.partition("/")[0] for handle in handles})
    yield Check("ok", "Models", f"{len(handles)} of {', '.join(providers)}")
    # Said here, it need not be found out when an agent is made with it.
    wanted = os.environ.get("LETTA_MODEL")
    if wanted and wanted not in handles:
        hint = f"Set it to one of them, such as {min(handles)}"
        yield Check("problem", "LETTA_MODEL", f"{wanted} is not one of them", hint)
