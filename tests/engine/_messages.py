"""Messages as a stream gives them, for tests of what is done with them."""

from __future__ import annotations

from typing import Any

from letta_adapters.engine.transcript import Row, Transcript
from letta_adapters.messages import (
    AssistantMessage,
    Message,
    ResultMessage,
    RetryMessage,
    StreamEvent,
    Usage,
)
from tests.engine._events import RUN

RETRY = RetryMessage("overloaded", 1, 3, 1000, RUN)


def rows_of(*messages: Message) -> tuple[Row, ...]:
    transcript = Transcript()
    for message in messages:
        transcript.apply(message)
    return transcript.rows


def fragment(event: dict[str, Any]) -> StreamEvent:
    return StreamEvent(event)


def success(*run_ids: str) -> ResultMessage:
    return ResultMessage(True, "", "end_turn", Usage(), 0, run_ids=run_ids or (RUN,))


def failed(*run_ids: str) -> ResultMessage:
    return ResultMessage(False, None, "error", Usage(), 0, run_ids=run_ids, error_code="cancelled")


def said(text: str, key: str = "o-1", run_id: str | None = RUN) -> AssistantMessage:
    return AssistantMessage(text, "m-1", key, None, run_id)
