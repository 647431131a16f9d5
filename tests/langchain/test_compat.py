"""The private parts of LangChain and LangGraph that the adapter uses are where it looks."""

from __future__ import annotations

import importlib
import inspect
import operator
import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, TypedDict

import pytest
from langchain.agents.middleware import summarization
from langchain_core._api import beta
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt

import letta_adapters.langchain as package
from letta_adapters.langchain import _compat
from tests._private_parts import make_checks

pytestmark = pytest.mark.filterwarnings(
    "ignore:The v3 streaming protocol on Pregel is experimental"
)


class _State(TypedDict):
    seen: Annotated[list[dict[str, Any]], operator.add]


def _visit(state: _State, config: RunnableConfig) -> dict[str, Any]:
    """Note what a node sees of its configuration."""
    handlers = getattr(config.get("callbacks"), "handlers", None) or []
    # What a class derives from is noted as well: LangGraph's own handlers are subclasses.
    names = {cls.__name__ for handler in handlers for cls in type(handler).__mro__}
    configurable = config.get("configurable") or {}
    metadata = config.get("metadata") or {}
    return {"seen": [{"configurable": configurable, "metadata": metadata, "handlers": names}]}


def _graph(*, branch: bool = False) -> Any:
    """Return a graph that visits a node by an edge, or as a branch."""
    graph = StateGraph(_State)
    graph.add_node("visit", _visit)
    if branch:
        graph.add_conditional_edges(START, lambda _: [Send("visit", {"seen": []})])
    else:
        graph.add_edge(START, "visit")
    graph.add_edge("visit", END)
    return graph.compile()


def _seen(**kwargs: Any) -> dict[str, Any]:
    result: dict[str, Any] = _graph(**kwargs).invoke({"seen": []})["seen"][0]
    return result


def _streamed() -> set[str]:
    """Return the handlers that a node sees while messages are streamed."""
    parts = list(_graph().stream({"seen": []}, stream_mode=["messages", "values"]))
    names: set[str] = parts[-1][1]["seen"][0]["handlers"]
    return names


def _handlers_of_v3() -> set[str]:
    """Return the handlers that a node sees while the protocol's events are streamed."""
    names: set[str] = (
        _graph().stream_events({"seen": []}, version="v3").output["seen"][0]["handlers"]
    )
    return names


def _interrupt_names() -> set[str]:
    """Return the classes of what LangGraph raises for an interrupt."""
    caught: list[BaseException] = []

    def ask(state: _State) -> dict[str, Any]:
        try:
            interrupt("May I?")
        except Exception as error:
            caught.append(error)
        return {"seen": []}

    graph = StateGraph(_State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.compile(checkpointer=InMemorySaver()).invoke(
        {"seen": []}, {"configurable": {"thread_id": "1"}}
    )
    return {cls.__name__ for cls in type(caught[0]).__mro__}


def _ambient() -> bool:
    """Return whether the variable holds the configuration of the run around."""
    held: list[Any] = []
    around = RunnableLambda(lambda _: held.append(_compat.var_child_runnable_config.get()))
    around.invoke(None, {"configurable": {"thread_id": "1"}})
    return bool(held[0]["configurable"] == {"thread_id": "1"})


def _silences() -> bool:
    """Return whether an unfinished part of LangChain does not warn in here."""

    @beta()
    def unfinished() -> bool:
        return True

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with _compat.suppress_langchain_beta_warning():
            return unfinished()


def _stands_in(module: str, name: str) -> bool:
    return f'"{name}"' in inspect.getsource(importlib.import_module(module))


# These need a model to be seen at work, so their names are looked for in the source.
_IN_SOURCE: Final = {
    _compat.SOURCE: "langchain.agents.middleware.summarization",
    _compat.INTERNAL_CALL: "langchain.agents.middleware.internal_call_transformer",
    _compat.AGENT_NAME: "langchain.agents.factory",
    "_stream_chat_model_events": BaseChatModel.__module__,
    "_astream_chat_model_events": BaseChatModel.__module__,
}
_PROBES: Final[dict[str, Callable[[], bool]]] = {
    "var_child_runnable_config": _ambient,
    "suppress_langchain_beta_warning": _silences,
    _compat.EVENTS_HANDLER: lambda: _compat.EVENTS_HANDLER in _handlers_of_v3(),
    _compat.MESSAGES_HANDLER: lambda: _compat.MESSAGES_HANDLER in _streamed(),
    _compat.SCRATCHPAD: lambda: _compat.SCRATCHPAD in _seen()["configurable"],
    _compat.TASK_ID: lambda: _compat.TASK_ID in _seen()["configurable"],
    _compat.CHECKPOINT_NS: lambda: _seen()["configurable"][_compat.CHECKPOINT_NS][:6] == "visit:",
    _compat.NAMESPACE: lambda: _seen()["metadata"][_compat.NAMESPACE][:6] == "visit:",
    _compat.NODE: lambda: _seen()["metadata"][_compat.NODE] == "visit",
    _compat.PATH: lambda: "visit" in _seen()["metadata"][_compat.PATH],
    _compat.PUSH: lambda: _seen(branch=True)["metadata"][_compat.PATH][0] == _compat.PUSH,
    _compat.BUBBLE_UP: lambda: _compat.BUBBLE_UP in _interrupt_names(),
    _compat.SUMMARY: lambda: (
        f'additional_kwargs={{"{_compat.SOURCE}": "{_compat.SUMMARY}"}}'
        in inspect.getsource(summarization)
    ),
    **{name: partial(_stands_in, module, name) for name, module in _IN_SOURCE.items()},
}


class TestPrivateParts(make_checks(package, _PROBES, "langchain", "langchain_core", "langgraph")):
    """The private parts of LangChain and LangGraph are listed, and are there."""


def test_a_handler_is_known_by_the_name_of_a_class_it_derives_from() -> None:
    base = type(_compat.MESSAGES_HANDLER, (BaseCallbackHandler,), {})
    handler, other = type("Derived", (base,), {})(), BaseCallbackHandler()
    manager = type("Manager", (), {"handlers": [other, handler]})()
    assert _compat.list_message_handlers(manager) == [handler]


@pytest.mark.parametrize(
    ("configurable", "expected"),
    [
        ({}, None),
        ({"__pregel_task_id": "task"}, "task"),
        ({"checkpoint_ns": "node:1", "__pregel_task_id": "task"}, "node:1"),
    ],
)
def test_a_task_is_named_by_its_namespace_or_its_id(
    configurable: dict[str, Any], expected: str | None
) -> None:
    assert _compat.find_task({"configurable": configurable}) == expected
