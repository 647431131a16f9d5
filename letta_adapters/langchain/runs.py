"""Internal: know which of LangChain's runs are under way, and what each is nested in."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.context import register_configure_hook

from letta_adapters._utils.bounded import Bounded
from letta_adapters.chat.cache import running_tools
from letta_adapters.langchain._compat import NAMESPACE, suppress_langchain_beta_warning

_RUNS: Final = 16384

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """Describe a run inside a graph or a tool.

    Attributes:
        task: The task of a graph that it belongs to.
        attempt: The outermost run of that task.
        tools: The runs of tools that it is nested in.
        direct: The innermost of them is part of the task, and not around the graph.
        calls: The tool calls that these tools answer.
    """

    task: str = ""
    attempt: UUID | None = None
    tools: tuple[UUID, ...] = ()
    direct: bool = False
    calls: frozenset[str] = frozenset()


class Runs(BaseCallbackHandler):
    """Know the runs that are under way. Its size is bounded, and it changes none of them."""

    # Run in the thread of the run itself: the model's call that follows has to find its parent
    # here.
    run_inline = True
    ignore_llm = ignore_chat_model = ignore_retriever = ignore_retry = ignore_custom_event = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[UUID, Run] = {}

    def find(self, run_id: UUID | None) -> Run:
        """Return what is known of a run; an empty record for an unknown one."""
        with self._lock:
            return self._runs.get(run_id, Run()) if run_id is not None else Run()

    def _put(self, run_id: UUID, run: Run) -> None:
        with self._lock:
            self._runs[run_id] = run
            # A run whose end is never reported would stay for ever; the oldest go first.
            while len(self._runs) > _RUNS:
                del self._runs[next(iter(self._runs))]

    def _drop(self, run_id: UUID) -> None:
        with self._lock:
            self._runs.pop(run_id, None)

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note a run that is inside a graph or a tool."""
        task = str((metadata or {}).get(NAMESPACE) or "")
        around = self.find(parent_run_id)
        # The namespace changes with the first run of a task: that run is the attempt.
        if task and task != around.task:
            self._put(run_id, Run(task, run_id, around.tools, calls=around.calls))
        elif task or around.tools:
            self._put(run_id, around)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a run that is over."""
        self._drop(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a run that failed."""
        self._drop(run_id)

    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Note a tool that runs, and the call that it answers."""
        around = self.find(parent_run_id)
        call = str(kwargs.get("tool_call_id") or "")
        calls = around.calls | {call} if call else around.calls
        tools = (*around.tools, run_id)
        self._put(run_id, Run(around.task, around.attempt, tools, direct=True, calls=calls))
        if call:
            running_tools.begin(run_id, call)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a tool's run that is over."""
        running_tools.end(run_id)
        self._drop(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a tool's run that failed."""
        running_tools.end(run_id)
        self._drop(run_id)


class Repetitions:
    """Number the equal calls of one attempt at a task, so that each is a call of its own.

    A call that failed gives its number back: made again, it is the same call. Threads share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Bounded[tuple[Hashable, ...], frozenset[int]] = Bounded()

    def take(self, call: tuple[Hashable, ...]) -> int:
        """Return the lowest number that no equal call has.

        Args:
            call: The attempt, and what makes two of its calls equal.
        """
        with self._lock:
            taken = self._taken.get(call, frozenset())
            number = next(n for n in range(len(taken) + 1) if n not in taken)
            self._taken[call] = taken | {number}
            return number

    def give_back(self, call: tuple[Hashable, ...], number: int) -> None:
        """Forget a call that came to no answer.

        Args:
            call: The call, as :meth:`take` was given it.
            number: Its number.
        """
        with self._lock:
            self._taken[call] = self._taken.get(call, frozenset()) - {number}

    def __reduce__(self) -> tuple[type[Repetitions], tuple[()]]:
        # A copy of the runnable, perhaps in another process, counts for itself.
        return Repetitions, ()


# LangChain adds the handler of this hook to every run, also where an application names none.
runs: Final = Runs()
_watcher: Final[ContextVar[Runs | None]] = ContextVar("letta_runs", default=runs)
register_configure_hook(_watcher, inheritable=True)


def watch_again() -> None:
    """Let the runs that a model's own run begins be watched: the tools that it executes."""
    _watcher.set(runs)


@contextmanager
def unwatched() -> Iterator[None]:
    """Begin the run of a model in here without the handler.

    The handler takes no interest in such a run, but LangChain asks each handler at each event: in
    asynchronous code that is a coroutine and a future for every token.
    """
    _watcher.set(None)
    try:
        yield
    finally:
        watch_again()


def drop_watcher(config: RunnableConfig | None, whole: RunnableConfig) -> RunnableConfig | None:
    """Return the configuration for the run of a model: with what it inherits but the handler.

    Args:
        config: The configuration of the call.
        whole: The same together with what comes from where the call is made.
    """
    manager = whole.get("callbacks")
    if not isinstance(manager, BaseCallbackManager) or runs not in manager.handlers:
        return config
    manager = manager.copy()
    manager.remove_handler(runs)
    return {**(config or {}), "callbacks": manager}


def stream_unwatched(stream: Iterator[T]) -> Iterator[T]:
    """Yield what a model streams, whose run begins with the first part."""
    # Tracers may have put an iterator of their own in the place of LangChain's generator.
    close: Callable[[], object] = getattr(stream, "close", lambda: None)
    try:
        with unwatched():
            first = next(stream, None)
        if first is not None:
            yield first
            yield from stream
    finally:
        close()


async def astream_unwatched(stream: AsyncIterator[T]) -> AsyncIterator[T]:
    """Yield the same asynchronously."""
    close: Callable[[], Awaitable[object]] | None = getattr(stream, "aclose", None)
    try:
        with unwatched():
            first = await anext(stream, None)
        if first is not None:
            yield first
            async for part in stream:
                yield part
    finally:
        if close is not None:
            await close()


async def begin_unwatched(beginning: Awaitable[T]) -> T:
    """Return what begins the run of a model."""
    # LangChain warns those who call its unfinished parts from outside of it, as this does for all.
    with unwatched(), suppress_langchain_beta_warning():
        return await beginning
