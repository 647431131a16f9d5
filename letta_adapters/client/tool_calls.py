"""Answer pending tool calls by asking the permission callback and running client-side tools.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from letta_adapters._utils.invoke import invoke_callable, report_raised
from letta_adapters.backends.base import Conversation, DeniedRounds, ToolCallResponse
from letta_adapters.errors import TurnCancelledError, UnsupportedOptionError
from letta_adapters.messages import ToolCallMessage, ToolResultMessage
from letta_adapters.permissions import Allow, Deny, PermissionContext, denials, normalise_decision
from letta_adapters.permissions.policy import question
from letta_adapters.tools.client_side import Tool

# The backends whose server runs its tools with the input that it is told.
_EDITING_BACKENDS = ("local", "remote")


@dataclass(frozen=True, slots=True)
class _Failed(Deny):
    """The callback gave no answer, which counts as a denial, as not knowing is not permission."""

    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallHandler:
    """The way one session answers tool calls.

    ``off_loop``: run asynchronous callbacks on a loop of their own in a worker thread (the sync
    client's loop thread must never run user code). ``rounds`` counts the denied steps of this turn
    and ends it when there are too many.
    """

    tools: Mapping[str, Tool]
    can_use_tool: Any
    backend: str
    conversation: Conversation
    off_loop: bool
    rounds: DeniedRounds

    async def answer(
        self, calls: Sequence[ToolCallMessage], details: Mapping[str, Mapping[str, Any]]
    ) -> tuple[list[ToolCallResponse], list[ToolResultMessage]]:
        """Return answers to all pending calls, and the results this side can already report.

        The callback is asked one call at a time (a person may be behind it); then all allowed
        tools run at once.

        Args:
            calls: The calls that wait.
            details: The server's own details of its questions, by tool call id.

        Raises:
            TurnCancelledError: The callback denied with ``interrupt=True``.
            TurnFailedError: Too many steps in a row were denied.
            UnsupportedOptionError: The callback edited the input of a tool that the server runs.
        """
        # One after the other: a person may be asked, and sees one question at a time.
        decisions = [
            Deny(call.problem)
            if call.problem  # there is nothing that could be allowed
            else await self._decide(call, details.get(call.tool_call_id) or {})
            for call in calls
        ]
        # Before anything runs: an interrupted turn must not have done half of its calls.
        for decision in decisions:
            if isinstance(decision, Deny) and decision.interrupt:
                text = decision.message or "The permission callback interrupted the turn."
                raise TurnCancelledError(text)
        denied = all(isinstance(decision, Deny) for decision in decisions)
        self.rounds.see(calls[0].run_id, denied=denied)
        # Tools take seconds and do not depend on each other.
        answers = await asyncio.gather(
            *(self._act(call, d) for call, d in zip(calls, decisions, strict=True))
        )
        results = [
            _make_result(call, answer)
            for call, answer in zip(calls, answers, strict=True)
            if not answer.approve
        ]
        return list(answers), results

    async def _decide(self, call: ToolCallMessage, details: Mapping[str, Any]) -> Allow | Deny:
        tool = self.tools.get(call.tool_name)
        context = PermissionContext(
            tool_call_id=call.tool_call_id,
            agent_id=self.conversation.agent_id,
            conversation_id=self.conversation.conversation_id,
            **question(tool is not None, details),
        )
        if self.can_use_tool is None:
            return context.default
        ask = functools.partial(self.can_use_tool, call.tool_name, dict(call.tool_input), context)
        try:
            decision = normalise_decision(
                await invoke_callable(ask, {}, in_thread_loop=self.off_loop)
            )
        except Exception as error:
            # Any fault of the callback's code denies the call; raising would leave the call
            # waiting.
            shown = report_raised(f"can_use_tool, asked about {call.tool_name!r},", error)
            return _Failed(denials.explain_failed_callback(error), traceback=shown)
        # The Letta API runs a server tool with the model's own input, whatever it is told.
        edited = isinstance(decision, Allow) and decision.updated_input not in (
            None,
            call.tool_input,
        )
        if edited and tool is None and self.backend not in _EDITING_BACKENDS:
            raise UnsupportedOptionError(
                "updated_input",
                backend=self.backend,
                supported_by=_EDITING_BACKENDS,
                reason=f"the server runs {call.tool_name!r} with the input the model gave. "
                "Allow or deny it as it is.",
            )
        return decision

    async def _act(self, call: ToolCallMessage, decision: Allow | Deny) -> ToolCallResponse:
        answer = ToolCallResponse(call.tool_call_id, call.tool_name)
        tool = self.tools.get(call.tool_name)
        # A tool of ours can tell the model itself why its arguments are no use; no denial is
        # needed.
        if call.problem and tool is not None:
            return _replace(answer, returned=call.problem, is_error=True)
        if isinstance(decision, Deny):
            return _replace(
                answer,
                reason=decision.message or denials.BY_CALLBACK,
                traceback=decision.traceback if isinstance(decision, _Failed) else None,
            )
        if tool is None:
            edited = decision.updated_input
            return _replace(
                answer,
                approve=True,
                reason=decision.message,
                updated_input=edited,
                suggestion_ids=decision.save,
            )
        edited = decision.updated_input
        # The model's own text goes to the tool unparsed, so that the tool's schema reads it once.
        arguments = call.raw_arguments if edited is None else edited
        outcome = await tool.run(arguments, in_thread_loop=self.off_loop)
        return _replace(
            answer,
            returned=outcome.content,
            is_error=outcome.is_error,
            traceback=outcome.traceback,
        )


def _replace(answer: ToolCallResponse, **changes: Any) -> ToolCallResponse:
    fields = {"tool_call_id": answer.tool_call_id, "tool_name": answer.tool_name}
    return ToolCallResponse(**(fields | changes))


def _make_result(call: ToolCallMessage, answer: ToolCallResponse) -> ToolResultMessage:
    """Return the result as the model will see it, which only some servers repeat.

    The text of a denial is the server's own.
    """
    if answer.returned is None:
        text = denials.show_as_result(answer.reason)
    elif isinstance(answer.returned, str):
        text = answer.returned
    else:
        text = "".join(str(part.get("text") or "") for part in answer.returned)
    denied = answer.returned is None
    return ToolResultMessage(
        call.tool_call_id,
        text,
        denied or answer.is_error,
        call.tool_name,
        run_id=call.run_id,
        traceback=answer.traceback,
    )
