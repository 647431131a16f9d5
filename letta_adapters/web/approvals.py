"""Internal: let viewers answer the tool calls that wait: the first answer wins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from letta_adapters._utils.bounded import Bounded
from letta_adapters.errors import ConflictError, InvalidInputError, NotFoundError
from letta_adapters.permissions import Allow, Deny, PermissionContext, Postpone, denials

Decision: TypeAlias = Allow | Deny | Postpone
Publish: TypeAlias = Callable[..., Any]


@dataclass(slots=True)
class _Waiting:
    shown: dict[str, Any]
    answer: asyncio.Future[Decision]
    by: str | None = None
    number: int = 0


class ApprovalDesk:
    """The calls of a room that wait for one of its viewers.

    Args:
        publish: Called with the kind and data of an event, and what the other viewers get.
        timeout: The seconds that a call waits; ``None`` for no limit.
        timeout_answer: The answer that is given then.
    """

    def __init__(
        self, publish: Publish, *, timeout: float | None, timeout_answer: Decision
    ) -> None:
        self._publish = publish
        self._timeout = timeout
        self._timeout_answer = timeout_answer
        self._waiting: dict[str, _Waiting] = {}
        # To tell a late answer from one to nothing.
        self._answered: Bounded[str, None] = Bounded()

    def show(self, upto: int, *, may_approve: bool) -> list[dict[str, Any]]:
        """Return the calls that have waited since a place in the log, or longer.

        Args:
            upto: The place; later ones are read from the log.
            may_approve: Whether the viewer may answer them.
        """
        waiting = [w.shown for w in self._waiting.values() if w.number <= upto]
        return [shown if may_approve else _hide(shown) for shown in waiting]

    async def ask(
        self, name: str, tool_input: Mapping[str, Any], context: PermissionContext
    ) -> Decision:
        """Wait for an answer; this is the ``can_use_tool`` of the room's session.

        Args:
            name: The tool.
            tool_input: Its arguments.
            context: The circumstances.
        """
        id_ = context.tool_call_id
        shown = {
            "tool_call_id": id_,
            "tool_name": name,
            "input": dict(tool_input),
            "kind": context.kind,
            "recovered": context.recovered,
            "diffs": [dict(diff) for diff in context.diffs],
        }
        waiting = _Waiting(shown, asyncio.get_running_loop().create_future())
        self._waiting[id_] = waiting
        outcome, by = "withdrawn", None
        try:
            # By this place in the log a viewer is shown the call in the snapshot or after it, and
            # not twice.
            waiting.number = self._publish("approval", shown, _hide(shown)).number
            # Not wait_for(): it may drop an answer that comes together with the end of the time.
            await asyncio.wait({waiting.answer}, timeout=self._timeout)
            if waiting.answer.done():
                decision, by = waiting.answer.result(), waiting.by
            else:
                decision = self._explain()
            outcome = type(decision).__name__.lower()
            return decision
        finally:
            # Also where the turn is stopped: nobody may answer a call that is no more.
            if self._waiting.get(id_) is waiting:
                del self._waiting[id_]
            self._answered[id_] = None
            self._publish("answered", {"tool_call_id": id_, "answer": outcome, "by": by})

    def answer(self, tool_call_id: str, decision: Allow | Deny, by: str) -> None:
        """Answer a call that waits.

        Args:
            tool_call_id: The call.
            decision: The answer.
            by: The name of the viewer.

        Raises:
            ConflictError: It has an answer already (``already_answered``).
            NotFoundError: No such call waits here.
        """
        waiting = self._waiting.get(tool_call_id)
        if self.was_answered(tool_call_id):
            raise ConflictError(
                "This call has been answered, or its turn has ended.",
                code="already_answered",
                hint="The first answer counts.",
            )
        if waiting is None:
            raise NotFoundError(
                "No call of this id waits.", hint="Answer the calls of `approval` events."
            )
        waiting.by = by
        waiting.answer.set_result(decision)

    def is_waiting(self, tool_call_id: str | None) -> bool:
        """Return whether a call, or any at all, waits without an answer.

        Args:
            tool_call_id: The call; any if ``None``.
        """
        waiting = self._waiting if tool_call_id is None else {tool_call_id} & self._waiting.keys()
        return any(not self._waiting[id_].answer.done() for id_ in waiting)

    def was_answered(self, tool_call_id: str) -> bool:
        """Return whether a call had its answer, as far as it is known still.

        Args:
            tool_call_id: The call.
        """
        waiting = self._waiting.get(tool_call_id)
        return tool_call_id in self._answered if waiting is None else waiting.answer.done()

    def _explain(self) -> Decision:
        """Return the answer for when nobody gives one; a denial says that it is not the user's."""
        chosen = self._timeout_answer
        if isinstance(chosen, Deny) and not chosen.message and self._timeout is not None:
            return replace(chosen, message=denials.explain_silence(self._timeout))
        return chosen


def _hide(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {"tool_call_id": shown["tool_call_id"]}


def read_decision(data: Mapping[str, Any], max_characters: int) -> Allow | Deny:
    """Return the decision that a client has sent.

    Args:
        data: ``allow`` (true or false); with true perhaps ``input``, the arguments to run the tool
            with instead of the agent's, and with false ``message``, which the agent reads.
        max_characters: The length of the message.

    Raises:
        InvalidInputError: It is anything else; an unclear answer allows nothing.
    """
    allow, message = data.get("allow"), data.get("message", "")
    if not isinstance(allow, bool):
        raise InvalidInputError("`allow` must be true or false.")
    if not isinstance(message, str) or len(message) > max_characters:
        raise InvalidInputError(f"`message` must be a text of at most {max_characters} characters.")
    if allow and message:
        raise InvalidInputError("`message` goes with `allow: false` only.")
    edited = data.get("input")
    if edited is not None and not (allow and isinstance(edited, dict)):
        raise InvalidInputError("`input` must be an object, and goes with `allow: true` only.")
    return Allow(edited) if allow else Deny(message)
