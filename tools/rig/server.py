"""Run one rig on loopback: PostgreSQL, Redis if asked for, the scripted model, the Letta server.

Everything that a rig writes is in one temporary directory, which is removed with it; each rig
starts with an empty database.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letta_adapters.testing.compliant_model import comply
from letta_adapters.testing.scripted_model import ScriptedModel
from tools.rig import environments
from tools.rig.environments import RigError
from tools.rig.processes import Child, run_once

if TYPE_CHECKING:
    from types import TracebackType

HOST = "127.0.0.1"
MODEL_ID = "scripted"
OTHER_ID = "scripted-two"
MODEL_HANDLE = f"openai-proxy/{MODEL_ID}"
INITDB_OPTIONS = ("--no-sync", "--no-locale", "--encoding=UTF8", "--auth=trust", "-U", "postgres")
START_SECONDS = 180.0  # Letta's imports alone take half a minute on a slow disk


@dataclass(frozen=True)
class RigOptions:
    """The options of a rig.

    ``password`` turns on Letta's ``--secure``; ``log_dir`` outlives the rig.
    """

    port: int = 8283
    model_port: int = 8399
    redis: bool = False
    password: str | None = None
    log_dir: Path | None = None


class Rig:
    """A context manager that stops on exit what :meth:`start` started.

    :meth:`start` and :meth:`wait` are separate so that several rigs can start at the same time.
    """

    def __init__(self, options: RigOptions) -> None:
        self.options = options
        self._stack = contextlib.ExitStack()
        self._children: list[Child] = []
        self._server: Child | None = None
        self._dir = Path()
        self._logs = Path()

    @property
    def base_url(self) -> str:
        """Return the Letta server's address (``LETTA_BASE_URL``)."""
        return f"http://{HOST}:{self.options.port}"

    @property
    def model_url(self) -> str:
        """Return the scripted model's address, with its control routes (``LETTA_RIG_MODEL``)."""
        return f"http://{HOST}:{self.options.model_port}"

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop everything in reverse order; afterwards no process and no file is left."""
        self._stack.close()
        self._children.clear()

    def check(self) -> None:
        """Raise ``RigError`` if one of the programs has ended."""
        for child in self._children:
            child.check()

    def start(self) -> None:
        """Start everything; Letta itself is still loading when this returns. See :meth:`wait`."""
        for port in (self.options.port, self.options.model_port):
            _require_free(port)
        self._dir = Path(tempfile.mkdtemp(prefix="letta-rig-"))
        self._stack.callback(shutil.rmtree, self._dir, ignore_errors=True)
        self._dir.chmod(0o755)  # PostgreSQL, under another user, must be able to pass through
        self._logs = self.options.log_dir or self._dir
        self._logs.mkdir(parents=True, exist_ok=True)
        # The model first: Letta asks it for its list of models while starting.
        model = ScriptedModel(
            respond=comply, host=HOST, port=self.options.model_port, models=(MODEL_ID, OTHER_ID)
        )
        self._stack.callback(model.stop)
        model.start()
        self._start_postgres()
        redis_port = self._start_redis() if self.options.redis else None
        self._start_letta(redis_port)

    def wait(self) -> None:
        """Wait until the server is healthy and lists the model; raise ``RigError`` if it fails."""
        if self._server is None:
            raise RuntimeError("start() first")
        self._server.wait_until(self._healthy, START_SECONDS)
        handles = [model.get("handle") for model in self._get("/v1/models/")]
        if MODEL_HANDLE not in handles:
            raise RigError(f"the server lists {handles}, not {MODEL_HANDLE}\n{self._server.tail()}")

    def _child(
        self,
        name: str,
        command: list[str | Path],
        *,
        stop_signal: int = signal.SIGTERM,
        drop_root: bool = False,
        env: dict[str, str] | None = None,
    ) -> Child:
        """Start a program in the rig's directory and have it stopped with the rig."""
        child = Child.start(
            name,
            command,
            log=self._log(name),
            cwd=self._dir,
            env=env or self._env(),
            stop_signal=stop_signal,
            drop_root=drop_root,
        )
        self._stack.callback(child.stop)
        self._children.append(child)
        return child

    def _start_postgres(self) -> None:
        root = environments.postgres_root()
        data, sockets = self._dir / "data", self._dir / "sockets"
        for path in (data, sockets):
            path.mkdir(mode=0o700)
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and nobody else can read root's cache.
            root = _copy_of_wheel(root, self._dir / "postgres")
            sockets.chmod(0o755)
            for path in (data, sockets):
                shutil.chown(path, "nobody")
        run_once(
            "initdb",
            [root / "bin" / "initdb", "-D", data, *INITDB_OPTIONS],
            log=self._log("postgres"),
            cwd=self._dir,
            env=self._env(),
            drop_root=True,
        )
        # A throw-away database: durability would only cost time.
        settings = ["-c", "fsync=off", "-c", "listen_addresses=", "-c", "max_connections=200"]
        command: list[str | Path] = [root / "bin" / "postgres", "-D", data, "-k", sockets]
        # SIGINT is PostgreSQL's "fast" shutdown: it does not wait for clients to leave.
        postgres = self._child(
            "postgres", [*command, *settings], stop_signal=signal.SIGINT, drop_root=True
        )
        # The last line of its pid file turns to "ready" once it accepts connections.
        pid_file = data / "postmaster.pid"
        postgres.wait_until(lambda: _last_word(pid_file) == "ready", 60)
        script = Path(__file__).with_name("create_schema.py")
        uri = self._database("postgresql+psycopg2")
        run_once(
            "create_schema",
            [environments.server_command("python"), script, uri],
            log=self._log("schema"),
            cwd=self._dir,
            env=self._server_env(),
        )

    def _database(self, scheme: str) -> str:
        """Return the database's URI, through its Unix socket."""
        return f"{scheme}://postgres@/postgres?host={self._dir / 'sockets'}&user=postgres"

    def _start_redis(self) -> int:
        port = free_port()
        persistence_off = ["--save", "", "--appendonly", "no"]
        command: list[str | Path] = [environments.redis_server(), "--bind", HOST]
        redis = self._child("redis", [*command, "--port", str(port), *persistence_off])
        redis.wait_until(lambda: _answers(port), 30)
        return port

    def _start_letta(self, redis_port: int | None) -> None:
        env = self._server_env()
        if redis_port is not None:
            env |= {"LETTA_REDIS_HOST": HOST, "LETTA_REDIS_PORT": str(redis_port)}
        if self.options.password is not None:
            env |= {"LETTA_SERVER_SECURE": "true", "LETTA_SERVER_PASSWORD": self.options.password}
        letta = environments.server_command("letta")
        address = ["--host", HOST, "--port", str(self.options.port)]
        self._server = self._child("letta", [letta, "server", *address], env=env)

    def _env(self) -> dict[str, str]:
        """Return a clean environment: no key, proxy or setting of the caller's reaches a child."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._dir),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
        }

    def _server_env(self) -> dict[str, str]:
        # Port 9 (discard) has no listener: whatever would leave loopback fails at once instead
        # of hanging, and nothing leaves.
        nowhere = f"http://{HOST}:9"
        return self._env() | {
            "LETTA_PG_URI": self._database("postgresql") + "&ssl=disable",
            "LETTA_DIR": str(self._dir / "letta"),
            "LETTA_DISABLE_TRACING": "true",
            "LETTA_DEFAULT_BASE_URL": self.base_url,
            "OPENAI_API_BASE": f"{self.model_url}/v1",
            "OPENAI_API_KEY": "scripted",
            "HTTP_PROXY": nowhere,
            "HTTPS_PROXY": nowhere,
            "NO_PROXY": f"{HOST},localhost",
            "PYTHONUNBUFFERED": "1",
        }

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _healthy(self) -> bool:
        try:
            self._get("/v1/health/")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    def _get(self, path: str) -> Any:
        request = urllib.request.Request(self.base_url + path)
        if self.options.password is not None:
            request.add_header("Authorization", f"Bearer {self.options.password}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            return json.load(answer)


def _copy_of_wheel(root: Path, target: Path) -> Path:
    """Copy an installation inside a wheel, and return the copy of ``root``.

    Programs in a wheel find their libraries in ``<package>.libs`` beside the package, by a path
    relative to themselves, so both are copied and keep their places.
    """
    package = root.parent
    copied = shutil.copytree(root, target / package.name / root.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    return copied


def _last_word(path: Path) -> str:
    """Return the last word of a small file; "" if there is no such file or it is empty."""
    with contextlib.suppress(FileNotFoundError):
        return (path.read_text().split() or [""])[-1]
    return ""


def _require_free(port: int) -> None:
    """Raise ``RigError`` if something listens on the port already."""
    if _answers(port):
        raise RigError(f"port {port} is in use: is another rig running?")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def free_port() -> int:
    """Return a TCP port on loopback that nothing uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def announce(*lines: str) -> None:
    """Print for a human or a script that waits for it; never stuck in a buffer."""
    print(*lines, sep="\n", flush=True)


def complain(message: str) -> None:
    """Print a problem to stderr."""
    print(f"rig: {message}", file=sys.stderr, flush=True)
