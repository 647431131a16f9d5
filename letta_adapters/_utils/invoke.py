"""Internal: run the user's code (tools, permission callbacks) without ever blocking the event loop.

What it raises is shown to the developer: the model reads one sentence of it, and the line that
failed is for whoever wrote the code.

A worker here is a thread of its own, not one of ``asyncio.to_thread``'s pool: that pool has a few
workers per process, so tools which themselves talk to agents with tools would wait for each other
for ever, and one stuck function would keep ``asyncio.run()`` from returning. A daemon thread costs
less than 0.1 ms, nothing next to a model call.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

#: Seconds a cancelled or timed-out coroutine gets to run its ``finally`` blocks.
UNWIND_SECONDS = 1.0
# The characters of a traceback that are kept: the end, which names the line.
_MAX_CHARS = 20_000

_log = logging.getLogger("letta_adapters.tools")


def is_async_callable(fn: Callable[..., Any]) -> bool:
    """Return whether calling ``fn`` gives a coroutine; ``partial`` objects are looked into."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


async def invoke_callable(
    fn: Callable[..., Any], kwargs: Mapping[str, Any], *, in_thread_loop: bool
) -> Any:
    """Call ``fn(**kwargs)`` and return its value; its exceptions pass through.

    Plain functions run in a worker thread, coroutine functions on the running loop, or, with
    ``in_thread_loop``, on an event loop of their own in a worker thread. A value that is awaitable
    is awaited. Both see the caller's context variables. Cancelling the caller cancels a coroutine
    wherever it runs; a plain function cannot be stopped: it runs on and its value is dropped.
    ``sys.exit()`` in it is a ``RuntimeError`` here, because it must not end the event loop.

    Args:
        fn: The function.
        kwargs: Its arguments.
        in_thread_loop: Keep coroutines off the running loop too.
    """
    if in_thread_loop:
        return await _in_own_loop(fn, kwargs)
    try:
        # Calling a coroutine function only makes the coroutine; a plain function may block for
        # long.
        value = fn(**kwargs) if is_async_callable(fn) else await _in_thread(lambda: fn(**kwargs))
        return await value if inspect.isawaitable(value) else value
    except SystemExit as exc:
        raise _untransportable(exc) from exc


def _untransportable(exc: BaseException) -> RuntimeError:
    """Return an error in place of an exception that must not reach the event loop.

    SystemExit and KeyboardInterrupt (which in a worker thread is no Ctrl-C) would end it, and
    StopIteration cannot be set on a future.
    """
    return RuntimeError(f"the function raised {exc!r}")


def _in_thread(call: Callable[[], Any]) -> asyncio.Future[Any]:
    """Start ``call`` in a daemon thread with a copy of this context; return a future of its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    # A future that nobody waits for any more must not log "exception was never retrieved".
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    # Tracing and request ids of the caller go along into the thread.
    context = contextvars.copy_context()

    def finish(value: Any, error: BaseException | None) -> None:
        if future.done():
            # Nobody waits for a coroutine that comes too late; Python would warn of it.
            if inspect.iscoroutine(value):
                value.close()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    def work() -> None:
        value: Any = None
        error: BaseException | None = None
        try:
            value = context.run(call)
        except (StopIteration, SystemExit, KeyboardInterrupt) as exc:
            error = _untransportable(exc)
            error.__cause__ = exc
        except BaseException as exc:
            error = exc
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, value, error)

    threading.Thread(target=work, name="letta-tool", daemon=True).start()
    return future


class _Remote:
    """A handle on a task that runs on another thread's loop."""

    def __init__(self) -> None:
        self._cancelled = False
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, awaitable: Awaitable[Any]) -> Any:
        """Await the work on that loop."""
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        # It was cancelled before the thread had a loop on which it could be cancelled.
        if self._cancelled and self._task is not None:
            self._task.cancel()
        return await awaitable

    def cancel(self) -> None:
        """Cancel the task, from any thread, whether it has started or not."""
        self._cancelled = True
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # its loop has closed: it is over
                self._loop.call_soon_threadsafe(self._task.cancel)


async def _in_own_loop(fn: Callable[..., Any], kwargs: Mapping[str, Any]) -> Any:
    remote = _Remote()

    def call() -> Any:
        value = fn(**kwargs)
        return asyncio.run(remote.run(value)) if inspect.isawaitable(value) else value

    future = _in_thread(call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not future.done():
            remote.cancel()
            # A plain function cannot be stopped, so there is no use in waiting for it.
            if is_async_callable(fn):
                await asyncio.wait({future}, timeout=UNWIND_SECONDS)
        raise


def report_raised(what: str, error: BaseException) -> str:
    """Log an exception of the user's code with its traceback, and return the traceback as text.

    Args:
        what: The code that raised it, for the log's first line (``"The tool 'lookup'"``).
        error: The exception.
    """
    _log.warning("%s raised %s.", what, type(error).__name__, exc_info=error)
    return "".join(traceback.format_exception(error))[-_MAX_CHARS:]
