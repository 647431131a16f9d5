"""``python -m tests.permissions.table``: which call runs when, as ``docs/permissions.md`` has it.

The table is written by hand here, not taken from the code: the tests hold both to it.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "permissions.md"
_START, _END = "<!-- table -->", "<!-- end of the table -->"

HARMLESS = ("own_memory", "notes", "reads_cwd")
EVERYTHING = (
    "client_tool",
    *HARMLESS,
    "reads",
    "writes_cwd",
    "writes",
    "executes",
    "network",
    "unrestricted_child",
)
# Kinds of calls that run in a mode although nobody is asked.
ALLOWS = {
    "standard": ("client_tool", *HARMLESS),
    "acceptEdits": ("client_tool", *HARMLESS, "writes_cwd"),
    "strict": ("client_tool",),
    "unrestricted": EVERYTHING,
}
_EXAMPLES = {
    "client_tool": "a Python function, an MCP server's tool",
    "own_memory": "`Memory`; `Read`, `Write`, `Edit` of the agent's own `.md` files",
    "notes": "`TaskCreate`, `UpdatePlan`; `Skill`",
    "reads_cwd": "`Read` of a plain file below `cwd`",
    "reads": "`Read` elsewhere, of `.env`, `.git/`, `.letta/`, a key, through a link; `Grep`",
    "writes_cwd": "`Write`, `Edit`, `ApplyPatch` of a plain file below `cwd`",
    "writes": "`Write` elsewhere, or of `.letta/`, `.git/`, `.vscode/`, a key",
    "executes": "`Bash` (also `ls`), `exec_command`, `Monitor`, `Wake`; any tool not known",
    "network": "`WebFetch`, `WatchPR`",
    "unrestricted_child": "`Agent`, `SendAgentMessage`, `Workflow`",
}


def printed() -> str:
    """The table as Markdown."""
    modes = list(ALLOWS)
    lines = [
        "| kind | such as | with a `can_use_tool`, in every mode | "
        + " | ".join(f"without, `{mode}`" for mode in modes)
        + " |",
        "|---" * (3 + len(modes)) + "|",
    ]
    for kind, example in _EXAMPLES.items():
        cells = ["runs" if kind in ALLOWS[mode] else "denied" for mode in modes]
        lines.append(f"| `{kind}` | {example} | asked | {' | '.join(cells)} |")
    return "\n".join(lines)


def documented() -> str:
    """The table that the documentation has."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return text.partition(_START)[2].partition(_END)[0].strip()


if __name__ == "__main__":
    sys.stdout.write(printed() + "\n")
