"""SIGKILL while a call waits on a real Letta API server: another process goes on with it.

``python -m tools.rig run -- python -m pytest -m live tests/live/test_restart.py``
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import LettaClient, Rest
from letta_adapters.testing.scripted_model import RemoteScript, Reply, ToolUse

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not {"LETTA_BASE_URL", "LETTA_RIG_MODEL"} <= os.environ.keys(),
        reason="needs a Letta API server of one's own with a scripted model",
    ),
]
# A tool that the server runs; each run leaves a line.
SERVER_TOOL = '''
def launch(log: str) -> str:
    """Launch the rocket.

    Args:
        log (str): The file to write to.
    """
    with open(log, "a") as file:
        file.write("launched ")
    return "launched"
'''
# What every process has; ``log`` is a file in which a client-side tool leaves its traces.
COMMON = """
import json, os, sys, time
from letta_adapters import Allow, LettaClient, Rest

conversation, log = sys.argv[1:]
client = LettaClient(Rest(base_url=os.environ["LETTA_BASE_URL"], api_key=""))

def tell(**facts):
    print(json.dumps(facts), flush=True)
"""
# Waits for an approval until it is killed.
WAITS = """
def ask(name, tool_input, context):
    tell(asked=name)
    time.sleep(600)

client.resume_session(conversation, can_use_tool=ask).run_turn("Launch it.")
"""
# Another process finds the call and approves it.
APPROVES = """
with client.resume_session(conversation) as session:
    waiting = session.pending_approvals()
    result = session.respond_turn({call.tool_call_id: Allow() for call in waiting})
    tell(waited=[call.tool_name for call in waiting], result=result.result)
    tell(left=len(session.pending_approvals()))
"""
# Is killed after a tool of its own has begun.
BEGINS = """
def note(text: str) -> str:
    '''Note a text.'''
    with open(log, "a") as file:
        file.write("begun ")
    tell(begun=text)
    time.sleep(600)

client.resume_session(conversation, tools=[note]).run_turn("Note it.")
"""
# Another process is asked about it again.
ASKED_AGAIN = """
asked = []

def note(text: str) -> str:
    '''Note a text.'''
    with open(log, "a") as file:
        file.write("done ")
    return "noted"

def ask(name, tool_input, context):
    asked.append([name, context.client_tool, context.recovered])
    return True

with client.resume_session(conversation, tools=[note], can_use_tool=ask) as session:
    result = session.run_turn("And?")
    recovered = [[r.call.tool_name, r.asked, r.allowed] for r in result.recovered]
    tell(asked=asked, result=result.result, recovered=recovered)
"""


def start(source: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMON + source, *arguments], stdout=subprocess.PIPE, text=True
    )


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next facts that a process tells."""
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def ran(source: str, *arguments: str) -> list[dict[str, Any]]:
    """All facts that a process tells until its end."""
    with start(source, *arguments) as process:
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def client() -> Iterator[LettaClient]:
    with LettaClient(Rest(base_url=os.environ["LETTA_BASE_URL"], api_key="")) as made:
        yield made


@pytest.fixture
def conversation(client: LettaClient) -> Iterator[str]:
    agent = client.create_agent(
        name="test restart", model="openai-proxy/scripted", base_tools=False
    )
    tool = client.request(
        "PUT",
        "/v1/tools/",
        body={
            "source_code": SERVER_TOOL,
            "source_type": "python",
            "default_requires_approval": True,
        },
    )
    client.request("PATCH", f"/v1/agents/{agent}/tools/attach/{tool['id']}")
    yield client.conversations.create(agent)["id"]
    client.agents.delete(agent)


def killed(source: str, conversation: str, log: Path) -> dict[str, Any]:
    """The facts of a process that is killed after it has told them."""
    with start(source, conversation, str(log)) as process:
        facts = told(process)
        process.kill()
    return facts


def test_an_approval_outlives_the_process_that_asked(
    client: LettaClient, conversation: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    model = RemoteScript(os.environ["LETTA_RIG_MODEL"])
    model.script(Reply(tool_calls=[ToolUse("launch", {"log": str(log)})]), Reply(text="It flies."))
    assert killed(WAITS, conversation, log) == {"asked": "launch"}
    assert not log.exists()
    assert ran(APPROVES, conversation, str(log)) == [
        {"waited": ["launch"], "result": "It flies."},
        {"left": 0},
    ]
    assert log.read_text() == "launched "
    stored = client.list_messages(conversation_id=conversation).messages
    assert [message.type for message in stored].count("user") == 1


def test_a_tool_that_had_begun_is_asked_about_again(conversation: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    model = RemoteScript(os.environ["LETTA_RIG_MODEL"])
    model.script(Reply(tool_calls=[ToolUse("note", {"text": "tea"})]), Reply(text="Noted."))
    assert killed(BEGINS, conversation, log) == {"begun": "tea"}
    assert ran(ASKED_AGAIN, conversation, str(log)) == [
        {
            "asked": [["note", True, True]],
            "result": "Noted.",
            "recovered": [["note", True, True]],
        }
    ]
    assert log.read_text() == "begun done "
