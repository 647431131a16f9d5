"""``LettaAgent``: a Letta agent as a LlamaIndex agent, alone or in an ``AgentWorkflow``.

An ``AgentWorkflow`` uses nothing of an agent but ``take_step``, ``handle_tool_call_results`` and
``finalize``, so all of it is there. What a run needs to know later is in the context's store, as
JSON: a run can be stored and resumed in another process.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final, Literal, cast

from llama_index.core.agent.workflow import BaseWorkflowAgent
from llama_index.core.agent.workflow.agent_context import AgentContext
from llama_index.core.agent.workflow.workflow_events import (
    AgentOutput,
    AgentWorkflowStartEvent,
    ToolCallResult,
)
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.memory import BaseMemory
from llama_index.core.tools import AsyncBaseTool
from llama_index.core.workflow import Context, StopEvent

from letta_adapters._raised import report_raised
from letta_adapters.calls import Call, Entry
from letta_adapters.errors import LettaError, TurnFailedError
from letta_adapters.llama_index.approvals import ApprovalRequiredEvent, ApprovalResponseEvent
from letta_adapters.llama_index.convert import to_entries, to_wire_tools
from letta_adapters.llama_index.llm import LettaLLM
from letta_adapters.llama_index.memory import LettaMemory
from letta_adapters.llama_index.observe import Observation
from letta_adapters.llama_index.state import AgentState
from letta_adapters.llama_index.stepping import StepReader
from letta_adapters.options import SessionOptions

# How often in a row the agent is told that its calls cannot be run, within one step.
_BROKEN_ANSWERS: Final = 3


class LettaAgent(BaseWorkflowAgent):
    """A Letta agent in LlamaIndex' terms.

    Example:
        ```python
        from letta_adapters.llama_index import LettaAgent

        agent = LettaAgent(agent_id="agent-...", tools=[add])
        response = await agent.run("What is 2 + 3?")
        ```

    Tools the agent runs itself appear on the stream and in ``AgentOutput.tool_calls``; yours are
    run by the workflow. A tool of its own that asks for permission becomes an
    :class:`ApprovalRequiredEvent`, answered with an :class:`ApprovalResponseEvent`.

    Args:
        agent_id, conversation_id, model, backend, client, api_key, base_url, session_options: See
            :class:`LettaLLM`.
        timeout: Seconds a run, and each turn in it, may take.
        on_mismatch: What to do when the history is not the one the conversation has.
        coalesce: Put tokens that are there already into one ``AgentStream`` event.
        llm: For structured output and early stopping. Default: a :class:`LettaLLM` of this agent,
            whose calls are conversations of their own.
        fields: What ``BaseWorkflowAgent`` takes (``name``, ``description``, ``tools``,
            ``system_prompt``, ``can_handoff_to``, ``output_cls``, ...).
    """

    agent_id: str | None = None
    conversation_id: str | None = None
    model: str | None = None
    on_mismatch: Literal["fork", "continue", "error"] = "fork"
    coalesce: bool = False
    session_options: dict[str, Any] = Field(default_factory=dict)

    _letta: LettaLLM = PrivateAttr()
    _turn_timeout: float | None = PrivateAttr(default=None)
    _session: SessionOptions = PrivateAttr()

    def __init__(
        self,
        *,
        agent_id: str | None = None,
        conversation_id: str | None = None,
        model: str | None = None,
        backend: Any = None,
        client: Any = None,
        api_key: Any = None,
        base_url: str | None = None,
        timeout: float | None = None,
        session_options: dict[str, Any] | None = None,
        llm: Any = None,
        **fields: Any,
    ) -> None:
        mine = LettaLLM(
            agent_id=agent_id,
            model=model,
            backend=backend,
            client=client,
            api_key=api_key,
            base_url=base_url,
            timeout=timeout,
            session_options=session_options or {},
        )
        super().__init__(
            llm=llm or mine,
            agent_id=agent_id,
            conversation_id=conversation_id,
            model=model,
            timeout=timeout,
            session_options=session_options or {},
            **fields,
        )
        self._letta = mine
        self._turn_timeout = timeout
        self._session = SessionOptions(**self.session_options)

    # -- the workflow's hooks ---------------------------------------------------------------

    async def _init_context(self, ctx: Context, ev: AgentWorkflowStartEvent) -> None:
        if await ctx.store.get("memory", default=None) is None and ev.get("memory") is None:
            await ctx.store.set("memory", LettaMemory())
        await super()._init_context(ctx, ev)

    async def take_step(
        self,
        ctx: AgentContext,
        llm_input: list[ChatMessage],
        tools: Sequence[AsyncBaseTool],
        memory: BaseMemory,
    ) -> AgentOutput:
        """One turn of the agent, up to its answer or to tools that are yours to run."""
        context = cast("Context", ctx)
        state = await AgentState.load(context, self.name)
        if not state.run_id:
            state.run_id = str(uuid.uuid4())
            await state.save(context)
        wire = to_wire_tools(tools)
        own = frozenset(str(tool["name"]) for tool in wire)
        broken = 0
        while broken < _BROKEN_ANSWERS:
            if state.asked:
                # The step runs again from its start with every answer: nothing is sent here.
                await self._ask(context, state)
            waiting = state.waiting_for(own)
            if waiting is not None and not state.asked:
                return state.output(self.name, waiting)
            if waiting is None:
                await self._exchange(context, state, llm_input, wire)
                broken = broken + 1 if state.refused else 0
        raise TurnFailedError(
            f"The agent called tools {broken} times with arguments that are no JSON object.",
            code="invalid_tool_call",
            hint="Ask again, or give the agent another model.",
        )

    async def handle_tool_call_results(
        self, ctx: Context, results: list[ToolCallResult], memory: BaseMemory
    ) -> None:
        """Keep what your tools gave for the next step."""
        state = await AgentState.load(ctx, self.name)
        for result in results:
            output = result.tool_output
            if output.exception is not None:  # the workflow caught it and shows it nowhere
                report_raised(f"The tool {result.tool_name!r}", output.exception)
            state.answered(result.tool_id, output.content, output.is_error)
        await state.save(ctx)

    async def finalize(self, ctx: Context, output: AgentOutput, memory: BaseMemory) -> AgentOutput:
        """The run is over: what was said becomes part of the history."""
        state = await AgentState.load(ctx, self.name)
        said = state.take_said()
        if not said or said[-1].additional_kwargs != output.response.additional_kwargs:
            said.append(output.response)
        await memory.aput_messages(said)
        await state.save(ctx)
        return output

    async def _generate_early_stopping_response(
        self, ctx: Context, max_iterations: int
    ) -> StopEvent:
        state = await AgentState.load(ctx, self.name)
        end = state.take_end()
        if end is not None:
            await self._letta._runner.caller.aabandon(end)
        await state.save(ctx)
        return await super()._generate_early_stopping_response(ctx, max_iterations)

    # -- the turn ---------------------------------------------------------------------------

    async def _exchange(
        self,
        ctx: Context,
        state: AgentState,
        llm_input: list[ChatMessage],
        tools: list[dict[str, Any]],
    ) -> None:
        history = [*llm_input, *state.said]
        entries = state.entries(to_entries(history))
        call = self._call(state, entries, tools)
        reader = StepReader(ctx, self.name, call)
        seen = Observation(self._letta, history, {}, self._letta.astream_chat)
        try:
            async with aclosing(self._letta._runner.caller.astream(call)) as events:
                await reader.read(events, coalesce=self.coalesce)
        except (LettaError, asyncio.CancelledError) as error:
            seen.fail(error)
            state.failed(entries, stored=getattr(error, "accepted", None) is not False)
            await asyncio.shield(state.save(ctx))
            raise
        await reader.keep(state)
        seen.end(reader.response(state.said[-1]))
        await state.save(ctx)

    def _call(self, state: AgentState, entries: list[Entry], tools: list[dict[str, Any]]) -> Call:
        named = self.conversation_id
        if named is None and not any(entry.marker is not None for entry in entries):
            # A memory that was lost on the way does not lose the conversation.
            named = state.conversation_id
        return Call(
            entries=entries,
            tools=tools,
            agent_id=self.agent_id,
            conversation_id=named,
            model=self.model,
            timeout=self._turn_timeout,
            on_mismatch=self.on_mismatch,
            session=self._session,
        )

    async def _ask(self, ctx: Context, state: AgentState) -> None:
        """Wait for a person's decisions. Raises out of the step until they are there."""
        for call in state.questions():
            answer = await ctx.wait_for_event(
                ApprovalResponseEvent,
                waiter_event=ApprovalRequiredEvent(
                    tool_name=call["tool_name"],
                    tool_kwargs=call["tool_kwargs"],
                    tool_id=call["tool_id"],
                    agent_name=self.name,
                    details=call["details"],
                ),
                waiter_id=f"letta-approval-{call['tool_id']}",
                requirements={"tool_id": call["tool_id"]},
            )
            state.decided(call["tool_id"], answer.decision())
        await state.save(ctx)
