"""Internal: decide whether the calls of an agent's answer may run, or let a person decide."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from langchain_core.messages import BaseMessage, ToolCall
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool

from letta_adapters._utils.invoke import UNWIND_SECONDS, invoke_callable, is_async_callable
from letta_adapters.backends.base import Conversation
from letta_adapters.chat.request import AskingAgents
from letta_adapters.errors import PendingApprovalError, TurnDetachedError, UnsupportedOptionError
from letta_adapters.langchain._compat import in_graph
from letta_adapters.langchain.chunks import DECIDED, QUESTIONS
from letta_adapters.langchain.tools import Effect, Effects
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

# Whether a call may run; ``None`` if nobody could be asked.
Decision: TypeAlias = Allow | Deny | None

# The words of a person who resumes an interrupted graph, and the decisions they mean.
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("allow", "approve", "approved", "yes"), True),
    **dict.fromkeys(("deny", "reject", "rejected", "no"), False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """Hold what all runs of an agent have in common.

    Attributes:
        model: The model, with the tools it may call bound to it.
        tools: The tools that run here.
        can_use_tool: Asked before any tool runs; ``None`` if there is nobody to ask.
        patience: The seconds that it has, and the answer that is given then.
        max_rounds: The number of answers the agent may give before the run fails.
        speaker: The ``name`` of the agent's messages, if the application chose one.
        backend: The backend's name.
        calls_wait: A call that nobody answers stays, for whoever answers it later.
        asks: The agents that were found to ask about every tool.
    """

    model: Any
    tools: Sequence[BaseTool]
    can_use_tool: Callable[..., Any] | None
    patience: Patience | None
    max_rounds: int
    speaker: str | None
    backend: str
    calls_wait: bool
    asks: AskingAgents


class Questions:
    """Decide about the calls of one run.

    Args:
        settings: What all runs of the agent have in common.
        new: The messages of the run so far, which grow; the last one is the newest answer.
        config: The configuration of the run.
    """

    def __init__(
        self, settings: LoopSettings, new: Sequence[BaseMessage], config: RunnableConfig
    ) -> None:
        self._settings = settings
        self._new = new
        self._config = config
        self._tools = frozenset(tool.name for tool in settings.tools)
        # The answer whose questions were asked last.
        self._last_asked: BaseMessage | None = None

    def decide(self, call: ToolCall, left: Conversation | None = None) -> Effects[Decision]:
        """Return whether a call may run; ``None`` if nobody could be asked.

        Args:
            call: The call.
            left: The conversation in which an earlier turn has left the call open, if one has.
        """
        ask = self._settings.can_use_tool
        if ask is None:
            return self._decide_unasked(call)
        asked = functools.partial(ask, *self._build_question(call, left))
        patience = self._settings.patience

        async def answer() -> Any:
            return await ask_in_time(invoke_callable(asked, {}, in_thread_loop=False), patience)

        # A plain function that has all the time it wants is asked in the thread of the run.
        off = patience is not None or is_async_callable(ask)
        here = functools.partial(_run_in_thread, answer) if off else asked
        value = yield Effect(here, answer)
        if not isinstance(value, Postpone):
            return value if isinstance(value, Undecided) else normalise_decision(value)
        if left is not None:
            raise PendingApprovalError(
                f"The calls that wait were postponed. It waits for: {call['name']} ({call['id']}).",
                tool_call_ids=(str(call["id"]),),
                accepted=False,
            )
        raise self._postpone(call)

    def _postpone(self, call: ToolCall) -> TurnDetachedError | UnsupportedOptionError:
        """Return the error that ends a run whose calls are to wait, or that says they cannot."""
        if not self._settings.calls_wait:
            return UnsupportedOptionError(
                "Postpone()",
                backend=self._settings.backend,
                supported_by=("rest",),
                reason="a call that waits ends with the connection of its turn.",
            )
        # The answer that made the call has ended, and the server has stored the call with it.
        where = self._new[-1].response_metadata.get("conversation_id")
        return TurnDetachedError(
            f"{call['name']} ({call['id']}) was postponed; it waits in {where}.",
            hint="Answer with pending_approvals() and respond() of a session of the conversation.",
        )

    def _build_question(
        self, call: ToolCall, left: Conversation | None
    ) -> tuple[str, dict[str, Any], PermissionContext]:
        """Return the arguments for the permission callback."""
        # The server's data is about the questions of the newest answer.
        data = self._find_question_data(call) if left is None else {}
        told = self._new[-1].response_metadata if left is None else {}
        context = PermissionContext(
            tool_call_id=str(call["id"]),
            agent_id=told.get("agent_id") if left is None else left.agent_id,
            conversation_id=told.get("conversation_id") if left is None else left.conversation_id,
            recovered=left is not None,
            **question(call["name"] in self._tools, data),
        )
        return call["name"], dict(call["args"]), context

    def _find_question_data(self, call: ToolCall) -> dict[str, Any]:
        """Return the server's data about a call's question, which the answer's metadata holds."""
        answer = self._new[-1] if self._new else None
        told = answer.response_metadata.get(QUESTIONS) if answer is not None else None
        return dict((told or {}).get(str(call["id"])) or {})

    def _decide_unasked(self, call: ToolCall) -> Decision:
        """Decide without a callback: your own tools run; for the agent's own a person is asked.

        Outside of a LangGraph graph nobody can be asked, so those do not run.
        """
        if call["name"] in self._tools:
            return Allow()
        if not in_graph(self._config):
            return None
        question = {
            "type": "letta_approval",
            "tool_call_id": call["id"],
            "tool_name": call["name"],
            "tool_input": call["args"],
            **self._find_question_data(call),
        }
        return self._interrupt(question)

    def _interrupt(self, question: dict[str, Any]) -> Decision:
        """Ask a person through the graph, which ends here and runs its node again with the answer.

        LangGraph gives the answers of all the node's runs out again, in their order, whatever is
        asked: no answer may reach another question than its own.
        """
        # Imported late: LangGraph need not be installed, and inside a graph it certainly is.
        from langgraph.types import interrupt

        answer = self._new[-1]
        about = answer.response_metadata
        if answer is not self._last_asked:
            self._last_asked = answer
            # The answers to questions that were decided in an earlier run of the node.
            for _ in range(about.get(DECIDED, 0)):
                interrupt(question)
        value = interrupt(question)
        if not about.get("replayed"):
            # The agent has asked just now, so this was said about a call that is gone.
            return Undecided(denials.ANSWERED_ANOTHER)
        return normalise_decision(_read_words(value))


def _run_in_thread(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on an event loop of its own: this thread's may be running.

    Whoever interrupts the wait (Ctrl-C) ends the coroutine with it.
    """
    context, ended = contextvars.copy_context(), Future[Any]()
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

    async def run() -> Any:
        begun.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await work()

    def begin() -> None:
        try:
            ended.set_result(context.run(lambda: asyncio.run(run())))
        except BaseException as error:
            ended.set_exception(error)

    # No thread of a pool, whose end Python waits for.
    threading.Thread(target=begin, name="letta-question", daemon=True).start()
    try:
        return ended.result()
    except BaseException:
        if begun and not ended.done():
            loop, task = begun[0]
            with suppress(RuntimeError):  # the loop has just closed: it is over
                loop.call_soon_threadsafe(task.cancel if task is not None else loop.stop)
            wait([ended], UNWIND_SECONDS)
        raise


def _read_words(value: Any) -> Any:
    """Return a decision from the value of ``Command(resume=...)``.

    ``"allow"`` means the same as ``True``; other words are a reason to deny.
    """
    return _WORDS.get(value.strip().lower(), Deny(value)) if isinstance(value, str) else value
