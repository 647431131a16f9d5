"""Internal: the one bridge between threads and the event loop that the sync client runs on.

One daemon thread per process runs one loop, started on first use. Single calls wait for a result.
The items of a stream are *pushed* by a task on the loop into a bounded hand-off, because pulling
each message through the loop costs fifty times as much.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from contextlib import suppress
from functools import wraps
from queue import Empty, SimpleQueue
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar
from weakref import WeakSet

from letta_adapters._utils.tasks import run_within
from letta_adapters.errors import SessionClosedError
from letta_adapters.sync.handoff import LOW_WATER, WAIT, Closable, End, ForTask, ForThread, Pump

T = TypeVar("T")
_Core_co = TypeVar("_Core_co", covariant=True)
_P = ParamSpec("_P")

_CLEANUP_SECONDS: Final = 30.0
_EXIT_SECONDS: Final = 5.0
_FORK_SECONDS: Final = 1.0


class _Job(Generic[T]):
    """A coroutine that runs on the loop for a thread that may wait for it.

    It is what :func:`asyncio.run_coroutine_threadsafe` does, in two thirds of its time: no future
    of another kind is kept in step with the task.

    Args:
        work: The coroutine.
        loop: The loop.
    """

    def __init__(self, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self.over = False
        self._work = work
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        self._ended: SimpleQueue[asyncio.Future[T]] = SimpleQueue()

    def begin(self) -> None:
        """Let it begin, in the context of this thread.

        Apart from making it: an interrupt that comes in here may find it begun, and must be able to
        end it.
        """
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Future[T]) -> None:
        # Let go of, as the task has the exception, whose traceback has whoever waits.
        self._task = None
        self.over = True
        if not task.cancelled():
            # Whoever waited may have been interrupted just now: then nobody looks at it.
            task.exception()
        self._ended.put(task)

    def cancel(self) -> None:
        """Cancel it if it is not over."""
        with suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif not self.over:
            # The interrupt came before it had begun, which it never will.
            self._work.close()
            never: asyncio.Future[T] = self._loop.create_future()
            never.cancel()
            self._end(never)

    def wait(self, seconds: float | None = None) -> T:
        """Return its result, or raise what it has raised; only once.

        Raises:
            TimeoutError: It is not over after this time.
            concurrent.futures.CancelledError: It was cancelled.
        """
        while True:
            try:
                task = self._ended.get(timeout=WAIT if seconds is None else seconds)
                break
            except Empty:
                if seconds is not None:
                    raise TimeoutError from None
        try:
            # Asyncio's own exception is for tasks, which a thread is not.
            if task.cancelled():
                raise FutureCancelled
            return task.result()
        finally:
            del task


class Bridge:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        # The async clients that live here, to be closed at exit.
        self.clients: WeakSet[Any] = WeakSet()
        self._thread = threading.Thread(target=self._main, name="letta-adapters", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it; interrupting the wait cancels it."""
        self._check_usable(work)
        job = _Job(work, self.loop)
        try:
            job.begin()
            return job.wait()
        except BaseException:
            if not job.over:
                # Ctrl-C: the clean-up on the loop runs before the exception goes on.
                job.cancel()
                with suppress(Exception):
                    job.wait(_CLEANUP_SECONDS)
            raise

    def _begin(self, work: Coroutine[Any, Any, T]) -> _Job[T]:
        self._check_usable(work)
        job = _Job(work, self.loop)
        job.begin()
        return job

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        self._check_usable(work)
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def _check_usable(self, work: Coroutine[Any, Any, Any]) -> None:
        """Refuse work that could not be done, or not be waited for.

        Raises:
            RuntimeError: This is the loop's own thread.
            SessionClosedError: The process ends.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                "The sync API was called on its own event loop, which would wait for itself. "
                "Make the callback a plain function, or use the async client in it."
            )
        if not self._thread.is_alive():
            work.close()
            raise SessionClosedError("The process is ending: all clients are closed.", hint="")

    async def _await_end(self, work: Coroutine[Any, Any, Any]) -> None:
        """Return after the task of ``work``, which was cancelled, had a chance to clean up."""
        stopping = [task for task in asyncio.all_tasks() if task.get_coro() is work]
        if stopping:
            await asyncio.wait(stopping, timeout=_CLEANUP_SECONDS)

    def _quietly(self, work: Coroutine[Any, Any, Any]) -> None:
        with suppress(Exception):
            self._begin(work).wait(_CLEANUP_SECONDS)

    def iterate(self, stream: Closable[T]) -> Generator[T, None, None]:
        """Return a generator of the stream's items for this thread, which closes the stream."""
        items = self._items(stream)
        # This runs it into its ``try``: closing a generator that has not begun would do nothing.
        next(items)
        return items

    def _items(self, stream: Closable[T]) -> Generator[Any, None, None]:
        given = ForThread()
        items, take = given.items, given.items.popleft
        pump = Pump(self.loop, given)
        running: _Job[None] | None = None
        ended = False
        try:
            yield None  # taken by iterate()
            running = self._begin(pump.run(stream))
            while True:
                if not items:
                    given.wait()
                    continue
                item = take()
                if type(item) is End:
                    ended = True
                    # Asyncio's own exception is for tasks, which a thread is not.
                    if isinstance(item.error, asyncio.CancelledError):
                        raise FutureCancelled from item.error
                    if item.error is not None:
                        raise item.error
                    return
                yield item
                if pump.blocked and len(items) <= LOW_WATER:
                    pump.unblock()
        finally:
            if not ended and self._thread.is_alive():
                # Closing the stream while the pump still reads lets it end in order.
                pump.left = True
                pump.unblock()
                self._quietly(stream.aclose())
                if running is not None:
                    running.cancel()

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this loop for a task of another one; cancelling the task cancels it.

        The task goes on only after the coroutine had its chance to clean up.
        """
        future = self._submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # Shielded, as a second cancellation must not cut the clean-up of the first one short.
            ended = asyncio.wrap_future(self._submit(self._await_end(work)))
            with suppress(Exception):
                await asyncio.shield(ended)
            raise

    async def aiterate(self, stream: Closable[T]) -> AsyncGenerator[T, None]:
        """Yield the stream's items to a task of another loop, pushed as :meth:`iterate` does."""
        given = ForTask()
        items, take = given.items, given.items.popleft
        pump = Pump(self.loop, given)
        running = self._submit(pump.run(stream))
        ended = False
        try:
            while True:
                if not items:
                    await given.wait()
                    continue
                item = take()
                if type(item) is End:
                    ended = True
                    if item.error is not None:
                        raise item.error
                    return
                yield item
                if pump.blocked and len(items) <= LOW_WATER:
                    pump.unblock()
        finally:
            if not ended and self._thread.is_alive():
                pump.left = True
                pump.unblock()
                # Not by `_quietly`, which would block this loop until the other one is done.
                closing = asyncio.wrap_future(self._submit(_close(stream)))
                with suppress(Exception):
                    await asyncio.shield(closing)
                running.cancel()

    def close(self) -> None:
        """Close the clients, cancel all tasks that still run, and end the thread (at exit)."""
        if self._thread.is_alive():
            # Only for this loop's last seconds, as the pool that resolves names is gone by now. It
            # replaces a method of one object, to which the type checker objects.
            with suppress(AttributeError):  # a loop in C, which has no place for it
                self.loop.getaddrinfo = _getaddrinfo_at_exit  # type: ignore[method-assign]
            self._quietly(self._end())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(_EXIT_SECONDS)

    async def _end(self) -> None:
        # Clients first, in their own way: they stop agents, which a cancelled task would leave
        # running.
        closing = asyncio.gather(*(c.close() for c in self.clients), return_exceptions=True)
        with suppress(asyncio.TimeoutError):
            await run_within(_EXIT_SECONDS, closing)
        me = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not me]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_EXIT_SECONDS)

    def hold(self) -> Callable[[], None]:
        """Stop the loop between two callbacks, and return the function that lets it go on.

        A process that is forked while this thread holds a lock (of an import, say) would leave the
        child with a lock that nobody releases.
        """
        held, go_on = threading.Event(), threading.Event()

        def wait() -> None:
            held.set()
            # With a limit, so that the loop never stands still for good, whatever becomes of the
            # fork.
            go_on.wait(_FORK_SECONDS)

        # A tool that forks on the loop's own thread holds it already, by running.
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self.loop.call_soon_threadsafe(wait)
            held.wait(_FORK_SECONDS)
        return go_on.set


