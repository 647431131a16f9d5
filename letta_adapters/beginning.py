"""How a turn begins: its message is sent, and whatever goes wrong leaves the conversation free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from letta_adapters.answers import Answerer
from letta_adapters.backends.base import BackendTurn, Conversation, TurnSettings
from letta_adapters.messages import InitMessage
from letta_adapters.turns import Turn

if TYPE_CHECKING:
    from letta_adapters.client import AsyncLettaClient


async def begin_turn(
    client: AsyncLettaClient,
    conversation: Conversation,
    settings: TurnSettings,
    content: Any,
    otid: str,
    *,
    leave: Callable[[], None],
    owner: object,
    answerer: Answerer | None = None,
    init: InitMessage | None = None,
    timeout: float | None = None,
    extras: Mapping[str, Any] | None = None,
) -> Turn:
    """Send a message in a conversation that was entered; ``leave`` is called when the turn is over.

    ``extras``: see :meth:`~letta_adapters.backends.base.BackendTurn.start`.

    Raises:
        LettaError: the server refused it. The conversation is free again.
    """
    started = await _start(client, conversation, settings, content, otid, leave, extras or {})
    made = Turn(
        started,
        conversation,
        answerer,
        init=init,
        timeout=timeout or client.backend.turn_timeout,
        owner=owner,
        release=leave,
    )
    client.turns[conversation] = made
    return made


async def begin_in_line(
    client: AsyncLettaClient,
    turn: Turn,
    settings: Callable[[], TurnSettings],
    content: Any,
    otid: str,
    init: Callable[[], InitMessage | None],
) -> None:
    """Send the message of a turn that waits, as soon as its conversation is free.

    Args:
        client: Whose backend it goes to.
        turn: What waits.
        settings, init: Asked when it begins: what they say may change until then.
        content, otid: The message.

    Raises:
        LettaError: the server refused it. The conversation is free again.
    """
    place = turn.conversation
    leave = await client.enter(place, turn.owner, in_line=True)
    turn.on_its_way = True
    started = await _start(client, place, settings(), content, otid, leave, {})
    client.turns[place] = turn
    turn.begin(started, init(), leave)


async def _start(
    client: AsyncLettaClient,
    conversation: Conversation,
    settings: TurnSettings,
    content: Any,
    otid: str,
    leave: Callable[[], None],
    extras: Mapping[str, Any],
) -> BackendTurn:
    turn = client.backend.turn(conversation, settings)
    try:
        client.check_usable()
        await turn.start(content, otid, **extras)
    except asyncio.CancelledError:
        # The request may have arrived: leave nothing running.
        await client.finish(_abandon(turn, leave))
        raise
    except BaseException:
        leave()
        raise
    return turn


async def _abandon(turn: BackendTurn, leave: Callable[[], None]) -> None:
    """Stop a turn whose sender gave up before it was accepted, then free its conversation."""
    try:
        await turn.stop()
    finally:
        leave()
