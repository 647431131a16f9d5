"""Adopts the orphans below it, as ``systemd --user`` and container runtimes do (Linux).

Starts ``_child``, kills it, and waits until every orphan has ended; prints how many it reaped.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    command = [sys.executable, "-m", "tests.backends.runtime._child", sys.argv[1]]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    print(child.stdout.readline().decode(), end="", flush=True)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    reaped, deadline = 0, time.monotonic() + 25
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        reaped += pid != 0
        time.sleep(0.02)
    print(reaped, flush=True)


if __name__ == "__main__":
    main()
