"""Internal: stream a whole turn of an agent as events of LangChain's v3 streaming protocol.

Each answer is a message of the protocol (``message-start`` ... ``message-finish``). Between the
answers, and around the agent's own tools, stand the protocol's tool events: ``tool-started``,
``tool-finished``, ``tool-error``. A plain Runnable has no v3 of its own, so the two objects that a
user holds are defined here; each answer in them is LangChain's own ``ChatModelStream``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from typing import Any, Final

from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from letta_adapters.chat.open_calls import OpenCallDecider
from letta_adapters.langchain.agent_loop import LoopRunner, OutputFormatter, format_output
from letta_adapters.langchain.messages import read_raw_arguments
from letta_adapters.langchain.tools import adrive, drive

Event = dict[str, Any]
# Stands for the result until there is one; ``None`` could be a result.
_PENDING: Final[Any] = object()


def list_events(item: Any) -> list[Event]:
    """Return the protocol events for an item that :class:`EventLoopRunner` gives."""
    if isinstance(item, ToolMessage):
        failed = item.status == "error"
        return [_make_end(str(item.tool_call_id), item.content, failed=failed)]
    if isinstance(item, AIMessage):
        # Broken calls are announced as well: their refusals are told as results.
        broken = [(c["id"], c["name"], read_raw_arguments(c)) for c in item.invalid_tool_calls]
        calls = [*((c["id"], c["name"], c["args"]) for c in item.tool_calls), *broken]
        return [_make_start(str(id_), name or "", given) for id_, name, given in calls]
    # A tool of the agent's own is a finished block of the answer; its tool event follows that
    # block.
    block = item["content"] if item["event"] == "content-block-finish" else {}
    if block.get("type") == "server_tool_call":
        return [item, _make_start(block["id"], block["name"], block["args"])]
    if block.get("type") == "server_tool_result":
        failed = block.get("status") == "error"
        return [item, _make_end(block["tool_call_id"], block.get("output"), failed=failed)]
    return [item]


def _make_start(id_: str, name: str, given: Any) -> Event:
    return {"event": "tool-started", "tool_call_id": id_, "tool_name": name, "input": given}


def _make_end(id_: str, output: Any, *, failed: bool) -> Event:
    if failed:
        return {"event": "tool-error", "tool_call_id": id_, "message": str(output)}
    return {"event": "tool-finished", "tool_call_id": id_, "output": output}


class EventFormatter(OutputFormatter):
    """Give protocol events while a run is streamed, and at last its result."""

    def format(self, item: Any) -> list[Event]:
        """Return the events of an item."""
        return list_events(item)

    def finish(self, new: Sequence[BaseMessage]) -> Iterator[Any]:
        """Yield the result of the run, which is no event."""
        yield format_output(new, self._kind)


class EventLoopRunner(LoopRunner):
    """Do what a loop decides, and give protocol events instead of chunks."""

    formatter = EventFormatter

    def _ask(self, messages: list[BaseMessage]) -> Generator[Any, None, AIMessage]:
        """Yield the protocol events of an answer, and return it whole."""
        given = self._build_kwargs(OpenCallDecider(self._decide_open))
        model = self._settings.model
        stream = model.stream_events(messages, self._config, version="v3", **given)
        try:
            for event in stream:
                if event["event"] == "content-block-finish":
                    drive(self._show([event["content"]], {}))
                elif event["event"] == "message-finish":
                    drive(self._show("", event["metadata"]))
                yield event
            output: AIMessage = stream.output
            return output
        finally:
            # The stream and its pump hold each other: without this, a stream that is left early
            # would keep the agent working until the next garbage collection.
            stream.set_start(None)
            stream.set_request_more(None)

    async def _aask(self, messages: list[BaseMessage]) -> AsyncGenerator[Any, None]:
        """Yield the protocol events of an answer, and at last the answer itself."""
        given = self._build_kwargs(OpenCallDecider.here(self._adecide_open))
        model = self._settings.model
        # Left early, the block closes the model's stream, which stops the agent.
        async with await model.astream_events(
            messages, self._config, version="v3", **given
        ) as stream:
            async for event in stream:
                if event["event"] == "content-block-finish":
                    await adrive(self._show([event["content"]], {}))
                elif event["event"] == "message-finish":
                    await adrive(self._show("", event["metadata"]))
                yield event
            yield await stream


def is_event(item: Any) -> bool:
    """Return whether it is an event; a run gives events, and at last its result."""
    return isinstance(item, dict) and "event" in item


class _Turn:
    """Hold all events of a turn so far, a stream for each answer, and the result."""

    _kind: type[ChatModelStream] | type[AsyncChatModelStream]
    _wire: Callable[[Any], Any]

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._messages: list[Any] = []
        self._result: Any = _PENDING
        self._error: BaseException | None = None

    def _take(self, item: Any) -> bool:
        """Take an event to the answer it belongs to, or the result; return whether it was that."""
        if not is_event(item):
            self._result = item
            return True
        self._events.append(item)
        kind = item["event"]
        if kind == "message-start":
            self._messages.append(self._wire(self._kind(message_id=item.get("id"))))
        # Tool events stand between the answers and belong to none of them.
        if not kind.startswith("tool-"):
            self._messages[-1].dispatch(item)
        return False

    def _fail(self, error: BaseException) -> None:
        """End the turn with an error, which the answer that is under way reports too."""
        if self._over:
            return
        if isinstance(error, asyncio.CancelledError):
            # Whoever read is cancelled, and the turn ends with that; other readers are not.
            error = _make_closed_error()
        self._error = error
        if self._messages and not self._messages[-1].done:
            self._messages[-1].fail(error)

    @property
    def _over(self) -> bool:
        return self._error is not None or self._result is not _PENDING


def _make_closed_error() -> RuntimeError:
    return RuntimeError("This stream was closed before its end.")


class TurnStream(_Turn):
    """Follow a turn as it runs: iterate for the protocol's events.

    ``messages`` gives each answer as a ``ChatModelStream`` (``.text``, ``.reasoning``,
    ``.output``); ``output`` is the result of ``invoke``, and waits for it. Each may be read on its
    own, after another, or beside another in a thread of its own. Leave early with ``close()`` or a
    ``with`` block: the agent is stopped, at its next event if a thread is waiting for that.
    """

    _kind = ChatModelStream

    def __init__(self, items: Iterator[Any]) -> None:
        super().__init__()
        self._items = items
        # One thread at a time reads the run; reentrant, so that a mistake is an error and no wait.
        self._reading = threading.RLock()
        self._count = 0

    def _wire(self, stream: ChatModelStream) -> ChatModelStream:
        # Whoever reads an answer drives the whole turn: there is no thread that would.
        stream.bind_pump(self._pull)
        return stream

    def _pull(self) -> bool:
        """Read one more item of the run; return whether there was one."""
        seen = self._count
        with self._reading:
            # What another thread has read meanwhile may be what this one waits for.
            return self._count != seen or self._read_item()

    def _read_item(self) -> bool:
        if self._over:
            return False
        try:
            item = next(self._items)
            # Another thread may have closed the stream while this one waited for the item.
            if self._error is not None:
                return False
            self._count += 1
            if self._take(item):
                # The run is told its end only now.
                for _ in self._items:
                    pass
        except StopIteration:
            self._fail(_make_closed_error())
            return False
        except BaseException as error:
            self._fail(error)
            raise
        return True

    def __iter__(self) -> Iterator[Event]:
        return self._yield_each(self._events)

    @property
    def messages(self) -> Iterator[ChatModelStream]:
        """Yield the answers, each as soon as it begins."""
        return self._yield_each(self._messages)

    @property
    def output(self) -> Any:
        """Return the run's result, and wait for it.

        Raises:
            LettaError: The turn failed.
        """
        while self._pull():
            pass
        if self._error is not None:
            raise self._error
        return self._result

    def _yield_each(self, seen: list[Any]) -> Iterator[Any]:
        """Yield what was seen already, then what comes, whoever pulls it."""
        place = 0
        while True:
            while place < len(seen):
                yield seen[place]
                place += 1
            # Another reader may have pulled the last items meanwhile.
            if not self._pull():
                if place < len(seen):
                    continue
                if self._error is not None:
                    raise self._error
                return

    def close(self) -> None:
        """Stop the agent, if it still works."""
        if not self._reading.acquire(blocking=False):
            # The thread that reads now takes no further item, so that this wait ends soon.
            self._fail(_make_closed_error())
            self._reading.acquire()
        try:
            if isinstance(self._items, Generator):
                self._items.close()
        finally:
            self._reading.release()

    def __enter__(self) -> TurnStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncTurnStream(_Turn):
    """Follow a turn in asynchronous code: ``async for``, ``await stream.output``.

    It is :class:`TurnStream` with awaitable parts.
    """

    _kind = AsyncChatModelStream

    def __init__(self, items: AsyncGenerator[Any, None]) -> None:
        super().__init__()
        self._items = items
        # A task reads the run now, and these wait for it.
        self._reading = False
        self._waiting: list[asyncio.Future[None]] = []

    def _wire(self, stream: AsyncChatModelStream) -> AsyncChatModelStream:
        # Whoever reads an answer drives the whole turn: there is no task that would.
        stream.set_arequest_more(self._pull)
        return stream

    async def _pull(self) -> bool:
        """Read one more item of the run; return whether there was one."""
        if self._over:
            return False
        if self._reading:
            # What the other task reads may be what this one waits for.
            await self._wait_for_reader()
            return True
        self._reading = True
        try:
            item = await anext(self._items)
            # Another task may have closed the stream while this one waited for the item.
            if self._error is not None:
                return False
            if self._take(item):
                async for _ in self._items:
                    pass
        except StopAsyncIteration:
            self._fail(_make_closed_error())
            return False
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._reading = False
            self._wake()
        return True

    async def _wait_for_reader(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _wake(self) -> None:
        while self._waiting:
            waiting = self._waiting.pop()
            if not waiting.done():  # one that is cancelled waits no more
                waiting.set_result(None)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._yield_each(self._events)

    @property
    def messages(self) -> AsyncIterator[AsyncChatModelStream]:
        """Yield the answers, each as soon as it begins."""
        return self._yield_each(self._messages)

    @property
    async def output(self) -> Any:
        """Return the run's result; to be awaited.

        Raises:
            LettaError: The turn failed.
        """
        while await self._pull():
            pass
        if self._error is not None:
            raise self._error
        return self._result

    async def _yield_each(self, seen: list[Any]) -> AsyncIterator[Any]:
        """Yield what was seen already, then what comes, whoever pulls it."""
        place = 0
        while True:
            while place < len(seen):
                yield seen[place]
                place += 1
            # Another task may have pulled the last items meanwhile.
            if not await self._pull():
                if place < len(seen):
                    continue
                if self._error is not None:
                    raise self._error
                return

    async def aclose(self) -> None:
        """Stop the agent, if it still works; if a task waits for its next event, then at that."""
        if self._reading:
            # The task that reads now takes no further item, so that this wait ends soon.
            self._fail(_make_closed_error())
            await self._wait_for_reader()
        await self._items.aclose()

    async def __aenter__(self) -> AsyncTurnStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
