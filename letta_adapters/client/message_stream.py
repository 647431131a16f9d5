"""Internal: the stream of one turn's messages, as its reader holds it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from letta_adapters._utils.shown import show_object
from letta_adapters.engine.deltas import TextReader
from letta_adapters.messages import Message


class MessageStream(AsyncIterator[Message]):
    """The messages of one turn, in order, ending with its ``ResultMessage``.

    Leaving the loop early stops the agent: at once when the stream is closed (``aclose()``, ``async
    with``) or no longer referenced, at the latest when its reader reads another turn of the
    conversation.
    """

    # Its turn refers to it weakly, to notice that its reader has dropped it.
    __slots__ = ("__weakref__", "_messages", "_next", "_stop")

    def __init__(
        self, messages: AsyncGenerator[Message, None], stop: Callable[[], Awaitable[None]]
    ) -> None:
        self._messages = messages
        self._stop = stop
        self._next = messages.__anext__

    def __aiter__(self) -> MessageStream:
        return self

    # Not a coroutine function: that would cost one more coroutine per message.
    def __anext__(self) -> Awaitable[Message]:
        return self._next()

    async def aclose(self) -> None:
        """Stop the agent if the turn is not over; this can be called at any time, more than once.

        Another task that waits for the next message then gets the end of the stream.
        """
        # First, as this also ends the wait of another task that is inside the generator.
        await self._stop()
        # A generator that another task is in cannot be closed; that task ends it by itself.
        if not getattr(self._messages, "ag_running", False):
            await self._messages.aclose()

    def __repr__(self) -> str:
        running = getattr(self._messages, "ag_frame", None) is not None
        return show_object(self, "open" if running else "at its end")

    async def __aenter__(self) -> MessageStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def read_text(messages: MessageStream) -> AsyncGenerator[str, None]:
    """Yield the text alone of a turn's messages."""
    reader = TextReader()
    # Whoever leaves the text early has given up the turn, which is stopped at once.
    async with messages:
        async for message in messages:
            if text := reader.read(message):
                yield text
