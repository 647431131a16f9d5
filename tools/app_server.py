"""Run a real App Server with a scripted model, while a command runs.

``python -m tools.app_server -- CMD``: CMD finds them in ``LETTA_APP_SERVER_URL``,
``LETTA_APP_SERVER_TOKEN`` and ``LETTA_RIG_MODEL``; with ``pytest --letta-record=rewrite`` it
records sessions over a WebSocket.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from letta_adapters.testing.scripted_model import ScriptedModel
from tests.backends.app_server._server import TOKEN, AppServer


def main() -> int:
    """Run the command, and return its exit code."""
    command = sys.argv[sys.argv.index("--") + 1 :]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        ScriptedModel(models=("scripted", "scripted-two")) as model,
    ):
        server = AppServer(Path(home), model.base_url).start()
        try:
            where = {
                "LETTA_APP_SERVER_URL": server.url,
                "LETTA_APP_SERVER_TOKEN": TOKEN,
                "LETTA_RIG_MODEL": model.base_url.removesuffix("/v1"),
            }
            return subprocess.run(command, env={**os.environ, **where}, check=False).returncode
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
