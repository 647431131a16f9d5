"""A person decides whether a tool of the agent's own may run."""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.workflow import HumanResponseEvent, InputRequiredEvent


class ApprovalRequiredEvent(InputRequiredEvent):
    """The agent waits. Answer with an :class:`ApprovalResponseEvent` of the same ``tool_id``.

    ``details``: what the server says of the question (suggestions, diffs, ...).
    """

    tool_name: str
    tool_kwargs: dict[str, Any]
    tool_id: str
    agent_name: str
    details: dict[str, Any] = Field(default_factory=dict)


class ApprovalResponseEvent(HumanResponseEvent):
    """The answer: ``approve``, with other arguments in ``tool_kwargs`` where the backend can; or
    not, with a ``reason`` for the agent to read."""

    tool_id: str
    approve: bool
    reason: str = ""
    tool_kwargs: dict[str, Any] | None = None

    def decision(self) -> dict[str, Any]:
        """As data that a context can store."""
        if not self.approve:
            return {"behavior": "deny", "message": self.reason or "Denied by the user."}
        edited = {} if self.tool_kwargs is None else {"updatedInput": self.tool_kwargs}
        return {"behavior": "allow", **edited}
