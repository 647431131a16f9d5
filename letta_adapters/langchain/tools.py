"""Internal: run your tools around an agent, and show the agent's own as child runs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, TypeAlias, TypeVar
from uuid import uuid4

from langchain_core.callbacks import Callbacks, dispatch_custom_event
from langchain_core.messages import AIMessage, InvalidToolCall, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool
from langchain_core.tools import tool as make_tool

from letta_adapters._utils.invoke import invoke_callable, report_raised
from letta_adapters.chat.response import ServerToolError as ServerToolError
from letta_adapters.errors import InvalidInputError
from letta_adapters.langchain._compat import NODE, list_message_handlers
from letta_adapters.langchain.errors import langchain_errors
from letta_adapters.langchain.messages import DECISION_KEY, ENDS_KEY, read_raw_arguments
from letta_adapters.messages import ToolProgressMessage, broken_arguments
from letta_adapters.permissions import Allow, Deny, denials, encode_decision, normalise_decision
from letta_adapters.permissions.asking import Undecided
from letta_adapters.tools.context import ToolContext, take_context
from letta_adapters.tools.schema import read_signature

T = TypeVar("T")

# A parameter that LangChain fills, under a name that no function of a user has.
_CALL_ID: Final = "letta_call_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningCall:
    """Hold what a runnable knows of a call that it runs a tool for.

    Attributes:
        id: The call's id.
        agent_id: The agent that calls.
        conversation_id: The conversation it calls in.
        write: Writes to the custom stream of the graph around; ``None`` outside of one.
    """

    id: str
    agent_id: str | None
    conversation_id: str | None
    write: Callable[[Any], None] | None


# LangChain passes on to a tool what is in its schema or of a type of its own, and nothing else.
running_call: Final[ContextVar[RunningCall | None]] = ContextVar("letta_running", default=None)


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
            made.append(_make_tool(item))
        except (ValueError, TypeError) as error:
            raise InvalidInputError(f"{item!r} is not a tool: {error}") from error
    names = [tool.name for tool in made]
    # The agent calls a tool by its name, so only one of the two could ever run.
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"Two tools are called {twice!r}.")
    return made


def _make_tool(function: Callable[..., Any]) -> BaseTool:
    label: str = getattr(function, "__name__", "tool")
    # LangChain refuses a function without a docstring; its name has to do then.
    described = inspect.getdoc(function) or label
    name, others = take_context(read_signature(function, label, lenient=True), label)
    if name is None:
        return make_tool(function, description=described)
    return _fill_context(function, name, others, described)


def _fill_context(
    function: Callable[..., Any], name: str, others: inspect.Signature, described: str
) -> BaseTool:
    """Return a tool of a function that has a :class:`ToolContext`.

    Args:
        function: The function.
        name: The parameter that takes the context.
        others: The signature without it.
        described: The description.
    """

    label: str = getattr(function, "__name__", "tool")

    async def acall(**given: Any) -> Any:
        # Those of the tool's own run: the configuration that LangChain passes is the caller's.
        config: RunnableConfig = {"callbacks": given.pop("callbacks", None)}
        call = _find_call(given.pop(_CALL_ID))
        context = ToolContext(
            call.id,
            label,
            call.agent_id,
            call.conversation_id,
            partial(_dispatch_report, config, call.write),
        )
        try:
            arguments = {**given, name: context}
            return await invoke_callable(function, arguments, in_thread_loop=False)
        finally:
            context.end()

    # LangChain reads from the signature what it has to fill, and what the model is asked for.
    filled: dict[str, Any] = {_CALL_ID: Annotated[str, InjectedToolCallId], "callbacks": Callbacks}
    own = [p for p in others.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    added = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
        for key, kind in filled.items()
    ]
    read: Any = acall
    read.__signature__ = others.replace(parameters=[*own, *added])
    read.__annotations__ = {p.name: p.annotation for p in own} | filled
    read.__name__ = label
    return StructuredTool.from_function(coroutine=read, description=described)


def _find_call(call_id: str) -> RunningCall:
    """Return what is known of a call."""
    call = running_call.get()
    # A tool may call another one, and that one's call is not the agent's.
    if call is None or call.id != call_id:
        return RunningCall(id=call_id, agent_id=None, conversation_id=None, write=None)
    return call


def _dispatch_report(
    config: RunnableConfig, write: Callable[[Any], None] | None, message: ToolProgressMessage
) -> None:
    """Hand a report on as a custom event of the tool's run, and to the custom stream of a graph."""
    data = message.to_dict()
    dispatch_custom_event("letta_tool_progress", data, config=config)
    # LangGraph's custom stream does not have LangChain's custom events.
    if write is not None:
        write(data)


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


