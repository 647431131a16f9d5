"""Running the user's functions: off the loop, with their context, cancellable."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from letta_adapters._utils import invoke
from letta_adapters._utils.invoke import invoke_callable, is_async_callable

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")
both = pytest.mark.parametrize("in_thread_loop", [False, True])


async def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread, without blocking this loop."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it never happened")


def plain(x: int = 0) -> tuple[int, str, int]:
    return x, WHO.get(), threading.get_ident()


async def coroutine(x: int = 0) -> tuple[int, str, int]:
    await asyncio.sleep(0)
    return x, WHO.get(), threading.get_ident()


class AsyncObject:
    async def __call__(self, x: int = 0) -> tuple[int, str, int]:
        return await coroutine(x)

    async def method(self, x: int = 0) -> tuple[int, str, int]:
        return await coroutine(x)


class SyncObject:
    def __call__(self, x: int = 0) -> tuple[int, str, int]:
        return plain(x)


def returns_awaitable(x: int = 0) -> Any:
    return coroutine(x)


ASYNC = [coroutine, AsyncObject(), AsyncObject().method, functools.partial(coroutine, x=3)]
SYNC = [plain, SyncObject(), SyncObject().__call__, functools.partial(plain, x=3), len]


@pytest.mark.parametrize("fn", ASYNC)
def test_async_is_recognised(fn: Any) -> None:
    assert is_async_callable(fn)


@pytest.mark.parametrize("fn", [*SYNC, returns_awaitable])
def test_sync_is_recognised(fn: Any) -> None:
    assert not is_async_callable(fn)


@pytest.mark.parametrize("fn", SYNC[:-1])
@both
async def test_plain_functions_run_off_the_loop(fn: Any, in_thread_loop: bool) -> None:
    WHO.set("me")
    x, who, thread = await invoke_callable(fn, {"x": 3}, in_thread_loop=in_thread_loop)
    assert (x, who) == (3, "me")
    assert thread != threading.get_ident()


@pytest.mark.parametrize("fn", ASYNC)
async def test_coroutines_run_where_they_are_told(fn: Any) -> None:
    WHO.set("me")
    x, who, thread = await invoke_callable(fn, {"x": 3}, in_thread_loop=False)
    assert (x, who, thread) == (3, "me", threading.get_ident())
    x, who, thread = await invoke_callable(fn, {"x": 3}, in_thread_loop=True)
    assert (x, who) == (3, "me")
    assert thread != threading.get_ident()


@both
async def test_awaitables_are_awaited(in_thread_loop: bool) -> None:
    result = await invoke_callable(returns_awaitable, {"x": 4}, in_thread_loop=in_thread_loop)
    assert result[0] == 4
    assert (result[2] == threading.get_ident()) is not in_thread_loop


@both
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_exceptions_pass_through(in_thread_loop: bool, asynchronous: bool) -> None:
    def fail() -> None:
        raise KeyError("x")

    async def afail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        await invoke_callable(afail if asynchronous else fail, {}, in_thread_loop=in_thread_loop)


@both
@pytest.mark.parametrize("kind", [SystemExit, StopIteration])
async def test_what_would_break_the_loop_does_not(kind: Any, in_thread_loop: bool) -> None:
    def leave() -> None:
        raise kind(2)

    async def aleave() -> None:
        raise kind(2)

    for fn in (leave, aleave):
        with pytest.raises(RuntimeError):
            await invoke_callable(fn, {}, in_thread_loop=in_thread_loop)


async def test_the_loop_stays_free_while_a_plain_function_blocks() -> None:
    release = threading.Event()
    call = asyncio.ensure_future(
        invoke_callable(release.wait, {"timeout": 20}, in_thread_loop=False)
    )
    await asyncio.sleep(0.01)
    assert not call.done()
    release.set()
    assert await call is True


async def test_many_blocked_functions_do_not_starve_another() -> None:
    release = threading.Event()
    stuck = [
        asyncio.ensure_future(invoke_callable(release.wait, {"timeout": 20}, in_thread_loop=False))
        for _ in range(60)
    ]
    await asyncio.sleep(0)
    assert (await invoke_callable(plain, {}, in_thread_loop=False))[0] == 0
    release.set()
    assert all(await asyncio.gather(*stuck))


@both
async def test_cancelling_reaches_a_coroutine(in_thread_loop: bool) -> None:
    started, unwound = threading.Event(), threading.Event()

    async def slow() -> None:
        try:
            started.set()
            await asyncio.sleep(30)
        finally:
            unwound.set()

    task = asyncio.ensure_future(invoke_callable(slow, {}, in_thread_loop=in_thread_loop))
    await until(started.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert unwound.is_set()


async def test_cancelling_before_the_other_loop_has_started() -> None:
    release, ran = threading.Event(), threading.Event()

    async def slow() -> None:
        ran.set()
        await asyncio.sleep(30)

    def late() -> Any:
        release.wait(20)
        return slow()

    task = asyncio.ensure_future(invoke_callable(late, {}, in_thread_loop=True))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = threading.active_count()
    release.set()
    await until(lambda: threading.active_count() < before)  # slow() was cancelled, not waited for
    assert ran.is_set()


@both
async def test_a_plain_function_cannot_be_stopped_but_is_not_waited_for(
    in_thread_loop: bool,
) -> None:
    release = threading.Event()

    async def never() -> None: ...

    def block() -> Any:
        release.wait(20)
        return never()  # a late coroutine must not warn "never awaited"

    task = asyncio.ensure_future(invoke_callable(block, {}, in_thread_loop=in_thread_loop))
    await asyncio.sleep(0.01)
    task.cancel()
    start = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - start < 15
    release.set()
    await asyncio.sleep(0.05)


async def test_a_coroutine_that_ignores_cancelling_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(invoke, "UNWIND_SECONDS", 0.02)
    started, release = threading.Event(), threading.Event()

    async def stubborn() -> None:
        started.set()
        release.wait(20)  # blocks its own loop: the cancellation cannot arrive

    task = asyncio.ensure_future(invoke_callable(stubborn, {}, in_thread_loop=True))
    await until(started.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await asyncio.sleep(0.05)


async def test_self_cancellation_is_the_callers_business() -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    for in_thread_loop in (False, True):
        with pytest.raises(asyncio.CancelledError):
            await invoke_callable(gives_up, {}, in_thread_loop=in_thread_loop)


def test_a_thread_that_outlives_its_loop_ends_quietly() -> None:
    release, done = threading.Event(), threading.Event()

    def block() -> None:
        release.wait(20)
        done.set()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(invoke_callable(block, {}, in_thread_loop=False), 0.02)

    asyncio.run(main())  # returns although the function still runs
    release.set()
    assert done.wait(20)
    time.sleep(0.02)  # an unhandled exception in the thread would fail the test (pytest warns)
