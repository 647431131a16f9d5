"""What a LettaAgent's run keeps in the workflow's context: JSON, under the agent's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from llama_index.core.agent.workflow.workflow_events import AgentOutput
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.tools import ToolSelection
from llama_index.core.workflow import Context

from letta_adapters.backends.base import Conversation
from letta_adapters.calls import CallEnd, Entry, Marker
from letta_adapters.calls.rule import inputs_of
from letta_adapters.llama_index.convert import MARKER_KEY, assistant_message, to_entries
from letta_adapters.messages import ToolCallMessage

NOT_RUN: Final = "Not run: the run that asked for this call ended before it could."
MAYBE_RUN: Final = (
    "No result: the run that asked for this call ended while the tool may have been running. "
    "What it did is not known."
)
LIMIT: Final = "Not run: the run has reached the number of steps it may take."
# How many messages are compared to find where an earlier run's belong.
_COMPARED: Final = 8


@dataclass(slots=True)
class AgentState:
    """One agent's part of a run.

    ``run_id``: the run it belongs to, ``""`` between two. ``said``: messages of this run that are
    not in the memory yet. ``pending``: calls that wait for an answer, with what is known of each.
    ``raw``: what the last answer says about itself. ``earlier``: what runs said that ended early,
    which the memory will never have, each with the digests of the messages it followed. ``seen``:
    digests of the history that the last turn was given. ``kept``: the memory has an answer of this
    agent. ``lost_memory``: the run began with an empty memory because the context could not store
    the one before. ``sent``: the message whose answer never
    came (where it went, under which key, digests of all of it). ``questions_asked``: how many
    questions persons were asked so far. ``last``: the run could take no further step.
    """

    name: str
    run_id: str = ""
    conversation_id: str | None = None
    said: list[ChatMessage] = field(default_factory=list)
    pending: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    earlier: list[tuple[list[str], list[ChatMessage]]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    kept: bool = False
    lost_memory: bool = False
    sent: dict[str, Any] | None = None
    questions_asked: int = 0
    last: bool = False

    @classmethod
    async def load(cls, ctx: Context, name: str) -> AgentState:
        """Return the state in the context's store; a new one if there is none."""
        stored = await ctx.store.get(_path(name), default=None)
        if not stored:
            return cls(name)
        known = {key: value for key, value in stored.items() if key in cls.__slots__}
        known["said"] = _messages(stored["said"])
        known["earlier"] = [(at, _messages(said)) for at, said in stored.get("earlier") or ()]
        return cls(**known)

    async def save(self, ctx: Context) -> None:
        """Put it back."""
        plain = asdict(replace(self, said=[], earlier=[]))
        plain["said"] = _dumped(self.said)
        plain["earlier"] = [[at, _dumped(said)] for at, said in self.earlier]
        await ctx.store.set(_path(self.name), plain)

    # -- one run after another --------------------------------------------------------------

    def begin(self, run_id: str) -> None:
        """Belong to this run; what an earlier one left open is closed."""
        if self.run_id == run_id:
            return
        if self.run_id:
            self.end_early(NOT_RUN if self.last else MAYBE_RUN)
        self.run_id = run_id

    def end_early(self, why: str) -> None:
        """Close what waits for an answer, as a fact, and keep what was said for the next run.

        Args:
            why: What became of calls that the workflow may have begun to run. A question that a
                person was asked is about a call that certainly did not run.
        """
        self.close(why)
        for message in self._unsent():
            if message.additional_kwargs.pop("decision", None) is not None:
                message.blocks = ChatMessage(content=NOT_RUN).blocks
                message.additional_kwargs |= {"is_error": True, "fact": True}
        if self.said:
            self.earlier.append((self.seen[-_COMPARED:], self.said))
        self._clear()

    def close(self, why: str) -> None:
        """Answer the calls that wait: this is what became of them."""
        for call in self.pending:
            text = NOT_RUN if call["question"] else why
            self.answers[call["tool_id"]] = {"content": text, "is_error": True, "fact": True}
        self._tell_when_complete()

    def _unsent(self) -> list[ChatMessage]:
        """Return the tools' results that no answer of the agent follows."""
        at = max(
            (i for i, m in enumerate(self.said) if m.role == MessageRole.ASSISTANT), default=-1
        )
        return self.said[at + 1 :]

    def take_said(self) -> list[ChatMessage]:
        """Return what this run said, which the memory gets now; the next one starts anew."""
        said = self.said
        self.kept = self.kept or bool(said)
        self._clear()
        self.earlier = []
        return said

    def _clear(self) -> None:
        self.said = []
        self.run_id = ""
        self.complete = False
        self.last = False
        self.pending = []
        self.answers = {}

    def continues(self, memory: Sequence[Entry]) -> bool:
        """Return whether the memory is (still) that of the conversation, and no other history."""
        if any(entry.marker is not None for entry in memory):
            return True
        return not self.kept and (not self.seen or _place_after(self.seen, memory) is not None)

    def forget(self) -> list[Marker]:
        """Forget the conversation: the context was given another history.

        Returns:
            Where its turn still waits for answers.
        """
        last = [_marker_of(said) for _, said in self.earlier[-1:]]
        self.earlier = []
        self.sent = None
        self.kept = False
        self.seen = []
        return [marker for marker in last if marker is not None and marker.pending]

    # -- what is sent -----------------------------------------------------------------------

    def entries(self, given: Sequence[Entry]) -> list[Entry]:
        """Return the whole history: what the memory gave, with all that it does not have."""
        history = list(given)
        last = max((i for i, e in enumerate(history) if e.role == "user"), default=None)
        if last is not None and history[last].id is None:
            history[last] = replace(history[last], id=f"{self.run_id}:{self.name}")
        self.seen = [e.digest() for e in history if e.role != "system"]
        whole: list[Entry] = []
        done = 0
        for at, said in self.earlier:
            place = _place_after(at, history) or _first(history)
            whole += history[done:place]
            whole += to_entries(said)
            done = max(done, place)
        return [*whole, *history[done:], *to_entries(self.said)]

    def sends(self, entries: Sequence[Entry], where: Conversation, key: str | None) -> None:
        """Note what is about to go out: until its answer is there it may have been accepted."""
        new = entries[_after_marker(entries) :]
        self.sent = {
            "agent_id": where.agent_id,
            "conversation_id": where.conversation_id,
            "key": key,
            "digests": [entry.digest() for entry in new if entry.role != "system"],
            "results": {e.tool_call_id: e.text for e in new if e.role == "tool"},
        }

    def without_sent(self, entries: list[Entry]) -> list[Entry]:
        """Return the history with what the conversation holds already marked as known."""
        left = list(self.sent["digests"]) if self.sent else []
        for at in range(_after_marker(entries), len(entries)):
            if entries[at].role != "system" and entries[at].digest() in left:
                left.remove(entries[at].digest())
                entries[at] = replace(entries[at], known=True)
        return entries

    # -- what came --------------------------------------------------------------------------

    def heard(
        self,
        given: Sequence[Entry],
        text: str,
        thinking: str,
        end: CallEnd,
        raw: dict[str, Any],
        details: dict[str, Any],
    ) -> None:
        """Take the agent's answer. ``given``: the history as the memory has it."""
        marker = end.marker
        if self.earlier and not any(message.role == MessageRole.ASSISTANT for message in self.said):
            marker = _as_seen_by(given, marker)
        self.said.append(assistant_message(text, thinking, end.pending, marker))
        self.conversation_id = end.conversation_id
        self.raw = raw
        self.sent = None
        self.answers = {}
        self.complete = not end.pending
        self.pending = [_pending(call, details) for call in end.pending]
        for call in self.pending:
            if call["question"]:
                # The model may give two calls one id: they are two questions all the same.
                self.questions_asked += 1
                call["number"] = self.questions_asked
        self._refuse([call for call in end.pending if call.problem])

    def _refuse(self, broken: Sequence[ToolCallMessage]) -> None:
        """Answer the calls whose arguments are no JSON object: they are never run."""
        for call in broken:
            self.answers[call.tool_call_id] = {"content": call.problem, "is_error": True}
        if broken:
            self._tell_when_complete()

    @property
    def refused(self) -> bool:
        """Could none of the calls of the last answer be run, and has the agent to hear of it?"""
        return not self.complete and not self.pending

    @property
    def asked(self) -> bool:
        """Return whether there is a question for a person that has no answer yet."""
        return bool(self.questions())

    def questions(self) -> list[dict[str, Any]]:
        """Return calls that ask whether a tool of the agent's own may run, not yet decided."""
        return [c for c in self.pending if c["question"] and c["tool_id"] not in self.answers]

    def decided(self, tool_id: str, decision: dict[str, Any]) -> None:
        """Take a person's answer."""
        self.answers[tool_id] = {"decision": decision}
        self._tell_when_complete()

    def answered(self, tool_id: str, output: dict[str, Any]) -> None:
        """Take what one of your tools gave (``content`` or ``blocks``, ``is_error``)."""
        self.answers[tool_id] = output
        self._tell_when_complete()

    def _tell_when_complete(self) -> None:
        """Make results of the answers once all are there: the server wants them together."""
        if any(call["tool_id"] not in self.answers for call in self.pending):
            return
        for call in self.pending:
            answer = dict(self.answers[call["tool_id"]])
            content = answer.pop("content", None) or answer.get("decision", {}).get("behavior", "")
            blocks = answer.pop("blocks", None)
            extra = {"tool_call_id": call["tool_id"], "name": call["tool_name"], **answer}
            self.said.append(
                ChatMessage(
                    role=MessageRole.TOOL,
                    additional_kwargs=extra,
                    **({"content": content} if blocks is None else {"blocks": blocks}),
                )
            )
        self.pending = []

    def waiting_for(self, own: frozenset[str]) -> list[ToolSelection] | None:
        """Return the calls to run now; ``None`` when the agent is to be asked (or is done)."""
        if self.complete or self.pending:
            return [
                ToolSelection(
                    tool_id=call["tool_id"],
                    tool_name=call["tool_name"],
                    tool_kwargs=call["tool_kwargs"],
                )
                for call in self.pending
                if not call["question"] and call["tool_id"] not in self.answers
            ]
        return None

    def output(self, name: str, calls: list[ToolSelection]) -> AgentOutput:
        """Return what the step gives."""
        response = next(m for m in reversed(self.said) if m.role == MessageRole.ASSISTANT)
        return AgentOutput(
            response=response, tool_calls=calls, raw=self.raw, current_agent_name=name
        )

    def open_end(self) -> CallEnd | None:
        """Return the end of the turn that still waits, to be given up."""
        marker = _marker_of(self.said)
        if not self.pending or marker is None:
            return None
        calls = tuple(
            ToolCallMessage(call["tool_id"], call["tool_name"], call["tool_kwargs"])
            for call in self.pending
        )
        return CallEnd(marker, calls)

    def stands_at(self, marker: Marker) -> None:
        """Note where the conversation stands after its turn was given up."""
        for message in reversed(self.said):
            if message.role == MessageRole.ASSISTANT:
                message.additional_kwargs[MARKER_KEY] = marker.to_dict()
                return


