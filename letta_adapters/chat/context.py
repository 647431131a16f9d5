"""Internal: hold what one call knows before it is sent: request, history, and where it goes.

Each stage of a call takes a :class:`ChatContext` and returns what it finds, or the context with
another route. Nothing here does any I/O, so a stage that takes nothing else is a pure one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from letta_adapters.backends.base import Conversation
from letta_adapters.backends.capabilities import Capabilities
from letta_adapters.chat.endings import find_ending
from letta_adapters.chat.history import HistorySplit
from letta_adapters.chat.marker import Marker
from letta_adapters.chat.request import ChatRequest, HistoryMessage, make_digest
from letta_adapters.messages import PendingToolCall

# Digests of the system text and of the standing instructions.
Told = tuple[str | None, str | None]


@dataclass(frozen=True, slots=True)
class Route:
    """Hold the conversation that a call goes to, and the messages it takes there.

    Attributes:
        send: The messages to send.
        conversation: The conversation; ``None`` while it has to be created, or looked up.
        marker: The marker that the call goes on from.
        key: The id by which the call is known when it is repeated.
        named: The application itself names the conversation.
        forced: Go there whatever the conversation holds by now.
        fresh: The conversation holds nothing yet.
        lost: The agent has the input and never answered it.
        asked: The key under which such an input was sent.
        forked: The reason for a fresh conversation, if one was taken instead of another.
        name: The name under which the conversation is looked up, and created where there is none.
        repeated: An earlier attempt of the call, if there was one, tells the conversation.
    """

    send: tuple[HistoryMessage, ...]
    conversation: Conversation | None = None
    marker: Marker | None = None
    key: str | None = None
    named: bool = False
    forced: bool = False
    fresh: bool = False
    lost: bool = False
    asked: str | None = None
    forked: str = ""
    name: str = ""
    repeated: bool = False

    @property
    def result_ids(self) -> frozenset[str]:
        """Return the ids of the tool calls whose results are sent."""
        return frozenset(entry.tool_call_id for entry in self.send if entry.role == "tool")

    @property
    def waiting(self) -> list[PendingToolCall]:
        """Return the calls that wait on the server, as far as the history tells."""
        if self.marker is None or self.lost:
            return []
        # The turn that made them was ended with them, before anything else was said.
        if find_ending(entry for entry in self.send if entry.role == "tool") is not None:
            return []
        return [PendingToolCall(id_, name) for id_, name in self.marker.pending]

    def at(self, conversation: Conversation) -> Route:
        """Return the route to a conversation that was just created for it."""
        return replace(self, conversation=conversation, fresh=True)

    def going_on(self) -> Route:
        """Return the route for an input that is stored there already, without an answer."""
        return replace(self, lost=True, key=None, asked=self.key)


class BackendTraits(Protocol):
    """See of a backend what a stage may know that does no I/O."""

    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> Capabilities: ...


@dataclass(frozen=True, slots=True)
class ChatContext:
    """Hold what travels together from stage to stage of one call.

    Attributes:
        backend: The backend. What it can do may be known for sure only once it is connected, so it
            is asked each time.
        agent_id: The agent; ``""`` for a call without one.
        request: The call.
        split: Its history, taken apart.
        route: The conversation it goes to, and the messages it takes there.
    """

    backend: BackendTraits
    agent_id: str
    request: ChatRequest
    split: HistorySplit
    route: Route

    def take(self, route: Route) -> ChatContext:
        """Return the context of the same call on another route."""
        return replace(self, route=route)

    @property
    def conversation(self) -> Conversation:
        """Return the conversation of the route, which is looked up or created by now."""
        assert self.route.conversation is not None
        return self.route.conversation

    @property
    def own_tools(self) -> frozenset[str]:
        """Return the names of the caller's tools."""
        return frozenset(str(tool["name"]) for tool in self.request.tools)

    @property
    def has_settings(self) -> bool:
        """Return whether the conversation was made, or last used, with these model settings."""
        marker = self.route.marker
        return marker is not None and marker.settings == digest_settings(self.request)

    def instructions(self, told: Told = (None, None)) -> str:
        """Return the text that the agent has to be told, or told again, as system text is.

        Args:
            told: Digests of the texts it was told last, where no marker names them.
        """
        route, request = self.route, self.request
        if route.marker is not None:
            told = (route.marker.system, route.marker.standing)
        # A fresh conversation without an agent was created with the text as its system prompt.
        system = "" if route.fresh and request.agent_free else self.split.system
        texts = zip((system, request.standing), told, strict=True)
        return "\n\n".join(text for text, known in texts if text and make_digest(text) != known)


def digest_settings(call: ChatRequest) -> str | None:
    """Return a digest of the call's model settings, as a marker holds it; ``None`` without any."""
    if not call.tuned:
        return None
    # With settings the model is the conversation's, and no longer one of the message.
    more = {"reasoning_effort": call.session.reasoning_effort, "model": call.model}
    return make_digest({**call.settings, **{k: v for k, v in more.items() if v is not None}})
