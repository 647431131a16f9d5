"""Internal: let a person decide whether a tool of the agent's own may run."""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.workflow import HumanResponseEvent, InputRequiredEvent

from letta_adapters.errors import InvalidInputError
from letta_adapters.options import SessionOptions
from letta_adapters.permissions import Allow, Deny, Postpone, denials, encode_decision
from letta_adapters.permissions.asking import Patience


class ApprovalRequiredEvent(InputRequiredEvent):
    """Report that the agent waits for a decision about a tool, mostly one of its own.

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
        recovered: An earlier turn has left the call open. One of your own tools may have begun
            then; it runs if you approve.
    """

    tool_name: str
    tool_kwargs: dict[str, Any]
    tool_id: str
    agent_name: str
    details: dict[str, Any] = Field(default_factory=dict)
    recovered: bool = False


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


def ask_somebody(*_: Any) -> bool:
    """Stand for the person whom a workflow asks, where a session has its ``can_use_tool``."""
    raise NotImplementedError


def check_patience(ask_timeout: float | None, answer: Any) -> Patience | None:
    """Return a time limit for questions and the answer at its end, checked as a session's are.

    Args:
        ask_timeout: The seconds.
        answer: The answer; a decision as data, too.

    Raises:
        InvalidInputError: A value is wrong, only one of the two is given, or the answer is
            ``Postpone()``.
    """
    if isinstance(answer, Postpone):
        raise InvalidInputError(
            "ask_timeout_answer of a LettaAgent cannot be Postpone().",
            hint="Leave ask_timeout out and store the Context: the run waits in it.",
        )
    given = {"ask_timeout": ask_timeout, "ask_timeout_answer": answer}
    return SessionOptions(can_use_tool=ask_somebody, **given).patience
