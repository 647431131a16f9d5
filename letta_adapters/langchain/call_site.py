"""Internal: find out where a call of the model is made, from LangChain and LangGraph.

The run's own metadata tells it, and the runs it is nested in; the ambient configuration is only
inherited, and is empty in some places (a chain as a node of a graph).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid4

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, get_callback_manager_for_config

from letta_adapters.chat.request import Place, Scope
from letta_adapters.langchain._compat import (
    AGENT_NAME,
    INTERNAL_CALL,
    NAMESPACE,
    SOURCE,
    var_child_runnable_config,
    was_sent,
)
from letta_adapters.langchain.runs import Run, runs

# The part of a checkpoint's namespace that differs from run to run.
_TASK_ID: Final = re.compile(r":[0-9a-fA-F-]{36}")


@dataclass(frozen=True, slots=True)
class CallSite:
    """Hold what a call knows of its place, and the names in its configuration.

    Attributes:
        place: The place.
        named: The names in the call's own configuration (``conversation_id``, ``thread_id``) that
            differ from those it is made in.
        conversation_id: The conversation that the call inherits.
        run: The run of the call, as its manager tells it: its id and its handlers. Known only
            where turns are reported to OpenTelemetry.
    """

    place: Place = field(default_factory=Place)
    named: Mapping[str, str] = field(default_factory=dict)
    conversation_id: str | None = None
    run: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class NamedRun:
    """Tell of a run what its manager would.

    Attributes:
        run_id: Its id.
        handlers: Its handlers, tracers among them.
    """

    run_id: UUID
    handlers: Sequence[Any]


def name_run(config: RunnableConfig | None, own: Any) -> tuple[RunnableConfig, NamedRun]:
    """Give the run of a call its id now: a call that streams is not told of its run.

    Args:
        config: The configuration of the call.
        own: The callbacks of the model itself.

    Returns:
        The configuration with the id, and the run.
    """
    given: RunnableConfig = {**config} if config is not None else {}
    run_id = given.get("run_id") or uuid4()
    given["run_id"] = run_id
    # Tracers that take part in every run add themselves to a manager when it is made.
    manager = get_callback_manager_for_config(ensure_config(given))
    handlers = [*manager.handlers, *(getattr(own, "handlers", own) or ())]
    return given, NamedRun(run_id, handlers)


def locate_call(
    config: RunnableConfig | None, whole: RunnableConfig, scope: Scope | None
) -> CallSite:
    """Return what a call with this configuration knows of its place.

    Args:
        config: The configuration that the call was given.
        whole: The same together with what comes from where the call is made.
        scope: The application's wish, if it has one.
    """
    own = (config or {}).get("configurable") or {}
    ambient = (var_child_runnable_config.get() or {}).get("configurable") or {}
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
    run = runs.find(parent)
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
    metadata: Mapping[str, Any], task: str, run: Run, thread: str | None, scope: Scope | None
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


def find_span(run_manager: Any) -> Any:
    """Return the OpenTelemetry span that a tracer of LangChain's runs has for this one.

    OpenInference's tracer hands out its spans (``get_span``), and makes none of them the current
    one; ``None`` if no tracer does.

    Args:
        run_manager: LangChain's manager of the run.
    """
    run_id = getattr(run_manager, "run_id", None)
    for handler in getattr(run_manager, "handlers", ()):
        span = getattr(handler, "get_span", lambda _: None)(run_id)
        if span is not None:
            return span
    return None
