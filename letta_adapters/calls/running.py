"""Runs calls in both colours, again where that is safe, until their answer is what was demanded."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from typing import Any, Protocol, cast

from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from letta_adapters._bounded import Bounded
from letta_adapters.calls.answer import Answer, Piece, Reader
from letta_adapters.calls.caller import Caller
from letta_adapters.calls.calling import Calling
from letta_adapters.calls.model import Call, CallEnd, CallEvent
from letta_adapters.errors import is_retryable

_LONGEST_WAIT = 8.0  # seconds


class Maker(Protocol):
    """Makes a framework's streaming form of an answer."""

    def feed(self, event: Any) -> list[Any]: ...
    def finish(self) -> list[Any]: ...
    def replay(self, pieces: Any) -> list[Any]: ...


class Drafter(Protocol):
    """Makes a framework's form of an answer that is not known to be good yet."""

    def begin(self) -> None: ...
    def feed(self, pieces: Any) -> list[Any]: ...


class Runner:
    """What a model does its calls with."""

    def __init__(self, caller: Caller, max_retries: int) -> None:
        self.caller = caller
        # Handles of the agents' models, as far as answers told them; `None` is the default agent.
        self.models: Bounded[str | None, str] = Bounded()
        self._retries: dict[str, Any] = {
            "stop": stop_after_attempt(max_retries + 1),
            "wait": wait_random_exponential(max=_LONGEST_WAIT),
            "retry": retry_if_exception(is_retryable),
            "reraise": True,
        }

    def _learn(self, call: Call, end: CallEnd | None) -> None:
        """Note the model's handle, which is known by the end of a call."""
        if end is not None and end.model and call.model is None:
            self.models[call.agent_id] = end.model

    def _events(self, call: Call) -> Generator[CallEvent, None, None]:
        """The events of a call; made again while it was surely not accepted."""
        for attempt in Retrying(**self._retries):
            with attempt, closing(self.caller.stream(call)) as events:
                yield from events
                return

    async def _aevents(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        async for attempt in AsyncRetrying(**self._retries):
            with attempt:
                async with aclosing(self.caller.astream(call)) as events:
                    async for event in events:
                        yield event
                return

    def answer(self, calling: Calling) -> Answer:
        """A whole answer that meets the call's demand."""
        *_, answer = self._attempted(calling)
        return cast("Answer", answer)

    async def aanswer(self, calling: Calling) -> Answer:
        async with aclosing(self._aattempted(calling)) as parts:
            answer = [part async for part in parts][-1]
        return cast("Answer", answer)

    def _attempted(
        self, calling: Calling, draft: Drafter | None = None
    ) -> Generator[Any, None, None]:
        """What the draft shows until the answer is what was demanded; at the end the answer.

        Args:
            draft: What is told of the pieces, also of those of an answer that has to be mended.
        """
        attempts = calling.attempts(whole=draft is None)
        call = next(attempts)
        while True:
            reader, pieces = calling.reader(call), list[Piece]()
            if draft is not None:
                draft.begin()
            with closing(self._events(call)) as events:
                for event in events:
                    pieces += (new := reader.read(event))
                    if draft is not None:
                        yield from draft.feed(new)
            try:
                call = attempts.send(Answer(reader, tuple(pieces)))
            except StopIteration as done:
                answer = cast("Answer", done.value)
                break
        self._learn(calling.call, answer.end)
        if calling.leaves_calls(answer):
            answer.settle(self.caller.abandon(answer.end, remove=call.ephemeral))
        yield answer

    async def _aattempted(
        self, calling: Calling, draft: Drafter | None = None
    ) -> AsyncGenerator[Any, None]:
        attempts = calling.attempts(whole=draft is None)
        call = next(attempts)
        while True:
            reader, pieces = calling.reader(call), list[Piece]()
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
        self._learn(calling.call, answer.end)
        if calling.leaves_calls(answer):
            answer.settle(await self.caller.aabandon(answer.end, remove=call.ephemeral))
        yield answer

    def run(
        self,
        calling: Calling,
        make: Callable[[Reader], Maker],
        draft: Drafter | None = None,
    ) -> Generator[Any, None, None]:
        """A streamed answer, in the form that ``make`` gives it.

        Args:
            draft: Shows an answer that may have to be mended while it comes; without it such an
                answer is shown when it is good.
        """
        if calling.demand.check is not None:
            with closing(self._attempted(calling, draft)) as parts:
                for part in parts:
                    if isinstance(part, Answer):
                        yield from make(part.reader).replay(part.pieces)
                    else:
                        yield part
            return
        reader = calling.reader()
        maker = make(reader)
        with closing(self._events(calling.call)) as events:
            for event in events:
                yield from maker.feed(event)
        self._learn(calling.call, reader.end)
        yield from maker.finish()

    async def arun(
        self,
        calling: Calling,
        make: Callable[[Reader], Maker],
        draft: Drafter | None = None,
    ) -> AsyncGenerator[Any, None]:
        if calling.demand.check is not None:
            async with aclosing(self._aattempted(calling, draft)) as parts:
                async for part in parts:
                    if not isinstance(part, Answer):
                        yield part
                        continue
                    for made in make(part.reader).replay(part.pieces):
                        yield made
            return
        reader = calling.reader()
        maker = make(reader)
        async with aclosing(self._aevents(calling.call)) as events:
            async for event in events:
                for made in maker.feed(event):
                    yield made
        self._learn(calling.call, reader.end)
        for made in maker.finish():
            yield made
