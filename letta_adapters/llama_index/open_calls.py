"""Internal: let a person decide about calls that an earlier turn has left open.

A step of a workflow waits by leaving it, and runs again from its start with the answer. So the call
that meets such calls ends before anything is sent, and is made again with the decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.agent.workflow.workflow_events import ToolCall, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.tools import AsyncBaseTool, FunctionTool, ToolOutput
from llama_index.core.workflow import Context

from letta_adapters._utils.invoke import report_raised
from letta_adapters.backends.base import Conversation
from letta_adapters.chat.endings import find_ending
from letta_adapters.chat.request import OpenAnswer
from letta_adapters.llama_index.messages import read_tool_output, to_entries
from letta_adapters.messages import PendingToolCall
from letta_adapters.permissions import Allow, normalise_decision

if TYPE_CHECKING:
    from letta_adapters.llama_index.state import AgentState


class LeftOpenError(Exception):
    """A person has to be asked first, by the step that makes the call."""


class OpenCalls:
    """Answer the calls that a step meets.

    Args:
        ctx: The workflow's context.
        state: The agent's state, which keeps questions and answers.
        tools: The tools that the workflow runs.
    """

    def __init__(self, ctx: Context, state: AgentState, tools: Sequence[AsyncBaseTool]) -> None:
        self._ctx = ctx
        self._state = state
        self._tools = {tool.metadata.get_name(): tool for tool in tools}

    async def answer(
        self, place: Conversation, calls: Sequence[PendingToolCall]
    ) -> dict[str, OpenAnswer]:
        """Return the answers; tools of the workflow that are allowed run now.

        Args:
            place: The conversation.
            calls: The calls.

        Raises:
            LeftOpenError: Not all of them are decided: the state knows the questions now.
        """
        state = self._state
        if any(call.tool_call_id not in state.open_answers for call in calls):
            state.ask_open(calls)
            await state.save(self._ctx)
            raise LeftOpenError
        made = {call.tool_call_id: self._to_answer(call) for call in calls}
        if find_ending(answer.entry for answer in made.values()) is not None:
            return self._end(calls, made)
        for call in calls:
            await self._carry_out(call)
        return {call.tool_call_id: self._to_answer(call) for call in calls}

    def _end(
        self, calls: Sequence[PendingToolCall], made: dict[str, OpenAnswer]
    ) -> dict[str, OpenAnswer]:
        """Return the answers of calls that end with one of them: none that was allowed runs."""
        self._state.open, self._state.open_answers = [], {}
        return {
            call.tool_call_id: made[call.tool_call_id]
            for call in calls
            if not made[call.tool_call_id].allowed
        }

    async def _carry_out(self, call: PendingToolCall) -> None:
        """Run a tool of the workflow's that was allowed; once, also if the message fails then."""
        answer = self._state.open_answers[call.tool_call_id]
        tool = self._tools.get(call.tool_name)
        if tool is None or "decision" not in answer or "ran" in answer:
            return
        decision = normalise_decision(answer["decision"])
        if not isinstance(decision, Allow):
            return
        edited = decision.updated_input
        given = dict(call.tool_input if edited is None else edited)
        about: dict[str, Any] = {
            "tool_name": call.tool_name,
            "tool_kwargs": given,
            "tool_id": call.tool_call_id,
        }
        self._ctx.write_event_to_stream(ToolCall(**about))
        output = await _run(tool, self._ctx, given)
        self._ctx.write_event_to_stream(
            ToolCallResult(**about, tool_output=output, return_direct=False)
        )
        answer["ran"] = read_tool_output(output)
        await self._state.save(self._ctx)

    def _to_answer(self, call: PendingToolCall) -> OpenAnswer:
        answer = dict(self._state.open_answers[call.tool_call_id])
        allowed = "decision" in answer and isinstance(normalise_decision(answer["decision"]), Allow)
        return OpenAnswer(to_entries([build_tool_message(call, answer)])[0], allowed)


def build_tool_message(call: PendingToolCall, answer: dict[str, Any]) -> ChatMessage:
    """Return an answer as the message of a tool.

    Args:
        call: The call.
        answer: A decision and, if the tool ran here, what came of it; or the call's fate.
    """
    ran = answer.pop("ran", None)
    fields = dict(ran) if ran is not None else dict(answer)
    decision = fields.get("decision") or {}
    text = fields.pop("content", None) or decision.get("message") or decision.get("behavior", "")
    blocks = fields.pop("blocks", None)
    extra = {"tool_call_id": call.tool_call_id, "name": call.tool_name, **fields}
    content = {"content": text} if blocks is None else {"blocks": blocks}
    return ChatMessage(role=MessageRole.TOOL, additional_kwargs=extra, **content)


async def _run(tool: AsyncBaseTool, ctx: Context, given: dict[str, Any]) -> ToolOutput:
    """Run a tool as a workflow does: its failure is its output."""
    name = tool.metadata.get_name()
    wants = isinstance(tool, FunctionTool) and tool.requires_context and tool.ctx_param_name
    own = {str(tool.ctx_param_name): ctx} if isinstance(tool, FunctionTool) and wants else {}
    try:
        return await tool.acall(**given, **own)
    except Exception as error:
        report_raised(f"The tool {name!r}", error)
        return ToolOutput(
            content=f"{type(error).__name__}: {error}",
            tool_name=name,
            raw_input=given,
            raw_output=str(error),
            is_error=True,
        )
