"""Write ``docs/compatibility.md``: what may be installed, and what the tests last ran with.

``.ci/run`` records each environment whose tests passed (``record LABEL FOLDER``) and shows them
(``show FOLDER``). With ``LETTA_WRITE_COMPATIBILITY=1`` it keeps them in
``docs/compatibility.json`` and writes the page (``write FOLDER``). Without a folder ``write`` makes
the page of what is kept.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = DOCS / "compatibility.md"
KEPT: Final = DOCS / "compatibility.json"
# What this package is built on, or stands in front of.
PACKAGES: Final = (
    "letta",
    "langchain-core",
    "langchain",
    "langgraph",
    "deepagents",
    "llama-index-core",
    "llama-index-workflows",
    "mcp",
    "httpx",
    "pydantic",
    "websockets",
    "starlette",
    "vcrpy",
    "pytest",
)
_HEAD: Final = """\
# What it runs with

<!-- Made by `python -m tools.pages.compatibility write` from compatibility.json. -->

```sh
letta-adapters doctor
```

says what is installed, and whether a version is outside of what is allowed.

"""
_SERVERS: Final = """
## Servers

- **Letta API**: `letta` 0.16.8, the last release from PyPI that is the server. What Letta Cloud has
  beyond it is taken from the types of its client.
- **Letta Code**: the `letta` wheel, 0.34 or later, whose protocol is checked when it starts.
- **Systems for `[local]`**: those that the `letta` wheel is built for: Linux with glibc 2.28 or
  later (not Alpine), macOS 14 or later, Windows.
"""


def list_bounds() -> dict[str, str]:
    """Return the versions that are allowed of each package, as ``pyproject.toml`` has them."""
    text = (DOCS.parent / "pyproject.toml").read_text("utf-8")
    # What users install stands before what only this repository needs.
    ours = text.split("\ndependencies = [")[1].split("\ndev = [")[0]
    named = re.findall(r'"([\w-]+)(?:\[[^\]]*\])?([<>=!~][^";]*)', ours)
    return dict(named)


def look(label: str) -> dict[str, Any]:
    """Return the versions of this environment."""
    there = {str(d.name).lower().replace("_", "-"): d.version for d in metadata.distributions()}
    versions = {name: there[name] for name in PACKAGES if name in there}
    return {"label": label, "python": platform.python_version(), "versions": versions}


def read(folder: Path) -> list[dict[str, Any]]:
    """Return what was recorded, by Python's version."""
    ran = [json.loads(file.read_text("utf-8")) for file in folder.glob("*.json")]
    return sorted(ran, key=lambda one: ([int(n) for n in one["python"].split(".")], one["label"]))


def render(ran: list[dict[str, Any]]) -> str:
    """Return the page."""
    bounds = list_bounds()
    heads = [f"Python {one['python']}<br>{one['label']}" for one in ran]
    lines = [
        "## Packages",
        "",
        "The columns are the environments whose tests passed when the page was made.",
        "",
        f"| package | allowed | {' | '.join(heads)} |",
        f"|---|---|{'---|' * len(ran)}",
    ]
    for name in PACKAGES:
        row = [one["versions"].get(name, "") for one in ran]
        lines.append(f"| `{name}` | {bounds.get(name, '')} | {' | '.join(row)} |")
    return _HEAD + "\n".join(lines) + "\n" + _SERVERS


def main(arguments: list[str]) -> int:
    """Record, show or write."""
    action, *rest = arguments
    if action == "record":
        folder = Path(rest[1])
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W+", "-", f"{platform.python_version()}-{rest[0]}")
        (folder / f"{name}.json").write_text(json.dumps(look(rest[0])), encoding="utf-8")
    elif action == "show":
        print(render(read(Path(rest[0]))))
    else:
        if rest:
            kept = json.dumps(read(Path(rest[0])), indent=1) + "\n"
            KEPT.write_text(kept, encoding="utf-8")
        PAGE.write_text(render(json.loads(KEPT.read_text("utf-8"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
