"""Internal: let a person decide whether a tool of the agent's own may run."""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.workflow import HumanResponseEvent, InputRequiredEvent

from letta_adapters.permissions import Allow, Deny, denials, encode_decision


class ApprovalRequiredEvent(InputRequiredEvent):
    """Report that the agent waits for a decision about a tool of its own.

    Answer with an :class:`ApprovalResponseEvent` of the same ``tool_id``.

    Example:
        ```python
        handler = agent.run("Delete the old logs.")
        async for event in handler.stream_events():
            if isinstance(event, ApprovalRequiredEvent):
                yes = input(f"Run {event.tool_name} with {event.tool_kwargs}? ") == "yes"
                answer = ApprovalResponseEvent(tool_id=event.tool_id, approve=yes)
                handler.ctx.send_event(answer)
        response = await handler
        ```

    Attributes:
        tool_name: The tool that the agent wants to run.
        tool_kwargs: Its arguments.
        tool_id: The id of the call.
        agent_name: The name of the :class:`LettaAgent`.
        details: The server's data about the question (suggestions, diffs, ...).
    """

    tool_name: str
    tool_kwargs: dict[str, Any]
    tool_id: str
    agent_name: str
    details: dict[str, Any] = Field(default_factory=dict)


class ApprovalResponseEvent(HumanResponseEvent):
    """Answer an :class:`ApprovalRequiredEvent`.

    Attributes:
        tool_id: The id of the call, from the question.
        approve: The tool may run.
        reason: For a denial, a reason that the agent reads.
        tool_kwargs: For an approval, other arguments, where the backend can change them.
    """

    tool_id: str
    approve: bool
    reason: str = ""
    tool_kwargs: dict[str, Any] | None = None

    def decision(self) -> dict[str, Any]:
        """Return the decision as data that a context can store."""
        if self.approve:
            return encode_decision(Allow(self.tool_kwargs))
        return encode_decision(Deny(self.reason or denials.BY_USER))
