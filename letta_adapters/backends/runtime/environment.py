"""Internal: the command line, the environment and the directories of the runtime.

By default it shares the user's normal Letta state (``~/.letta``). With ``data_dir`` that directory
is the runtime's home, so settings, transcripts and logs are inside it as well as agents. Of the
caller's environment it takes over the variables that ``passed_variables.py`` lists, and nothing
else.

The runtime creates its directories and files as the umask says (usually 0755 and 0644), transcripts
included. The umask stays the user's, since the agent's shell writes the user's own files with it;
so the directories are made first, closed to others. A directory that exists already is the user's
and is not changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from letta_adapters.backends.config import CLOUD_URL, Local, api_address
from letta_adapters.backends.runtime import _compat, passed_variables
from letta_adapters.backends.runtime.find import Installation
from letta_adapters.backends.runtime.git import GitFiles
from letta_adapters.permissions.policy import Machine

# Marks every process that the runtime starts, so that none of them outlives it.
MARKER = "LETTA_ADAPTERS_RUNTIME_ID"
GRACE_SECONDS = 3.0
SHIM = Path(__file__).with_name("shim.cjs")
SYSTEM_INFO = Path(__file__).with_name("system_info.cjs")
GIT = Path(__file__).with_name("git.cjs")
SECRETS = Path(__file__).with_name("secrets.cjs")
GUARD = Path(__file__).with_name("guard.cjs")
DAMAGE = Path(__file__).with_name("damage.cjs")
VISION = Path(__file__).with_name("vision.cjs")

# These variables would lead out of an isolated home again.
_HOME_LIKE = {"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"}


def may_sync_memory(config: Local) -> bool | None:
    """Return whether git may take memory from and to a server; ``None`` if memory is local.

    Only Letta Cloud keeps memory in git (``letta`` 0.34); for a server of one's own the address has
    to be named.
    """
    if config.api is None:
        return None
    url, _ = api_address(config.api)
    return url.rstrip("/") == CLOUD_URL or _compat.MEMORY_URL in config.env


def make_fingerprint(config: Local, token: str) -> str:
    """Return the settings that a shared server must have, as digests keyed with its token.

    It has ``NAME=digest`` for each variable that decides whose account is used, and where, so a
    second process with another key does not spend the first one's. The places of programs and the
    language may differ. As it stands in a file, no value is in it.
    """
    settings = {
        name: value
        for name, value in runtime_environment(config).items()
        if name in config.env or not passed_variables.is_place(name)
    }
    return " ".join(f"{name}={_digest(token, settings[name])}" for name in sorted(settings))


def find_differences(config: Local, fingerprint: str, token: str) -> list[str]:
    """Return the names of the variables in which a server with this fingerprint differs."""
    theirs = dict(pair.rpartition("=")[::2] for pair in fingerprint.split())
    ours = dict(pair.rpartition("=")[::2] for pair in make_fingerprint(config, token).split())
    return sorted(name for name in theirs | ours if theirs.get(name) != ours.get(name))


def _digest(token: str, value: str) -> str:
    text = value.encode("utf-8", "surrogateescape")
    return hmac.new(token.encode(), text, hashlib.sha256).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one runtime; ``meet`` is ours, with the lock and the rendezvous file."""

    home: Path
    state: Path
    meet: Path
    isolated: bool
    on_api: bool

    @property
    def no_system_info(self) -> Path:
        """The directory that lists the conversations without system info (``system_info.cjs``)."""
        return self.meet / "no-system-info"

    @property
    def git(self) -> GitFiles:
        """The files that configure git inside the runtime."""
        return GitFiles(self.meet / "git")

    @property
    def memories(self) -> list[Path]:
        """The directories below which agents' memory repositories are."""
        of_apis = self.home / _compat.LETTA / _compat.AGENTS
        return list(dict.fromkeys([self.state / _compat.MEMORIES, of_apis]))

    @property
    def machine(self) -> Machine:
        """The places of agents' memories, and those that nobody may read unasked."""
        letta = self.home / _compat.LETTA
        agent = "{agent}"  # filled in for each
        memory = _compat.find_memory(self.state, agent)
        if self.on_api:
            memory = letta / _compat.AGENTS / agent / _compat.MEMORY
        return Machine(str(memory), (letta, self.state, self.meet), (self.home, Path.home()))

    @property
    def images_told(self) -> Path:
        """A file that exists if the runtime tells about images it leaves out (``vision.cjs``)."""
        return self.meet / "images-told"

    @property
    def reflection(self) -> Path:
        """The directory that lists the agents which reflect (``guard.cjs``)."""
        return self.meet / "reflection"

    @property
    def ledgers(self) -> list[Path]:
        """The files in which the runtime notes accepted inputs (one per API server URL)."""
        return _compat.find_ledgers(self.home)


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of the runtime: the command to execute, and its secrets.

    ``token`` is a secret, of which only the hash is on the command line. ``secrets`` are for the
    runtime alone, and for none of the processes it starts.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    token: str = field(repr=False)
    runtime_id: str
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def hand_over(self, stdin: IO[bytes]) -> None:
        """Give the runtime its secrets, as the first line it reads (``secrets.cjs``).

        A runtime that has ended does not read; its fate is found out elsewhere.
        """
        with contextlib.suppress(OSError):  # Windows has another one than BrokenPipeError
            stdin.write(json.dumps(dict(self.secrets)).encode() + b"\n")
            stdin.flush()


