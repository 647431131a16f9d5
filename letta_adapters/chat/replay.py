"""Internal: read what a conversation holds already: newest messages, answers to repeated calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from letta_adapters.backends.base import Conversation, PageQuery, Sent
from letta_adapters.chat.cache import recent
from letta_adapters.chat.context import ChatContext
from letta_adapters.chat.marker import Marker
from letta_adapters.chat.payload import GO_ON
from letta_adapters.client.client import get_slots
from letta_adapters.engine.assembler import read_results
from letta_adapters.engine.otids import get_call_part, is_same_call, make_otid
from letta_adapters.engine.stored import list_call_ids, list_calls, read_messages, turn_round
from letta_adapters.errors import ConversationBusyError, NotFoundError
from letta_adapters.messages import (
    AssistantMessage,
    Message,
    ToolCallMessage,
    ToolResultMessage,
    content_text,
)

if TYPE_CHECKING:
    from letta_adapters.client.client import AsyncLettaClient

# The number of newest stored messages that are searched for a repeated call.
RECENT: Final = 50
# The longest time, in seconds, that a stored message may take until its turn shows as active, and
# the time between two looks.
_BEGIN_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 0.1
GONE: Final = "the conversation it came from is gone"
_GONE_ON: Final = "the conversation has gone on since that answer"
# The seconds to wait for the run of a call that may have been made before.
_RUN_SECONDS: Final = 600.0

# The messages that tell how far a turn has come.
_STEPS: Final = (AssistantMessage, ToolCallMessage, ToolResultMessage)

_Item = Mapping[str, Any]


async def read_newest(
    client: AsyncLettaClient, conversation: Conversation, limit: int
) -> list[dict[str, Any]]:
    """Return the newest stored messages, oldest first."""
    page = await client.backend.list_messages(conversation, PageQuery(limit, count_on=False))
    return [dict(item) for item in turn_round(page.raw)]


def is_head(marker: Marker, items: Sequence[_Item]) -> bool:
    """Return whether the marker's answer is still the newest message of the conversation.

    Several items can belong to one stored message, and the answer to a call that is pending may
    stand behind the call: any of the names will do in the newest message.
    """
    if not items:
        return False
    last = items[-1].get("id")
    for item in reversed(items):
        if item.get("id") != last:
            return False
        if not _list_names(item).isdisjoint(map(get_call_part, marker.head)):
            return True
    return False


def list_newest_names(items: Sequence[_Item]) -> tuple[str, ...]:
    """Return the names that a marker has for the newest message."""
    return tuple(sorted(_list_names(items[-1]))) if items else ()


def _list_names(item: _Item) -> set[str]:
    """Return all names an item is known by: its ids, and those of its calls and results."""
    names = {get_call_part(str(item.get(key))) for key in ("id", "otid") if item.get(key)}
    return names | list_call_ids(item)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """Hold what follows an input that the conversation holds.

    Attributes:
        messages: The messages; none if the input has no answer.
        pending: Calls that nobody has answered yet.
    """

    messages: tuple[Message, ...]
    pending: tuple[ToolCallMessage, ...]

    @property
    def complete(self) -> bool:
        """Return whether the agent answered, or waits for the caller.

        What it said before it called a tool is no answer: the turn may have ended there, unheard.
        """
        steps = [m for m in self.messages if isinstance(m, _STEPS)]
        return bool(self.pending) or (bool(steps) and isinstance(steps[-1], AssistantMessage))


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold what a conversation tells about a call before anything is sent there.

    Attributes:
        answer: The whole answer to this very call, which was made before.
        stored: The conversation holds the call's message, and no whole answer to it.
        mismatch: Why the call cannot go on there, or ``""``.
    """

    answer: StoredAnswer | None = None
    stored: bool = False
    mismatch: str = ""


