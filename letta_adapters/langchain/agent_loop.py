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
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

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

from letta_adapters._utils.tasks import await_all
from letta_adapters.backends.base import Conversation
from letta_adapters.chat.endings import find_ending
from letta_adapters.chat.open_calls import OpenCallDecider
from letta_adapters.chat.request import OpenAnswer
from letta_adapters.errors import TurnFailedError
from letta_adapters.langchain._compat import find_writer, passes_through, wants_events
from letta_adapters.langchain.chunks import NOTES
from letta_adapters.langchain.messages import to_entries
from letta_adapters.langchain.questions import Decision, LoopSettings, Questions
from letta_adapters.langchain.tools import (
    Effect,
    Effects,
    RunningCall,
    ServerToolRuns,
    adrive,
    announce,
    build_refusals,
    drive,
    running_call,
    to_cancelled_message,
    to_decision_message,
    to_error_message,
    to_result_message,
    to_undecided_message,
)
from letta_adapters.messages import PendingToolCall
from letta_adapters.permissions import Allow, Deny, denials
from letta_adapters.permissions.asking import Undecided

_Decided: TypeAlias = tuple[ToolCall, Decision]


@dataclass(frozen=True, slots=True)
class _Ask:
    """Ask the model for the answer to these messages."""

    messages: list[BaseMessage]


@dataclass(frozen=True, slots=True)
class _Answer:
    """Answer these calls; ``refused`` are the answers to those that cannot be run."""

    calls: list[ToolCall]
    refused: list[ToolMessage]


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
            if find_ending(to_entries(results)) is not None:
                yield _Ask([*self._given, *self.new])  # raises, also after the last round
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
        self._questions = Questions(loop.settings, loop.new, loop.config)
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

    def _build_kwargs(self, decider: OpenCallDecider) -> dict[str, Any]:
        """Return the arguments for the model; with a callback, it asks about every tool.

        Args:
            decider: Puts calls that an earlier turn has left open to the callback.
        """
        if self._settings.can_use_tool is None:
            # An interrupt of a graph is no way to ask about those: when the node runs again, the
            # answer to it would be taken for that of the turn's own first question.
            return {**self._loop.kwargs, "letta_shows_tools": True}
        asks = {"letta_asks": self._settings.asks, "letta_open": decider, "letta_shows_tools": True}
        return {**self._loop.kwargs, **asks}

    def _sign(self, item: Any) -> Any:
        """Put the agent's name on a message of its own; leave a chunk or an event as it is."""
        if type(item) is AIMessage:
            item.name = self._settings.speaker
        return item

    def _ask(self, messages: list[BaseMessage]) -> Generator[BaseMessage, None, AIMessage]:
        """Yield the chunks of an answer, and return it whole."""
        model = self._settings.model
        given = self._build_kwargs(OpenCallDecider(self._decide_open))
        if wants_events(self._config):
            # LangChain gives such a handler the protocol's events from `invoke`, and only chunks
            # from `stream`.
            whole: AIMessage = model.invoke(messages, self._config, **given)
            drive(self._show(whole.content, whole.response_metadata))
            yield AIMessageChunk(content=whole.content)
            return whole
        chunks: list[AIMessageChunk] = []
        for chunk in model.stream(messages, self._config, **given):
            # Most chunks are plain text, of which there is nothing to tell.
            if _tells(chunk):
                drive(self._show(chunk.content, chunk.response_metadata))
            chunks.append(chunk)
            yield chunk
        return _merge_chunks(chunks)

    async def _aask(self, messages: list[BaseMessage]) -> AsyncGenerator[BaseMessage, None]:
        """Yield the chunks of an answer, and at last the answer itself."""
        model = self._settings.model
        given = self._build_kwargs(OpenCallDecider.here(self._adecide_open))
        if wants_events(self._config):
            whole = await model.ainvoke(messages, self._config, **given)
            await adrive(self._show(whole.content, whole.response_metadata))
            yield AIMessageChunk(content=whole.content)
            yield whole
            return
        chunks: list[AIMessageChunk] = []
        stream = model.astream(messages, self._config, **given)
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
        return self._act_all([(call, drive(self._questions.decide(call))) for call in calls])

    async def _aanswer(self, calls: list[ToolCall]) -> list[ToolMessage]:
        """Return the results of these calls, in their order."""
        return await self._aact_all(
            [(call, await adrive(self._questions.decide(call))) for call in calls]
        )

    def _act_all(
        self, decided: Sequence[_Decided], left: Conversation | None = None
    ) -> list[ToolMessage]:
        """Carry decisions out: the tools run side by side, in the executor's threads."""
        decided = _end_others(decided)
        with get_executor_for_config(self._config) as executor:
            return list(
                executor.map(lambda pair: drive(self._act(pair[0], pair[1], left)), decided)
            )

    async def _aact_all(
        self, decided: Sequence[_Decided], left: Conversation | None = None
    ) -> list[ToolMessage]:
        """Carry decisions out: the tools run side by side, and none of them when this is over."""
        decided = _end_others(decided)
        running = [asyncio.ensure_future(adrive(self._act(*pair, left))) for pair in decided]
        try:
            if running:
                await asyncio.wait(running)
        finally:
            # Only a run that is cancelled still has some to end here.
            for task in running:
                task.cancel()
            await await_all(running)
        # Nobody has cancelled these tasks: one that is cancelled all the same did that itself.
        failures = [None if task.cancelled() else task.exception() for task in running]
        for failure in filter(None, failures):
            raise failure
        return [
            to_cancelled_message(call) if task.cancelled() else task.result()
            for task, (call, _) in zip(running, decided, strict=True)
        ]

    def _decide_open(
        self, place: Conversation, calls: Sequence[PendingToolCall]
    ) -> dict[str, OpenAnswer]:
        """Answer calls that an earlier turn has left open in a conversation, by their ids."""
        asked = [_to_tool_call(call) for call in calls]
        decided = [(call, drive(self._questions.decide(call, place))) for call in asked]
        return _to_open_answers(decided, self._act_all(decided, place))

    async def _adecide_open(
        self, place: Conversation, calls: Sequence[PendingToolCall]
    ) -> dict[str, OpenAnswer]:
        """Answer such calls asynchronously."""
        asked = [_to_tool_call(call) for call in calls]
        decided = [(call, await adrive(self._questions.decide(call, place))) for call in asked]
        return _to_open_answers(decided, await self._aact_all(decided, place))

    def _act(
        self, call: ToolCall, decision: Decision, left: Conversation | None
    ) -> Effects[ToolMessage]:
        """Run a tool of yours, or pass the decision on for one of the agent's own.

        Args:
            call: The call.
            decision: What was decided about it.
            left: The conversation in which an earlier turn has left the call open, if one has.
        """
        if decision is None or isinstance(decision, Undecided):
            return to_undecided_message(call, decision)
        tool = self._tools.get(call["name"])
        if tool is None or isinstance(decision, Deny):
            return to_decision_message(call, decision)
        known = self._describe_call(call, left)
        about = (tool, _apply_edit(call, decision), self._config, known)
        try:
            output = yield Effect(
                functools.partial(_invoke_tool, *about), functools.partial(_ainvoke_tool, *about)
            )
            result = to_result_message(call, output)
            to_entries([result])  # what cannot be sent is the tool's failure, not the run's
            return result
        except Exception as error:
            # An interrupt or a command of LangGraph is no failure of the tool.
            if passes_through(error):
                raise
            return to_error_message(call, error)

    def _describe_call(self, call: ToolCall, left: Conversation | None) -> RunningCall:
        """Return what a tool may know of the call that it carries out."""
        told = self._loop.new[-1].response_metadata if left is None else {}
        return RunningCall(
            id=str(call["id"]),
            agent_id=told.get("agent_id") if left is None else left.agent_id,
            conversation_id=told.get("conversation_id") if left is None else left.conversation_id,
            write=find_writer(self._config),
        )


