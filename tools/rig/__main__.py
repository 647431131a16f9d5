"""``python -m tools.rig install | up | run | record``: see the help of each command."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tools.rig.environments import RigError, install
from tools.rig.server import MODEL_HANDLE, Rig, RigOptions, announce, complain, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

# Letta port and model port of each flavour, so that all three fit on one machine.
PLAIN = (8283, 8399)
REDIS = (8284, 8400)
SECURE = (8285, 8401)
# Whose cassettes come from a Letta API server.
RECORDED = ["tests/backends/rest", "tests/behaviour", "tests/langchain", "tests/llama_index"]
RECORDED += ["tests/web/agui/test_letta_api.py"]
RECORDED += ["-k", "not app_server and not embedded"]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    options = _parser().parse_args(arguments)
    for number in SIGNALS:
        # What is ignored (by nohup, say) stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        if options.command == "install":
            install(options.python)
            return 0
        if options.command == "record":
            return _record(options.pytest_args)
        return _up(options) if options.command == "up" else _run(options)
    except (RigError, subprocess.CalledProcessError) as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    """Treat every signal as Ctrl-C: one way to stop, through the context managers."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.rig", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("install", help="build the virtual environments")
    sub.add_argument("--python", default="3.11", help="version or path (default: %(default)s)")

    sub = commands.add_parser("up", help="start a server; Ctrl-C stops it")
    sub.add_argument("--redis", action="store_true", help="with Redis")
    sub.add_argument("--secure", metavar="PASSWORD", help="require this bearer token")
    sub.add_argument("--port", type=int, help="Letta's port (8283; 8284 with --redis)")
    sub.add_argument("--model-port", type=int, help="the model's port (8399; 8400 with --redis)")
    sub.add_argument("--log-dir", type=Path, help="keep the logs here")

    sub = commands.add_parser("run", help="start a server, run a command, stop the server")
    flavour = sub.add_mutually_exclusive_group()
    flavour.add_argument("--redis", action="store_true", help="with Redis, on port 8284")
    flavour.add_argument("--both", action="store_true", help="one without and one with Redis")
    sub.add_argument("--secure", metavar="PASSWORD", help="one more, with this bearer token")
    sub.add_argument("--any-port", action="store_true", help="free ports, not the usual ones")
    sub.add_argument("--log-dir", type=Path, help="keep the logs here")
    sub.add_argument("argv", nargs="+", metavar="-- CMD", help="the command to run")

    sub = commands.add_parser(
        "record", help="start every flavour and record all cassettes anew; PYTEST_ARGS select"
    )
    sub.add_argument("pytest_args", nargs="*", metavar="PYTEST_ARGS", default=RECORDED)
    return parser


def _record(pytest_args: Sequence[str]) -> int:
    """Record against servers of our own, on free ports, so that nothing else can interfere."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--letta-record=rewrite"]
    return main(
        ["run", "--both", "--secure", "record-only", "--any-port", "--", *command, *pytest_args]
    )


def _up(options: argparse.Namespace) -> int:
    """Start one rig in the foreground; ends by a signal or when one of its programs dies."""
    port, model_port = REDIS if options.redis else PLAIN
    rig_options = RigOptions(
        port=options.port or port,
        model_port=options.model_port or model_port,
        redis=options.redis,
        password=options.secure,
        log_dir=options.log_dir,
    )
    with _running(rig_options) as (rig,):
        announce(f"LETTA_BASE_URL={rig.base_url}", f"LETTA_RIG_MODEL={rig.model_url}")
        announce(f"LETTA_MODEL={MODEL_HANDLE}")
        while True:
            rig.check()
            time.sleep(0.5)


def _run(options: argparse.Namespace) -> int:
    """Start the rigs, run the command with their addresses in its environment, stop them."""
    if shutil.which(options.argv[0]) is None:
        raise RigError(f"no such command: {options.argv[0]}")
    wanted: dict[str, RigOptions] = {}
    if not options.redis:
        wanted["LETTA_"] = _flavour(PLAIN, options)
    if options.redis or options.both:
        prefix = "LETTA_REDIS_" if options.both else "LETTA_"
        wanted[prefix] = _flavour(REDIS, options, redis=True)
    if options.secure is not None:
        wanted["LETTA_SECURE_"] = _flavour(SECURE, options, password=options.secure)
    with _running(*wanted.values()) as rigs:
        env = dict(os.environ, LETTA_MODEL=MODEL_HANDLE)
        for prefix, rig in zip(wanted, rigs, strict=True):
            env[f"{prefix}BASE_URL"] = rig.base_url
            env[f"{prefix}RIG_MODEL"] = rig.model_url
        if options.secure is not None:
            env["LETTA_SECURE_API_KEY"] = options.secure
        return _finish(subprocess.Popen(options.argv, env=env))


def _finish(command: subprocess.Popen[bytes]) -> int:
    """Wait for the command, and return its exit code as a shell would. It never outlives this."""
    try:
        code = command.wait()
    finally:
        command.terminate()
        try:
            command.wait(5)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
    return code if code >= 0 else 128 - code


def _flavour(
    ports: tuple[int, int],
    options: argparse.Namespace,
    *,
    redis: bool = False,
    password: str | None = None,
) -> RigOptions:
    # One log directory per server: their logs have the same names.
    logs = options.log_dir and options.log_dir / str(ports[0])
    if options.any_port:
        ports = (free_port(), free_port())
    return RigOptions(*ports, redis=redis, password=password, log_dir=logs)


@contextlib.contextmanager
def _running(*options: RigOptions) -> Iterator[tuple[Rig, ...]]:
    """Start all rigs side by side, yield them when all are ready, stop them afterwards."""
    with contextlib.ExitStack() as stack:
        rigs = tuple(stack.enter_context(Rig(each)) for each in options)
        try:
            for rig in rigs:
                rig.start()
            for rig in rigs:
                rig.wait()
            yield rigs
        finally:
            # Stopping takes seconds; a second Ctrl-C must not leave half of it behind.
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
