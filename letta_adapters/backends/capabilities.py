"""Which option works where, as a table. Run this module to print it (``docs/options.md``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from letta_adapters.backends.base import OPTION_SUPPORT
from letta_adapters.options import AgentOptions, SessionOptions

# What a backend that has the option still refuses by name. Every entry is held by a test.
LETTA_CODE_LIMITS: Final[Mapping[str, str]] = {
    "allowed_tools": "names of tools, no patterns",
    "base_tools": "not `False`",
    "disallowed_tools": "names of tools, no patterns",
    "hidden": "not `True`",
    "memfs": "not `False` for a session",
    "memfs_startup": "`blocking` only",
    "memory": "without `limit` and `read_only`",
    "permission_mode": "not `plan`",
    "sleeptime": 'not `behavior="reminder"`',
    "system_info_reminder": "not `False`",
    "system_prompt": "for a session: with `agent_free` only",
}
REST_LIMITS: Final[Mapping[str, str]] = {
    "can_use_tool": "refused if the agent has a tool that the server runs without asking",
    "model": "for a session: not on the default conversation",
    "system_prompt": "for an agent only",
}


def option_table() -> str:
    """A Markdown table: option, where it is given, Letta API, Letta Code (local and remote)."""
    agent, session = AgentOptions.model_fields, SessionOptions.model_fields
    rows = ["| option | given to | `rest` | `local`, `remote` |", "|---|---|---|---|"]
    for option in sorted({*agent, *session}):
        given = [
            name for name, fields in (("agent", agent), ("session", session)) if option in fields
        ]
        rest = _cell(option, "rest", REST_LIMITS)
        code = _cell(option, "local", LETTA_CODE_LIMITS)
        rows.append(f"| `{option}` | {', '.join(given)} | {rest} | {code} |")
    return "\n".join(rows)


def _cell(option: str, backend: str, limits: Mapping[str, str]) -> str:
    if backend not in OPTION_SUPPORT.get(option, (backend,)):
        return "no"
    return f"yes; {limits[option]}" if option in limits else "yes"


if __name__ == "__main__":
    import sys

    sys.stdout.write(option_table() + "\n")