async def _close(stream: Closable[Any]) -> None:
    await stream.aclose()


async def _getaddrinfo_at_exit(host: Any, port: Any, **options: Any) -> Any:
    # Usually a thread pool looks names up, and that is shut down before anything else.
    return socket.getaddrinfo(host, port, **options)


_lock = threading.Lock()
_bridge: Bridge | None = None
_forking = threading.local()
# Kept alive: a forked child must not finalise its parent's loop and connections.
_inherited: list[tuple[Bridge, tuple[Any, ...]]] = []


def get_bridge() -> Bridge:
    """Return this process's bridge; a forked child gets one of its own."""
    global _bridge
    with _lock:
        if _bridge is None:
            _bridge = Bridge()
        return _bridge


class Bridged(Generic[_Core_co]):
    """Base of objects whose asynchronous counterpart lives on this process's background loop.

    After ``fork()`` the child makes a new counterpart on first use: the parent's connections and
    loop are not the child's to touch.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # What `blocking` made has the name of the asynchronous method until it has its own.
        for name, member in vars(cls).items():
            if hasattr(member, "__wrapped__"):
                member.__module__ = cls.__module__
                member.__qualname__ = f"{cls.__qualname__}.{name}"

    def __init__(self, make: Callable[[_Core_co | None], _Core_co]) -> None:
        self._make = make
        self._home = get_bridge()
        self._made: _Core_co = make(None)

    def __repr__(self) -> str:
        # Not `_core`: to show an object in the child of a fork must make nothing.
        return repr(self._made).replace(type(self._made).__name__, type(self).__name__, 1)

    @property
    def _core(self) -> _Core_co:
        bridge = get_bridge()
        # Another bridge than the one it was made on: this is the child of a fork. What was closed
        # before stays so.
        if bridge is not self._home and not getattr(self._made, "closed", False):
            self._made = self._make(self._made)
            self._home = bridge
        return self._made

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        # Not through a kept reference: after a fork that would be the parent's loop.
        return get_bridge().call(work)


def blocking(
    method: Callable[Concatenate[_Core_co, _P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Bridged[_Core_co], _P], T]:
    """Make the blocking twin of an asynchronous method, for a class that is :class:`Bridged`.

    It has the same parameters, also for type checkers, the same result and the same docstring. A
    method with ``**fields`` needs ``self, /``, because a field may be called ``self`` otherwise::

        class LettaClient(Bridged[AsyncLettaClient]):
            create_agent = blocking(AsyncLettaClient.create_agent)
    """
    name = method.__name__

    @wraps(method)
    def call(self: Bridged[_Core_co], /, *args: _P.args, **kwargs: _P.kwargs) -> T:
        # Looked up on the object, so that a subclass of the counterpart may have its own.
        work: Coroutine[Any, Any, T] = getattr(self._core, name)(*args, **kwargs)
        return self._run(work)

    return call


def _before_fork() -> None:
    if _bridge is not None:
        _forking.go_on = _bridge.hold()


def _after_fork_in_parent() -> None:
    go_on, _forking.go_on = getattr(_forking, "go_on", None), None
    if go_on is not None:
        go_on()


def _after_fork() -> None:
    global _bridge, _lock
    # The old lock may have been held in the parent at the moment of the fork.
    _lock = threading.Lock()
    if _bridge is not None:
        _inherited.append((_bridge, tuple(_bridge.clients)))
        _bridge = None


def _at_exit() -> None:
    if _bridge is not None:
        _bridge.close()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork,
    )
