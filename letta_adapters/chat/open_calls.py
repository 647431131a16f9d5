"""Internal: let the application decide about calls that an earlier turn has left open.

Such a call stands in the way of a message. A session puts it to ``can_use_tool`` again
(:meth:`~letta_adapters.AsyncSession.run_turn`), and so does an adapter whose application can be
asked: the answers go out together with the message. Any other call is ended without a decision.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from letta_adapters._utils.invoke import invoke_callable
from letta_adapters._utils.tasks import run_within, running_loop
from letta_adapters.backends.base import Conversation
from letta_adapters.chat.context import ChatContext
from letta_adapters.chat.endings import find_ending
from letta_adapters.chat.payload import answer_ended, write_arguments
from letta_adapters.chat.request import HistoryMessage, OpenAnswer, clean_result
from letta_adapters.client.approvals import Asking, list_agent_tools, tell_recovery
from letta_adapters.client.tool_calls import let_answer, share_answering
from letta_adapters.errors import TimeoutBeforeAcceptanceError
from letta_adapters.messages import PendingToolCall, RecoveredCall
from letta_adapters.permissions import denials

if TYPE_CHECKING:
    from letta_adapters.backends.base import Backend


@dataclass(frozen=True, slots=True)
class DecidedCalls:
    """Hold what is to be said about the calls that were left open.

    Attributes:
        entries: The answers of those that somebody was asked about, and of those whose tool is
            gone, as ``tool`` entries of a history.
        recovered: All of them, with their fate.
    """

    entries: tuple[HistoryMessage, ...] = ()
    recovered: tuple[RecoveredCall, ...] = ()


async def decide_open_calls(
    backend: Backend,
    context: ChatContext,
    waiting: Sequence[PendingToolCall],
    timeout: float | None,
) -> DecidedCalls:
    """Put the calls that wait, and that the history does not answer, to the application.

    Args:
        backend: The backend.
        context: The call that meets them.
        waiting: All calls that wait in its conversation, which is held.
        timeout: Seconds that the application has.

    Raises:
        TimeoutBeforeAcceptanceError: It took longer.
        TurnCancelledError: An answer ends the turn that the calls are of.
        Exception: Whatever the application raises, as it is: then nothing is sent.
    """
    # A connection that is gone has taken its calls with it; only a conversation keeps them.
    if not context.backend.capabilities.durable_pending_calls:
        return DecidedCalls()
    told = context.route.result_ids
    calls = [c for c in write_arguments(context, waiting) if c.tool_call_id not in told]
    tell_recovery(context.conversation, calls)
    decide = context.request.on_open
    answers: Mapping[str, OpenAnswer] = {}
    gone: list[HistoryMessage] = []
    if decide is not None and calls:
        here = await _list_tools_here(backend, context, calls)
        gone = [_tell_gone(call) for call in calls if call.tool_name not in here]
        ask = [call for call in calls if call.tool_name in here and not call.problem]
        if ask:
            answers = await _ask_within(timeout, context.conversation, decide(context, ask))
            await _end_if_told(backend, context, waiting, [a.entry for a in answers.values()])
    return DecidedCalls(
        (*(answer.entry for answer in answers.values()), *gone),
        tuple(_note_fate(call, answers.get(call.tool_call_id)) for call in calls),
    )


async def _end_if_told(
    backend: Backend,
    context: ChatContext,
    waiting: Sequence[PendingToolCall],
    entries: Sequence[HistoryMessage],
) -> None:
    """End all calls that wait if one of the answers ends the turn they are of.

    Raises:
        TurnCancelledError: One does; nothing else is sent.
    """
    ending = find_ending(entries)
    if ending is None:
        return
    answers = answer_ended(context, waiting, entries)
    await backend.clear(context.conversation, waiting, denials.TURN_ENDED, answers)
    ending.accepted = False
    raise ending


async def _ask_within(
    timeout: float | None, place: Conversation, asking: Any
) -> Mapping[str, OpenAnswer]:
    """Return the answers, with results that can be sent whatever they hold."""
    work = let_answer(Asking(place), asking)
    try:
        given: Mapping[str, OpenAnswer] = await (
            work if timeout is None else run_within(timeout, work)
        )
    except asyncio.TimeoutError as error:
        # One that the application itself raises (of a service that it asks) is no limit of ours.
        if timeout is None or not work.cancelled():
            raise
        raise TimeoutBeforeAcceptanceError(
            f"The calls that wait were not answered within {timeout:g} seconds.", accepted=False
        ) from error
    return {id_: replace(made, entry=clean_result(made.entry)) for id_, made in given.items()}


async def _list_tools_here(
    backend: Backend, context: ChatContext, calls: Sequence[PendingToolCall]
) -> frozenset[str]:
    """Return the names of the tools that can be run: the caller's, and the agent's if need be."""
    own = context.own_tools
    if all(call.tool_name in own for call in calls):
        return own
    return own | await list_agent_tools(backend, context.agent_id)


def _tell_gone(call: PendingToolCall) -> HistoryMessage:
    text = denials.explain_unanswered(denials.NOT_HERE)
    return HistoryMessage("tool", text, tool_call_id=call.tool_call_id, fact=True)


def _note_fate(call: PendingToolCall, answer: OpenAnswer | None) -> RecoveredCall:
    return RecoveredCall(call, answer is not None, answer is not None and answer.allowed)


class OpenCallDecider:
    """Decide about open calls in the code that makes the call, whatever loop the client is on.

    Args:
        work: Called with the conversation and the calls; returns an answer to each by its id. It is
            run with the context variables of whoever makes this object.
        loop: The event loop that ``work``, a coroutine function, runs on; ``None``: it is a plain
            function, and runs in a thread.
    """

    def __init__(
        self, work: Callable[..., Any], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self._work = work
        self._loop = loop
        self._context = contextvars.copy_context()

    @classmethod
    def here(cls, work: Callable[..., Awaitable[Any]]) -> OpenCallDecider:
        """Return one that runs a coroutine function on the running loop."""
        return cls(work, running_loop())

    async def __call__(
        self, context: ChatContext, calls: Sequence[PendingToolCall]
    ) -> Mapping[str, OpenAnswer]:
        """Return the answers to these calls."""
        # A copy: it is entered here while the caller's own code may be running in the original.
        variables = self._context.copy()
        share_answering(variables)
        given = (context.conversation, calls)
        if self._loop is None:
            run = partial(variables.run, self._work, *given)
            decided = await invoke_callable(run, {}, in_thread_loop=False)
        elif self._loop is running_loop():
            decided = await variables.run(asyncio.ensure_future, self._work(*given))
        else:
            made = variables.run(asyncio.run_coroutine_threadsafe, self._work(*given), self._loop)
            decided = await asyncio.wrap_future(made)
        answers: Mapping[str, OpenAnswer] = decided
        return answers

    def __repr__(self) -> str:
        # Frameworks write the arguments of a call into traces, and make keys of caches of them.
        return "OpenCallDecider()"
