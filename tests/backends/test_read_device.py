"""The state of a device, which is parsed when it is read: by the event loop, or by a thread."""

from __future__ import annotations

import json
from typing import Any

import pytest

from letta_adapters.backends.app_server import connection
from letta_adapters.backends.app_server.connection import Unread
from letta_adapters.backends.app_server.recovery import ConversationStatus


def tell(status: ConversationStatus, directory: str) -> None:
    """Tell of a device as the connection does, with its state unread."""
    state = Unread(json.dumps({"current_working_directory": directory}))
    status.see({"type": "update_device_status", "device_status": state})


def test_a_state_that_comes_while_an_older_one_is_read_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, parse = ConversationStatus(), connection.read_json
    parsed: list[str] = []

    def parse_slowly(text: str) -> Any:
        parsed.append(text)
        if len(parsed) == 1:
            tell(status, "/new")
        return parse(text)

    monkeypatch.setattr(connection, "read_json", parse_slowly)
    tell(status, "/old")
    assert status.directory == "/old"
    assert status.directory == "/new"


def test_a_state_that_another_thread_has_just_read_can_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, parse = ConversationStatus(), connection.read_json
    parsed: list[str] = []

    def parse_twice(text: str) -> Any:
        parsed.append(text)
        if len(parsed) == 1:
            assert status.directory == "/here"
        return parse(text)

    monkeypatch.setattr(connection, "read_json", parse_twice)
    tell(status, "/here")
    assert status.directory == "/here"


def test_a_state_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    status, parse = ConversationStatus(), connection.read_json
    parsed: list[str] = []
    monkeypatch.setattr(connection, "read_json", lambda text: [parsed.append(text), parse(text)][1])
    tell(status, "/here")
    assert [status.directory, status.directory] == ["/here", "/here"]
    assert len(parsed) == 1
