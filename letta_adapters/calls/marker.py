"""What an assistant message of ours carries, so that the next call knows where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from letta_adapters._checks import checked_id

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Marker:
    """Where an answer was given, and to what. JSON both ways; travels in the message itself.

    ``head``: names under which the server knows the newest message of the conversation as it was
    then (an ``otid``, an id, a tool call's id). ``previous``: the :attr:`key` of the marker before
    it in the same conversation. ``inputs``: one digest for every message that stood between the
    two, oldest first; ``earlier`` tells that more stood before those. ``pending``: the tool calls
    that wait for the caller (id, name); ``questions``: the ids of those that ask whether a tool of
    the agent's own may run (``None``: not known, in markers of earlier versions); ``arguments``: a
    digest of each one's. ``system``: digest of the system text the agent was last told;
    ``standing``: of what it was told to keep to. ``settings``: digest of the model settings of the
    conversation. ``thread``, ``node``, ``agent``, ``within``: the place of the call, see
    :class:`~letta_adapters.calls.scope.Place`; markers of earlier versions have none of them.
    """

    backend: str
    agent_id: str
    conversation_id: str
    head: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    earlier: bool = False
    previous: str | None = None
    run_id: str | None = None
    pending: tuple[tuple[str, str], ...] = ()
    questions: tuple[str, ...] | None = None
    system: str | None = None
    settings: str | None = None
    arguments: tuple[str, ...] = ()
    standing: str | None = None
    thread: str | None = None
    node: str = ""
    agent: str = ""
    within: str = ""

    @property
    def key(self) -> str:
        """Names this marker among all of its agent."""
        return f"{self.conversation_id}#{self.head[0] if self.head else ''}"

    def standing_for(self, first: Marker) -> Marker:
        """The end of several calls that the caller sees as one, which began as ``first`` did."""
        return replace(self, inputs=first.inputs, earlier=first.earlier, previous=first.previous)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        made = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"v": VERSION, **made, "pending": [list(call) for call in self.pending]}

    @classmethod
    def from_dict(cls, value: object) -> Marker | None:
        """The marker in what :meth:`to_dict` made; ``None`` for anything else."""
        if not isinstance(value, Mapping) or value.get("v") != VERSION:
            return None
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in known
        }
        try:
            given["pending"] = tuple((str(i), str(n)) for i, n in given.get("pending") or ())
            made = cls(**given)
            # A history is anybody's text: what it names must be ids before anything is sent there.
            checked_id(made.conversation_id)
            sound = made.agent_id == "" or bool(checked_id(made.agent_id))
        except (TypeError, ValueError):
            return None
        lists = (made.head, made.inputs, made.arguments)
        listed = all(isinstance(item, tuple) for item in lists)
        placed = all(isinstance(name, str) for name in (made.node, made.agent, made.within))
        return made if sound and listed and placed else None
