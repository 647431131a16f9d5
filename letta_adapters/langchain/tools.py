"""Run your tools around an agent, and show the agent's own as child runs.

Internal: not part of the public API.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.messages import AIMessage, InvalidToolCall, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.tools import tool as make_tool

from letta_adapters._utils.invoke import report_raised
from letta_adapters.chat.response import ServerToolError as ServerToolError
from letta_adapters.errors import InvalidInputError
from letta_adapters.langchain._compat import NODE, list_message_handlers
from letta_adapters.langchain.errors import langchain_errors
from letta_adapters.langchain.messages import DECISION_KEY, raw_arguments
from letta_adapters.messages import broken_arguments
from letta_adapters.permissions import Allow, Deny, denials, encode_decision, normalise_decision


def as_base_tools(tools: Any) -> list[BaseTool]:
    """Return LangChain tools; typed functions are made into such.

    Raises:
        InvalidInputError: Something cannot be a tool, or two have one name.
    """
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise InvalidInputError("tools must be a list.", hint="Write tools=[...].")
    made: list[BaseTool] = []
    for item in tools:
        if isinstance(item, BaseTool):
            made.append(item)
            continue
        if not callable(item) or isinstance(item, type):
            raise InvalidInputError(f"{item!r} is not a tool.", hint="Pass functions or BaseTools.")
        try:
            # LangChain refuses a function without a docstring; its name has to do then.
            described = inspect.getdoc(item) or getattr(item, "__name__", "tool")
            made.append(make_tool(item, description=described))
        except (ValueError, TypeError) as error:
            raise InvalidInputError(f"{item!r} is not a tool: {error}") from error
    names = [tool.name for tool in made]
    # The agent calls a tool by its name, so only one of the two could ever run.
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"Two tools are called {twice!r}.")
    return made


def to_result_message(call: ToolCall, value: Any) -> ToolMessage:
    """Return a tool's output as the message that answers its call."""
    # LangChain's tools make the whole message themselves when they are given a call.
    if isinstance(value, ToolMessage):
        return value
    # The agent reads text; JSON keeps more of an object than its `str` would.
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return ToolMessage(text, tool_call_id=str(call["id"]), name=call["name"])


def to_error_message(call: ToolCall, error: Exception) -> ToolMessage:
    """Return a tool's failure as a message for the agent to read; its traceback is logged."""
    report_raised(f"The tool {call['name']!r}", error)
    return ToolMessage(
        f"{type(error).__name__}: {error}",
        tool_call_id=str(call["id"]),
        name=call["name"],
        status="error",
    )


def decide(call: ToolCall, decision: Any) -> ToolMessage:
    """Answer the question whether a tool of the agent's own may run.

    ```python
    for call in answer.tool_calls:
        history.append(decide(call, True))
    ```

    Args:
        call: The question, one of the ``tool_calls`` of the agent's message.
        decision: ``True``, ``False``, an ``Allow``, a ``Deny``, or ``{"behavior": "allow"}`` and
            ``{"behavior": "deny", "message": "..."}``.

    Returns:
        The message to put into the history.

    Raises:
        InvalidInputError: It is no decision.
    """
    with langchain_errors():
        return to_decision_message(call, normalise_decision(decision))


def to_decision_message(call: ToolCall, decision: Allow | Deny) -> ToolMessage:
    """Return a decision as the message that answers the call."""
    text, status = "allowed", "success"
    if isinstance(decision, Deny):
        text, status = decision.message or denials.BY_USER, "error"
    return ToolMessage(
        text,
        tool_call_id=str(call["id"]),
        name=call["name"],
        status=status,
        additional_kwargs={DECISION_KEY: encode_decision(decision)},
    )


