"""Tell one run on a workflow's context from the next.

LlamaIndex has no name for a run that its context keeps: a context is stored and made anew with
every run, also when a run that waits for a person goes on in another process. A new run, alone and
in an ``AgentWorkflow``, sets ``num_iterations`` to 0; from then on LlamaIndex only adds 1 to it and
compares it with a whole number (``_init_context`` and ``parse_agent_output`` of llama-index-core
0.14). So half an iteration is added by the first of our agents that a run asks, which changes no
comparison, stays there as long as the run does, and goes with it.

Internal: not part of the public API.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from llama_index.core.agent.workflow.agent_context import AgentContext

from letta_adapters.llama_index._compat import ITERATIONS, MAX_ITERATIONS

_RUN: Final = "letta-run"
_HALF: Final = 0.5


async def run_of(ctx: AgentContext) -> str:
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
    return await iterations(ctx) + 1 >= await _limit(ctx)


async def has_reached_limit(ctx: AgentContext) -> bool:
    """Return whether the run is over the number of steps it may take."""
    return await iterations(ctx) >= await _limit(ctx)


async def iterations(ctx: AgentContext) -> int:
    """Return how many steps of the run are over."""
    store: Any = ctx.store
    return int(await store.get(ITERATIONS, default=0))


async def _limit(ctx: AgentContext) -> float:
    """Return the number of steps that the run may take; infinity without a limit."""
    store: Any = ctx.store
    return float(await store.get(MAX_ITERATIONS, default=None) or "inf")
