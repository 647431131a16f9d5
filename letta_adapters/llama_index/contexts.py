"""Let a new run begin on a context whose last run was cancelled or ran out of time.

LlamaIndex keeps the state of such a run, and goes on with it beside whatever ``run()`` is asked for
next: a step is taken again with the old message, a tool is run again, and the time that was used up
stays used up (``Context._workflow_run`` of llama-index-workflows 2). A ``run()`` with a message
means a new run, so there it gets the context's store and nothing else. Without a message it goes on
with the old run, as always.

Internal: not part of the public API.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.memory import BaseMemory
from llama_index.core.workflow import Context
from workflows.handler import WorkflowHandler

from letta_adapters.llama_index._compat import MEMORY, forget_run, is_live
from letta_adapters.llama_index.memory import make_storable

_ASKING = ("user_msg", "chat_history", "start_event")


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
