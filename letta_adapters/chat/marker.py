"""Internal: define the marker of an answer, by which the next call knows where it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from letta_adapters._utils.checks import check_id

VERSION: Final = 1
# The key under which a framework's message carries the marker of its answer: in LangChain's
# ``response_metadata``, in LlamaIndex' ``additional_kwargs``. Stored histories have it.
MARKER_KEY: Final = "letta"


@dataclass(frozen=True, slots=True)
class Marker:
    """Record where an answer was given, and to which messages.

    A marker is JSON both ways and travels in the framework's message itself. Markers of earlier
    versions lack ``questions``, ``thread``, ``node``, ``agent`` and ``within``.

    Attributes:
        backend: The name of the backend.
        agent_id: The agent that answered.
        conversation_id: The conversation it answered in.
        head: Names under which the server knows the newest message of the conversation as it was
            then (an ``otid``, an id, a tool call's id).
        inputs: One digest for every message between the previous marker and this one, oldest first.
        earlier: More messages stood before those that ``inputs`` has digests of.
        previous: The :attr:`key` of the marker before it in the same conversation.
        run_id: The server's run that gave the answer.
        pending: The tool calls that wait for the caller (id, name).
        questions: Ids of the pending calls that ask whether a tool of the agent's own may run;
            ``None``: not known.
        system: Digest of the system text the agent was last told.
        settings: Digest of the model settings of the conversation.
        arguments: A digest of each pending call's arguments.
        standing: Digest of the instructions that the agent was told once, to keep to.
        thread: The thread of the call, see :class:`~letta_adapters.chat.request.Place`.
        node: The place's node.
        agent: The place's agent.
        within: The part of the node that the call belongs to.
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
        """Return a name for this marker that no other of its agent has."""
        return f"{self.conversation_id}#{self.head[0] if self.head else ''}"

    def as_span(self, first: Marker) -> Marker:
        """Return the marker of several calls that the caller sees as one.

        Args:
            first: The marker of the first of them, whose inputs the framework's history shows.
        """
        return replace(self, inputs=first.inputs, earlier=first.earlier, previous=first.previous)

    def to_dict(self) -> dict[str, Any]:
        """Return the marker as JSON can hold it."""
        # Not by `asdict`, which copies deeply: that was a thirtieth of the CPU of a short call.
        given = {name: getattr(self, name) for name in _FIELDS}
        made = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
        return {"v": VERSION, **made, "pending": [list(call) for call in self.pending]}

    @classmethod
    def find_in(cls, extra: Mapping[str, Any]) -> Marker | None:
        """Return the marker in a message's metadata; ``None`` if no agent of ours gave it.

        Args:
            extra: The data in which the framework's message carries :data:`MARKER_KEY`.
        """
        return cls.from_dict(extra.get(MARKER_KEY))

    @classmethod
    def from_dict(cls, value: object) -> Marker | None:
        """Return the marker in what :meth:`to_dict` made; ``None`` for anything else.

        Args:
            value: Anything that a message carried: it is checked, because a history may be forged.
        """
        if not isinstance(value, Mapping) or value.get("v") != VERSION:
            return None
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in _FIELDS
        }
        try:
            # JSON has no tuples, so each pair comes back as a list.
            given["pending"] = tuple((str(i), str(n)) for i, n in given.get("pending") or ())
            made = cls(**given)
            # A history is anybody's text: what it names must be ids before anything is sent there.
            check_id(made.conversation_id)
            sound = made.agent_id == "" or bool(check_id(made.agent_id))
        except (TypeError, ValueError):
            return None
        # Python does not check the fields' types, and a wrong one would fail far from here.
        return made if sound and made._has_fitting_types() else None

    def _has_fitting_types(self) -> bool:
        """Return whether the fields hold what they are declared to hold."""
        asked = () if self.questions is None else self.questions
        lists: tuple[Any, ...] = (self.head, self.inputs, self.arguments, asked)
        texts = (self.backend, self.node, self.agent, self.within)
        given = (self.previous, self.run_id, self.system, self.settings, self.standing, self.thread)
        return (
            all(isinstance(item, tuple) and all(map(_is_text, item)) for item in lists)
            and all(map(_is_text, texts))
            and all(text is None or _is_text(text) for text in given)
            and isinstance(self.earlier, bool)
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_FIELDS: Final = tuple(field.name for field in fields(Marker))