def _path(name: str) -> str:
    """Return the key in the store, which takes a dot for a step into a nested value."""
    return f"letta:{name.replace('%', '%25').replace('.', '%2E')}"


def _messages(stored: Sequence[Any]) -> list[ChatMessage]:
    return [ChatMessage.model_validate(message) for message in stored]


def _dumped(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    return [message.model_dump(mode="json") for message in messages]


def _after_marker(entries: Sequence[Entry]) -> int:
    return max((i + 1 for i, e in enumerate(entries) if e.marker is not None), default=0)


def _marker_of(said: Sequence[ChatMessage]) -> Marker | None:
    """Return the newest marker in these messages."""
    for message in reversed(said):
        if message.role == MessageRole.ASSISTANT:
            return Marker.from_dict(message.additional_kwargs.get(MARKER_KEY))
    return None


def _as_seen_by(given: Sequence[Entry], marker: Marker) -> Marker:
    """Return the marker as the next history needs it, which lacks what earlier runs said."""
    at = 0 if marker.previous is None else _after_marker(given)
    inputs, earlier = inputs_of([entry for entry in given[at:] if entry.role != "system"])
    before = given[at - 1].marker if at else None
    previous = before.key if before is not None else None
    return replace(marker, inputs=inputs, earlier=earlier, previous=previous)


def _place_after(digests: Sequence[str], history: Sequence[Entry]) -> int | None:
    """Return the index behind the messages that an earlier run had been given.

    A run adds at least one message of its own, so it is never the end. ``None``: the history has
    none of them, because it was trimmed at its front or is another one.
    """
    at = [i for i, entry in enumerate(history) if entry.role != "system"]
    for count in range(len(at) - 1, 0, -1):
        length = min(count, len(digests), _COMPARED)
        known = [history[i].digest() for i in at[count - length : count]]
        if length and known == list(digests[-length:]):
            return at[count]
    return None


def _first(history: Sequence[Entry]) -> int:
    """Return the index of the first message that is no system message."""
    return next((i for i, e in enumerate(history) if e.role != "system"), len(history))


def _pending(call: ToolCallMessage, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "tool_id": call.tool_call_id,
        "tool_name": call.tool_name,
        "tool_kwargs": dict(call.tool_input),
        "question": call.tool_call_id in details,
        "details": details.get(call.tool_call_id) or {},
    }
