"""Internal: run calls, sync and async, repeat them where safe, and have bad answers mended."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from typing import Any, Protocol, cast

from letta_adapters._utils.bounded import Bounded
from letta_adapters.chat.clients import ChatClients
from letta_adapters.chat.constraints import ConstrainedRequest
from letta_adapters.chat.request import ChatEvent, ChatRequest, ResponseCompleted
from letta_adapters.chat.response import Answer, Part, ResponseReader
from letta_adapters.errors import LettaError, is_retryable

_LONGEST_WAIT = 8.0  # seconds


class Maker(Protocol):
    """Make a framework's streaming form of an answer."""

    def feed(self, event: Any) -> list[Any]: ...
    def finish(self) -> list[Any]: ...
    def replay(self, pieces: Any) -> list[Any]: ...


class Drafter(Protocol):
    """Make a framework's form of an answer that is not known to be good yet."""

    def begin(self) -> None: ...
    def feed(self, pieces: Any) -> list[Any]: ...


class ChatRunner:
    """Run the calls of one chat model.

    Args:
        clients: Make the calls.
        max_retries: How often a call is made again that was surely not accepted.
    """

    def __init__(self, clients: ChatClients, max_retries: int) -> None:
        self.clients = clients
        # The agents' model handles, as far as answers told them; `None` is the default agent.
        self.models: Bounded[str | None, str] = Bounded()
        self._max_retries = max_retries

    def _choose_pause(self, error: LettaError, attempts: int) -> float:
        """Return the seconds until a failed call is made again.

        Args:
            error: The failure.
            attempts: How often the call was made by now.

        Raises:
            LettaError: That failure, if the call is not made again.
        """
        # `is_retryable` is true only of calls that were surely not accepted: none is made twice.
        if attempts > self._max_retries or not is_retryable(error):
            raise error
        # Random, so that callers who were refused together do not come back together.
        return random.uniform(0, min(_LONGEST_WAIT, 2 ** (attempts - 1)))

    def _learn(self, call: ChatRequest, end: ResponseCompleted | None) -> None:
        """Note the model's handle, which is known by the end of a call."""
        if end is not None and end.model and call.model is None:
            self.models[call.agent_id] = end.model

    def _events(self, call: ChatRequest) -> Generator[ChatEvent, None, None]:
        """Yield the events of a call, which is made again while it was surely not accepted."""
        attempts = 0
        while True:
            attempts += 1
            try:
                # `closing`: a consumer that leaves early must stop the agent at once, not when
                # garbage is collected.
                with closing(self.clients.stream(call)) as events:
                    yield from events
                return
            except LettaError as error:
                pause = self._choose_pause(error, attempts)
            time.sleep(pause)

    def _collect(self, call: ChatRequest) -> list[ChatEvent]:
        """Return all of these events at once, for an answer that is not shown while it comes."""
        attempts = 0
        while True:
            attempts += 1
            try:
                return self.clients.collect(call)
            except LettaError as error:
                pause = self._choose_pause(error, attempts)
            time.sleep(pause)

    async def _aevents(self, call: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """Yield the same events asynchronously."""
        attempts = 0
        while True:
            attempts += 1
            try:
                async with aclosing(self.clients.astream(call)) as events:
                    async for event in events:
                        yield event
                return
            except LettaError as error:
                pause = self._choose_pause(error, attempts)
            await asyncio.sleep(pause)

    def answer(self, constrained: ConstrainedRequest) -> Answer:
        """Return a whole answer that meets the call's constraints."""
        *_, answer = self._attempted(constrained)
        return cast("Answer", answer)

    async def aanswer(self, constrained: ConstrainedRequest) -> Answer:
        """Return such an answer asynchronously."""
        async with aclosing(self._aattempted(constrained)) as parts:
            answer = [part async for part in parts][-1]
        return cast("Answer", answer)

    def _attempted(
        self, constrained: ConstrainedRequest, draft: Drafter | None = None
    ) -> Generator[Any, None, None]:
        """Yield what the draft shows until an answer meets the constraints, and that answer.

        Args:
            constrained: The call and its constraints.
            draft: Is given the pieces, also those of an answer that has to be mended.
        """
        attempts = constrained.attempts(whole=draft is None)
        call = next(attempts)
        while True:
            reader, pieces = constrained.reader(call), list[Part]()
            if draft is not None:
                draft.begin()
            if draft is None:
                for event in self._collect(call):
                    pieces += reader.read(event)
            else:
                with closing(self._events(call)) as events:
                    for event in events:
                        pieces += (new := reader.read(event))
                        yield from draft.feed(new)
            try:
                call = attempts.send(Answer(reader, tuple(pieces)))
            except StopIteration as done:
                answer = cast("Answer", done.value)
                break
        self._learn(constrained.request, answer.end)
        if constrained.leaves_calls(answer):
            # The turn would wait for results that nobody will give, and block its conversation.
            answer.settle(self.clients.abandon(answer.end, remove=call.ephemeral))
        yield answer

    async def _aattempted(
        self, constrained: ConstrainedRequest, draft: Drafter | None = None
    ) -> AsyncGenerator[Any, None]:
        """Yield the same asynchronously."""
        attempts = constrained.attempts(whole=draft is None)
        call = next(attempts)
        while True:
            reader, pieces = constrained.reader(call), list[Part]()
            if draft is not None:
                draft.begin()
            async with aclosing(self._aevents(call)) as events:
                async for event in events:
                    pieces += (new := reader.read(event))
                    for shown in draft.feed(new) if draft is not None else ():
                        yield shown
            try:
                call = attempts.send(Answer(reader, tuple(pieces)))
            except StopIteration as done:
                answer = cast("Answer", done.value)
                break
        self._learn(constrained.request, answer.end)
        if constrained.leaves_calls(answer):
            answer.settle(await self.clients.aabandon(answer.end, remove=call.ephemeral))
        yield answer

    def run(
        self,
        constrained: ConstrainedRequest,
        make: Callable[[ResponseReader], Maker],
        draft: Drafter | None = None,
    ) -> Generator[Any, None, None]:
        """Yield a streamed answer, in the form that ``make`` gives it.

        Args:
            constrained: The call and its constraints.
            make: Returns the maker of the framework's form, which goes by the reader.
            draft: Shows an answer that may have to be mended while it comes; without it such an
                answer is shown when it is good.
        """
        if constrained.constraints.check is not None:
            with closing(self._attempted(constrained, draft)) as parts:
                for part in parts:
                    if isinstance(part, Answer):
                        yield from make(part.reader).replay(part.pieces)
                    else:
                        yield part
            return
        reader = constrained.reader()
        maker = make(reader)
        with closing(self._events(constrained.request)) as events:
            for event in events:
                yield from maker.feed(event)
        self._learn(constrained.request, reader.end)
        yield from maker.finish()

    async def arun(
        self,
        constrained: ConstrainedRequest,
        make: Callable[[ResponseReader], Maker],
        draft: Drafter | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Yield a streamed answer asynchronously; see :meth:`run`.

        Args:
            constrained: The call and its constraints.
            make: Returns the maker of the framework's form, which goes by the reader.
            draft: Shows an answer that may have to be mended while it comes.
        """
        if constrained.constraints.check is not None:
            async with aclosing(self._aattempted(constrained, draft)) as parts:
                async for part in parts:
                    if not isinstance(part, Answer):
                        yield part
                        continue
                    for made in make(part.reader).replay(part.pieces):
                        yield made
            return
        reader = constrained.reader()
        maker = make(reader)
        async with aclosing(self._aevents(constrained.request)) as events:
            async for event in events:
                for made in maker.feed(event):
                    yield made
        self._learn(constrained.request, reader.end)
        for made in maker.finish():
            yield made
