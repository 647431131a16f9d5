"""Read the input of a runnable: text or messages, inside a LangGraph graph or elsewhere.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig

from letta_adapters.errors import InvalidInputError
from letta_adapters.langchain._compat import find_task, in_graph


def as_messages(input: Any, config: RunnableConfig) -> list[BaseMessage]:
    """Return the messages in an input.

    Args:
        input: Text, a message, messages, a prompt value, or a dict with ``messages``.
        config: The configuration of the run.

    Raises:
        InvalidInputError: The input is none of these.
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
        # When it is resumed, the node runs again from its start: an id made from its task lets the
        # same message be known again, so that it is not sent twice.
        task = find_task(config)
        if task:
            messages = [*messages[:-1], last.model_copy(update={"id": f"{task}:{len(messages)}"})]
    return messages
