"""Internal: find out where a call of the model is made, from LangChain and LangGraph.

The run's own metadata tells it, and the runs it is nested in; the ambient configuration is only
inherited, and is empty in some places (a chain as a node of a graph).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers.context import register_configure_hook

from letta_adapters.chat.cache import running_tools
from letta_adapters.chat.request import Place, Scope
from letta_adapters.langchain._compat import (
    AGENT_NAME,
    INTERNAL_CALL,
    NAMESPACE,
    SOURCE,
    var_child_runnable_config,
    was_sent,
)

# The part of a checkpoint's namespace that differs from run to run.
_TASK_ID: Final = re.compile(r":[0-9a-fA-F-]{36}")
_RUNS: Final = 16384


@dataclass(frozen=True, slots=True)
class _Run:
    """Describe a run inside a graph or a tool.

    Attributes:
        task: The task of a graph that it belongs to.
        attempt: The outermost run of that task.
        tools: The runs of tools that it is nested in.
        direct: The innermost of them is part of the task, and not around the graph.
        calls: The tool calls that these tools answer.
    """

    task: str = ""
    attempt: UUID | None = None
    tools: tuple[UUID, ...] = ()
    direct: bool = False
    calls: frozenset[str] = frozenset()


class _Runs(BaseCallbackHandler):
    """Know the runs that are under way. Its size is bounded, and it changes none of them."""

    # Run in the thread of the run itself: the model's call that follows has to find its parent
    # here.
    run_inline = True
    ignore_llm = ignore_chat_model = ignore_retriever = ignore_retry = ignore_custom_event = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[UUID, _Run] = {}

    def find(self, run_id: UUID | None) -> _Run:
        """Return what is known of a run; an empty record for an unknown one."""
        with self._lock:
            return self._runs.get(run_id, _Run()) if run_id is not None else _Run()

    def _put(self, run_id: UUID, run: _Run) -> None:
        with self._lock:
            self._runs[run_id] = run
            # A run whose end is never reported would stay for ever; the oldest go first.
            while len(self._runs) > _RUNS:
                del self._runs[next(iter(self._runs))]

    def _drop(self, run_id: UUID) -> None:
        with self._lock:
            self._runs.pop(run_id, None)

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note a run that is inside a graph or a tool."""
        task = str((metadata or {}).get(NAMESPACE) or "")
        around = self.find(parent_run_id)
        # The namespace changes with the first run of a task: that run is the attempt.
        if task and task != around.task:
            self._put(run_id, _Run(task, run_id, around.tools, calls=around.calls))
        elif task or around.tools:
            self._put(run_id, around)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a run that is over."""
        self._drop(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a run that failed."""
        self._drop(run_id)

    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Note a tool that runs, and the call that it answers."""
        around = self.find(parent_run_id)
        call = str(kwargs.get("tool_call_id") or "")
        calls = around.calls | {call} if call else around.calls
        tools = (*around.tools, run_id)
        self._put(run_id, _Run(around.task, around.attempt, tools, direct=True, calls=calls))
        if call:
            running_tools.begin(run_id, call)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a tool's run that is over."""
        running_tools.end(run_id)
        self._drop(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a tool's run that failed."""
        running_tools.end(run_id)
        self._drop(run_id)


# LangChain adds the handler of this hook to every run, also where an application names none.
_runs = _Runs()
register_configure_hook(ContextVar("letta_runs", default=_runs), inheritable=True)


@dataclass(frozen=True, slots=True)
class CallSite:
    """Hold what a call knows of its place, and the names in its configuration.

    Attributes:
        place: The place.
        named: The names in the call's own configuration (``conversation_id``, ``thread_id``) that
            differ from those it is made in.
        conversation_id: The conversation that the call inherits.
    """

    place: Place = field(default_factory=Place)
    named: Mapping[str, str] = field(default_factory=dict)
    conversation_id: str | None = None


def locate_call(config: RunnableConfig | None, scope: Scope | None) -> CallSite:
    """Return what a call with this configuration knows of its place.

    Args:
        config: The configuration that the call was given.
        scope: The application's wish, if it has one.
    """
    own = (config or {}).get("configurable") or {}
    ambient = (var_child_runnable_config.get() or {}).get("configurable") or {}
    whole = ensure_config(config)
    # The manager of a surrounding run has metadata that the configuration itself lacks.
    manager = whole.get("callbacks")
    metadata = {**(getattr(manager, "metadata", None) or {}), **(whole.get("metadata") or {})}
    parent = getattr(manager, "parent_run_id", None)
    return _locate(metadata, parent, whole.get("configurable") or {}, own, ambient, scope)


def locate_run(run_manager: Any, scope: Scope | None) -> CallSite:
    """Return what a call knows of its place whose configuration is not at hand.

    Args:
        run_manager: LangChain's manager of the run.
        scope: The application's wish, if it has one.
    """
    metadata = getattr(run_manager, "metadata", None) or {}
    configurable = ensure_config().get("configurable") or {}
    parent = getattr(run_manager, "parent_run_id", None)
    return _locate(metadata, parent, configurable, {}, configurable, scope)


def _locate(
    metadata: Mapping[str, Any],
    parent: UUID | None,
    configurable: Mapping[str, Any],
    own: Mapping[str, Any],
    ambient: Mapping[str, Any],
    scope: Scope | None,
) -> CallSite:
    """Return what a call knows of its place from its run and its configurations.

    Args:
        metadata: The run's metadata, which LangGraph fills.
        parent: The run that the call is nested in.
        configurable: The merged configuration.
        own: The configuration that the call itself was given.
        ambient: The configuration it is made in.
        scope: The application's wish, if it has one.
    """
    task = str(metadata.get(NAMESPACE) or "")
    run = _runs.find(parent)
    # LangGraph puts the thread into a run's metadata too, which gets where no configuration does.
    thread = configurable.get("thread_id", metadata.get("thread_id"))
    conversation = configurable.get("conversation_id")
    place = _describe_place(metadata, task, run, _to_text(thread), scope)
    named = {}
    # Inside a graph or a tool most names are only inherited. One counts as the call's own if it was
    # given to the call and differs from the surrounding one.
    if task or run.tools:
        given = own.get("conversation_id")
        if given is not None and ambient and given != ambient.get("conversation_id"):
            named["conversation_id"] = str(given)
        given = own.get("thread_id")
        around = metadata.get("thread_id", ambient.get("thread_id"))
        if None not in (given, around) and str(given) != str(around):
            named["thread_id"] = str(given)
    return CallSite(place, named, _to_text(conversation))


def _describe_place(
    metadata: Mapping[str, Any], task: str, run: _Run, thread: str | None, scope: Scope | None
) -> Place:
    """Return the place that LangGraph's metadata and the surrounding runs describe."""
    internal = metadata.get(SOURCE) or metadata.get(INTERNAL_CALL)
    pushed = was_sent(metadata)
    # Calls below belong to a part of the node only: others in it have histories of their own.
    within = ""
    if scope == "fresh":
        within = "fresh"
    elif internal:
        within = f"internal:{metadata.get(SOURCE) or ''}:{task}"
    elif run.direct and run.tools:
        within = f"tool:{run.tools[-1]}"
    elif pushed:
        within = task
    if scope == "node":
        within = ""
    keeps = not (internal or pushed or "|" in task or run.tools)
    return Place(
        thread=thread,
        node=_TASK_ID.sub("", task),
        agent=str(metadata.get(AGENT_NAME) or ""),
        task=task,
        attempt=str(run.attempt) if run.attempt is not None else None,
        within=within,
        keeps=keeps,
        serves=run.calls,
    )


def _to_text(value: Any) -> str | None:
    return None if value is None else str(value)