def _end_others(decided: Sequence[_Decided]) -> Sequence[_Decided]:
    """Return the decisions; if one of them ends the turn, none of the calls runs."""
    if not any(isinstance(made, Deny) and made.interrupt for _, made in decided):
        return decided
    why = Undecided(denials.explain_unanswered(denials.TURN_ENDED))
    return [(call, why if isinstance(made, Allow) else made) for call, made in decided]


def _tells(chunk: BaseMessage) -> bool:
    """Return whether there is anything in a chunk but text."""
    return not isinstance(chunk.content, str) or NOTES in chunk.response_metadata


def _to_tool_call(call: PendingToolCall) -> ToolCall:
    """Return a call as it is stored on a server in LangChain's form."""
    args = dict(call.tool_input)
    return ToolCall(name=call.tool_name, args=args, id=call.tool_call_id, type="tool_call")


def _to_open_answers(
    decided: Sequence[_Decided], results: Sequence[ToolMessage]
) -> dict[str, OpenAnswer]:
    return {
        str(call["id"]): OpenAnswer(entry, isinstance(decision, Allow))
        for (call, decision), entry in zip(decided, to_entries(results), strict=True)
    }


def _invoke_tool(
    tool: BaseTool, call: dict[str, Any], config: RunnableConfig, known: RunningCall
) -> Any:
    """Run a tool in this thread of the executor, an asynchronous one on a loop of its own."""
    # The executor gives each of its tasks a context of its own, so nothing has to be put back.
    running_call.set(known)
    try:
        if isinstance(tool, StructuredTool) and tool.func is None:
            return asyncio.run(tool.ainvoke(call, config))
        return tool.invoke(call, config)
    except asyncio.CancelledError:
        # Nobody cancels a thread: the tool has done it itself.
        return to_cancelled_message(call)


async def _ainvoke_tool(
    tool: BaseTool, call: dict[str, Any], config: RunnableConfig, known: RunningCall
) -> Any:
    """Run a tool in this task, which has a context of its own as well."""
    running_call.set(known)
    return await tool.ainvoke(call, config)


def _apply_edit(call: ToolCall, decision: Allow) -> dict[str, Any]:
    """Return the call with the arguments that the decision puts in place of the model's."""
    args = call["args"] if decision.updated_input is None else dict(decision.updated_input)
    return {"name": call["name"], "args": args, "id": call["id"], "type": "tool_call"}


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
