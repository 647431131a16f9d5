"""Internal: get the last word of a run out of steps (``early_stopping_method="generate"``).

LlamaIndex asks the agent's LLM then, with the memory's messages and an instruction. A ``LettaLLM``
would ask in a conversation of its own, where nothing of the run is known. So the agent's own one
says it in the agent's conversation: the calls that wait are answered, and the next run goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.workflow import Context

from letta_adapters.backends.base import Backend
from letta_adapters.backends.capabilities import Capabilities
from letta_adapters.chat.constraints import ConstrainedRequest
from letta_adapters.chat.request import ChatRequest
from letta_adapters.chat.response import Answer, ResponseReader
from letta_adapters.chat.runner import ChatRunner, Drafter, Maker
from letta_adapters.llama_index._compat import MEMORY
from letta_adapters.llama_index.contexts import has_reached_limit, identify_run
from letta_adapters.llama_index.llm import LettaLLM
from letta_adapters.llama_index.messages import to_entries
from letta_adapters.llama_index.state import LIMIT, AgentState


class _Speaker(Protocol):
    """Name what a last word is spoken with: the fields of an agent as they are at that time."""

    name: str
    agent_id: str | None
    conversation_id: str | None
    model: str | None
    max_steps: int | None
    on_mismatch: Literal["fork", "continue", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _LastWord(ConstrainedRequest):
    """Describe the call for a run's last word.

    Attributes:
        ctx: The context of the run.
        state: The state of the run, which keeps what was sent if the answer never comes.
    """

    ctx: Context
    state: AgentState


class _LastWords(ChatRunner):
    """Run an agent's calls, and save the state of a run whose last word fails."""

    async def aanswer(self, constrained: ConstrainedRequest) -> Answer:
        """Return a whole answer that meets the call's constraints."""
        try:
            return await super().aanswer(constrained)
        except BaseException:
            await _save_state(constrained)
            raise

    async def arun(
        self,
        constrained: ConstrainedRequest,
        make: Callable[[ResponseReader], Maker],
        draft: Drafter | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Yield a streamed answer; see ``ChatRunner.run``."""
        try:
            # Closed before the state is saved, so that the turn is over when the next run reads it.
            async with aclosing(super().arun(constrained, make, draft)) as responses:
                async for response in responses:
                    yield response
        except BaseException:
            await _save_state(constrained)
            raise


async def _save_state(constrained: ConstrainedRequest) -> None:
    """Save the state even if the task is being cancelled: the message may have been accepted."""
    if isinstance(constrained, _LastWord):
        await asyncio.shield(constrained.state.save(constrained.ctx))


class _AgentLLM(LettaLLM):
    """Serve as the LLM of an agent whose user gave none."""

    _agent: _Speaker | None = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which it is serialized."""
        return "letta_agent_llm"

    @classmethod
    def for_agent(cls, agent: _Speaker, **fields: Any) -> _AgentLLM:
        """Return the LLM of this agent."""
        made = cls(**fields)
        made._agent = agent
        # Only this runner saves the run's state when a last word fails.
        made._runner = _LastWords(made._runner.clients, made.max_retries)
        return made

    async def _abuild_request(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]
    ) -> ConstrainedRequest:
        """Return the call of an asynchronous chat; of a run out of steps, its last word."""
        ctx, agent = _find_step_context(), self._agent
        if ctx is None or agent is None or not await has_reached_limit(ctx):
            return self._build_request(messages, kwargs)
        state = await AgentState.load(ctx, agent.name)
        # The context's run is not one that this agent took part in.
        if state.run_id != await identify_run(ctx):
            return self._build_request(messages, kwargs)
        call = await self._build_last_word(agent, ctx, state, messages)
        return _LastWord(call, ctx=ctx, state=state)

    async def _build_last_word(
        self, agent: _Speaker, ctx: Context, state: AgentState, messages: Sequence[ChatMessage]
    ) -> ChatRequest:
        """Close the run's open calls and return the call for its last word."""
        clients = self._runner.clients
        end = state.find_open_end()
        able = await clients.arun(_get_capabilities)
        if end is not None and not able.durable_pending_calls:
            # A turn that is resumed there would go on with its tools, and be told nothing else.
            state.move_to((await clients.aabandon(end)).marker)
        state.close(LIMIT)
        entries = state.build_entries(to_entries(messages))
        # The memory gets the messages before anything is sent, because the run may be stopped
        # again.
        memory = await ctx.store.get(MEMORY)
        await memory.aput_messages(state.take_said())
        await state.save(ctx)
        # No tools: the run is out of steps, so none could be run.
        return ChatRequest(
            entries=entries,
            agent_id=agent.agent_id,
            conversation_id=agent.conversation_id,
            model=agent.model,
            settings=self._choose_settings({}),
            max_steps=agent.max_steps,
            timeout=self.timeout,
            on_mismatch=agent.on_mismatch,
            session=self._session,
            on_send=partial(state.note_sending, entries),
        )


async def _get_capabilities(client: Any) -> Capabilities:
    backend: Backend = client.backend
    return backend.capabilities


def _find_step_context() -> Context | None:
    """Return the context of the workflow's step that this is part of, if it is part of one."""
    try:
        return Context.get_step_context()
    except RuntimeError:
        return None
