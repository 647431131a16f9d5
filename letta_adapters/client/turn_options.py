"""Internal: the way in which a turn is carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from letta_adapters.backends.base import Opened, TurnSettings
from letta_adapters.client.facts import Facts
from letta_adapters.client.record import PLAIN, Told
from letta_adapters.client.tool_calls import ToolCallHandler
from letta_adapters.messages import InitMessage, ToolProgressMessage, ToolResultMessage

# Makes the first message of a session's first stream.
MakeInit: TypeAlias = Callable[[Opened], InitMessage]


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """The way a turn is carried out.

    Args:
        settings: The settings that every request of the turn carries.
        handler: Answers the turn's tool calls; without it the turn pauses at them.
        facts: The facts of the conversation, if some may not be known yet.
        init: Makes the first message of the turn's stream, if it is the session's first.
        timeout: Seconds the turn may take; ``None`` for no limit.
        results: Results that this side has sent with the turn's message, for calls of an earlier
            turn.
        reports: What the tools reported that gave these results.
        told: What is told of it besides.
    """

    settings: TurnSettings
    handler: ToolCallHandler | None = None
    facts: Facts | None = None
    init: MakeInit | None = None
    timeout: float | None = None
    results: Sequence[ToolResultMessage] = ()
    reports: Sequence[ToolProgressMessage] = ()
    told: Told = PLAIN
