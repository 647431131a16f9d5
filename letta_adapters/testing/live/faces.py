"""Internal: put the sync client behind the async client's signatures, so that one test proves both.

Every asyncio task gets a thread of its own and makes its calls there, exactly as a caller of the
sync API would.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

from letta_adapters import LettaClient
from letta_adapters.sync.bridge import Bridged

_DONE = object()
_threads: WeakKeyDictionary[asyncio.Task[Any], ThreadPoolExecutor] = WeakKeyDictionary()


async def call_in_own_thread(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a blocking call in the current task's own thread."""
    task = asyncio.current_task()
    assert task is not None
    thread = _threads.setdefault(task, ThreadPoolExecutor(max_workers=1))
    # Context variables belong to the task; the thread would see those of its first call only.
    context = contextvars.copy_context()
    work = functools.partial(context.run, call, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(thread, work)


class _Stream(AsyncIterator[Any]):
    """An async iterator over a sync one."""

    def __init__(self, items: Generator[Any, None, None]) -> None:
        self._items = items

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        item = await call_in_own_thread(next, self._items, _DONE)
        if item is _DONE:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        await call_in_own_thread(self._items.close)


class AsyncProxy:
    """A sync client, session or resource with awaitable methods."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        # Resources have blocking methods of their own.
        if isinstance(value, Bridged) and not name.startswith("_"):
            return AsyncProxy(value)
        # Ids, names and options are no calls: they are read where they are.
        if not inspect.ismethod(value):
            return value
        if name == "stream":
            return lambda: _Stream(value())
        # These two only make an object; what blocks comes when it is entered.
        if name in ("create_session", "resume_session"):
            return lambda *args, **kwargs: AsyncProxy(value(*args, **kwargs))
        return self._threaded(value)

    def _threaded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await call_in_own_thread(method, *args, **kwargs)

        return call

    async def __aenter__(self) -> AsyncProxy:
        await call_in_own_thread(self._target.__enter__)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await call_in_own_thread(self._target.__exit__, *error)


def make_sync_client(*args: Any, **kwargs: Any) -> AsyncProxy:
    """Return a ``LettaClient`` that looks like an ``AsyncLettaClient``."""
    return AsyncProxy(LettaClient(*args, **kwargs))
