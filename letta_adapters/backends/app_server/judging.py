"""Internal: judge a tool call by what its session allows now, and by where its agent works now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from letta_adapters._utils.bounded import Bounded
from letta_adapters.backends.app_server import conversations
from letta_adapters.backends.app_server.questions import Permits, Session
from letta_adapters.backends.app_server.recovery import ConversationStatus
from letta_adapters.backends.base import Conversation, TurnSettings
from letta_adapters.engine.app_server import Verdict
from letta_adapters.messages import ToolCallMessage
from letta_adapters.options import SessionOptions
from letta_adapters.permissions.policy import MOVES, Rules


@dataclass(slots=True)
class Prepared:
    """The settings and tools that the server was told of a conversation on this connection."""

    settings: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]]
    # The session's options, with its agent's where it does not set its own.
    options: SessionOptions
    # True if the agent has left the working directory, which the server does not say in time.
    moved: bool = False


class Judge:
    """The judge of the tool calls of all conversations of one backend.

    The verdict is asked for on a thread, as it looks at files; meanwhile the event loop goes on.

    Args:
        permits: Knows the calls that need nobody's word.
        prepared: The settings of each conversation.
        live: The server's account of each conversation.
        ours: True if the server is one of this package, which asks about every tool.
    """

    def __init__(
        self,
        permits: Permits,
        prepared: Bounded[Conversation, Prepared],
        live: Bounded[Conversation, ConversationStatus],
        *,
        ours: bool,
    ) -> None:
        self._permits = permits
        self._prepared = prepared
        self._live = live
        self._ours = ours

    def verdict(
        self,
        conversation: Conversation,
        settings: TurnSettings,
        name: str,
        tool_input: Mapping[str, Any],
    ) -> Verdict:
        """Return the verdict on a call of a turn, by its session's rules as they are now."""
        session = self._session(conversation, settings)
        verdict = self._permits.verdict(conversation, name, tool_input, session)
        if verdict.granted:
            self._note_move(conversation, name)
        return verdict

    def _session(self, conversation: Conversation, settings: TurnSettings) -> Session:
        """Return the session's rules as they are now; a running turn's can be changed."""
        prepared = self._prepared.get(conversation)
        told_of: Mapping[str, Any] = {}
        options = SessionOptions()
        if prepared is not None:
            # In one step: they are changed together, maybe now, and the mode of the one with the
            # lists of the other would be the rules of no session.
            told_of, options = prepared.settings, prepared.options
        rules = Rules(
            str(told_of.get("permission_mode") or "strict"),
            frozenset(options.allowed_tools or ()),
            frozenset(options.disallowed_tools or ()),
            None if options.offered_tools is None else frozenset(options.offered_tools),
        )
        cwd, live = told_of.get("cwd"), self._live.get(conversation)
        used = live.directory if live is not None else ""
        if (
            prepared is None
            or prepared.moved
            or (cwd and used and not conversations.same_directory(cwd, used))
        ):
            # Not known for sure: then no path counts as inside, and somebody is asked.
            cwd = None
        wanted = settings.session is not None and settings.session.can_use_tool is not None
        return Session(rules, cwd, asks=settings.asks or wanted)

    def allowed(self, conversation: Conversation, call: ToolCallMessage, *, keep: bool) -> None:
        """Take note that somebody allowed this call; ``keep``: without asking again."""
        self._note_move(conversation, call.tool_name)
        if keep:
            self._permits.remember(conversation, call)

    def _note_move(self, conversation: Conversation, name: str) -> None:
        prepared = self._prepared.get(conversation)
        if name in MOVES and prepared is not None:
            prepared.moved = True

    def ran_unasked(self, conversation: Conversation, names: Sequence[str]) -> bool:
        """Return whether a turn must end because the server runs tools without asking."""
        prepared = self._prepared.get(conversation)
        if prepared is not None and prepared.settings.get("mode") == "unrestricted":
            # The server was told that it may run everything.
            return False
        if not self._ours:
            self._permits.warn_unasked(names)
        return self._ours