def announce(manager: Any, messages: Sequence[ToolMessage]) -> None:
    """Tell LangGraph's stream of messages at once which results the tools gave.

    LangGraph hears of tokens as they come, and of all other output of a node at the node's end: a
    tool's message would follow the answer that was made from it. A message that it has heard of it
    tells only once.

    Args:
        manager: The callback manager of the run.
        messages: The tools' messages.
    """
    metadata = getattr(manager, "metadata", None) or {}
    # Only inside a graph is there a stream of messages.
    node = metadata.get(NODE)
    # LangGraph has no other way to be told.
    for handler in list_message_handlers(manager) if node else ():
        run_id = uuid4()
        handler.on_chain_start({}, {}, run_id=run_id, name=node, metadata=dict(metadata))
        handler.on_chain_end({"messages": list(messages)}, run_id=run_id)


class ServerTools:
    """Turn what is seen of the tools that the agent runs itself into callbacks to make.

    Each callback is a kind (``"start"``, ``"end"`` or ``"error"``), the id of the child run, and
    the arguments. Nothing is run here.
    """

    def __init__(self) -> None:
        self._open: dict[str, UUID] = {}

    def see(self, content: Any) -> list[tuple[str, UUID, dict[str, Any]]]:
        """Return the callbacks to make for the content of a chunk."""
        if isinstance(content, str):
            return []
        return [
            event
            for block in content
            if isinstance(block, dict)
            for event in self._read_block(block)
        ]

    def _read_block(self, block: dict[str, Any]) -> list[tuple[str, UUID, dict[str, Any]]]:
        if block.get("type") == "server_tool_call":
            run_id = self._open[str(block.get("id"))] = uuid4()
            return [("start", run_id, {"name": block.get("name"), "args": block.get("args") or {}})]
        if block.get("type") == "server_tool_result":
            # A result without a call gets an id that no run has, so it is passed over.
            run_id = self._open.pop(str(block.get("tool_call_id")), uuid4())
            kind = "error" if block.get("status") == "error" else "end"
            return [(kind, run_id, {"output": block.get("output")})]
        return []


class ToolCallbacks:
    """Fire the callbacks of :class:`ServerTools` on a run's children."""

    def __init__(self) -> None:
        self._runs: dict[UUID, Any] = {}

    def fire(self, manager: CallbackManager, event: tuple[str, UUID, dict[str, Any]]) -> None:
        """Fire one callback on a synchronous manager."""
        kind, run_id, data = event
        if kind == "start":
            self._runs[run_id] = manager.on_tool_start(
                {"name": data["name"]}, json.dumps(data["args"]), run_id=run_id, inputs=data["args"]
            )
        elif run_id in self._runs:
            run = self._runs.pop(run_id)
            if kind == "error":
                run.on_tool_error(ServerToolError(str(data["output"])))
            else:
                run.on_tool_end(data["output"])

    async def afire(
        self, manager: AsyncCallbackManager, event: tuple[str, UUID, dict[str, Any]]
    ) -> None:
        """Fire one callback on an asynchronous manager."""
        kind, run_id, data = event
        if kind == "start":
            self._runs[run_id] = await manager.on_tool_start(
                {"name": data["name"]}, json.dumps(data["args"]), run_id=run_id, inputs=data["args"]
            )
        elif run_id in self._runs:
            run = self._runs.pop(run_id)
            if kind == "error":
                await run.on_tool_error(ServerToolError(str(data["output"])))
            else:
                await run.on_tool_end(data["output"])


def build_refusals(message: AIMessage) -> list[ToolMessage]:
    """Return the answers to the calls of a message whose arguments are no JSON object.

    They are never run, whatever a person or a callback decides about them.
    """
    return [_build_refusal(call) for call in message.invalid_tool_calls]


def _build_refusal(call: InvalidToolCall) -> ToolMessage:
    name, raw = call["name"] or "", raw_arguments(call)
    text = broken_arguments(name, raw) or f"{name} was not run: {call.get('error') or raw}"
    return ToolMessage(text, tool_call_id=call["id"] or "", name=name, status="error")
