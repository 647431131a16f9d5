"""Internal: decode stored messages, once for whoever reads a conversation.

Shapes of stored messages: the Letta API's ``GET .../messages``, observed on letta 0.16.8; the App
Server lists the same. One stored message can be several items of a page, which share its ``id``.

The rules: docs/protocol.md ("Pages of stored messages").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, pairwise
from typing import Any, Final, Literal, TypeAlias, TypeVar

from letta_adapters.engine.assembler import (
    TEXT_FIELD,
    build_text,
    join_text,
    list_dicts,
    list_returns,
    parse_arguments,
    read_calls,
    read_results,
)
from letta_adapters.engine.shapes import find_misshapen
from letta_adapters.errors import InvalidInputError, ProtocolError
from letta_adapters.messages import (
    AssistantMessage,
    Message,
    MessagePage,
    ReasoningMessage,
    SystemMessage,
    ToolCallMessage,
    ToolResultMessage,
    UnknownMessage,
    UserMessage,
    content_text,
)

#: What an agent says and does.
Spoken: TypeAlias = AssistantMessage | ReasoningMessage | ToolCallMessage | ToolResultMessage
#: The kinds of message that hold tool calls.
CALLS: Final = ("tool_call_message", "approval_request_message")
#: The kinds of stored message that a stream shows as messages of their own.
SPOKEN: Final = frozenset({*TEXT_FIELD, *CALLS, "tool_return_message"})

_OPEN: Final = "<system-reminder>"
_CLOSE: Final = "</system-reminder>"
_REMINDERS: Final = re.compile(rf"(?:\s*{_OPEN}.*?{_CLOSE})+\s*", re.DOTALL)
_ALERT: Final = re.compile(r"\s*<system-alert>(.*)</system-alert>\s*", re.DOTALL)

_Item = Mapping[str, Any]
_ItemT = TypeVar("_ItemT", bound=_Item)


# -- pages ----------------------------------------------------------------------------------------


def turn_round(items: Iterable[_ItemT]) -> list[_ItemT]:
    """Return a list of items the other way round; those of one stored message keep their order."""
    items = list(items)
    ids = [item.get("id") for item in items]
    if not any(one == other for one, other in pairwise(ids)):
        return items[::-1]
    messages = [list(group) for _, group in groupby(items, lambda item: item.get("id"))]
    return [item for message in reversed(messages) for item in message]


def newest_first(items: list[_ItemT]) -> list[_ItemT]:
    """Return a page that was asked for newest first in that order, whatever order it came in."""
    return turn_round(items) if _is_oldest_first(items) else items


def shows_its_order(items: list[_ItemT]) -> bool:
    """Return whether a page has anything that tells :func:`newest_first` its order for sure."""
    ends = {str(items[at].get("date")) for at in (0, -1)} if items else ()
    return len(ends) > 1 or _input_comes_first(items) is not None


def keep_first(items: list[_ItemT], count: int) -> list[_ItemT]:
    """Return the items of the first ``count`` stored messages of a page."""
    kept = set(islice(dict.fromkeys(item["id"] for item in items), count))
    return [item for item in items if item["id"] in kept]


def _is_oldest_first(items: list[_ItemT]) -> bool:
    """Return whether a page is in the wrong order.

    letta 0.16.8 lists a page of the *default* conversation oldest first whatever was asked. Dates
    decide; they have seconds only, so a page of one second is told by a message that cannot come
    later: the input of the same run, or else the system message (one may also be stored later).
    """
    if len(items) < 2:
        return False
    # The two ends of the page tell, unless both are of the same second.
    first, last = items[0], items[-1]
    if first.get("date") != last.get("date"):
        return str(first.get("date")) < str(last.get("date"))
    by_run = _input_comes_first(items)
    return first.get("message_type") == "system_message" if by_run is None else by_run


def _input_comes_first(items: list[_ItemT]) -> bool | None:
    """Return whether a run's input stands before its answer; ``None`` if no run shows both."""
    seen: dict[str, Any] = {}
    for item in items:
        run = item.get("run_id")
        if type(run) is not str:
            continue
        earlier = seen.setdefault(run, item.get("message_type"))
        if earlier != item.get("message_type"):
            return bool(earlier == "user_message")
    return None


