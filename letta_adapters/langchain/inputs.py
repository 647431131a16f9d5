"""What a runnable is given: text or messages, inside a LangGraph graph or elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig

from letta_adapters.errors import InvalidInputError

_SCRATCHPAD: Final = "__pregel_scratchpad"


def in_graph(config: RunnableConfig) -> bool:
    """Does this run inside a LangGraph graph, which can be interrupted?"""
    return _SCRATCHPAD in (config.get("configurable") or {})


def as_messages(input: Any, config: RunnableConfig) -> list[BaseMessage]:
    """The messages in an input.

    Raises:
        InvalidInputError: it is none of what is understood.
    """
    given = input.get("messages") if isinstance(input, dict) else input
    if isinstance(given, str):
        given = [HumanMessage(given)]
    elif isinstance(given, BaseMessage):
        given = [given]
    elif isinstance(given, PromptValue):
        given = given.to_messages()
    if not isinstance(given, Sequence) or not given:
        raise InvalidInputError(
            f"LettaRunnable cannot take {type(input).__name__}.",
            hint='Give text, messages, or {"messages": [...]}.',
        )
    messages = convert_to_messages(given)
    last = messages[-1]
    if last.id is None and in_graph(config):
        # The node runs again from its start when it is resumed: the message must be known again.
        configurable = config.get("configurable") or {}
        task = configurable.get("checkpoint_ns") or configurable.get("__pregel_task_id")
        if task:
            messages = [*messages[:-1], last.model_copy(update={"id": f"{task}:{len(messages)}"})]
    return messages
