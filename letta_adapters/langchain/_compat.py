"""Internal: keep all that depends on parts of LangChain and LangGraph that are not public.

The lists at the end name each of them, the version it was seen in, and what happens without it.
LangGraph need not be installed, so its classes are known by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from langchain_core._api import (
    suppress_langchain_beta_warning as suppress_langchain_beta_warning,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from langchain_core.runnables.config import var_child_runnable_config as var_child_runnable_config

from letta_adapters._utils.private_parts import PrivateMethod, PrivatePart

# Keys of ``config["configurable"]``, which LangGraph sets for every task of a graph.
SCRATCHPAD: Final = "__pregel_scratchpad"
TASK_ID: Final = "__pregel_task_id"
CHECKPOINT_NS: Final = "checkpoint_ns"
# Keys of a run's metadata.
NAMESPACE: Final = "langgraph_checkpoint_ns"
PATH: Final = "langgraph_path"
NODE: Final = "langgraph_node"
SOURCE: Final = "lc_source"
INTERNAL_CALL: Final = "lc_internal_call"
AGENT_NAME: Final = "lc_agent_name"
# The first element of the path of a task that was sent (a branch, a tool's call), not reached by
# edges.
PUSH: Final = "__pregel_push"
# The value of ``SOURCE`` in the message with which a middleware replaces what came before it.
SUMMARY: Final = "summarization"
# Names of classes.
BUBBLE_UP: Final = "GraphBubbleUp"
EVENTS_HANDLER: Final = "_V2StreamingCallbackHandler"
MESSAGES_HANDLER: Final = "StreamMessagesHandler"


def in_graph(config: RunnableConfig) -> bool:
    """Return whether this runs inside a LangGraph graph, which can be interrupted."""
    return SCRATCHPAD in (config.get("configurable") or {})


def find_writer(config: RunnableConfig) -> Callable[[Any], None] | None:
    """Return what writes to the graph's custom stream; ``None`` outside of a graph.

    Any thread may call it. Where nobody reads that stream, it does nothing.
    """
    if not in_graph(config):
        return None
    # Imported late: LangGraph need not be installed, and inside a graph it certainly is.
    from langgraph.config import get_stream_writer

    def write(data: Any) -> None:
        # LangGraph reads from the context where the writer is and whose part is written: a thread
        # of the tool has none, nor has asynchronous code before Python 3.11.
        with set_config_context(config) as around:
            around.run(lambda: get_stream_writer()(data))

    return write


def find_task(config: RunnableConfig) -> str | None:
    """Return a name for the task of a graph that this runs in, the same when it is resumed."""
    configurable = config.get("configurable") or {}
    return configurable.get(CHECKPOINT_NS) or configurable.get(TASK_ID)


def was_sent(metadata: Mapping[str, Any]) -> bool:
    """Return whether a run belongs to a task that was sent, not reached by edges."""
    return tuple(metadata.get(PATH) or ())[:1] == (PUSH,)


def passes_through(error: Exception) -> bool:
    """Return whether the exception is an interrupt or a command of LangGraph, and no failure."""
    return _is_a(error, BUBBLE_UP)


def wants_events(config: RunnableConfig) -> bool:
    """Return whether a handler wants events of the v3 protocol (LangGraph's v3 streaming does)."""
    handlers = getattr(config.get("callbacks"), "handlers", None) or []
    return any(_is_a(handler, EVENTS_HANDLER) for handler in handlers)


def list_message_handlers(manager: Any) -> list[Any]:
    """Return the callback handlers through which LangGraph streams messages."""
    return [h for h in getattr(manager, "handlers", ()) if _is_a(h, MESSAGES_HANDLER)]


def _is_a(value: object, name: str) -> bool:
    """Return whether the value's class, or one that it derives from, has this name."""
    return any(cls.__name__ == name for cls in type(value).__mro__)


_CORE: Final = "langchain-core 1.8.3"
_GRAPH: Final = "langgraph 1.2.24"
_AGENTS: Final = "langchain 1.5.2"
_CONSTANTS: Final = "langgraph._internal._constants"
_ONE_MARK: Final = (
    "Calls that a middleware makes are known by the other of these two marks; without both they go "
    "to the conversation of their node."
)
_SHARED: Final = "Branches of a node share one conversation."
_LATE: Final = "A tool's result is streamed after the answer that was made from it."
_CHUNKS: Final = "Events of the v3 protocol are made from chunks, by LangChain."

PARTS: Final = (
    PrivatePart(
        "suppress_langchain_beta_warning",
        "langchain_core._api",
        _CORE,
        "This package cannot be imported.",
    ),
    PrivatePart(
        "var_child_runnable_config",
        "langchain_core.runnables.config",
        _CORE,
        "This package cannot be imported.",
    ),
    PrivatePart(
        EVENTS_HANDLER,
        "langchain_core.tracers._streaming",
        _CORE,
        "LangGraph's v3 stream has no tokens of a LettaRunnable.",
    ),
    PrivatePart(
        SCRATCHPAD,
        _CONSTANTS,
        _GRAPH,
        "As outside of a graph: a tool of the agent's own that asks for permission is denied, a "
        "message without an id is sent again by a node that is resumed, and what tools report is "
        "not in the custom stream.",
    ),
    PrivatePart(
        TASK_ID, _CONSTANTS, _GRAPH, f"Nothing, as long as {CHECKPOINT_NS!r} is there instead."
    ),
    PrivatePart(
        CHECKPOINT_NS,
        _CONSTANTS,
        _GRAPH,
        f"Nothing, as long as {TASK_ID!r} is there instead; without both, a message without an id "
        "is sent again by a node that is resumed.",
    ),
    PrivatePart(
        NAMESPACE, "langgraph.pregel._algo", _GRAPH, "All nodes of a thread share one conversation."
    ),
    PrivatePart(
        NODE,
        "langgraph.pregel._algo",
        _GRAPH,
        _LATE,
    ),
    PrivatePart(
        PATH, "langgraph.pregel._algo", _GRAPH, "Branches of a node share one conversation."
    ),
    PrivatePart(PUSH, _CONSTANTS, _GRAPH, _SHARED),
    PrivatePart(
        BUBBLE_UP,
        "langgraph.errors",
        _GRAPH,
        "An interrupt inside a tool is told to the model as the tool's failure.",
    ),
    PrivatePart(
        MESSAGES_HANDLER,
        "langgraph.pregel._messages",
        _GRAPH,
        _LATE,
    ),
    PrivatePart(SOURCE, "langchain.agents.middleware.summarization", _AGENTS, _ONE_MARK),
    PrivatePart(
        SUMMARY,
        "langchain.agents.middleware.summarization",
        _AGENTS,
        "A summary is taken for a message of the user.",
    ),
    PrivatePart(
        INTERNAL_CALL,
        "langchain.agents.middleware.internal_call_transformer",
        _AGENTS,
        _ONE_MARK,
    ),
    PrivatePart(
        AGENT_NAME,
        "langchain.agents.factory",
        _AGENTS,
        "Agents of one graph that have nodes of the same name share a conversation.",
    ),
    PrivatePart(
        "_stream_chat_model_events",
        "langchain_core.language_models.chat_models",
        _CORE,
        _CHUNKS,
    ),
    PrivatePart(
        "_astream_chat_model_events",
        "langchain_core.language_models.chat_models",
        _CORE,
        _CHUNKS,
    ),
)

_BASE_MODEL: Final = "langchain_core.language_models.base:BaseLanguageModel"
_MODEL: Final = "langchain_core.language_models.chat_models:BaseChatModel"
_RUNNABLE: Final = "langchain_core.runnables.base:Runnable"
_STREAM: Final = "langchain_core.language_models.chat_model_stream:ChatModelStream"
_ASYNC_STREAM: Final = "langchain_core.language_models.chat_model_stream:AsyncChatModelStream"
_ANSWER: Final = ("self", "messages", "stop", "run_manager", "**kwargs")
_FAILS: Final = "Every call fails."
_RUN: Final = ("self", "func", "input_", "config", "run_type", "serialized", "**kwargs")
_RUN_STREAM: Final = ("self", "inputs", "transformer", "config", "run_type", "**kwargs")
_NO_TURN: Final = "LettaRunnable.stream_events and astream_events fail; its other methods work."

# The methods of a base class that ``ChatLetta`` replaces.
OVERRIDDEN: Final = (
    PrivateMethod(_MODEL, "_generate", _ANSWER, _CORE, _FAILS),
    PrivateMethod(_MODEL, "_agenerate", _ANSWER, _CORE, _FAILS),
    PrivateMethod(_MODEL, "_stream", _ANSWER, _CORE, "Streams give one whole answer."),
    PrivateMethod(_MODEL, "_astream", _ANSWER, _CORE, "Streams give one whole answer."),
    PrivateMethod(_MODEL, "_llm_type", None, _CORE, "Traces do not tell the kind of the model."),
    PrivateMethod(
        _BASE_MODEL, "_identifying_params", None, _CORE, "Traces do not tell the agent's id."
    ),
    PrivateMethod(
        _MODEL,
        "_get_ls_params",
        ("self", "stop", "**kwargs"),
        _CORE,
        "Traces do not tell the model's name, nor its price.",
    ),
    PrivateMethod(
        _MODEL,
        "_resolve_model_profile",
        ("self",),
        _CORE,
        "Nothing: a validator fills the profile as well.",
    ),
)

# The methods that this package calls, and no documentation promises.
CALLED: Final = (
    PrivateMethod(_RUNNABLE, "_call_with_config", _RUN, _CORE, "LettaRunnable.invoke fails."),
    PrivateMethod(_RUNNABLE, "_acall_with_config", _RUN, _CORE, "LettaRunnable.ainvoke fails."),
    PrivateMethod(
        _RUNNABLE,
        "_transform_stream_with_config",
        _RUN_STREAM,
        _CORE,
        "LettaRunnable.stream fails.",
    ),
    PrivateMethod(
        _RUNNABLE,
        "_atransform_stream_with_config",
        _RUN_STREAM,
        _CORE,
        "LettaRunnable.astream fails.",
    ),
    *(
        PrivateMethod(owner, name, parameters, _CORE, _NO_TURN)
        for owner, name, parameters in (
            (_STREAM, "dispatch", ("self", "event")),
            (_STREAM, "fail", ("self", "error")),
            (_STREAM, "done", None),
            (_STREAM, "bind_pump", ("self", "pump_one")),
            (_STREAM, "set_start", ("self", "cb")),
            (_STREAM, "set_request_more", ("self", "cb")),
            (_ASYNC_STREAM, "dispatch", ("self", "event")),
            (_ASYNC_STREAM, "fail", ("self", "error")),
            (_ASYNC_STREAM, "done", None),
            (_ASYNC_STREAM, "set_arequest_more", ("self", "cb")),
        )
    ),
)
