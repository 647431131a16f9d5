"""A spy ``git`` and a spy on the network of the runtime."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

# Notes every host that the process looks up or connects to.
SPY = """
const fs = require("node:fs"), net = require("node:net"), dns = require("node:dns");
const note = (text) => fs.appendFileSync(process.env.SPY_FILE, text + "\\n");
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...given) {
  const options = Array.isArray(given[0]) ? given[0][0] : given[0];
  if (options?.host) note(`${options.host}:${options.port}`);
  return connect.apply(this, given);
};
const lookup = dns.lookup;
dns.lookup = function (host, ...rest) {
  note(host);
  return lookup.call(dns, host, ...rest);
};
"""


@dataclass(frozen=True)
class Spied:
    """``env``: what the runtime is given; ``folder``: what was seen."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """For ``Local(env=...)``."""
        loaded = f"--require {self.folder / 'spy.cjs'}"
        return {"NODE_OPTIONS": loaded, "SPY_FILE": str(self.folder / "hosts")}

    @property
    def git(self) -> list[str]:
        """The arguments of each call of git."""
        return (self.folder / "git-calls").read_text().splitlines()

    @property
    def hosts(self) -> set[str]:
        """The hosts that were looked up, and ``host:port`` of those connected to."""
        return set((self.folder / "hosts").read_text().split())


@pytest.fixture
def spied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spied:
    """Notes what git is called with and where the runtime connects to."""
    folder = tmp_path / "spied"
    (folder / "bin").mkdir(parents=True)
    for name in ("git-calls", "hosts"):
        (folder / name).touch()
    (folder / "spy.cjs").write_text(SPY)
    real = shutil.which("git")
    git = folder / "bin" / "git"
    git.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{folder / 'git-calls'}'\nexec '{real}' \"$@\"\n"
    )
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{git.parent}{os.pathsep}{os.environ['PATH']}")
    return Spied(folder)