async def find_answer(client: AsyncLettaClient, context: ChatContext) -> Finding:
    """Look in the call's conversation for an answer to this very call, and for a reason to fork.

    Args:
        client: The client.
        context: The call; its route leads to a conversation.

    Raises:
        ConversationBusyError: A run goes on and on that may be of this call.
        NotFoundError: The conversation is gone, and the call has to go there.
    """
    route = context.route
    where, marker = context.conversation, route.marker
    # Only a history that goes on from a marker can disagree with the conversation.
    bound = marker is not None and not route.forced
    if not bound and route.key is None:
        return Finding()
    if bound and _goes_on_anyway(context):
        return Finding()
    # The Letta API lists what a run was sent when its step is stored, Letta Code at once.
    listed_late = context.backend.capabilities.whole_answers_only
    try:
        asks = listed_late and not recent.knows(where)
        if asks and not await _has_run(client, context):
            return Finding()
        head = await read_newest(client, where, 1) if bound else []
        if marker is not None and is_head(marker, head):
            return Finding()
        found = await _find_stored(client, context)
        if found is not None and not listed_late:
            found = await _wait_until_over(client, context, found)
    except NotFoundError:
        if not bound:
            raise
        return Finding(mismatch=GONE)
    if found is None:
        return Finding(mismatch=_GONE_ON if bound else "")
    whole = found.complete and not await _is_a_part(client, context, found)
    return Finding(answer=found) if whole else Finding(stored=True)


def _goes_on_anyway(context: ChatContext) -> bool:
    """Return whether nothing that the conversation holds would change what is sent.

    That takes an ``on_mismatch`` which continues whatever the conversation holds, a process that
    knows all that happened there, and a call that it has not made before.
    """
    if context.request.on_mismatch != "continue" or not recent.knows(context.conversation):
        return False
    return recent.get(context.agent_id, context.route.key) is None


async def _find_stored(client: AsyncLettaClient, context: ChatContext) -> StoredAnswer | None:
    """Look for this call among the messages that the conversation holds."""
    route = context.route
    items = await read_newest(client, context.conversation, RECENT)
    found = find_after_message(items, route.key) if route.key else None
    # Results that are stored are the whole call only if nothing is said after them.
    only_results = route.send[-1].role == "tool" if route.send else False
    if found is None and only_results and _are_our_results(context):
        found = find_after_results(items, route.result_ids)
    return found


async def _wait_until_over(
    client: AsyncLettaClient, context: ChatContext, found: StoredAnswer
) -> StoredAnswer | None:
    """Return this call as it is stored once no turn of it is active any more.

    Letta Code stores a message before it says that the turn is active, and the answer while it
    grows. So an idle conversation tells something only if an answer was there before it was asked
    about, and a message without one is looked at for a moment, unless this process has sent it:
    then it knows more.

    Args:
        client: The client.
        context: The call.
        found: The call as it was stored a moment ago.
    """
    ours = recent.get(context.agent_id, context.route.key) is not None
    until = time.monotonic() + (0.0 if ours else _BEGIN_SECONDS)
    stored: StoredAnswer | None = found
    while stored is not None:
        had_begun = bool(stored.messages)
        await _has_run(client, context)
        stored = await _find_stored(client, context)
        said = stored is not None and bool(stored.messages)
        if had_begun or not (said or time.monotonic() < until):
            break
        if not said:
            await asyncio.sleep(_LOOK_SECONDS)
    return stored


async def _has_run(client: AsyncLettaClient, context: ChatContext) -> bool:
    """Wait for an earlier run of this call; return whether any ran since its last answer."""
    route, seconds = context.route, context.request.timeout
    after = None if route.marker is None or route.forced else route.marker.run_id
    return await wait_for_runs(
        client, context.conversation, route.key, after=after, seconds=seconds
    )


async def _is_a_part(client: AsyncLettaClient, context: ChatContext, found: StoredAnswer) -> bool:
    """Return whether the stored answer is only the beginning that was cut off."""
    if context.backend.capabilities.whole_answers_only or found.pending:
        return False
    if recent.get(context.agent_id, context.route.key) is not None:
        return recent.was_cut_off(context.agent_id, context.route.key)
    # Another process made the call, and may have died in the middle of its turn.
    last = [m.id for m in found.messages if isinstance(m, AssistantMessage)][-1]
    return last is not None and await client.backend.was_cut(context.conversation, last)


def _are_our_results(context: ChatContext) -> bool:
    """Return whether stored results of tool calls can be taken for the caller's.

    A call that an App Server gave up has a result too, which is not the caller's.
    """
    if context.backend.capabilities.durable_pending_calls:
        return True
    return recent.get(context.agent_id, context.route.key) == context.route.conversation


