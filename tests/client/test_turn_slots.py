"""A conversation that is held for a turn is free again, whatever becomes of the turn."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters.backends.base import Backend, Conversation, TurnSettings
from letta_adapters.client.turn import Turn
from letta_adapters.client.turn_options import TurnOptions
from letta_adapters.client.turn_slots import OutgoingMessage, TurnSlots
from letta_adapters.engine.turn_state import TurnState
from letta_adapters.errors import ServerError

HERE = Conversation("agent-1", "conv-1")
MESSAGE = OutgoingMessage("otid-1", "Hello.")
OPTIONS = TurnOptions(TurnSettings())
OWNER = object()


class OneTurn:
    """A turn whose message is accepted, refused, or never answered."""

    def __init__(self, error: Exception | None, accepted: asyncio.Event) -> None:
        self.state = TurnState()
        self.wanted = True
        self.stopped = 0
        self._error = error
        self._accepted = accepted

    async def start(self, *_: Any, **__: Any) -> None:
        if self._error is not None:
            raise self._error
        await self._accepted.wait()

    async def stop(self, *_: Any) -> None:
        await asyncio.sleep(0)
        self.stopped += 1


class Home:
    """A backend that makes such turns."""

    name = "fake"

    turn_timeout = None

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.accepted = asyncio.Event()
        self.accepted.set()
        self.made: list[OneTurn] = []

    def turn(self, *_: Any) -> OneTurn:
        self.made.append(OneTurn(self.error, self.accepted))
        return self.made[-1]


@pytest.fixture
def home() -> Home:
    return Home()


@pytest.fixture
def slots(home: Home) -> TurnSlots:
    return TurnSlots(cast("Backend", home), object())


async def is_free(slots: TurnSlots) -> bool:
    """Return whether another task gets the conversation at once."""

    async def visit() -> None:
        async with slots.reserve(HERE, None, in_line=True):
            pass

    visiting = asyncio.ensure_future(visit())
    for _ in range(5):
        await asyncio.sleep(0)
    free = visiting.done()
    visiting.cancel()
    await asyncio.wait({visiting})
    return free


async def test_leaving_before_a_turn_has_started_frees_the_conversation(slots: TurnSlots) -> None:
    async with slots.reserve(HERE, OWNER):
        assert not await is_free(slots)
    assert await is_free(slots)
    with pytest.raises(ZeroDivisionError):
        async with slots.reserve(HERE, OWNER):
            raise ZeroDivisionError
    assert await is_free(slots)


async def test_a_turn_that_has_started_holds_the_conversation_to_its_end(slots: TurnSlots) -> None:
    async with slots.reserve(HERE, OWNER) as slot:
        turn = await slot.start(MESSAGE, OPTIONS)
    assert slots.turns == {HERE.key: turn}
    assert slots.busy and not await is_free(slots)
    await turn.stop()
    assert not slots.busy and await is_free(slots)


async def test_a_refused_message_frees_the_conversation_before_the_context_is_left(
    home: Home, slots: TurnSlots
) -> None:
    home.error = ServerError("no")
    async with slots.reserve(HERE, OWNER) as slot:
        with pytest.raises(ServerError):
            await slot.start(MESSAGE, OPTIONS)
        assert await is_free(slots)
        home.error = None
        async with slots.reserve(HERE, OWNER) as again:
            turn = await again.start(MESSAGE, OPTIONS)
    # Leaving the context of the message that was refused does not touch the turn of the second.
    assert slots.turns == {HERE.key: turn} and not await is_free(slots)
    await turn.stop()


async def test_a_slot_that_was_handed_on_is_free_when_the_one_who_got_it_leaves(
    slots: TurnSlots,
) -> None:
    async with slots.reserve(HERE, OWNER) as slot:
        with pytest.raises(ZeroDivisionError):
            async with slot:
                raise ZeroDivisionError
        assert await is_free(slots)


async def test_a_send_that_is_cancelled_stops_its_turn_before_the_conversation_is_free(
    home: Home, slots: TurnSlots
) -> None:
    home.accepted.clear()

    async def send() -> Turn:
        async with slots.reserve(HERE, OWNER) as slot:
            return await slot.start(MESSAGE, OPTIONS)

    sending = asyncio.ensure_future(send())
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert [turn.stopped for turn in home.made] == [1]
    assert not slots.turns and await is_free(slots)


async def test_a_turn_in_line_whose_settings_fail_frees_the_conversation(
    home: Home, slots: TurnSlots
) -> None:
    def settings() -> TurnSettings:
        raise ZeroDivisionError

    turn = Turn(cast("Any", home.turn()), HERE, OPTIONS, owner=OWNER, release=None)
    slots.line_up(object(), turn, MESSAGE, settings, lambda: None)
    while slots.queue:
        await asyncio.sleep(0)
    assert await is_free(slots)


async def test_the_client_shows_no_turns_and_no_servers() -> None:
    async with AsyncLettaClient(Rest(base_url="http://letta.example", api_key="")) as client:
        shown = {name for name in vars(client) if not name.startswith("_")}
    resources = {"agents", "blocks", "conversations", "models", "runs", "tools"}
    assert shown == resources | {"backend", "handles", "spec"}
