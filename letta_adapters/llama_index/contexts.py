"""Let a new run begin on a context whose last run was cancelled or ran out of time.

LlamaIndex keeps what such a run was at, and goes on with it beside whatever ``run()`` is asked for
next: a step is taken again with the old message, a tool is run again, and the time that was used up
stays used up (``Context._workflow_run`` of llama-index-workflows 2). A ``run()`` with a message
means a new run, so there it gets the context's store and nothing else. Without a message it goes on
with the old run, as always.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.memory import BaseMemory
from llama_index.core.workflow import Context
from workflows.handler import WorkflowHandler

from letta_adapters.llama_index.memory import make_storable

_ASKING = ("user_msg", "chat_history", "start_event")
# What a stored context keeps of its store, not of a run.
_STORE = ("version", "state")


def begin_anew(workflow: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Drop what an earlier run was at from the context of a ``run()`` that brings a message.

    Args:
        workflow: Whose run it is.
        args, kwargs: Of ``run()``.
    """
    found = [value for value in (kwargs.get("ctx"), *args) if isinstance(value, Context)]
    asks = any(kwargs.get(name) is not None for name in _ASKING) or any(
        value is not None and not isinstance(value, Context | BaseMemory) for value in args
    )
    if not found or not asks or _is_live(found[0]):
        return
    serializer = getattr(found[0]._face, "_serializer", None)
    kept = found[0].to_dict(serializer)
    fresh = {name: kept[name] for name in _STORE if name in kept}
    # A context is the application's: it is changed in place, as a run does.
    found[0]._face = Context.from_dict(workflow, fresh, serializer)._face


def _is_live(ctx: Context) -> bool:
    """Return whether a run is at work on it; one that was only stored in its middle is not."""
    return bool(ctx.is_running) and type(ctx._face).__name__ != "PreContext"


class LettaAgentWorkflow(AgentWorkflow):
    """An ``AgentWorkflow`` that can be stopped, and asked again on the same context.

    Everything else is LlamaIndex'. Its own class takes up a cancelled run beside the new one, which
    runs a tool again that was cancelled; and its default memory is lost, with pydantic 2.14, if a
    run ends before one of our agents was asked. An agent has no say in either.
    """

    async def _init_context(self, ctx: Context, ev: Any) -> None:
        await super()._init_context(ctx, ev)
        make_storable(await ctx.store.get("memory"))

    def run(self, *args: Any, **kwargs: Any) -> WorkflowHandler:
        """Start a run; see ``AgentWorkflow.run``."""
        begin_anew(self, args, kwargs)
        return super().run(*args, **kwargs)