async def wait_for_runs(
    client: AsyncLettaClient,
    conversation: Conversation,
    key: str | None,
    *,
    after: str | None = None,
    seconds: float | None = None,
) -> bool:
    """Wait for a run that may be of this very call, made before, here or elsewhere.

    Args:
        client: The client.
        conversation: The conversation.
        key: The key that the call is known by.
        after: The run of the answer that the call goes on from.
        seconds: The longest wait; ``None``: as long as a turn may take.

    Returns:
        Whether anything has run since ``after``, as far as the server tells.

    Raises:
        ConversationBusyError: The run goes on and on.
    """
    backend = client.backend
    seconds = seconds or backend.turn_timeout or _RUN_SECONDS
    place = conversation.agent_id, conversation.conversation_id
    sent = Sent(make_otid(key, *place) if key else "", after, seconds)
    idle = await backend.wait_until_idle(conversation, sent)
    if idle is False:
        raise ConversationBusyError(
            "A run is active in the conversation, perhaps of this very call.",
            hint="Make the call again later: if it was made before, its answer is looked up. "
            "A run that never ends is stopped by abort() of a session of that conversation.",
            accepted=False,
        )
    return idle is True


async def holds(
    client: AsyncLettaClient,
    conversation: Conversation,
    key: str | None,
    results: Mapping[str, str],
    seconds: float | None = None,
) -> bool | None:
    """Ask the server whether a message that was sent under this key is in the conversation.

    A turn of ours that is still being stopped there is waited for, and so is a run that is active:
    the input of a run is listed only when its step is stored.

    Args:
        client: The client.
        conversation: The conversation.
        key: The key that the message was sent under.
        results: Texts that were sent with it for tool calls, by the calls' ids. Where a server
            answers calls itself when their turn ends, only these texts are the caller's.
        seconds: The longest wait for a run. Default: as long as the client's turns may take.

    Returns:
        ``None`` if the conversation is gone.

    Raises:
        ConversationBusyError: A run there goes on and on.
    """
    # Entering waits for a turn of this process that is still being stopped there.
    async with get_slots(client).reserve(conversation, None):
        try:
            await wait_for_runs(client, conversation, key, seconds=seconds)
            items = await read_newest(client, conversation, RECENT)
        except NotFoundError:
            return None
    if key is not None and find_after_message(items, key) is not None:
        return True
    # The message itself is not there; a call may have sent nothing but results of tools.
    durable = client.backend.capabilities.durable_pending_calls
    open_: set[str] = set()
    for item in reversed(items):
        returned = item.get("message_type") == "tool_return_message"
        for kept in read_results(item, {}) if returned else ():
            id_ = kept.tool_call_id
            # A model may give a later call an earlier one's id: the newest is the one meant.
            told = durable or results.get(id_, "\0") in kept.content
            if id_ in results and id_ not in open_ and told:
                return True
        open_.update(str(call.get("tool_call_id")) for call in list_calls(item))
    return False


def find_after_message(items: Sequence[_Item], key: str) -> StoredAnswer | None:
    """Return what follows the message of this call, up to the next user's message, or ``None``."""
    for at, item in enumerate(items):
        if item.get("message_type") == "user_message" and is_same_call(item.get("otid"), key):
            return _read_answer(items[at + 1 :])
    return None


def find_after_results(items: Sequence[_Item], tool_call_ids: Iterable[str]) -> StoredAnswer | None:
    """Return what follows the results of these calls; ``None`` if they are not stored."""
    wanted = set(tool_call_ids)
    # From the newest on: a model may give a later call the id of an earlier one.
    for at in range(len(items) - 1, -1, -1):
        item = items[at]
        returned = item.get("message_type") == "tool_return_message"
        if returned and not _list_names(item).isdisjoint(wanted):
            return _read_answer(items[at + 1 :])
    return None


def _read_answer(items: Sequence[_Item]) -> StoredAnswer:
    """Return the messages up to the next user's message, and the calls left open among them."""
    messages: list[Message] = []
    open_calls: dict[str, ToolCallMessage] = {}
    names: dict[str, str] = {}
    for item in items:
        if item.get("message_type") == "user_message":
            if content_text(item.get("content")) == GO_ON:
                continue  # our own: what follows still answers the same message
            break
        for message in read_messages(item, names):
            messages.append(message)
            if isinstance(message, ToolCallMessage):
                names[message.tool_call_id] = message.tool_name
            # A call waits for somebody from its request to its result.
            if isinstance(message, ToolCallMessage) and message.requires_approval:
                open_calls[message.tool_call_id] = message
            elif isinstance(message, ToolResultMessage):
                open_calls.pop(message.tool_call_id, None)
    return StoredAnswer(tuple(messages), tuple(open_calls.values()))
