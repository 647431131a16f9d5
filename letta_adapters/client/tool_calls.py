"""Internal: answer pending tool calls: ask the permission callback, run client-side tools."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Mapping, Sequence
from contextvars import Context, ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, TypeVar

from letta_adapters._utils.invoke import invoke_callable, report_raised
from letta_adapters.backends.base import (
    Conversation,
    DeniedRounds,
    ToolCallResponse,
    inside_a_turn,
)
from letta_adapters.client.record import allow_tool, run_tool
from letta_adapters.client.reports import Reports
from letta_adapters.errors import LettaError, TurnCancelledError, UnsupportedOptionError
from letta_adapters.messages import PendingToolCall, ToolCallMessage, ToolResultMessage
from letta_adapters.permissions import (
    Allow,
    Deny,
    PermissionContext,
    Postpone,
    denials,
    normalise_decision,
)
from letta_adapters.permissions.asking import Patience, Undecided, ask_in_time
from letta_adapters.permissions.policy import question
from letta_adapters.tools.client_side import Tool
from letta_adapters.tools.context import ToolContext

_T = TypeVar("_T")
# A call that waits, as the stream showed it or as the conversation has stored it.
Call: TypeAlias = ToolCallMessage | PendingToolCall
# The backends whose server runs its tools with the input that it is told.
_EDITING_BACKENDS = ("local", "remote")


class Asker(Protocol):
    """A turn, or something else that waits for tools and callbacks of its conversation."""

    @property
    def conversation(self) -> Conversation:
        """The conversation."""


# Those whose tools and callbacks the running code is part of.
# Several: a tool may run a turn of another conversation, whose tools may do so, too.
_answering: ContextVar[tuple[Asker, ...]] = ContextVar("letta_answering", default=())


def let_answer(asker: Asker, answering: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """Start tools and callbacks as a task, whose code can tell that ``asker`` waits for it."""
    # Both are set only while the task copies its context: tools see them, the reader's code does
    # not.
    token = _answering.set((*_answering.get(), asker))
    inside = inside_a_turn.set(True)
    task = asyncio.ensure_future(answering)
    inside_a_turn.reset(inside)
    _answering.reset(token)
    return task


def share_answering(context: Context) -> None:
    """Let code that runs in ``context`` tell, too, who waits for it."""
    context.run(_answering.set, _answering.get())
    context.run(inside_a_turn.set, inside_a_turn.get())


def serves(conversation: Conversation) -> bool:
    """Return whether the caller is a tool or a callback of a turn of that conversation."""
    return any(asker.conversation.key == conversation.key for asker in _answering.get())


@dataclass(frozen=True, slots=True)
class _Unreadable(Deny):
    """Nobody was asked, as the arguments cannot be read: there is nothing that could be allowed."""


# No LettaErrors, this and the next: they steer a turn, which no handler of failures may take.
class EndsTurnError(Exception):
    """The turn ends at its pending calls, for the reason that ``error`` tells.

    ``answers`` are the decisions that were taken about some of them before.
    """

    def __init__(self, error: LettaError, answers: Sequence[ToolCallResponse]) -> None:
        super().__init__(error)
        self.error = error
        self.answers = answers


class PostponedError(Exception):
    """The callback leaves the calls to be answered later."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers to all pending calls.

    ``results`` are those that this side can already report. ``allowed`` are the ids of the calls
    that were allowed.
    """

    answers: tuple[ToolCallResponse, ...] = ()
    results: tuple[ToolResultMessage, ...] = ()
    allowed: frozenset[str] = frozenset()

    def __add__(self, other: Answered) -> Answered:
        return Answered(
            self.answers + other.answers,
            self.results + other.results,
            self.allowed | other.allowed,
        )


@dataclass(frozen=True, slots=True)
class ToolCallHandler:
    """The way one session answers tool calls.

    ``off_loop``: run asynchronous callbacks on a loop of their own in a worker thread (the sync
    client's loop thread must never run user code). ``rounds`` counts the denied steps of this turn
    and ends it when there are too many. ``keeps_calls``: the conversation keeps its calls, so the
    callback may postpone them. ``patience``: the seconds that the callback has, and the answer that
    is given then. ``reports`` is what the tools of this turn report while they run.
    """

    tools: Mapping[str, Tool]
    can_use_tool: Any
    backend: str
    conversation: Conversation
    off_loop: bool
    rounds: DeniedRounds
    keeps_calls: bool = False
    patience: Patience | None = None
    reports: Reports = field(default_factory=Reports)

    async def answer(
        self,
        calls: Sequence[Call],
        details: Mapping[str, Mapping[str, Any]],
        *,
        recovered: bool = False,
    ) -> Answered:
        """Return answers to all pending calls.

        The callback is asked one call at a time (a person may be behind it); then all allowed
        tools run at once.

        Args:
            calls: The calls that wait.
            details: The server's own details of its questions, by tool call id.
            recovered: True if an earlier turn has left them open.

        Raises:
            EndsTurnError: The callback denied with ``interrupt=True``, too many steps in a row were
                denied, or the callback wants what the backend cannot do.
            PostponedError: The callback leaves them for later.
        """
        decisions: list[Allow | Deny] = []
        for call in calls:
            # One after the other: a person may be asked, and sees one question at a time.
            if call.problem:
                decisions.append(_Unreadable(call.problem))
                continue
            try:
                decided = await self._decide(
                    call, details.get(call.tool_call_id) or {}, recovered=recovered
                )
                decisions.append(self.check_decision(call, decided))
            # The denials before it go along: a server that keeps its calls is still told of them.
            except LettaError as error:
                raise EndsTurnError(error, self._collect_denials(calls, decisions)) from error
        return await self.carry_out(calls, decisions)

    async def carry_out(self, calls: Sequence[Call], decisions: Sequence[Allow | Deny]) -> Answered:
        """Run the client-side tools that were allowed, and return the answers to all calls.

        Args:
            calls: The calls that wait.
            decisions: A decision for each of them.

        Raises:
            EndsTurnError: A denial interrupts the turn, or too many steps in a row were denied.
        """
        # Before anything runs: an interrupted turn must not have done half of its calls.
        for decision in decisions:
            if isinstance(decision, Deny) and decision.interrupt:
                error = TurnCancelledError(decision.message or denials.INTERRUPTED)
                raise EndsTurnError(error, self._collect_denials(calls, decisions))
        denied = all(isinstance(decision, Deny) for decision in decisions)
        try:
            self.rounds.see(calls[0].run_id, denied=denied)
        except LettaError as error:
            raise EndsTurnError(error, self._collect_denials(calls, decisions)) from error
        # Tools take seconds and do not depend on each other.
        answers = await asyncio.gather(
            *(self._act(call, d) for call, d in zip(calls, decisions, strict=True))
        )
        results = tuple(
            _make_result(call, answer)
            for call, answer in zip(calls, answers, strict=True)
            if not answer.approve
        )
        pairs = zip(calls, decisions, strict=True)
        allowed = frozenset(c.tool_call_id for c, d in pairs if isinstance(d, Allow))
        return Answered(tuple(answers), results, allowed)

    def leave_unanswered(self, calls: Sequence[Call], why: str) -> Answered:
        """Return answers that say that nobody decides about these calls."""
        answers = tuple(ToolCallResponse.make_unanswered(call, why) for call in calls)
        pairs = zip(calls, answers, strict=True)
        return Answered(answers, tuple(_make_result(call, answer) for call, answer in pairs))

    def _collect_denials(
        self, calls: Sequence[Call], decisions: Sequence[Allow | Deny]
    ) -> tuple[ToolCallResponse, ...]:
        """Return the answers to the calls that were denied; others may not have been asked about.

        Args:
            calls: The calls that wait.
            decisions: The decisions about the first of them.
        """
        pairs = zip(calls, decisions, strict=False)
        return tuple(
            self._make_denial(call, made) for call, made in pairs if isinstance(made, Deny)
        )

    async def _decide(
        self, call: Call, details: Mapping[str, Any], *, recovered: bool
    ) -> Allow | Deny:
        tool = self.tools.get(call.tool_name)
        context = PermissionContext(
            tool_call_id=call.tool_call_id,
            agent_id=self.conversation.agent_id,
            conversation_id=self.conversation.conversation_id,
            recovered=recovered,
            **question(tool is not None, details),
        )
        if self.can_use_tool is None:
            default = context.default
            return Undecided(default.message) if isinstance(default, Deny) else default
        # A copy, so that what the callback adds or removes leaves the call as the stream shows it.
        ask = functools.partial(self.can_use_tool, call.tool_name, dict(call.tool_input), context)
        try:
            value = await ask_in_time(
                invoke_callable(ask, {}, in_thread_loop=self.off_loop), self.patience
            )
            if isinstance(value, Undecided):
                return value
            if not isinstance(value, Postpone):
                return normalise_decision(value)
        except Exception as error:
            # Any fault of the callback's code denies the call; raising would leave the call
            # waiting.
            shown = report_raised(f"can_use_tool, asked about {call.tool_name!r},", error)
            return Undecided(denials.explain_failed_callback(error), traceback=shown)
        # Outside of the `try`, which would take this for a fault of the callback and deny the call.
        if self.keeps_calls:
            raise PostponedError
        raise UnsupportedOptionError(
            "Postpone()",
            backend=self.backend,
            supported_by=("rest",),
            reason="a call that waits ends with the connection of its turn.",
        )

    def check_decision(self, call: Call, decision: Allow | Deny) -> Allow | Deny:
        """Return the decision, if the backend can carry it out.

        Raises:
            UnsupportedOptionError: It edits the input of a tool that the server runs.
        """
        # The Letta API runs a server tool with the model's own input, whatever it is told.
        edited = isinstance(decision, Allow) and _is_edited(call, decision)
        ours = call.tool_name in self.tools
        if edited and not ours and self.backend not in _EDITING_BACKENDS:
            raise UnsupportedOptionError(
                "updated_input",
                backend=self.backend,
                supported_by=_EDITING_BACKENDS,
                reason=f"the server runs {call.tool_name!r} with the input the model gave. "
                "Allow or deny it as it is.",
            )
        return decision

    def _make_denial(self, call: Call, decision: Deny) -> ToolCallResponse:
        """Return the answer to a call that is not allowed."""
        reason = decision.message or denials.BY_CALLBACK
        denied = ToolCallResponse(call.tool_call_id, call.tool_name, reason=reason)
        if not isinstance(decision, Undecided):
            return denied
        # Where conversations keep their calls, they take a result in place of a decision.
        told = ToolCallResponse.make_failed(call, reason) if self.keeps_calls else denied
        return replace(told, traceback=decision.traceback)

    async def _act(self, call: Call, decision: Allow | Deny) -> ToolCallResponse:
        answer = ToolCallResponse(call.tool_call_id, call.tool_name)
        tool = self.tools.get(call.tool_name)
        # What was decided stands: only the model's own input is no use. A tool of ours can tell the
        # model so itself; no denial is needed.
        unusable = isinstance(decision, _Unreadable) or (
            isinstance(decision, Allow) and not _is_edited(call, decision)
        )
        if call.problem and tool is not None and unusable:
            return _replace(answer, returned=call.problem, is_error=True)
        if isinstance(decision, Deny):
            return self._make_denial(call, decision)
        if tool is None:
            allow_tool(call)
            edited = decision.updated_input
            return _replace(
                answer,
                approve=True,
                reason=decision.message,
                updated_input=edited,
                suggestion_ids=decision.save,
            )
        edited = decision.updated_input
        # The model's own text goes to the tool unparsed, so that the tool's schema reads it once.
        arguments = call.raw_arguments if edited is None else edited
        context = ToolContext(
            call.tool_call_id,
            call.tool_name,
            self.conversation.agent_id,
            self.conversation.conversation_id,
            self.reports.add,
        )
        with run_tool(call) as note:
            outcome = await tool.run(arguments, in_thread_loop=self.off_loop, context=context)
            note("tool_error" if outcome.is_error else None, str(outcome.content))
        return _replace(
            answer,
            returned=outcome.content,
            is_error=outcome.is_error,
            traceback=outcome.traceback,
        )


def _is_edited(call: Call, decision: Allow) -> bool:
    """Return whether the tool is to run with another input than the one that was shown.

    Of arguments that cannot be read ``{}`` is shown: handed back, it must not run the tool with the
    defaults of all that is missing.
    """
    return decision.updated_input not in (None, call.tool_input)


def _replace(answer: ToolCallResponse, **changes: Any) -> ToolCallResponse:
    fields = {"tool_call_id": answer.tool_call_id, "tool_name": answer.tool_name}
    return ToolCallResponse(**(fields | changes))


def _make_result(call: Call, answer: ToolCallResponse) -> ToolResultMessage:
    """Return the result as the model will see it, which only some servers repeat.

    The text of a denial is the server's own.
    """
    if answer.returned is None:
        text = denials.show_as_result(answer.reason)
    elif isinstance(answer.returned, str):
        text = answer.returned
    else:
        text = "".join(str(part.get("text") or "") for part in answer.returned)
    denied = answer.returned is None
    return ToolResultMessage(
        call.tool_call_id,
        text,
        denied or answer.is_error,
        call.tool_name,
        run_id=call.run_id,
        traceback=answer.traceback,
    )
