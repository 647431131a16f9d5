"""A call with what it demands of the answer, and how its answer is read."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from letta_adapters.calls.answer import Answer, Reader
from letta_adapters.calls.demands import Demand
from letta_adapters.calls.entries import Entry
from letta_adapters.calls.model import Call
from letta_adapters.engine.assembler import parse_arguments
from letta_adapters.messages import ToolCallMessage


@dataclass(frozen=True, slots=True)
class Calling:
    """``stop``: texts that end the answer."""

    call: Call
    demand: Demand = field(default_factory=Demand)
    stop: Sequence[str] | None = None

    def leaves_calls(self, answer: Answer) -> bool:
        """Does the turn wait for answers to calls that nobody will answer?"""
        return self.demand.final and bool(answer.end.pending)

    def attempts(self, *, whole: bool = True) -> Generator[Call, Answer, Answer]:
        """Calls to make until the answer is what was demanded.

        Args:
            whole: As whole messages, without fragments.
        """
        return self.demand.attempts(replace(self.call, partial=False) if whole else self.call)

    def reader(self, call: Call | None = None) -> Reader:
        """Reads the events of the call."""
        call = call or self.call
        return Reader((str(t["name"]) for t in call.tools), _answered(call.entries), self.stop)


def _answered(entries: Sequence[Entry]) -> list[ToolCallMessage]:
    """The tool calls that the end of the history answers."""
    ids = set()
    for entry in reversed(entries):
        if entry.role == "tool":
            ids.add(entry.tool_call_id)
        elif entry.marker is not None or entry.tool_calls:  # not a note somebody else put there
            return [
                ToolCallMessage(
                    call.tool_call_id,
                    call.tool_name,
                    parse_arguments(call.raw_arguments),
                    call.raw_arguments,
                )
                for call in entry.tool_calls
                if call.tool_call_id in ids
            ]
    return []
