"""Internal: keep all that depends on parts of LlamaIndex that are not public.

The lists at the end name each of them, the version it was seen in, and what happens without it.
"""

from __future__ import annotations

from typing import Any, Final

from llama_index.core.agent.workflow.base_agent import WORKFLOW_KWARGS as WORKFLOW_KWARGS
from llama_index.core.workflow import Context
from llama_index_instrumentation.dispatcher import (
    DISPATCHER_SPAN_DECORATED_ATTR as DISPATCHER_SPAN_DECORATED_ATTR,
)

from letta_adapters._utils.private_parts import PrivateMethod, PrivatePart

# Keys of the store of a context in which an agent runs.
ITERATIONS: Final = "num_iterations"
MAX_ITERATIONS: Final = "max_iterations"
MEMORY: Final = "memory"
TOOL_CALLS: Final = "current_tool_calls"
# The keys of a stored context that hold its store; all others hold the state of a run.
STORE: Final = ("version", "state")
# The name of the function in a tool that LlamaIndex' FunctionCallingProgram makes for an object.
OBJECT_TOOL: Final = "get_function_tool.<locals>.model_fn"
# The class of a context's state while no run is at work on it.
RESTING: Final = "PreContext"


def is_live(ctx: Context) -> bool:
    """Return whether a run is at work on it; one that was only stored in its middle is not."""
    return bool(ctx.is_running) and type(ctx._face).__name__ != RESTING


def forget_run(ctx: Context, workflow: Any) -> None:
    """Drop the state of the last run from a context, and keep its store.

    Args:
        ctx: The context, on which no run is at work.
        workflow: The workflow whose next run it is for.
    """
    # The store may hold objects that only the context's own serializer can write.
    serializer = getattr(ctx._face, "_serializer", None)
    kept = ctx.to_dict(serializer)
    fresh: dict[str, Any] = {name: kept[name] for name in STORE if name in kept}
    # The context is the application's own object, so it is changed in place, as a run does.
    ctx._face = Context.from_dict(workflow, fresh, serializer)._face


def is_verbose(workflow: Any) -> bool:
    """Return whether a workflow was made with ``verbose=True``."""
    return bool(workflow._verbose)


_CORE: Final = "llama-index-core 0.14.25"
_WORKFLOWS: Final = "llama-index-workflows 2.26.1"
_INSTRUMENTATION: Final = "llama-index-instrumentation 0.6.0"
_BASE_AGENT: Final = "llama_index.core.agent.workflow.base_agent"
_CONTEXT: Final = "workflows.context.context:Context"
_NO_IMPORT: Final = "This package cannot be imported."
_NO_STORE: Final = "What a context stores is lost to its next run, or run() fails."

PARTS: Final = (
    PrivatePart("WORKFLOW_KWARGS", _BASE_AGENT, _CORE, _NO_IMPORT),
    PrivatePart(
        "DISPATCHER_SPAN_DECORATED_ATTR",
        "llama_index_instrumentation.dispatcher",
        _INSTRUMENTATION,
        f"{_NO_IMPORT} If LlamaIndex passes over the mark, a streamed call has a second span.",
    ),
    PrivatePart(
        ITERATIONS,
        _BASE_AGENT,
        _CORE,
        "All runs on one context are taken for one, and no step is known to be a run's last one.",
    ),
    PrivatePart(
        MAX_ITERATIONS,
        _BASE_AGENT,
        _CORE,
        "No step is known to be a run's last one, and the word after it is spoken in a "
        "conversation of its own.",
    ),
    PrivatePart(
        MEMORY,
        _BASE_AGENT,
        _CORE,
        "A run has LlamaIndex' default memory, and one that is given to it is passed over where "
        "the context has one already.",
    ),
    PrivatePart(
        TOOL_CALLS,
        _BASE_AGENT,
        _CORE,
        "AgentOutput.tool_calls leaves out the tools that the agent ran itself.",
    ),
    PrivatePart("_face", _CONTEXT, _WORKFLOWS, "run() with a message and a context fails."),
    PrivatePart(
        "_serializer",
        "workflows.context.pre_context:PreContext",
        _WORKFLOWS,
        "A store that only the context's own serializer can write is not kept.",
    ),
    PrivatePart(
        RESTING,
        "workflows.context.pre_context",
        _WORKFLOWS,
        "A run that was stored in its middle goes on beside the new one.",
    ),
    *(
        PrivatePart(name, "workflows.context.context_types", _WORKFLOWS, _NO_STORE)
        for name in STORE
    ),
    PrivatePart(
        "_verbose", "workflows.workflow:Workflow", _WORKFLOWS, "LettaAgent.model_copy fails."
    ),
    PrivatePart(
        OBJECT_TOOL,
        "llama_index.core.program.function_program",
        _CORE,
        "An object that is asked for through a tool is not checked, nor mended.",
    ),
)

_AGENT: Final = f"{_BASE_AGENT}:BaseWorkflowAgent"
_TEAM: Final = "llama_index.core.agent.workflow.multi_agent_workflow:AgentWorkflow"

# The methods of a base class that ``LettaLLM``, ``LettaAgent`` and ``LettaAgentWorkflow`` replace.
OVERRIDDEN: Final = (
    PrivateMethod(
        "llama_index.core.llms.function_calling:FunctionCallingLLM",
        "_prepare_chat_with_tools",
        (
            "self",
            "tools",
            "user_msg",
            "chat_history",
            "verbose",
            "allow_parallel_tool_calls",
            "tool_required",
            "**kwargs",
        ),
        _CORE,
        "Calls that offer tools fail.",
    ),
    PrivateMethod(
        _AGENT,
        "_init_context",
        ("self", "ctx", "ev"),
        _CORE,
        "A run's own memory is passed over on a context that has one.",
    ),
    PrivateMethod(
        _AGENT,
        "_generate_early_stopping_response",
        ("self", "ctx", "max_iterations"),
        _CORE,
        "Another LLM that gives a run's last word misses what the run said.",
    ),
    PrivateMethod(
        _TEAM,
        "_init_context",
        ("self", "ctx", "ev"),
        _CORE,
        "The default memory is lost, with pydantic 2.14, if a run ends before an agent of ours was "
        "asked.",
    ),
)
