"""Internal: run the agent's loop around a model: answers, tools, approvals.

The loop is written once for sync and async: :class:`AgentLoop` yields what is to be done next and
is sent the outcome; :class:`LoopRunner` does it, in either colour, and passes on what is streamed
meanwhile.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ToolCall,
    ToolMessage,
    message_chunk_to_message,
)
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables import RunnableConfig, patch_config
from langchain_core.runnables.config import get_executor_for_config
from langchain_core.runnables.utils import AddableDict
from langchain_core.tools import BaseTool, StructuredTool

from letta_adapters._utils.invoke import invoke_callable, is_async_callable
from letta_adapters.errors import TurnFailedError
from letta_adapters.langchain._compat import in_graph, passes_through, wants_events
from letta_adapters.langchain.chunks import NOTES, QUESTIONS
from letta_adapters.langchain.tools import (
    Effect,
    Effects,
    ServerToolRuns,
    adrive,
    announce,
    build_refusals,
    drive,
    to_decision_message,
    to_error_message,
    to_result_message,
)
from letta_adapters.permissions import Allow, Deny, PermissionContext, denials, normalise_decision
from letta_adapters.permissions.policy import question

# The words of a person who resumes an interrupted graph, and the decisions they mean.
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("allow", "approve", "approved", "yes"), True),
    **dict.fromkeys(("deny", "reject", "rejected", "no"), False),
}


@dataclass(frozen=True, slots=True)
class _Ask:
    """Ask the model for the answer to these messages."""

    messages: list[BaseMessage]


@dataclass(frozen=True, slots=True)
class _Answer:
    """Answer these calls; ``refused`` are the answers to those that cannot be run."""

    calls: list[ToolCall]
    refused: list[ToolMessage]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """Hold what all runs of an agent have in common.

    Attributes:
        model: The model, with the tools it may call bound to it.
        tools: The tools that run here.
        can_use_tool: Asked before any tool runs; ``None`` if there is nobody to ask.
        max_rounds: The number of answers the agent may give before the run fails.
        speaker: The ``name`` of the agent's messages, if the application chose one.
    """

    model: Any
    tools: Sequence[BaseTool]
    can_use_tool: Callable[..., Any] | None
    max_rounds: int
    speaker: str | None


class AgentLoop:
    """Decide the steps of one run of an agent. No I/O.

    Args:
        settings: The model, the tools and the limits.
        messages: The input.
        config: The configuration of the run.
        kwargs: Arguments for every call of the model.
    """

    def __init__(
        self,
        settings: LoopSettings,
        messages: list[BaseMessage],
        config: RunnableConfig,
        kwargs: dict[str, Any],
    ) -> None:
        self.settings = settings
        self.config = config
        self.kwargs = kwargs
        self.new: list[BaseMessage] = []
        self._given = messages

    def decide_steps(self) -> Generator[_Ask | _Answer, Any, None]:
        """Yield what is to be done next, and take its outcome.

        Raises:
            TurnFailedError: The agent still called tools after ``max_rounds`` answers.
        """
        for _ in range(self.settings.max_rounds):
            message: AIMessage = yield _Ask([*self._given, *self.new])
            self.new.append(message)
            calls, refused = message.tool_calls, build_refusals(message)
            if not calls and not refused:
                return
            results: list[ToolMessage] = yield _Answer(calls, refused)
            self.new += results
        # An agent and its tools can keep each other busy for ever, at the application's cost.
        raise TurnFailedError(
            f"The agent still called tools after {self.settings.max_rounds} rounds.",
            code="max_rounds",
            hint="Raise max_rounds, or abandon the call.",
        )

    def make_child_config(self, run_manager: Any) -> RunnableConfig:
        """Return the configuration of a child run."""
        return patch_config(self.config, callbacks=run_manager.get_child())


def format_output(new: Sequence[BaseMessage], kind: str) -> Any:
    """Return the run's result.

    Args:
        new: The messages that the run added.
        kind: ``"messages"``, ``"message"`` or ``"text"``.
    """
    # The caller has the history, so only what the run added is given.
    if kind == "messages":
        return {"messages": list(new)}
    return new[-1] if kind == "message" else str(new[-1].text)


class OutputFormatter:
    """Choose what a run yields while it is streamed.

    Args:
        kind: ``"messages"``, ``"message"`` or ``"text"``.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def format(self, item: BaseMessage) -> Iterable[Any]:
        """Return what the user gets for a chunk or a whole message."""
        if isinstance(item, AIMessageChunk):
            return [str(item.text)] if self._kind == "text" and item.text else ()
        return [AddableDict(messages=[item])] if self._kind == "messages" else ()

    def finish(self, new: Sequence[BaseMessage]) -> Iterator[Any]:
        """Yield what the user gets at the run's end."""
        if self._kind == "message":
            yield new[-1]


