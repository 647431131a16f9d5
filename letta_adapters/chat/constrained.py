"""Hold a call together with the constraints on its answer and the way its answer is read.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from letta_adapters.chat.constraints import Constraints
from letta_adapters.chat.messages import HistoryMessage
from letta_adapters.chat.request import ChatRequest
from letta_adapters.chat.response import Answer, ResponseReader
from letta_adapters.engine.assembler import parse_arguments
from letta_adapters.messages import ToolCallMessage


@dataclass(frozen=True, slots=True)
class Calling:
    """Hold a call, the constraints its answer has to meet, and the texts that end the answer.

    Attributes:
        call: The call of the agent.
        constraints: The conditions that the answer has to meet.
        stop: Texts that end the answer.
    """

    call: ChatRequest
    constraints: Constraints = field(default_factory=Constraints)
    stop: Sequence[str] | None = None

    def leaves_calls(self, answer: Answer) -> bool:
        """Return whether the turn waits for results that nobody will give.

        Args:
            answer: The answer that ends with tool calls, or does not.
        """
        return self.constraints.final and bool(answer.end.pending)

    def attempts(self, *, whole: bool = True) -> Generator[ChatRequest, Answer, Answer]:
        """Yield calls to make until the answer meets the constraints, and return that answer.

        Args:
            whole: Ask for whole messages only, without token-level fragments.
        """
        return self.constraints.attempts(replace(self.call, partial=False) if whole else self.call)

    def reader(self, call: ChatRequest | None = None) -> ResponseReader:
        """Return a reader for the events of the call.

        Args:
            call: The attempt to read; ``None``: the call itself.
        """
        call = call or self.call
        return ResponseReader(
            (str(t["name"]) for t in call.tools), _answered(call.entries), self.stop
        )


def _answered(entries: Sequence[HistoryMessage]) -> list[ToolCallMessage]:
    """Return the tool calls whose results stand at the end of the history."""
    # Collect results from the end of the history back to the answer that made the calls.
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
