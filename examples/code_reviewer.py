"""Let an agent review a file by the rules that the project itself wrote down as a skill.

    python examples/code_reviewer.py                      (a small project made for the purpose)
    python examples/code_reviewer.py DIRECTORY FILE       (a project and file of yours)

The agent reads the skill and the file, and nothing else: reads below its working directory run
unasked, whatever executes or writes is denied. Skills are Letta Code's: this needs an agent that
works on this machine.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

from _agent import connected, find_or_create, heard, is_letta_code

from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse

SKILL = """---
name: review
description: How this project reviews Python code. Load it before you review a file.
---

Read the whole file first. Report each finding on a line of its own as `line: what is wrong`.
Money is counted in whole cents, never in floats.
"""
CODE = '''"""Prices."""


def total(prices):
    """Add prices up, in euros."""
    return sum(float(price) for price in prices)
'''


def stand_in(request: ModelRequest, _asked: str) -> Reply:
    everything = json.dumps(request.messages[1:])
    if "Read the whole file first" not in everything:
        return Reply(tool_calls=[ToolUse("Skill", {"skill": "review"})])
    if "def total" not in (heard(request) or ""):
        path = re.findall(r"this file: (.+?)[\"<\\]", everything)[-1]
        return Reply(tool_calls=[ToolUse("Read", {"file_path": path})])
    line = next(number for number, text in enumerate(CODE.splitlines(), 1) if "float" in text)
    return Reply(f"{line}: Money is added as floats; count whole cents.", token_delay=0.02)


def make_project(directory: Path) -> str:
    """Write a small project with a skill and return the name of the file to review."""
    skill = directory / ".skills" / "review" / "SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text(SKILL)
    (directory / "prices.py").write_text(CODE)
    return "prices.py"


def review(project: Path, file: str) -> None:
    """Print what the agent reads, then its findings as they come."""
    with connected(stand_in) as client:
        if not is_letta_code(client):
            sys.exit("Skills need Letta Code: leave LETTA_API_KEY and LETTA_BASE_URL unset.")
        agent_id = find_or_create(client, "reviewer", "I review code, briefly and kindly.")
        with client.create_session(agent_id, cwd=project, skill_sources=["project"]) as session:
            session.send(f"Use the skill `review` and review this file: {project / file}")
            for message in session.stream():
                if message.type == "tool_call":
                    print(f"* {message.tool_name} {message.tool_input}")
                elif message.type == "assistant":
                    print(message.content)


def main() -> None:
    if len(sys.argv) == 3:
        review(Path(sys.argv[1]).resolve(), sys.argv[2])
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        project = Path(directory).resolve()
        review(project, make_project(project))


if __name__ == "__main__":
    main()