def _advance(steps: Generator[_Ask | _Answer, Any, None], outcome: Any) -> _Ask | _Answer | None:
    """Tell a loop what came of its last step; return the next one, ``None`` at the end."""
    try:
        return steps.send(outcome)
    except StopIteration:
        return None


def _find_failure(error: BaseException) -> BaseException | None:
    """Return what ended a run early if it is a failure.

    A consumer who leaves, and an interrupt or a command of LangGraph, are none.
    """
    if isinstance(error, GeneratorExit):
        return None
    return None if isinstance(error, Exception) and passes_through(error) else error


class LoopRunner:
    """Do what a loop decides. Iterating gives what is streamed meanwhile: chunks, then messages.

    Args:
        loop: The loop.
        run_manager: LangChain's manager of the run, whose children the steps are.

    Attributes:
        formatter: Makes the run's output of what is given.
    """

    formatter: type[OutputFormatter] = OutputFormatter

    def __init__(self, loop: AgentLoop, run_manager: Any) -> None:
        self._loop = loop
        self._settings = loop.settings
        self._config = loop.make_child_config(run_manager)
        self._shown = ServerToolRuns()
        self._tools = {tool.name: tool for tool in self._settings.tools}

    # -- in both colours --------------------------------------------------------------------

    def run(self) -> Iterator[BaseMessage]:
        """Yield chunks and messages until the loop ends, synchronously."""
        steps = self._loop.decide_steps()
        try:
            todo = _advance(steps, None)
            while todo is not None:
                if isinstance(todo, _Ask):
                    result: Any = self._sign((yield from self._ask(todo.messages)))
                    yield result
                else:
                    result = [*self._answer(todo.calls), *todo.refused]
                    announce(self._callbacks, result)
                    yield from result
                # The loop decides only when it knows what came of its last step.
                todo = _advance(steps, result)
            drive(self._shown.close())
        except BaseException as error:
            drive(self._shown.close(_find_failure(error)))
            raise

    async def arun(self) -> AsyncGenerator[BaseMessage, None]:
        """Yield chunks and messages until the loop ends, asynchronously."""
        steps = self._loop.decide_steps()
        try:
            todo = _advance(steps, None)
            while todo is not None:
                result: Any = None
                if isinstance(todo, _Ask):
                    async with aclosing(self._aask(todo.messages)) as answer:
                        async for item in answer:
                            result = self._sign(item)
                            yield result
                else:
                    result = [*await self._aanswer(todo.calls), *todo.refused]
                    announce(self._callbacks, result)
                    for item in result:
                        yield item
                todo = _advance(steps, result)
            await adrive(self._shown.close())
        except BaseException as error:
            await adrive(self._shown.close(_find_failure(error)))
            raise

    # -- the model --------------------------------------------------------------------------

    def _build_kwargs(self) -> dict[str, Any]:
        """Return the arguments for the model; with a callback, it asks about every tool."""
        asks = {} if self._settings.can_use_tool is None else {"letta_asks": True}
        return {**self._loop.kwargs, **asks}

    def _sign(self, item: Any) -> Any:
        """Put the agent's name on a message of its own; leave a chunk or an event as it is."""
        if type(item) is AIMessage:
            item.name = self._settings.speaker
        return item

    def _ask(self, messages: list[BaseMessage]) -> Generator[BaseMessage, None, AIMessage]:
        """Yield the chunks of an answer, and return it whole."""
        model = self._settings.model
        if wants_events(self._config):
            # LangChain gives such a handler the protocol's events from `invoke`, and only chunks
            # from `stream`.
            whole: AIMessage = model.invoke(messages, self._config, **self._build_kwargs())
            drive(self._show(whole.content, whole.response_metadata))
            yield AIMessageChunk(content=whole.content)
            return whole
        chunks: list[AIMessageChunk] = []
        for chunk in model.stream(messages, self._config, **self._build_kwargs()):
            # Most chunks are plain text, of which there is nothing to tell.
            if _tells(chunk):
                drive(self._show(chunk.content, chunk.response_metadata))
            chunks.append(chunk)
            yield chunk
        return _merge_chunks(chunks)

    async def _aask(self, messages: list[BaseMessage]) -> AsyncGenerator[BaseMessage, None]:
        """Yield the chunks of an answer, and at last the answer itself."""
        model = self._settings.model
        if wants_events(self._config):
            whole = await model.ainvoke(messages, self._config, **self._build_kwargs())
            await adrive(self._show(whole.content, whole.response_metadata))
            yield AIMessageChunk(content=whole.content)
            yield whole
            return
        chunks: list[AIMessageChunk] = []
        stream = model.astream(messages, self._config, **self._build_kwargs())
        async with aclosing(stream):  # left early, the agent is stopped at once
            async for chunk in stream:
                if _tells(chunk):
                    await adrive(self._show(chunk.content, chunk.response_metadata))
                chunks.append(chunk)
                yield chunk
        yield _merge_chunks(chunks)

    @property
    def _callbacks(self) -> Any:
        return self._config["callbacks"]  # the child manager of this run, see AgentLoop.child

    def _show(self, content: str | Iterable[Any], metadata: Mapping[str, Any]) -> Effects[None]:
        """Tell callbacks of the agent's own tools, which become child runs, and of the rest.

        Args:
            content: The content of a message or chunk.
            metadata: Its metadata, which holds notes about the run.
        """
        blocks = () if isinstance(content, str) else tuple(content)
        yield from self._shown.show(self._callbacks, blocks)
        notes = ((note["type"], note) for note in metadata.get(NOTES) or ())
        for name, data in (*_list_custom_events(blocks), *notes):
            yield Effect(
                functools.partial(dispatch_custom_event, name, data, config=self._config),
                functools.partial(adispatch_custom_event, name, data, config=self._config),
            )

    # -- tools ------------------------------------------------------------------------------

    def _answer(self, calls: list[ToolCall]) -> list[ToolMessage]:
        """Return the results of these calls, in their order."""
        # All decisions first, one after the other: a person is asked before any tool has run.
        decisions = [drive(self._decide(call)) for call in calls]
        pairs = list(zip(calls, decisions, strict=True))
        # The tools then run side by side, in the executor's threads.
        with get_executor_for_config(self._config) as executor:
            return list(executor.map(lambda pair: drive(self._act(*pair)), pairs))

    async def _aanswer(self, calls: list[ToolCall]) -> list[ToolMessage]:
        """Return the results of these calls, in their order; the tools run side by side."""
        decisions = [await adrive(self._decide(call)) for call in calls]
        acts = (adrive(self._act(call, d)) for call, d in zip(calls, decisions, strict=True))
        return list(await asyncio.gather(*acts))

    def _decide(self, call: ToolCall) -> Effects[Allow | Deny]:
        """Return whether a call may run."""
        ask = self._settings.can_use_tool
        if ask is None:
            return self._decide_unasked(call)
        asked = functools.partial(ask, *self._build_question(call))
        answer = functools.partial(invoke_callable, asked, {}, in_thread_loop=False)
        here = functools.partial(_run_in_thread, answer) if is_async_callable(ask) else asked
        return normalise_decision((yield Effect(here, answer)))

    def _build_question(self, call: ToolCall) -> tuple[str, dict[str, Any], PermissionContext]:
        """Return the arguments for the permission callback."""
        asked = question(call["name"] in self._tools, self._find_question_data(call))
        context = PermissionContext(tool_call_id=str(call["id"]), **asked)
        return call["name"], dict(call["args"]), context

    def _find_question_data(self, call: ToolCall) -> dict[str, Any]:
        """Return the server's data about a call's question, which the answer's metadata holds."""
        answer = self._loop.new[-1] if self._loop.new else None
        told = answer.response_metadata.get(QUESTIONS) if answer is not None else None
        return dict((told or {}).get(str(call["id"])) or {})

    def _decide_unasked(self, call: ToolCall) -> Allow | Deny:
        """Decide without a callback: your own tools run; for the agent's own a person is asked.

        Outside of a LangGraph graph nobody can be asked, so those are denied.
        """
        if call["name"] in self._tools:
            return Allow()
        if not in_graph(self._loop.config):
            return Deny(denials.NOBODY_ASKED)
        # Imported late: LangGraph need not be installed, and inside a graph it certainly is.
        from langgraph.types import interrupt

        question = {
            "type": "letta_approval",
            "tool_call_id": call["id"],
            "tool_name": call["name"],
            "tool_input": call["args"],
            **self._find_question_data(call),
        }
        return normalise_decision(_read_words(interrupt(question)))

    def _act(self, call: ToolCall, decision: Allow | Deny) -> Effects[ToolMessage]:
        """Run a tool of yours, or pass the decision on for one of the agent's own."""
        tool = self._tools.get(call["name"])
        if tool is None or isinstance(decision, Deny):
            return to_decision_message(call, decision)
        edited = _apply_edit(call, decision)
        try:
            output = yield Effect(
                functools.partial(_invoke_tool, tool, edited, self._config),
                functools.partial(tool.ainvoke, edited, self._config),
            )
            return to_result_message(call, output)
        except Exception as error:
            # An interrupt or a command of LangGraph is no failure of the tool.
            if passes_through(error):
                raise
            return to_error_message(call, error)


