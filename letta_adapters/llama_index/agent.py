"""Define ``LettaAgent``: a Letta agent as a LlamaIndex agent, alone or in an ``AgentWorkflow``.

An ``AgentWorkflow`` uses nothing of an agent but ``take_step``, ``handle_tool_call_results`` and
``finalize``, so all of the adapter is there. Data that a run needs later is in the context's store,
as JSON: a run can be stored and resumed in another process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, cast

from llama_index.core.agent.workflow import BaseWorkflowAgent
from llama_index.core.agent.workflow.agent_context import AgentContext
from llama_index.core.agent.workflow.workflow_events import (
    AgentInput,
    AgentOutput,
    AgentWorkflowStartEvent,
    ToolCallResult,
)
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_serializer
from llama_index.core.memory import BaseMemory
from llama_index.core.tools import AsyncBaseTool
from llama_index.core.workflow import Context, StopEvent
from typing_extensions import Self, Unpack
from workflows.handler import WorkflowHandler

from letta_adapters._utils.invoke import report_raised
from letta_adapters._utils.signatures import show_keywords
from letta_adapters.backends.base import Conversation
from letta_adapters.chat import ChatRequest, Marker, ResponseCompleted, replay
from letta_adapters.chat.open_calls import OpenCallDecider
from letta_adapters.chat.request import read_session
from letta_adapters.errors import HistoryMismatchError, InvalidInputError, TurnFailedError
from letta_adapters.llama_index._compat import MEMORY, WORKFLOW_KWARGS, is_verbose
from letta_adapters.llama_index.approvals import (
    ApprovalRequiredEvent,
    ApprovalResponseEvent,
    check_patience,
)
from letta_adapters.llama_index.configuration import (
    WHERE,
    LettaAgentKwargs,
    OwnKwargs,
    dump_backend,
    refuse_unknown,
)
from letta_adapters.llama_index.contexts import begin_anew, identify_run, is_last_step
from letta_adapters.llama_index.instrumentation import CallInstrumentation
from letta_adapters.llama_index.llm import LettaLLM
from letta_adapters.llama_index.memory import History, LettaMemory, make_storable
from letta_adapters.llama_index.messages import read_tool_output, to_wire_tools
from letta_adapters.llama_index.open_calls import LeftOpenError, OpenCalls
from letta_adapters.llama_index.state import LIMIT, AgentState
from letta_adapters.llama_index.step import StepReader
from letta_adapters.llama_index.stopping import _AgentLLM
from letta_adapters.messages import ToolCallMessage
from letta_adapters.options import ReasoningEffort, SessionOptions
from letta_adapters.permissions import Postpone, encode_decision
from letta_adapters.permissions.asking import Patience, Undecided, answer_silence

# The number of answers in a row, within one step, in which no call can be run.
_BROKEN_ANSWERS: Final = 3
# The fields that an agent has in common with an LLM.
_ABOUT: Final = (
    "agent_id",
    "model",
    "reasoning_effort",
    "session_options",
    "max_steps",
    "temperature",
    "max_tokens",
)


class LettaAgent(BaseWorkflowAgent):
    """Run a Letta agent as a LlamaIndex agent.

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
        agent_id: The agent. Default: the backend's default agent.
        conversation_id: Always this conversation.
        model: Another model than the agent's.
        reasoning_effort: The effort of the model in the conversations used here.
        backend: The backend as ``LettaClient`` takes it: an object or a name.
        client: A ``LettaClient`` to use instead of a backend.
        api_key: The key of the Letta API.
        base_url: The address of the Letta API.
        session_options: Further options of ``create_session``.
        max_steps: Limit of model calls in one turn (the Letta API only).
        temperature: A setting of the model (the Letta API only).
        max_tokens: A setting of the model (the Letta API only).
        timeout: Seconds a run, and each turn in it, may take.
        on_mismatch: Decides about a history that is not the one the conversation has: ``"fork"``
            tells it in a fresh conversation, ``"continue"`` sends what is new all the same,
            ``"error"`` raises.
        coalesce: Put tokens that are there already into one ``AgentStream`` event.
        ask_timeout: Seconds that a person has for each question, together with
            ``ask_timeout_answer``. Default: no limit.
        ask_timeout_answer: The answer when that time is up: ``Allow()`` or ``Deny("...")``.
        llm: For structured output and early stopping. Default: a :class:`LettaLLM` of this agent,
            which speaks a run's last word in the agent's conversation; its other calls are
            conversations of their own.

    All arguments have names. Beside these there are those of ``BaseWorkflowAgent``: ``name``,
    ``description``, ``tools``, ``system_prompt``, ``can_handoff_to``, ``output_cls``, ...

    Raises:
        InvalidInputError: Nothing takes an argument.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    agent_id: str | None = None
    """The agent. Default: the backend's default agent."""
    conversation_id: str | None = None
    """Always this conversation."""
    model: str | None = None
    """Another model than the agent's."""
    reasoning_effort: ReasoningEffort | None = None
    """The effort of the model in the conversations used here."""
    on_mismatch: Literal["fork", "continue", "error"] = "fork"
    """Decides about a history that is not the one the conversation has.

    ``"fork"`` tells it in a fresh conversation, ``"continue"`` sends what is new all the same,
    ``"error"`` raises ``HistoryMismatchError``.
    """
    coalesce: bool = False
    """Put tokens that are there already into one ``AgentStream`` event."""
    max_steps: int | None = Field(default=None, gt=0)
    """Limit of model calls in one turn (the Letta API only)."""
    temperature: float | None = Field(default=None, ge=0)
    """A setting of the model, for the conversations used here (the Letta API only)."""
    max_tokens: int | None = Field(default=None, gt=0)
    """A setting of the model, for the conversations used here (the Letta API only)."""
    session_options: dict[str, Any] = Field(default_factory=dict)
    """Further options of ``create_session``."""
    ask_timeout: float | None = None
    """Seconds that a person has for each question."""
    ask_timeout_answer: Any = None
    """The answer when that time is up: ``Allow()`` or ``Deny("...")``."""

    backend: Any = Field(default=None, repr=False)
    """The backend as ``LettaClient`` takes it: an object or a name."""

    _letta: LettaLLM = PrivateAttr()
    _where: dict[str, Any] = PrivateAttr(default_factory=dict)
    _turn_timeout: float | None = PrivateAttr(default=None)
    _session: SessionOptions = PrivateAttr()
    _patience: Patience | None = PrivateAttr(default=None)

    @show_keywords(OwnKwargs)
    def __init__(self, **options: Unpack[LettaAgentKwargs]) -> None:
        given: dict[str, Any] = {**options}
        known = {*type(self).model_fields, *OwnKwargs.__annotations__, *WORKFLOW_KWARGS}
        refuse_unknown(type(self), given, known)
        # Kept as they were given, for copies: the field `backend` holds no client.
        where = {name: given.pop(name, None) for name in sorted(WHERE)}
        llm, timeout = _load_llm(given.pop("llm", None)), given.pop("timeout", None)
        # The agent's own LLM has these too: it speaks for the agent.
        about = {name: given.pop(name, None) for name in _ABOUT}
        about["session_options"] = about["session_options"] or {}
        patience = check_patience(given.get("ask_timeout"), given.get("ask_timeout_answer"))
        mine = _AgentLLM.for_agent(self, **where, timeout=timeout, **about)
        super().__init__(llm=llm or mine, timeout=timeout, **about, **given)
        self._letta = mine
        self._where = where
        self.backend = mine.backend
        self._turn_timeout = timeout
        self._session = read_session(self.session_options, self.reasoning_effort)
        self._patience = patience
        if patience is not None:
            self.ask_timeout_answer = patience[1]

    # -- copies and dumps -------------------------------------------------------------------

    @field_serializer("backend")
    def _backend_as_data(self, backend: Any) -> dict[str, Any]:
        """Write the backend as data, without secrets."""
        return dump_backend(self._letta._runner.clients)

    @field_serializer("ask_timeout_answer")
    def _answer_as_data(self, answer: Any) -> dict[str, Any] | None:
        """Write the answer as data, which the constructor takes."""
        return None if answer is None else encode_decision(answer)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with these fields instead of its own; it uses the same backend.

        Args:
            update: Fields, and arguments of the constructor, with their new values.
            deep: Has no effect: connections are shared.
        """
        given = dict(update or {})
        kept = {name: getattr(self, name) for name in type(self).model_fields if name != "backend"}
        if isinstance(self.llm, _AgentLLM):
            del kept["llm"]  # the copy gets one of its own
        where = {} if WHERE & given.keys() else self._where
        run = {"timeout": self._turn_timeout, "verbose": is_verbose(self)}
        return type(self)(**{**where, **run, **kept, **given})

    def __deepcopy__(self, memo: Any = None) -> Self:
        """Return a copy; connections and turns that are open belong to both."""
        return self.model_copy()

    def run(self, *args: Any, **kwargs: Any) -> WorkflowHandler:
        """Start a run; see ``BaseWorkflowAgent.run``.

        With a message it is a new run, also where the context's last one was cancelled. Without one
        it goes on with a run that was stored in its middle.

        Args:
            args: As LlamaIndex takes them.
            kwargs: As LlamaIndex takes them (``user_msg``, ``ctx``, ``memory``, ...).
        """
        begin_anew(self, args, kwargs)
        return super().run(*args, **kwargs)

    # -- the workflow's hooks ---------------------------------------------------------------

    async def _init_context(self, ctx: Context, ev: AgentWorkflowStartEvent) -> None:
        """Prepare the context of a run: its memory and this agent's state."""
        given = ev.get("memory")
        memory = await ctx.store.get(MEMORY, default=None)
        # LlamaIndex keeps the first memory of a context and silently passes over another one.
        if given is not None and memory is not None:
            await ctx.store.set(MEMORY, given)
        elif memory is None and given is None:
            await ctx.store.set(MEMORY, LettaMemory())
        state = await AgentState.load(ctx, self.name)
        # A context drops a memory that it cannot store between two runs, so its absence proves
        # nothing.
        state.lost_memory = memory is None and given is None and not ev.get("chat_history")
        await state.save(ctx)
        await super()._init_context(ctx, ev)

    async def take_step(
        self,
        ctx: AgentContext,
        llm_input: list[ChatMessage],
        tools: Sequence[AsyncBaseTool],
        memory: BaseMemory,
    ) -> AgentOutput:
        """Take one turn of the agent, up to its answer or to tools that are yours to run.

        Args:
            ctx: The workflow's context.
            llm_input: The history.
            tools: The tools that the workflow will run.
            memory: The memory behind the history.

        Raises:
            TurnFailedError: None of the agent's calls can be run, several times in a row.
        """
        context = cast("Context", ctx)
        state = await AgentState.load(context, self.name)
        run_id = await identify_run(context)
        make_storable(memory)
        if state.run_id != run_id:
            state.begin(run_id)
            await state.save(context)
        wire = to_wire_tools(tools)
        own = frozenset(str(tool["name"]) for tool in wire)
        broken = 0
        while broken < _BROKEN_ANSWERS:
            if state.asked:
                # LlamaIndex runs the step again from its start with every answer of a person, so
                # nothing may be sent before all are there.
                await self._ask(context, state)
            waiting = state.list_runnable(own)
            if waiting is not None and not state.asked:
                # Noted for the next run: the workflow never runs the calls of a run's last step.
                state.last = await is_last_step(context)
                await state.save(context)
                return state.build_output(self.name, waiting)
            if waiting is None:
                history = await History.read(llm_input, memory)
                call = await self._build_request(state, history, wire)
                decider = OpenCallDecider.here(OpenCalls(context, state, tools).answer)
                with suppress(LeftOpenError):  # then there are questions now
                    await self._exchange(context, state, history, replace(call, on_open=decider))
                    broken = broken + 1 if state.refused else 0
        raise TurnFailedError(
            f"The agent called tools {broken} times with arguments that are no JSON object.",
            code="invalid_tool_call",
            hint="Ask again, or give the agent another model.",
        )

    async def handle_tool_call_results(
        self, ctx: Context, results: list[ToolCallResult], memory: BaseMemory
    ) -> None:
        """Keep the results of your tools for the next step.

        Args:
            ctx: The workflow's context.
            results: The results.
            memory: The run's memory.
        """
        state = await AgentState.load(ctx, self.name)
        for result in results:
            output = result.tool_output
            if output.exception is not None:  # the workflow caught it and shows it nowhere
                report_raised(f"The tool {result.tool_name!r}", output.exception)
            state.take_result(result.tool_id, read_tool_output(output))
        await state.save(ctx)

    async def finalize(self, ctx: Context, output: AgentOutput, memory: BaseMemory) -> AgentOutput:
        """End the run: its messages become part of the memory.

        Args:
            ctx: The workflow's context.
            output: The last step's output.
            memory: The run's memory.

        Returns:
            The output.
        """
        state = await AgentState.load(ctx, self.name)
        said = state.take_said()
        if not said or said[-1].additional_kwargs != output.response.additional_kwargs:
            # A tool with `return_direct` makes its output the response, which is no message of the
            # agent's.
            said.append(output.response)
        await memory.aput_messages(said)
        await state.save(ctx)
        return output

    async def _generate_early_stopping_response(
        self, ctx: Context, max_iterations: int
    ) -> StopEvent:
        if not isinstance(self.llm, _AgentLLM):
            # Another LLM gives the last word, and knows of the run only what is in the memory.
            state = await AgentState.load(ctx, self.name)
            state.close(LIMIT)
            memory = await ctx.store.get(MEMORY)
            await memory.aput_messages(state.take_said())
            await state.save(ctx)
        return await super()._generate_early_stopping_response(ctx, max_iterations)

    # -- the turn ---------------------------------------------------------------------------

    async def _exchange(
        self, ctx: Context, state: AgentState, history: History, call: ChatRequest
    ) -> None:
        """Make the call of this step and take the agent's answer into the state.

        Raises:
            LeftOpenError: Persons have to be asked first, and nothing was sent.
        """
        shown = [*history.messages, *state.said]
        ctx.write_event_to_stream(AgentInput(input=shown, current_agent_name=self.name))
        reader = StepReader(ctx, self.name, call, streaming=self.streaming)
        seen = CallInstrumentation(self._letta, shown, {}, self._letta.astream_chat)
        try:
            async with aclosing(
                self._letta._runner.clients.astream(seen.follow(call, shows_tools=True))
            ) as events:
                try:
                    await reader.read(events, coalesce=self.coalesce)
                except BaseException:
                    # Saved before the agent is stopped: a workflow that is cancelled does not wait
                    # long for its steps.
                    await asyncio.shield(state.save(ctx))
                    raise
            await reader.keep(state, history.entries)
            # Before the end is told: the agent has answered, whatever a handler makes of that.
            await state.save(ctx)
        except BaseException as error:
            seen.fail(error)
            raise
        seen.end(reader.build_response(state.last_answer))

    async def _build_request(
        self, state: AgentState, history: History, tools: list[dict[str, Any]]
    ) -> ChatRequest:
        """Return the call of this step: the whole history, and the conversation it belongs to."""
        named = await self._choose_conversation(state, history)
        entries = state.build_entries(history.entries)
        if any(entry.marker is not None for entry in entries):
            # A marker says more precisely where the history belongs.
            named = None
        begun = None
        if state.sent is not None:
            # A message was sent and its answer never came. If the server has it, it is not sent
            # again; if not, the conversation that was created for it is used once more.
            here = state.sent["conversation_id"]
            elsewhere = not any(e.marker and e.marker.conversation_id == here for e in entries)
            if await self._was_stored(state):
                entries = state.mark_known(entries)
                named = here if elsewhere else named
            elif state.sent is not None and elsewhere:
                begun = here
        return ChatRequest(
            entries=entries,
            tools=tools,
            agent_id=self.agent_id,
            conversation_id=self.conversation_id or named,
            model=self.model,
            settings=self._letta._choose_settings({}),
            max_steps=self.max_steps,
            partial=self.streaming,
            timeout=self._turn_timeout,
            on_mismatch=self.on_mismatch,
            session=self._session,
            begun=begun,
            on_send=partial(state.note_sending, entries),
        )

    async def _choose_conversation(self, state: AgentState, history: History) -> str | None:
        """Return the conversation to go on with where no marker in the history names it.

        Raises:
            HistoryMismatchError: The context was given another history, and ``on_mismatch`` is
                ``"error"``.
        """
        memory = history.memory
        if state.lost_memory or state.continues(memory):
            return state.conversation_id
        # A turn left open there would wait for results that nobody will give.
        for marker in state.forget():
            await self._letta._runner.clients.aabandon(
                ResponseCompleted(marker, _list_pending(marker))
            )
        if self.on_mismatch == "error":
            raise HistoryMismatchError(
                "The history cannot be continued: the context was given another one.",
                hint="Use a new Context, or on_mismatch='fork'.",
            )
        return state.conversation_id if self.on_mismatch == "continue" else None

    async def _was_stored(self, state: AgentState) -> bool:
        """Ask the server whether the conversation holds the message whose answer never came."""
        sent = state.sent
        assert sent is not None
        where = Conversation(sent["agent_id"], sent["conversation_id"])
        key, results = sent["key"], sent["results"]
        found = await self._letta._runner.clients.arun(
            lambda client: replay.holds(client, where, key, results, self._turn_timeout)
        )
        if found is None:
            state.sent = None
        return bool(found)

    async def _ask(self, ctx: Context, state: AgentState) -> None:
        """Wait for a person's decisions.

        Until all are there, LlamaIndex leaves the step by an exception.
        """
        for call in state.list_questions():
            state.take_decision(call["tool_id"], await self._ask_about(ctx, state, call))
            # A question whose time is up is forgotten by LlamaIndex when the step is left.
            await state.save(ctx)

    async def _ask_about(
        self, ctx: Context, state: AgentState, call: dict[str, Any]
    ) -> dict[str, Any]:
        """Return a person's decision, or what was chosen for when there is none in time."""
        try:
            answer = await ctx.wait_for_event(
                ApprovalResponseEvent,
                waiter_event=ApprovalRequiredEvent(
                    tool_name=call["tool_name"],
                    tool_kwargs=call["tool_kwargs"],
                    tool_id=call["tool_id"],
                    agent_name=self.name,
                    details=call["details"],
                    recovered=call.get("recovered", False),
                ),
                # A waiter keeps its answer, so each question has one of its own.
                waiter_id=f"letta-approval-{self.name}-{state.run_id}-{call['number']}",
                requirements={"tool_id": call["tool_id"]},
                timeout=None if self._patience is None else self._patience[0],
            )
        except asyncio.TimeoutError:
            assert self._patience is not None, "a question without a time limit has timed out"
            silence = answer_silence(self._patience)
            if isinstance(silence, Undecided):
                ends = {"ends": True} if silence.interrupt else {}
                return {"content": silence.message, "is_error": True, "fact": True, **ends}
            assert not isinstance(silence, Postpone)
            return {"decision": encode_decision(silence)}
        return {"decision": answer.decision()}


def _load_llm(llm: Any) -> Any:
    """Return an LLM from its dump; anything but a dump is returned as it is.

    Raises:
        InvalidInputError: The dump is of an LLM that cannot be made from it.
    """
    if not isinstance(llm, Mapping):
        return llm
    if llm.get("class_name") == _AgentLLM.class_name():
        # A dump of the agent's own LLM: the agent makes itself a new one.
        return None
    if llm.get("class_name") != LettaLLM.class_name():
        raise InvalidInputError(
            f"llm is data of a {llm.get('class_name')!r}, not an LLM.",
            hint="Make that LLM and pass it, or leave llm= out.",
        )
    return LettaLLM.from_dict(dict(llm))


def _list_pending(marker: Marker) -> tuple[ToolCallMessage, ...]:
    """Return the calls that a marker's answer waits with."""
    return tuple(ToolCallMessage(id_, name, {}) for id_, name in marker.pending)
