"""Draw a terminal session as an SVG: ``python -m tools.pages.recording`` writes ``docs/demo.svg``.

It runs ``letta-adapters demo`` in a pseudo-terminal, in a new home, with the stand-in as its model,
and draws what the terminal showed. What differs in every run (ids, times, folders) is constant.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURE: Final = Path(__file__).parents[2] / "docs" / "demo.svg"
COMMAND: Final = "letta-adapters demo"
_WIDTH: Final = 92
_SPINNER: Final = re.compile(r"^(?:\x1b\[[\d;]*m)*[\u2800-\u28ff]")
_SECONDS_A_LINE: Final = 0.2
_CONSTANT: Final = (
    (r"agent-local-[0-9a-f-]{36}", "agent-local-1"),
    (r"ready in [\d.]+ s", "ready in 1.0 s"),
    (r"\b[\d.]+ s(?=$|\s|,|\))", "1.0 s"),
)


def record(home: Path) -> str:
    """Return what a terminal shows of the demo, with its colours as escape sequences."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, _WIDTH, 0, 0))
    keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "letta_adapters", "demo", "--scripted", "--data-dir", str(home)],
        stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
        env={**keep, "HOME": str(home), "TERM": "xterm-256color", "COLORTERM": "truecolor"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other side is closed: the program has ended
            break
        if not data:
            break
        shown += data
    os.close(ours)
    if process.wait():
        raise RuntimeError(shown.decode("utf-8", "replace"))
    return shown.decode("utf-8")


def settle(shown: str, home: Path) -> str:
    """Return the lines as they stand at the end, without what differs in every run."""
    lines = [_overwrite(line) for line in shown.replace("\r\n", "\n").split("\n")]
    # A spinner that has ended leaves nothing to read.
    kept = [line for line in lines if not _SPINNER.match(line)]
    text = "\n".join(kept).replace(str(home), "~/.local/share/letta-adapters/demo")
    for pattern, constant in _CONSTANT:
        text = re.sub(pattern, constant, text, flags=re.MULTILINE)
    return text.strip("\n")


def _overwrite(line: str) -> str:
    # A spinner draws over its own line: what counts is what it was at last.
    text = re.sub(r"\x1b\[\?\d+[hl]", "", line)
    return re.split(r"\r|\x1b\[2K|\x1b\[1A", text)[-1]


def draw(text: str) -> str:
    """Return the SVG."""
    console = Console(width=_WIDTH, record=True, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (COMMAND, "bold")))
    console.print(Text.from_ansi(text))
    # Without the fonts of another host: a picture asks nobody.
    svg = console.export_svg(title="letta-adapters", theme=MONOKAI, unique_id="demo")
    return _animate(re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL))


def _animate(svg: str) -> str:
    """Let the lines come one after another, once; for whoever wants no motion all are there."""
    rule = (
        "@keyframes come { from { opacity: 0 } to { opacity: 1 } }\n"
        "@media (prefers-reduced-motion: reduce) { text { animation: none !important } }\n"
    )
    svg = svg.replace("<style>", f"<style>\n{rule}", 1)

    def delay(found: re.Match[str]) -> str:
        seconds = int(found[1]) * _SECONDS_A_LINE
        return f'{found[0]} style="animation: come 0.2s {seconds:.2f}s both"'

    return re.sub(r'clip-path="url\(#demo-line-(\d+)\)"', delay, svg)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        PICTURE.write_text(draw(settle(record(Path(folder)), Path(folder))), encoding="utf-8")
