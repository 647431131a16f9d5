"""Frames recorded from a real App Server (``letta`` 0.34.12), and ones written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from letta_adapters.engine.app_server import AppTurn

_HERE = Path(__file__).parent / "frames"
OTID = "cm-1"


def recorded(name: str) -> list[dict[str, Any]]:
    """The frames of one recorded turn, from its acceptance on."""
    lines = (_HERE / f"{name}.jsonl").read_text().splitlines()
    frames = [json.loads(line) for line in lines]
    kinds = [frame["type"] for frame in frames]
    return frames[kinds.index("input_accepted") + 1 :]


def turn(*, queued: bool = False, otid: str = OTID, **options: Any) -> AppTurn:
    """A turn whose message was accepted."""
    state = AppTurn(**options)
    state.accepted(otid, queued=queued)
    return state


def play(state: AppTurn, frames: list[dict[str, Any]]) -> list[Any]:
    """Feed frames as a channel does that answers every question."""
    out: list[Any] = []
    for frame in frames:
        out += state.feed(json.loads(json.dumps(frame)))
        state.resolve([call.tool_call_id for call in state.pending])
    return out


def delta(kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "stream_delta",
        "delta": {"message_type": kind, "run_id": "local-run-1", **fields},
    }


def finished(reason: str = "end_turn", **fields: Any) -> dict[str, Any]:
    return {"type": "turn_finished", "stop_reason": reason, "run_id": "local-run-1", **fields}


def said(text: str, id_: str = "ui-msg-1") -> dict[str, Any]:
    return delta("assistant_message", id=id_, content=[{"type": "text", "text": text}])


def call(id_: str = "call_1", name: str = "Bash", **arguments: Any) -> dict[str, Any]:
    return delta(
        "approval_request_message",
        id=f"letta-msg-{id_}",
        tool_call={"tool_call_id": id_, "name": name, "arguments": json.dumps(arguments)},
    )