def to_cancelled_message(call: Mapping[str, Any]) -> ToolMessage:
    """Return the answer to a call whose tool cancelled itself, which is a failure like another."""
    text, name = f"{call['name']} was cancelled.", call["name"]
    return ToolMessage(text, tool_call_id=str(call["id"]), name=name, status="error")


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
    # The text is for whoever reads the history; the agent is told the decision behind it.
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


def to_undecided_message(call: ToolCall, undecided: Undecided | None = None) -> ToolMessage:
    """Return the answer to a call that nobody has decided about, which is no denial.

    Args:
        call: The call.
        undecided: Why nobody has; ``None`` if nobody could be asked.
    """
    return ToolMessage(
        denials.NOBODY_ASKED if undecided is None else undecided.message,
        tool_call_id=str(call["id"]),
        name=call["name"],
        status="error",
        additional_kwargs={ENDS_KEY: True} if undecided and undecided.interrupt else {},
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


@dataclass(frozen=True, slots=True)
class Effect:
    """Name one thing to do, in both colours; a manager of callbacks has the same for both.

    Attributes:
        run: Does it.
        arun: Returns an awaitable that does it; ``None``: ``run`` does.
    """

    run: Callable[[], Any]
    arun: Callable[[], Any] | None = None


# Work that is written once for sync and async: it yields what is to be done, and is sent what came
# of it.
Effects: TypeAlias = Generator[Effect, Any, T]


def drive(work: Effects[T]) -> T:
    """Do what the work yields, one after the other, and return its result."""
    try:
        effect = next(work)
        while True:
            do = effect.run
            try:
                done = do()
            except BaseException as error:
                # The work may have an answer to a failure.
                effect = work.throw(error)
            else:
                effect = work.send(done)
    except StopIteration as end:
        result: T = end.value
        return result


async def adrive(work: Effects[T]) -> T:
    """Do the same in asynchronous code; see :func:`drive`."""
    try:
        effect = next(work)
        while True:
            do = effect.arun or effect.run
            try:
                done = await do()
            except BaseException as error:
                effect = work.throw(error)
            else:
                effect = work.send(done)
    except StopIteration as end:
        result: T = end.value
        return result


class ServerToolRuns:
    """Show the tools that the agent runs itself as child runs."""

    def __init__(self) -> None:
        self._open: dict[str, Any] = {}

    def show(self, manager: Any, blocks: Iterable[Any]) -> Effects[None]:
        """Start and end the child runs for the blocks of a chunk.

        Args:
            manager: The callback manager of the run, synchronous or asynchronous.
            blocks: Content blocks, of which only calls and results of such tools count.
        """
        for block in blocks:
            kind = block.get("type") if isinstance(block, dict) else None
            if kind == "server_tool_call":
                args = block.get("args") or {}
                told = ({"name": block.get("name")}, json.dumps(args))
                start = partial(manager.on_tool_start, *told, run_id=uuid4(), inputs=args)
                self._open[str(block.get("id"))] = yield Effect(start)
            elif kind == "server_tool_result":
                run = self._open.pop(str(block.get("tool_call_id")), None)
                # A result whose call was never shown has no run that could end.
                if run is None:
                    continue
                output = block.get("output")
                if block.get("status") == "error":
                    yield Effect(partial(run.on_tool_error, ServerToolError(str(output))))
                else:
                    yield Effect(partial(run.on_tool_end, output))

    def close(self, error: BaseException | None = None) -> Effects[None]:
        """End the runs of tools whose results never came, so that no trace shows them at work.

        Args:
            error: The failure of the turn, if it failed.
        """
        while self._open:
            _, run = self._open.popitem()
            if error is None:
                yield Effect(partial(run.on_tool_end, None))
            else:
                yield Effect(partial(run.on_tool_error, error))


def build_refusals(message: AIMessage) -> list[ToolMessage]:
    """Return the answers to the calls of a message whose arguments are no JSON object.

    They are never run, whatever a person or a callback decides about them.
    """
    return [_build_refusal(call) for call in message.invalid_tool_calls]


def _build_refusal(call: InvalidToolCall) -> ToolMessage:
    name, raw = call["name"] or "", read_raw_arguments(call)
    text = broken_arguments(name, raw) or f"{name} was not run: {call.get('error') or raw}"
    return ToolMessage(text, tool_call_id=call["id"] or "", name=name, status="error")
