"""Begin a turn by sending its message, and leave the conversation free if that fails.

Internal: not part of the public API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from letta_adapters.backends.base import BackendTurn, Conversation, TurnSettings
from letta_adapters.client.tool_calls import Answerer
from letta_adapters.client.turn import Turn
from letta_adapters.messages import InitMessage

if TYPE_CHECKING:
    from letta_adapters.client.client import AsyncLettaClient


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
    """Send a message in a conversation that was entered, and return the turn it begins.

    Args:
        client: The client whose backend the message goes to.
        conversation: The conversation, which the caller has entered.
        settings: The settings that every request of the turn carries.
        content: The message in the form of the wire.
        otid: The message's id.
        leave: Called when the turn is over, to free the conversation.
        owner: The task or thread that sends the message.
        answerer: Answers the turn's tool calls; without it the turn pauses at them.
        init: The first message of the turn's stream, if it is the session's first.
        timeout: Seconds the turn may take; ``None`` means the backend's limit.
        extras: See :meth:`~letta_adapters.backends.base.BackendTurn.start`.

    Raises:
        LettaError: The server refused the message. The conversation is free again.
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
        client: The client whose backend the message goes to.
        turn: The turn that waits.
        settings: Called when the turn begins, as the settings may change until then.
        content: The message in the form of the wire.
        otid: The message's id.
        init: Called when the turn begins; returns the first message of its stream, if any.

    Raises:
        LettaError: The server refused the message. The conversation is free again.
    """
    place = turn.conversation
    leave = await client.enter(place, turn.owner, in_line=True)
    # From here on the message may arrive at the server, and can no longer be taken back.
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
        # The request may have arrived, and must not leave a turn running that nobody reads.
        await client.finish(_abandon(turn, leave))
        raise
    except BaseException:
        # Whatever it was, no turn has begun that could free the conversation.
        leave()
        raise
    return turn


async def _abandon(turn: BackendTurn, leave: Callable[[], None]) -> None:
    """Stop a turn whose sender gave up before it was accepted, then free its conversation."""
    try:
        await turn.stop()
    finally:
        leave()
