"""A whole turn of an agent as events of LangChain's v3 streaming protocol.

Each answer is a message of the protocol (``message-start`` ... ``message-finish``). Between them,
and around what the agent runs itself, stand the protocol's tool events: ``tool-started``,
``tool-finished``, ``tool-error``. A plain Runnable has no v3 of its own, so the two objects that a
user holds are made here; each answer in them is LangChain's own ``ChatModelStream``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any, Final

from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from letta_adapters.langchain.convert import raw_arguments
from letta_adapters.langchain.loop import Steps

Event = dict[str, Any]
_PENDING: Final[Any] = object()


class EventSteps(Steps):
    """Does what a loop says, and gives protocol events."""

    def _ask(self, messages: list[BaseMessage]) -> Generator[Any, None, AIMessage]:
        model = self._agent.bound()
        stream = model.stream_events(messages, self._config, version="v3", **self._loop.kwargs)
        try:
            for event in stream:
                if event["event"] == "content-block-finish":
                    self._show_blocks([event["content"]])
                elif event["event"] == "message-finish":
                    self._show_notes(event["metadata"])
                yield event
            output: AIMessage = stream.output
            return output
        finally:
            # The stream and its pump hold each other: without this, a stream that is left early
            # would keep the agent working until the next garbage collection.
            stream.set_start(None)
            stream.set_request_more(None)

    async def _aask(self, messages: list[BaseMessage]) -> AsyncGenerator[Any, None]:
        model = self._agent.bound()
        async with await model.astream_events(
            messages, self._config, version="v3", **self._loop.kwargs
        ) as stream:
            async for event in stream:
                if event["event"] == "content-block-finish":
                    await self._ashow_blocks([event["content"]])
                elif event["event"] == "message-finish":
                    await self._ashow_notes(event["metadata"])
                yield event
            yield await stream


def events_of(item: Any) -> list[Event]:
    """What is told of something that :class:`EventSteps` gave."""
    if isinstance(item, ToolMessage):
        failed = item.status == "error"
        return [_ended(str(item.tool_call_id), item.content, failed=failed)]
    if isinstance(item, AIMessage):
        broken = [(c["id"], c["name"], raw_arguments(c)) for c in item.invalid_tool_calls]
        calls = [*((c["id"], c["name"], c["args"]) for c in item.tool_calls), *broken]
        return [_started(str(id_), name or "", given) for id_, name, given in calls]
    block = item["content"] if item["event"] == "content-block-finish" else {}
    if block.get("type") == "server_tool_call":
        return [item, _started(block["id"], block["name"], block["args"])]
    if block.get("type") == "server_tool_result":
        failed = block.get("status") == "error"
        return [item, _ended(block["tool_call_id"], block.get("output"), failed=failed)]
    return [item]


def _started(id_: str, name: str, given: Any) -> Event:
    return {"event": "tool-started", "tool_call_id": id_, "tool_name": name, "input": given}


def _ended(id_: str, output: Any, *, failed: bool) -> Event:
    if failed:
        return {"event": "tool-error", "tool_call_id": id_, "message": str(output)}
    return {"event": "tool-finished", "tool_call_id": id_, "output": output}


def is_event(item: Any) -> bool:
    """A run gives events, and at last what it came to."""
    return isinstance(item, dict) and "event" in item


class _Turn:
    """What both streams keep: all events so far, an answer for each message, the result."""

    _kind: type[ChatModelStream] | type[AsyncChatModelStream]
    _wired: Callable[[Any], Any]

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._messages: list[Any] = []
        self._result: Any = _PENDING
        self._error: BaseException | None = None

    def _take(self, item: Any) -> None:
        if not is_event(item):
            self._result = item
            return
        self._events.append(item)
        kind = item["event"]
        if kind == "message-start":
            self._messages.append(self._wired(self._kind(message_id=item.get("id"))))
        if not kind.startswith("tool-"):
            self._messages[-1].dispatch(item)

    def _failed(self, error: BaseException) -> None:
        self._error = error
        if self._messages and not self._messages[-1].done:
            self._messages[-1].fail(error)

    @property
    def _over(self) -> bool:
        return self._error is not None or self._result is not _PENDING


class TurnStream(_Turn):
    """A turn as it runs: iterate for the protocol's events.

    ``messages`` gives each answer as a ``ChatModelStream`` (``.text``, ``.reasoning``,
    ``.output``); ``output`` is what ``invoke`` gives, and waits for it. Each may be read on its own
    or after another. Leave early with ``close()`` or a ``with`` block: the agent is stopped.
    """

    _kind = ChatModelStream

    def __init__(self, items: Iterator[Any]) -> None:
        super().__init__()
        self._items = items

    def _wired(self, stream: ChatModelStream) -> ChatModelStream:
        stream.bind_pump(self._pull)
        return stream

    def _pull(self) -> bool:
        if self._over:
            return False
        try:
            self._take(next(self._items))
        except StopIteration:
            self._failed(RuntimeError("This stream was closed before its end."))
            return False
        except BaseException as error:
            self._failed(error)
            raise
        return True

    def __iter__(self) -> Iterator[Event]:
        return self._each(self._events)

    @property
    def messages(self) -> Iterator[ChatModelStream]:
        """The answers, each as soon as it begins."""
        return self._each(self._messages)

    @property
    def output(self) -> Any:
        """What the run came to.

        Raises:
            LettaError: the turn failed.
        """
        while self._pull():
            pass
        if self._error is not None:
            raise self._error
        return self._result

    def _each(self, seen: list[Any]) -> Iterator[Any]:
        place = 0
        while True:
            while place < len(seen):
                yield seen[place]
                place += 1
            if not self._pull():
                if place < len(seen):
                    continue
                if self._error is not None:
                    raise self._error
                return

    def close(self) -> None:
        """Stop the agent, if it still works."""
        if isinstance(self._items, Generator):
            self._items.close()

    def __enter__(self) -> TurnStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncTurnStream(_Turn):
    """:class:`TurnStream` for asynchronous code: ``async for``, ``await stream.output``."""

    _kind = AsyncChatModelStream

    def __init__(self, items: AsyncGenerator[Any, None]) -> None:
        super().__init__()
        self._items = items

    def _wired(self, stream: AsyncChatModelStream) -> AsyncChatModelStream:
        stream.set_arequest_more(self._pull)
        return stream

    async def _pull(self) -> bool:
        if self._over:
            return False
        try:
            self._take(await anext(self._items))
        except StopAsyncIteration:
            self._failed(RuntimeError("This stream was closed before its end."))
            return False
        except BaseException as error:
            self._failed(error)
            raise
        return True

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._each(self._events)

    @property
    def messages(self) -> AsyncIterator[AsyncChatModelStream]:
        """The answers, each as soon as it begins."""
        return self._each(self._messages)

    @property
    async def output(self) -> Any:
        """What the run came to; to be awaited.

        Raises:
            LettaError: the turn failed.
        """
        while await self._pull():
            pass
        if self._error is not None:
            raise self._error
        return self._result

    async def _each(self, seen: list[Any]) -> AsyncIterator[Any]:
        place = 0
        while True:
            while place < len(seen):
                yield seen[place]
                place += 1
            if not await self._pull():
                if place < len(seen):
                    continue
                if self._error is not None:
                    raise self._error
                return

    async def aclose(self) -> None:
        """Stop the agent, if it still works."""
        await self._items.aclose()

    async def __aenter__(self) -> AsyncTurnStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
