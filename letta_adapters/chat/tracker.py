"""Internal: collect, while a call runs, what its first and its last event report."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from letta_adapters.chat.cache import known_answers
from letta_adapters.chat.context import ChatContext, digest_settings
from letta_adapters.chat.history import digest_inputs
from letta_adapters.chat.marker import Marker
from letta_adapters.chat.request import (
    Place,
    ResponseCompleted,
    ResponseStarted,
    digest_arguments,
    make_digest,
)
from letta_adapters.errors import LettaError
from letta_adapters.messages import (
    AssistantMessage,
    ErrorMessage,
    InitMessage,
    Message,
    ReasoningMessage,
    RecoveredCall,
    ResultMessage,
    ToolCallMessage,
    ToolResultMessage,
    Usage,
)

_TEXTS = (AssistantMessage, ReasoningMessage)


class ResponseTracker:
    """See every whole message of a call, and make the call's first and last event.

    Args:
        context: The call, on its route to a conversation.
        find_model: Returns the handle of an agent's model, as far as it is known.
        used: The tokens that the turn had used before this call resumed it.
    """

    def __init__(
        self,
        context: ChatContext,
        find_model: Callable[[str], str | None],
        *,
        used: Usage | None = None,
    ) -> None:
        route, call, split = context.route, context.request, context.split
        self.context = context
        self.conversation = context.conversation
        self.key = route.key
        self.asked = route.asked or route.key
        # Digests of the texts the agent was told last: those of this call, unless it cannot tell
        # them.
        self.system: str | None = None
        self.standing: str | None = None
        self.told_nothing()
        if split.system:
            self.system = make_digest(split.system)
        if call.standing:
            self.standing = make_digest(call.standing)
        self.result: ResultMessage | None = None
        self.failure: LettaError | None = None
        self.pending: tuple[ToolCallMessage, ...] = ()
        # The calls that were in the way of the message, and that no entry answers.
        self.recovered: tuple[RecoveredCall, ...] = ()
        # The messages of an answer that the agent gave before, to the same call.
        self.replay: tuple[Message, ...] = ()
        # All whole messages so far: the same call gets them again while its turn waits.
        self.seen: list[Message] = []
        self._find_model = find_model
        self._used = used or Usage()
        self._usage: Usage | None = None
        self._replayed = False
        self._decided = 0
        self._details: Mapping[str, Mapping[str, Any]] = {}
        self._head: tuple[str, ...] = (route.key,) if route.key else ()
        self._run_ids: dict[str, None] = {}
        agent_id = self.conversation.agent_id
        # The answer's id is made from the call's key, so that a repeated call gets the same one.
        self.id = make_digest(agent_id, self.key) if self.key else str(uuid.uuid4())

    def told_nothing(self) -> None:
        """Record that the call could tell the agent nothing but results of tools."""
        # Then the agent still goes by the texts that the previous answer's marker names.
        before = self.context.route.marker
        self.system = before.system if before is not None else None
        self.standing = before.standing if before is not None else None

    def start(self) -> ResponseStarted:
        """Return the first event, which names the conversation the call goes to."""
        return ResponseStarted(
            self.id,
            self.conversation.agent_id,
            self.conversation.conversation_id,
            self.context.backend.name,
            self._model(),
            self._replayed,
            self.context.route.forked,
        )

    def replays(
        self,
        messages: Sequence[Message],
        pending: Sequence[ToolCallMessage],
        details: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> ResponseTracker:
        """Record that the agent had this input already, and what it answered then.

        Args:
            messages: The messages of that answer.
            pending: Its calls that still wait for the caller.
            details: The server's data about permission questions, by tool call id.

        Returns:
            This object.
        """
        self._replayed = True
        self.replay = tuple(message for message in messages if self.takes(message))
        self.pending = tuple(pending)
        self._details = details or {}
        own, waits = self.context.own_tools, {call.tool_call_id for call in pending}
        self._decided = sum(
            isinstance(message, ToolCallMessage)
            and message.requires_approval
            and message.tool_name not in own
            and message.tool_call_id not in waits
            and not message.problem
            for message in messages
        )
        return self

    def waits(
        self,
        pending: Sequence[ToolCallMessage],
        details: Mapping[str, Mapping[str, Any]],
        usage: Usage,
    ) -> None:
        """Record that the turn waits for the results of these calls.

        Args:
            pending: The calls.
            details: The server's data about permission questions, by tool call id.
            usage: The tokens that the turn has used so far.
        """
        self.pending = tuple(pending)
        self._details = {i: details[i] for i in (c.tool_call_id for c in pending) if i in details}
        self._usage = usage - self._used

    def takes(self, message: Message) -> bool:
        """Note a whole message and return whether the caller gets it.

        Args:
            message: The next message of the turn.
        """
        if isinstance(message, ResultMessage):
            self._take_result(message)
            return False
        if isinstance(message, InitMessage | ErrorMessage):
            return False
        if isinstance(message, _TEXTS):
            # The server lists the message under one of these; the next call looks for it there.
            self._head = tuple(name for name in (message.otid, message.id) if name)
        elif isinstance(message, ToolCallMessage | ToolResultMessage):
            self._head = (message.tool_call_id,)
        run_id = getattr(message, "run_id", None)
        if run_id:
            self._run_ids[run_id] = None
        self.seen.append(message)
        return True

    def _take_result(self, message: ResultMessage) -> None:
        """Note how the turn ended: its result, or the error it failed with."""
        if not message.success:
            self.failure = message.to_error()
            return
        self.result = message
        self._usage = message.usage - self._used
        self._run_ids |= dict.fromkeys(message.run_ids)

    def end(self) -> ResponseCompleted:
        """Return the last event: the call is over, or waits for the results of its tool calls."""
        stop_reason = self.result.stop_reason if self.result else None
        if self.pending:
            stop_reason = "requires_approval"
        marker = self._marker()
        texts = (message.content for message in self.seen if isinstance(message, AssistantMessage))
        # A framework may drop the marker from the message; then the answer is known by its id or
        # text.
        known_answers.put(self.id, marker, "".join(texts))
        return ResponseCompleted(
            marker,
            self.pending,
            stop_reason or "end_turn",
            self._usage,
            tuple(self._run_ids),
            self._model(),
            self._replayed,
            self._details,
            self.recovered,
            self._decided,
        )

    def _model(self) -> str | None:
        return self.context.request.model or self._find_model(self.conversation.agent_id)

    def _marker(self) -> Marker:
        """Return the marker that the framework's message will carry."""
        call, split, before = self.context.request, self.context.split, self.context.route.marker
        inputs, earlier = digest_inputs(split.whole if before is None else split.new)
        if self.pending:
            self._head = tuple(call.tool_call_id for call in self.pending)
        runs = tuple(self._run_ids)
        # A pending call of any other tool is a question whether the agent's own tool may run.
        own = self.context.own_tools
        place = call.place or Place()
        return Marker(
            backend=self.context.backend.name,
            agent_id=self.conversation.agent_id,
            conversation_id=self.conversation.conversation_id,
            head=self._head,
            inputs=inputs,
            earlier=earlier,
            previous=before.key if before else None,
            run_id=runs[-1] if runs else None,
            pending=tuple((call.tool_call_id, call.tool_name) for call in self.pending),
            questions=tuple(c.tool_call_id for c in self.pending if c.tool_name not in own),
            system=self.system,
            settings=digest_settings(call) or (before.settings if before else None),
            arguments=tuple(digest_arguments(call.raw_arguments) for call in self.pending),
            standing=self.standing,
            thread=place.thread,
            node=place.node,
            agent=place.agent,
            within=place.within,
        )