def check_cursor(cursor: str | None, ids: Sequence[str]) -> None:
    """Check that a page does not begin again with the message that it was to follow.

    Args:
        cursor: The id of that message, if one was named.
        ids: The ids of the page's messages.

    Raises:
        ProtocolError: It holds that message, so that whoever pages on would never come to an end.
    """
    if cursor in ids:
        raise ProtocolError("The server returned the page's own cursor: paging would loop.")


def refuse_cursor(cursor: str) -> InvalidInputError:
    """Return the refusal of a cursor that a server answers with the first page, again and again."""
    return InvalidInputError(f"{cursor!r} is no message of this conversation.")


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A page as a server has it, for whoever reads the API's own objects.

    Args:
        raw: The stored messages that are shown.
        order: The order that they are in.
        last: The id of the last one that was fetched, whether or not it is shown.
        more: True if there are others behind it.
    """

    raw: list[dict[str, Any]]
    order: Literal["asc", "desc"]
    last: str | None
    more: bool


def make_page(page: StoredPage) -> MessagePage:
    """Return a page with typed messages, and the cursor that leads on in its direction."""
    before, after = (page.last, None) if page.order == "desc" else (None, page.last)
    typed = read_page(page.raw, page.order)
    return MessagePage(typed, page.raw, before, page.more, after, page.order)


# -- what the agent said and did ------------------------------------------------------------------


def read_messages(item: _Item, names: Mapping[str, str] | None = None) -> list[Spoken]:
    """Return an item as the messages that a stream would have yielded.

    Args:
        item: The item; one that is not of a kind in :data:`SPOKEN` yields none.
        names: The names of the tools that were called, by tool call id: one item with several
            results does not tell them.
    """
    kind = item.get("message_type")
    if kind == "tool_return_message":
        return [*read_results(item, names or {})]
    if kind in TEXT_FIELD:
        # Most of a page, so it takes no way round: a stored text is complete by itself.
        parts = (content_text(item.get(TEXT_FIELD[str(kind)])),)
        return [build_text(str(kind), item, parts, item.get("signature") or None)]
    if kind in CALLS:
        return [*read_calls(item, approval=kind == "approval_request_message")]
    return []


def list_calls(item: _Item) -> list[_Item]:
    """Return the tool calls of an item, or the one that a fragment belongs to."""
    return list_dicts(item.get("tool_calls")) or list_dicts(item.get("tool_call"))


def list_call_ids(item: _Item) -> set[str]:
    """Return the ids of the calls that an item makes or answers."""
    named = [*list_calls(item), *list_returns(item)]
    return {str(one["tool_call_id"]) for one in named if one.get("tool_call_id")}


# -- a page as typed messages ---------------------------------------------------------------------


def read_page(items: Sequence[_Item], order: str) -> tuple[Message, ...]:
    """Return the messages of a page, in the page's order.

    Args:
        items: The API's own objects, in ``order``.
        order: ``"desc"`` or ``"asc"``. Newest first is exactly the reverse of oldest first, also
            among the messages that one object holds.
    """
    names: dict[str, str] = {}
    found: list[Message] = []
    for item in items if order == "asc" else turn_round(items):
        messages = read_item(item, names)
        found += messages
        if item.get("message_type") in CALLS:
            names.update((m.tool_call_id, m.tool_name) for m in messages if m.type == "tool_call")
    return tuple(found if order == "asc" else reversed(found))


def read_item(item: _Item, names: Mapping[str, str] | None = None) -> Sequence[Message]:
    """Return what an item says; an :class:`UnknownMessage` if it is of another kind, or broken.

    Args:
        item: The item.
        names: The names of the tools that were called, by tool call id.
    """
    # A broken item is shown as it is: half of it would look like all of it.
    kind = item.get("message_type")
    if type(kind) is not str or find_misshapen(item):
        return (UnknownMessage(item),)
    if kind in SPOKEN:
        return read_messages(item, names) or (UnknownMessage(item),)
    ids = (item.get("id"), item.get("otid"), item.get("seq_id"), item.get("run_id"))
    found: Sequence[Message] = ()
    if kind == "approval_response_message":
        found = _read_answers(item, names or {})
    elif kind == "system_message":
        found = (SystemMessage(content_text(item.get("content")), *ids),)
    elif kind == "user_message":
        content = item.get("content")
        whose, text = read_user(content)
        if whose == "user" and text is not None:
            parts = tuple(list_dicts(content)) if isinstance(content, list) else ()
            found = (UserMessage(text, parts, *ids),)
    return found or (UnknownMessage(item),)


def _read_answers(item: _Item, names: Mapping[str, str]) -> list[Message]:
    """Return the results of client-side tools, and denials as the model sees them.

    A permission says nothing: the tool runs then, and its own result follows.
    """
    given = [
        {**answer, "tool_return": answer.get("reason") or "", "status": "error"}
        if answer.get("approve") is False
        else answer
        for answer in list_dicts(item.get("approvals"))
        if answer.get("type") == "tool" or answer.get("approve") is False
    ]
    # One by one, as a single result without its own fields would be looked for in the item.
    ids = {k: item.get(k) for k in ("id", "otid", "seq_id", "run_id")}
    return [m for answer in given for m in read_results(ids | {"tool_returns": [answer]}, names)]


# -- what the user said ---------------------------------------------------------------------------


def read_user(content: Any) -> tuple[Literal["user", "event"], str | None]:
    """Return a user's message without text that was injected, and whose it is then.

    ``"event"`` means that the server spoke as the user; ``None`` that nothing of the user is left.
    """
    parts = list_dicts(content) if isinstance(content, list) else [{"text": content}]
    texts = [p["text"] for p in parts if isinstance(p.get("text"), str)]
    # Only a message that consists of nothing else can be the server's own.
    alert = _read_alert(texts[0]) if len(parts) == len(texts) == 1 else None
    if alert is not None:
        return "event", alert
    own = [_strip_reminders(text) for text in texts]
    said = join_text(own)
    # An empty message, or one of images alone, is the user's own and stays.
    nothing_left = not said and any(texts) and len(parts) == len(texts)
    return "user", None if nothing_left else said


def _strip_reminders(text: str) -> str:
    # Only in front, where the server puts them: the user may write such a tag further on.
    injected = _REMINDERS.match(text) if _OPEN in text else None
    return text[injected.end() :] if injected else text


def _read_alert(text: str) -> str | None:
    """Return the text of a message in which the server speaks as the user, else ``None``.

    It does so with JSON after a compaction, and with a tag when it resumes a turn.
    """
    tagged = _ALERT.fullmatch(text) if "<system-alert>" in text else None
    if tagged:
        return tagged[1].strip()
    if text.startswith("{") and '"system_alert"' in text:
        alert = parse_arguments(text)
        if alert.get("type") == "system_alert":
            return str(alert.get("message") or "")
    return None


def without_reminders(item: _Item) -> dict[str, Any] | None:
    """Return the item as its sender wrote it; ``None`` if Letta Code wrote all of it.

    Letta Code puts information for the model (the device, the date, the agent's id) into the user's
    messages, as text parts of their own.
    """
    kept = dict(item)
    content = item.get("content")
    if item.get("message_type") != "user_message":
        return kept
    if isinstance(content, str):
        return None if _is_reminder(content) else kept
    if not isinstance(content, list):
        return kept
    # Only whole parts are left out: a user may write such a tag into a text of their own.
    own = [part for part in content if not _is_reminder_part(part)]
    kept["content"] = own
    return kept if own or not content else None


def _is_reminder_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and _is_reminder(part.get("text"))


def _is_reminder(text: Any) -> bool:
    if not isinstance(text, str):
        return False
    bare = text.strip()
    return bare.startswith(_OPEN) and bare.endswith(_CLOSE)
