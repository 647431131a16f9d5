"""Runs as AG-UI's own client package sees them, which refuses what the protocol forbids.

It is taken from the folder in ``AGUI_CLIENT`` (``npm install @ag-ui/client@1`` in it).
"""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest
import uvicorn

from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.web.agui.conftest import CLIENT, NODE, build, place_script
from tests.web.agui.test_agui import lookup
from tests.web.agui.test_frontend_tools import PAINT
from tests.web.conftest import Room

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NODE is None, reason="Node is not installed"),
    pytest.mark.skipif(not CLIENT, reason="AGUI_CLIENT names no folder with @ag-ui/client"),
]


async def test_the_client_of_the_protocol_goes_through_a_question_and_runs_a_tool(
    room: Room, tmp_path: Path
) -> None:
    room.tools = [lookup, PAINT]
    room.frontend_tools = [PAINT]
    room.asked_about = {"lookup"}
    call = ToolUse("lookup", {"word": "hello"}, id="call_1")
    paint = ToolUse("paint", {"colour": "red"}, id="call_2")
    room.letta.script(
        Reply("I look it up.", reasoning="A word.", tool_calls=[call]),
        "A greeting.",
        Reply("I paint.", tool_calls=[paint]),
        "Painted.",
    )
    command = place_script("client.mjs", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with build(room):
            config = uvicorn.Config(room.app, log_level="warning", lifespan="off")
            server = uvicorn.Server(config)
            serving = asyncio.ensure_future(server.serve([listening]))
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/agui"
            try:
                node = await asyncio.create_subprocess_exec(*command, url, stdout=-1, stderr=-1)
                out, err = await node.communicate()
            finally:
                server.should_exit = True
                await serving
    assert node.returncode == 0, err.decode()
    seen = json.loads(out)
    question = ["user", "What is hello?"]
    thought, looks = ["reasoning", "A word."], ["assistant", "I look it up."]
    result = ["tool", "hello means something."]
    assert seen["asked"] == [question, thought, looks]
    assert seen["open"] == [["call_1", "May lookup run?"]]
    assert seen["done"] == [question, thought, looks, result, ["assistant", "A greeting."]]
    assert seen["next"][5:] == [
        ["user", "Paint it red."],
        ["assistant", "I paint."],
        ["tool", "It is red."],
        ["assistant", "Painted."],
    ]
    assert seen["painted"] == [["paint", {"colour": "red"}]]
    assert seen["kinds"].count("STEP_STARTED") == seen["kinds"].count("STEP_FINISHED") == 4
    assert seen["anew"] == seen["next"]
    assert seen["left"] == 0
