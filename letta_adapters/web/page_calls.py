"""Internal: tool calls that a page carries out: hand them over, and wait for their results."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from letta_adapters._utils.bounded import Bounded
from letta_adapters.tools import ToolResult
from letta_adapters.tools.context import ToolContext

# Results that are remembered, to tell the same one again from another one; each may be long.
_KEPT: Final = 100
HandOver: TypeAlias = Callable[[ToolContext], Awaitable[ToolResult]]
# Of the room whose turn the running code is a tool of.
hand_over: Final[ContextVar[HandOver | None]] = ContextVar("letta_hand_over", default=None)


@dataclass(slots=True)
class _Handed:
    shown: dict[str, Any]
    result: asyncio.Future[ToolResult]
    taken: bool = False
    number: int = 0

    @property
    def given(self) -> ToolResult | None:
        """The result it was given; ``None`` if it has none, or was given up without one."""
        # A wait that is cancelled cancels this at once, and leaves the room a moment later.
        has_one = self.result.done() and not self.result.cancelled()
        return self.result.result() if has_one else None


class PageCalls:
    """The calls of a room that wait for a page of the viewer whose message began the turn.

    Args:
        publish: Called with the kind and data of an event.
    """

    def __init__(self, publish: Callable[..., Any]) -> None:
        self._publish = publish
        self._waiting: dict[str, _Handed] = {}
        # Those that wait no more, and what they were given; `None` if nothing came in time.
        self._ended: Bounded[str, ToolResult | None] = Bounded(_KEPT)

    def show(self, upto: int) -> list[dict[str, Any]]:
        """Return the calls that have waited since a place in the log, or longer.

        Args:
            upto: The place; later ones are read from the log.
        """
        return [dict(h.shown) for h in self._waiting.values() if h.number <= upto]

    async def wait(self, context: ToolContext, sender: str) -> ToolResult:
        """Wait for the result of a call; whoever runs the tool sets the time limit.

        Args:
            context: The call.
            sender: The name of the viewer whose message began the turn.
        """
        id_ = context.tool_call_id
        shown = {"tool_call_id": id_, "tool_name": context.tool_name, "by": sender}
        handed = _Handed(shown, asyncio.get_running_loop().create_future())
        self._waiting[id_] = handed
        given: ToolResult | None = None
        try:
            handed.number = self._publish("handed", shown).number
            given = await handed.result
            return given
        finally:
            if self._waiting.get(id_) is handed:
                del self._waiting[id_]
            # Also without a result, so that one which comes after the time is known to be late.
            self._ended[id_] = given

    def find(self, name: str, tools: frozenset[str]) -> list[str]:
        """Return the ids of the calls that wait for a viewer.

        Args:
            name: The viewer's name.
            tools: The tools that its page has.
        """
        return [id_ for id_ in self._waiting if self.is_for(id_, name, tools)]

    def is_for(self, tool_call_id: str, name: str, tools: frozenset[str] | None = None) -> bool:
        """Return whether a call waits for a viewer.

        Args:
            tool_call_id: The call.
            name: The viewer's name.
            tools: The tools that its page has; any if not given.
        """
        handed = self._waiting.get(tool_call_id)
        if handed is None or handed.result.done() or handed.shown["by"] != name:
            return False
        return tools is None or handed.shown["tool_name"] in tools

    def take(self, tool_call_id: str) -> bool:
        """Return true for the first page that takes a call: no two of them carry it out.

        Args:
            tool_call_id: The call, which waits.
        """
        handed = self._waiting[tool_call_id]
        first, handed.taken = not handed.taken, True
        return first

    def has_ended(self, tool_call_id: str) -> bool:
        """Return whether a call has waited here and does so no more, as far as it is known still.

        Args:
            tool_call_id: The call.
        """
        handed = self._waiting.get(tool_call_id)
        return tool_call_id in self._ended if handed is None else handed.result.done()

    def is_repeated(self, tool_call_id: str, result: ToolResult) -> bool:
        """Return whether a call has ended with this very result.

        Args:
            tool_call_id: The call.
            result: The result.
        """
        handed = self._waiting.get(tool_call_id)
        given = self._ended.get(tool_call_id) if handed is None else handed.given
        return given == result

    def give(self, tool_call_id: str, result: ToolResult) -> None:
        """Give the result of a call that waits.

        Args:
            tool_call_id: The call.
            result: The result.
        """
        self._waiting[tool_call_id].result.set_result(result)
