"""A real App Server for tests: node + letta.js of the ``letta`` wheel, in a home of its own."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import threading
from pathlib import Path

from letta_adapters.backends.runtime.environment import GUARD
from letta_adapters.permissions.policy import Machine
from tests._wheel import payload

TOKEN = "test-token"
MODEL = "lmstudio/scripted"
# A model that Letta Code knows to think, and another; the scripted model stands behind them.
THINKING = "openrouter/openai/gpt-5.2"


def thinking_models(model_url: str) -> dict[str, str]:
    """The variables with which Letta Code takes the scripted model for a provider's models."""
    return {"OPENROUTER_API_KEY": "none", "OPENROUTER_BASE_URL": model_url}


class AppServer:
    """One server process. ``home`` holds all its state; starting again goes on with it.

    ``api``: a Letta API's address; its agents live there then, and so does their model.
    ``guarded``: it is started as the embedded runtime is, as far as permissions go.
    ``thinking``: it has models that think as well.
    """

    def __init__(
        self,
        home: Path,
        model_url: str,
        *,
        api: str = "",
        guarded: bool = True,
        thinking: bool = False,
    ) -> None:
        self.home = home
        self.url = ""
        self._model_url = model_url
        self._api = api
        self._more = thinking_models(model_url) if thinking else {}
        self._guard = ["--require", str(GUARD)] if guarded else []
        self._process: subprocess.Popen[str] | None = None

    @property
    def machine(self) -> Machine:
        """Where it keeps memories."""
        letta = self.home / ".letta"
        return Machine(str(letta / "lc-local-backend/memfs/{agent}/memory"), (letta,), (self.home,))

    def start(self) -> AppServer:
        root = payload()
        assert root is not None
        env = {
            "PATH": os.pathsep.join([str(root / "bin"), os.environ.get("PATH", "")]),
            "HOME": str(self.home),
            "LMSTUDIO_BASE_URL": self._model_url,
            "LETTA_CODE_DISTRIBUTION": "pypi",
            "LETTA_CODE_TELEM": "0",
            "DISABLE_AUTOUPDATER": "1",
            "LETTA_DISABLE_CRON_SCHEDULER": "1",
            "LETTA_DISABLE_MODS": "1",
            "LETTA_SKIP_KEYCHAIN_CHECK": "1",
        }
        env |= self._more
        if self._api:
            env |= {"LETTA_BASE_URL": self._api, "LETTA_API_KEY": "none"}
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        command = [str(root / "bin" / "node"), *self._guard]
        command.append(str(root / "app" / "letta.js"))
        command += ["--backend", "api" if self._api else "local", "server", "--listen"]
        command += ["--ws-auth", "capability-token", "--ws-token-sha256", digest]
        self._process = subprocess.Popen(
            command,
            env=env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = re.match(r"WebSocket: (\S+)", line)
            if found:
                self.url = found[1]
                break
        assert self.url, "the App Server did not start"
        threading.Thread(target=self._drain, daemon=True).start()
        return self

    def _drain(self) -> None:
        process = self._process
        if process is not None and process.stdout is not None:
            for _ in process.stdout:
                pass

    def stop(self, *, kill: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        process.wait(timeout=20)
        if process.stdout is not None:
            process.stdout.close()