def find_places(config: Local) -> Places:
    """Return the directories, without making any."""
    env = runtime_environment(config)
    home = Path(env["HOME"])
    state = Path(env.get(_compat.STATE_DIR) or home / _compat.LETTA / _compat.STATE)
    meet = state / "letta-adapters"
    if config.api is not None:
        url, _ = api_address(config.api)
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        meet = home / _compat.LETTA / "letta-adapters" / name
    isolated = config.data_dir is not None
    return Places(home, state, meet, isolated, on_api=config.api is not None)


def build_launch(
    config: Local, places: Places, found: Installation, *, token: str, runtime_id: str
) -> Launch:
    """Return the command line and the environment of one start."""
    env = runtime_environment(config)
    env["PATH"] = os.pathsep.join([str(found.node.parent), env.get("PATH", os.defpath)])
    env[_compat.INSTALLED_BY] = "pypi"
    env[MARKER] = runtime_id
    env["GIT_CONFIG_GLOBAL"] = str(places.git.shared)
    env["LETTA_ADAPTERS_GRACE_MS"] = str(int(GRACE_SECONDS * 1000))
    env["LETTA_ADAPTERS_RECYCLE_AT"] = str(config.recycle_at)
    # Variables that the user names are meant for the agent's shell as well.
    named = {*config.env, *config.inherit_env}
    hidden = {name for name in env if passed_variables.is_secret(name) and name not in named}
    secrets = {name: env.pop(name) for name in hidden}
    backend = "local" if config.api is None else "api"
    # Other users can read a command line, and learn nothing from the hash.
    digest = hashlib.sha256(token.encode()).hexdigest()
    argv = (
        str(found.node),
        f"--max-old-space-size={config.max_memory_mb}",
        "--require",
        str(SECRETS),
        "--require",
        str(SHIM),
        "--require",
        str(SYSTEM_INFO),
        "--require",
        str(GIT),
        "--require",
        str(GUARD),
        "--require",
        str(DAMAGE),
        "--require",
        str(VISION),
        str(found.app),
        *("--backend", backend, "server", "--listen"),
        *("--ws-auth", "capability-token", "--ws-token-sha256", digest),
    )
    # It starts in a directory of our own: the runtime silently works in its start directory when a
    # session names one that does not exist.
    return Launch(argv, env, places.meet, token, runtime_id, secrets)


def model_server(config: Local) -> tuple[str, str]:
    """Return the base URL and the key of the runtime's model server, or ``""`` for each."""
    env = runtime_environment(config)
    key = env.get(_compat.MODEL_SERVER_KEY, "")
    return env.get(_compat.MODEL_SERVER, ""), "" if key == "none" else key


def runtime_environment(config: Local) -> dict[str, str]:
    """Return the runtime's environment: the caller's variables that are listed or named."""
    env = passed_variables.select_inherited(
        os.environ, named=config.inherit_env, providers=config.api is None
    )
    # It need not be set (on Windows it is not), and the directories are derived from it.
    env.setdefault("HOME", str(Path.home()))
    if config.data_dir is not None:
        home = str(config.data_dir.expanduser().resolve())
        env = {name: value for name, value in env.items() if name not in _HOME_LIKE}
        env.pop(_compat.STATE_DIR, None)
        env |= {"HOME": home, "USERPROFILE": home}
    env |= _compat.QUIET
    if config.openai_compatible is not None:
        env[_compat.MODEL_SERVER] = config.openai_compatible["base_url"]
        env[_compat.MODEL_SERVER_KEY] = config.openai_compatible.get("api_key") or "none"
    if config.api is not None:
        url, env["LETTA_API_KEY"] = api_address(config.api)
        # Without the second one memory is looked for on Letta Cloud, wherever the agents live.
        env["LETTA_BASE_URL"] = env[_compat.MEMORY_URL] = url
    # Last, so that the user has the final word.
    env |= config.env
    return env


def make_private(folder: Path) -> None:
    """Make ``folder`` and every directory above it that is missing, with mode 0700.

    Raises:
        OSError: It cannot be made.
    """
    if folder.is_dir():
        return
    make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def prepare(places: Places) -> None:
    """Make the directories of a runtime that is about to start.

    Raises:
        OSError: One cannot be made.
    """
    letta = places.home / _compat.LETTA
    make_private(letta)
    make_private(places.meet)
    inside: dict[Path, tuple[str, ...]] = {letta: _compat.IN_LETTA}
    if not places.on_api:
        make_private(places.state)
        inside[places.state] = _compat.IN_STATE
    for folder, names in inside.items():
        # Below a closed directory nobody can look, whatever the modes inside.
        if _is_open(folder):
            for name in names:
                make_private(folder / name)


def open_to_others(places: Places) -> list[Path]:
    """Return those of the runtime's directories that other users of this machine can look into.

    There are none where the system has no such modes (Windows), or below a directory that is
    closed.
    """
    if os.name == "nt":
        return []
    letta = places.home / _compat.LETTA
    found = [folder for folder in (letta, places.state) if _is_open(folder)]
    return [folder for folder in found if all(_is_open(p) for p in _above(folder, places.home))]


def _is_open(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:  # it is not there yet
        return False


def _above(folder: Path, top: Path) -> list[Path]:
    """Return the directories from ``top``, itself included, down to above ``folder``."""
    if not folder.is_relative_to(top):
        return []
    return [parent for parent in folder.parents if parent.is_relative_to(top)]