def _tells(chunk: BaseMessage) -> bool:
    """Return whether there is anything in a chunk but text."""
    return not isinstance(chunk.content, str) or NOTES in chunk.response_metadata


def _run_in_thread(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on an event loop of its own: this thread's may be running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


def _invoke_tool(tool: BaseTool, call: dict[str, Any], config: RunnableConfig) -> Any:
    """Run a tool in this thread of the executor, an asynchronous one on a loop of its own."""
    if isinstance(tool, StructuredTool) and tool.func is None:
        return asyncio.run(tool.ainvoke(call, config))
    return tool.invoke(call, config)


def _apply_edit(call: ToolCall, decision: Allow) -> dict[str, Any]:
    """Return the call with the arguments that the decision puts in place of the model's."""
    args = call["args"] if decision.updated_input is None else dict(decision.updated_input)
    return {"name": call["name"], "args": args, "id": call["id"], "type": "tool_call"}


def _read_words(value: Any) -> Any:
    """Return a decision from the value of ``Command(resume=...)``.

    ``"allow"`` means the same as ``True``; other words are a reason to deny.
    """
    return _WORDS.get(value.strip().lower(), Deny(value)) if isinstance(value, str) else value


def _merge_chunks(chunks: list[AIMessageChunk]) -> AIMessage:
    """Return the sum of the chunks as one message."""
    # All at once, not one by one: every addition parses a tool call's arguments again.
    made = message_chunk_to_message(add_ai_message_chunks(chunks[0], *chunks[1:]))
    assert isinstance(made, AIMessage)
    if isinstance(made.content, list):
        # Blocks were merged by these numbers; they have no use in a whole message.
        made.content = [
            {k: v for k, v in item.items() if k != "index"} if isinstance(item, dict) else item
            for item in made.content
        ]
    return made


def _list_custom_events(content: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and data of a custom event for each block that is no answer."""
    for block in content:
        if not isinstance(block, dict):
            continue
        # A runnable's output has no place for these; handlers of events are who sees them.
        if block.get("type") == "reasoning":
            yield "letta_reasoning", {"reasoning": block.get("reasoning")}
        elif block.get("type") == "non_standard" and isinstance(block.get("value"), dict):
            value = block["value"]
            kind = str(value.get("type") or value.get("message_type") or "event")
            yield (kind if kind.startswith("letta_") else f"letta_{kind}"), value
