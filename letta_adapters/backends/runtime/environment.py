"""What the runtime is started with: its command line, its environment, its directories. Pure.

By default it shares the user's normal Letta state (``~/.letta``). With ``data_dir`` that directory
is the runtime's home, so settings, transcripts and logs are inside it as well as agents.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from letta_adapters.backends.runtime.find import Installation

# Marks every process the runtime starts, so that none of them outlives it.
MARKER = "LETTA_ADAPTERS_RUNTIME_ID"
GRACE_SECONDS = 3.0
SHIM = Path(__file__).with_name("shim.cjs")
SYSTEM_INFO = Path(__file__).with_name("system_info.cjs")

_QUIET = {
    "LETTA_CODE_TELEM": "0",
    "DO_NOT_TRACK": "1",
    "DISABLE_AUTOUPDATER": "1",
    "LETTA_DISABLE_CRON_SCHEDULER": "1",
    "LETTA_DISABLE_MODS": "1",
    "LETTA_DISABLE_SESSION_PERSIST": "1",
    "LETTA_SKIP_KEYCHAIN_CHECK": "1",
}
# What an agent's own shell (we may run inside one) or a Node tool leaves in the environment.
_STRAY = {"NODE_OPTIONS", "NODE_PATH", "AGENT_ID", "CONVERSATION_ID", "MEMORY_DIR"}
# What would lead out of an isolated home again.
_HOME_LIKE = {"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"}
_STATE_DIR = "LETTA_LOCAL_BACKEND_DIR"


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """How to run the embedded server.

    ``data_dir``: a home of its own; ``None`` shares the user's Letta state. ``env``: added to the
    environment, after everything else. ``openai_compatible``: ``{"base_url": ..., "api_key": ...}``
    of a model server, whose models are then ``lmstudio/<id>``. ``max_memory_mb``: limit of the
    JavaScript heap. ``start_timeout``: seconds until it must serve. ``api``: URL and key of a Letta
    API server which then keeps the state.
    """

    data_dir: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    openai_compatible: Mapping[str, str] | None = field(default=None, repr=False)
    max_memory_mb: int = 1024
    start_timeout: float = 30.0
    api: tuple[str, str] | None = field(default=None, repr=False)

    def fingerprint(self, token: str) -> str:
        """Equal for configurations that can share one server. Keyed: it stands in a file."""
        settings = [dict(self.env), dict(self.openai_compatible or {}), self.api]
        text = json.dumps(settings, sort_keys=True, default=str)
        return hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one runtime. ``meet`` is ours: the lock and the rendezvous file."""

    home: Path
    state: Path
    meet: Path
    isolated: bool
    on_api: bool

    @property
    def no_system_info(self) -> Path:
        """Where the runtime is told which conversations go without (``system_info.cjs``)."""
        return self.meet / "no-system-info"

    @property
    def ledgers(self) -> list[Path]:
        """Where the runtime notes the inputs it has accepted (one file per API server URL)."""
        return sorted((self.home / ".letta" / "state").glob("*/input-dispositions-v2.json"))


@dataclass(frozen=True, slots=True)
class Launch:
    """One start: what to execute. ``token`` is the secret, only its hash is on the command line."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    token: str = field(repr=False)
    runtime_id: str


def find_places(config: RuntimeConfig) -> Places:
    """Resolve the directories; makes none."""
    env = runtime_environment(config)
    home = Path(env["HOME"])
    state = Path(env.get(_STATE_DIR) or home / ".letta" / "lc-local-backend")
    meet = state / "letta-adapters"
    if config.api is not None:
        name = hashlib.sha256(config.api[0].encode()).hexdigest()[:16]
        meet = home / ".letta" / "letta-adapters" / name
    isolated = config.data_dir is not None
    return Places(home, state, meet, isolated, on_api=config.api is not None)


def build_launch(
    config: RuntimeConfig, places: Places, found: Installation, *, token: str, runtime_id: str
) -> Launch:
    """The command line and environment of one start."""
    env = runtime_environment(config)
    env["PATH"] = os.pathsep.join([str(found.node.parent), env.get("PATH", os.defpath)])
    env["LETTA_CODE_DISTRIBUTION"] = "pypi"
    env[MARKER] = runtime_id
    env["LETTA_ADAPTERS_GRACE_MS"] = str(int(GRACE_SECONDS * 1000))
    backend = "local" if config.api is None else "api"
    digest = hashlib.sha256(token.encode()).hexdigest()
    argv = (
        str(found.node),
        f"--max-old-space-size={config.max_memory_mb}",
        "--require",
        str(SHIM),
        "--require",
        str(SYSTEM_INFO),
        str(found.app),
        *("--backend", backend, "server", "--listen"),
        *("--ws-auth", "capability-token", "--ws-token-sha256", digest),
    )
    # A directory of our own: the runtime silently works in its start directory when a session
    # names one that does not exist.
    return Launch(argv, env, places.meet, token, runtime_id)


def runtime_environment(config: RuntimeConfig) -> dict[str, str]:
    """The caller's environment without what would change the runtime behind our back."""
    kept = {_STATE_DIR}
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in _STRAY and (not name.startswith("LETTA_") or name in kept)
    }
    env.setdefault("HOME", str(Path.home()))
    if config.data_dir is not None:
        home = str(config.data_dir.expanduser().resolve())
        env = {name: value for name, value in env.items() if name not in _HOME_LIKE}
        env.pop(_STATE_DIR, None)
        env |= {"HOME": home, "USERPROFILE": home}
    env |= _QUIET
    if config.openai_compatible is not None:
        env["LMSTUDIO_BASE_URL"] = config.openai_compatible["base_url"]
        env["LMSTUDIO_API_KEY"] = config.openai_compatible.get("api_key") or "none"
    if config.api is not None:
        env["LETTA_BASE_URL"], env["LETTA_API_KEY"] = config.api
    env |= config.env
    return env
