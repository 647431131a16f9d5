"""Internal: tell one run on a workflow's context from the next, and let a new one begin.

LlamaIndex keeps the state of a run that was cancelled or ran out of time, and goes on with it
beside whatever ``run()`` is asked for next: a step is taken again with the old message, a tool is
run again, and the time that was used up stays used up (``Context._workflow_run`` of
llama-index-workflows 2). A ``run()`` with a message means a new run, so there it gets the context's
store and nothing else. Without a message it goes on with the old run, as always.

LlamaIndex has no name for a run that its context keeps, either: a context is stored and made anew
with every run, also when a run that waits for a person goes on in another process. A new run, alone
and in an ``AgentWorkflow``, sets ``num_iterations`` to 0; from then on LlamaIndex only adds 1 to it
and compares it with a whole number (``_init_context`` and ``parse_agent_output`` of
llama-index-core 0.14). So half an iteration is added by the first of our agents that a run asks,
which changes no comparison, stays there as long as the run does, and goes with it.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.agent.workflow.agent_context import AgentContext
from llama_index.core.memory import BaseMemory
from llama_index.core.workflow import Context
from workflows.handler import WorkflowHandler

from letta_adapters.llama_index._compat import (
    ITERATIONS,
    MAX_ITERATIONS,
    MEMORY,
    forget_run,
    is_live,
)
from letta_adapters.llama_index.memory import make_storable

# The key of the name of a run, in the store of a context.
_RUN: Final = "letta-run"
_HALF: Final = 0.5
# The arguments of ``run()`` that bring a message.
_ASKING: Final = ("user_msg", "chat_history", "start_event")


def begin_anew(workflow: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Drop an earlier run's state from the context of a ``run()`` that brings a message.

    Args:
        workflow: The workflow, or agent, that is run.
        args: The positional arguments of ``run()``.
        kwargs: The keyword arguments of ``run()``.
    """
    # `run()` takes its arguments by position or by name, so a context is known by its type.
    found = [value for value in (kwargs.get("ctx"), *args) if isinstance(value, Context)]
    asks = any(kwargs.get(name) is not None for name in _ASKING) or any(
        value is not None and not isinstance(value, Context | BaseMemory) for value in args
    )
    if not found or not asks or is_live(found[0]):
        return
    forget_run(found[0], workflow)


class LettaAgentWorkflow(AgentWorkflow):
    """Run an ``AgentWorkflow`` that can be stopped, and asked again on the same context.

    Everything else is LlamaIndex'. Its own class takes up a cancelled run beside the new one, which
    runs a tool again that was cancelled; and its default memory is lost, with pydantic 2.14, if a
    run ends before one of our agents was asked. An agent has no influence on either.

    Example:
        ```python
        workflow = LettaAgentWorkflow(agents=[writer, editor], root_agent="writer")
        context = Context(workflow)
        await workflow.run("Write a haiku.", ctx=context)
        ```
    """

    async def _init_context(self, ctx: Context, ev: Any) -> None:
        await super()._init_context(ctx, ev)
        make_storable(await ctx.store.get(MEMORY))

    def run(self, *args: Any, **kwargs: Any) -> WorkflowHandler:
        """Start a run; see ``AgentWorkflow.run``.

        Args:
            args: As LlamaIndex takes them.
            kwargs: As LlamaIndex takes them (``user_msg``, ``ctx``, ``memory``, ...).
        """
        begin_anew(self, args, kwargs)
        return super().run(*args, **kwargs)


async def identify_run(ctx: AgentContext) -> str:
    """Return the name of the run that this step belongs to; each run has another one."""
    store: Any = ctx.store
    count = await store.get(ITERATIONS, default=0)
    # A whole number: this run has asked none of our agents before.
    if count == int(count):
        await store.set(ITERATIONS, count + _HALF)
        await store.set(_RUN, str(uuid.uuid4()))
    return str(await store.get(_RUN))


async def is_last_step(ctx: AgentContext) -> bool:
    """Return whether the run ends with this step, so that no tool it asks for will run."""
    return await count_steps(ctx) + 1 >= await _read_limit(ctx)


async def has_reached_limit(ctx: AgentContext) -> bool:
    """Return whether the run is over the number of steps it may take."""
    return await count_steps(ctx) >= await _read_limit(ctx)


async def count_steps(ctx: AgentContext) -> int:
    """Return how many steps of the run are over."""
    store: Any = ctx.store
    return int(await store.get(ITERATIONS, default=0))


async def _read_limit(ctx: AgentContext) -> float:
    """Return the number of steps that the run may take; infinity without a limit."""
    store: Any = ctx.store
    return float(await store.get(MAX_ITERATIONS, default=None) or "inf")
