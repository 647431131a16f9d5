"""Internal: keep the state of a LettaAgent's run in the workflow's context, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from llama_index.core.agent.workflow.workflow_events import AgentOutput
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.tools import ToolSelection
from llama_index.core.workflow import Context

from letta_adapters.backends.base import Conversation
from letta_adapters.chat import HistoryMessage, Marker, ResponseCompleted
from letta_adapters.chat.history import digest_inputs
from letta_adapters.chat.marker import MARKER_KEY
from letta_adapters.llama_index.messages import build_assistant_message, to_entries
from letta_adapters.messages import PendingToolCall, ToolCallMessage

NOT_RUN: Final = "Not run: the run that asked for this call ended before it could."
MAYBE_RUN: Final = (
    "No result: the run that asked for this call ended while the tool may have been running. "
    "What it did is not known."
)
LIMIT: Final = "Not run: the run has reached the number of steps it may take."
# The number of messages by which the place of an earlier run in a history is found.
_COMPARED: Final = 8


@dataclass(slots=True)
class AgentState:
    """Hold one agent's part of a run.

    Attributes:
        name: The agent's name, under which the state is stored.
        run_id: The run it belongs to, ``""`` between two.
        conversation_id: The conversation of the last answer.
        said: Messages of this run that are not in the memory yet.
        pending: Calls that wait for an answer, with what is known of each.
        answers: Answers to these calls, by their ids.
        raw: The data of the last answer about itself.
        complete: The agent has answered and waits for nothing.
        earlier: Messages of runs that ended early, which the memory will never have, each with the
            digests of the messages it followed.
        seen: Digests of the history that the last turn was given.
        kept: The memory has an answer of this agent.
        lost_memory: The run began with an empty memory because the context could not store the one
            before.
        sent: The message whose answer never came (where it went, under which key, digests of all of
            it).
        questions_asked: The number of questions that persons were asked so far.
        last: The run could take no further step.
        open: Calls that an earlier turn has left open, and that persons are asked about.
        open_answers: Answers to these, by their ids.
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
    open: list[dict[str, Any]] = field(default_factory=list)
    open_answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    async def load(cls, ctx: Context, name: str) -> AgentState:
        """Return the state in the context's store; a new one if there is none."""
        stored = await ctx.store.get(_make_key(name), default=None)
        if not stored:
            return cls(name)
        # A state of another version may have more fields or fewer.
        known = {key: value for key, value in stored.items() if key in cls.__slots__}
        known["said"] = _load_messages(stored["said"])
        known["earlier"] = [(at, _load_messages(said)) for at, said in stored.get("earlier") or ()]
        return cls(**known)

    async def save(self, ctx: Context) -> None:
        """Put the state back into the context's store."""
        # Messages are pydantic models, which `asdict` would not turn into JSON.
        plain = asdict(replace(self, said=[], earlier=[]))
        plain["said"] = _dump_messages(self.said)
        plain["earlier"] = [[at, _dump_messages(said)] for at, said in self.earlier]
        await ctx.store.set(_make_key(self.name), plain)

    # -- one run after another --------------------------------------------------------------

    def begin(self, run_id: str) -> None:
        """Belong to this run, and close what an earlier one left open."""
        if self.run_id == run_id:
            return
        # The run before has never reached its end, or it would have cleared its id.
        if self.run_id:
            self.end_early(NOT_RUN if self.last else MAYBE_RUN)
        self.run_id = run_id

    def end_early(self, why: str) -> None:
        """Close the calls that wait, as a fact, and keep the messages for the next run.

        Args:
            why: The fate of calls that the workflow may have begun to run. A question that a person
                was asked is about a call that certainly did not run.
        """
        self.close(why)
        for message in self._list_unsent():
            # Decided, but never sent: the agent did not get to run the tool.
            decision = message.additional_kwargs.pop("decision", None)
            if decision is not None:
                message.blocks = ChatMessage(content=NOT_RUN).blocks
                ended = {"ends": True} if decision.get("interrupt") else {}
                message.additional_kwargs |= {"is_error": True, "fact": True, **ended}
        if self.said:
            # The memory never gets these messages, but the agent's conversation has them.
            self.earlier.append((self.seen[-_COMPARED:], self.said))
        self._clear()

    def close(self, why: str) -> None:
        """Answer all calls that wait with the reason why nobody will.

        Args:
            why: The reason, as the agent reads it.
        """
        for call in self.pending:
            text = NOT_RUN if call["question"] else why
            self.answers[call["tool_id"]] = {"content": text, "is_error": True, "fact": True}
        self._tell_when_complete()

    def _list_unsent(self) -> list[ChatMessage]:
        """Return the tools' results that no answer of the agent follows."""
        at = max(
            (i for i, m in enumerate(self.said) if m.role == MessageRole.ASSISTANT), default=-1
        )
        return self.said[at + 1 :]

    def take_said(self) -> list[ChatMessage]:
        """Return this run's messages, which the memory gets now; the next run starts anew."""
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
        self.open = []
        self.open_answers = {}

    def continues(self, memory: Sequence[HistoryMessage]) -> bool:
        """Return whether the memory is (still) that of the conversation, and no other history."""
        # An answer of an agent in the memory names its conversation by itself.
        if any(entry.marker is not None for entry in memory):
            return True
        # Without such an answer the memory has to begin like the history of the last turn.
        return not self.kept and (not self.seen or _find_place(self.seen, memory) is not None)

    def forget(self) -> list[Marker]:
        """Forget the conversation: the context was given another history.

        Returns:
            The marker of a turn that still waits for answers, if there is one.
        """
        last = [_find_marker(said) for _, said in self.earlier[-1:]]
        self.earlier = []
        self.sent = None
        self.kept = False
        self.seen = []
        return [marker for marker in last if marker is not None and marker.pending]

    # -- what is sent -----------------------------------------------------------------------

    def build_entries(self, given: Sequence[HistoryMessage]) -> list[HistoryMessage]:
        """Return the whole history: that of the memory, with all messages that it does not have.

        Args:
            given: The history as the memory has it.
        """
        history = list(given)
        last = max((i for i, e in enumerate(history) if e.role == "user"), default=None)
        if last is not None and history[last].id is None:
            # LlamaIndex gives messages no ids. This one is the same when the step runs again, so
            # that the server can tell a repeated message from a second one.
            history[last] = replace(history[last], id=f"{self.run_id}:{self.name}")
        self.seen = [e.digest() for e in history if e.role != "system"]
        whole: list[HistoryMessage] = []
        done = 0
        # Messages of runs that ended early go back to the place in the history where they belong.
        for at, said in self.earlier:
            place = _find_place(at, history) or _find_first(history)
            whole += history[done:place]
            whole += to_entries(said)
            done = max(done, place)
        return [*whole, *history[done:], *to_entries(self.said)]

    def note_sending(
        self, entries: Sequence[HistoryMessage], where: Conversation, key: str | None
    ) -> None:
        """Note a message about to go out: until its answer is there it may have been accepted.

        Args:
            entries: The history.
            where: The conversation it goes to.
            key: The key of the call.
        """
        new = entries[_find_new(entries) :]
        self.sent = {
            "agent_id": where.agent_id,
            "conversation_id": where.conversation_id,
            "key": key,
            "digests": [entry.digest() for entry in new if entry.role != "system"],
            "results": {e.tool_call_id: e.text for e in new if e.role == "tool"},
        }

    def mark_known(self, entries: list[HistoryMessage]) -> list[HistoryMessage]:
        """Return the history with those messages marked as known that the conversation holds."""
        left = list(self.sent["digests"]) if self.sent else []
        for at in range(_find_new(entries), len(entries)):
            if entries[at].role != "system" and entries[at].digest() in left:
                # Each stored message stands for one of the history: a text may have been said
                # twice.
                left.remove(entries[at].digest())
                entries[at] = replace(entries[at], known=True)
        return entries

    # -- what came --------------------------------------------------------------------------

    def take_answer(
        self,
        given: Sequence[HistoryMessage],
        text: str,
        thinking: str,
        end: ResponseCompleted,
        raw: dict[str, Any],
        details: dict[str, Any],
    ) -> None:
        """Take the agent's answer.

        Args:
            given: The history as the memory has it.
            text: The text of the answer.
            thinking: Its reasoning.
            end: The last event of the call.
            raw: The data of the answer about itself.
            details: The server's data about permission questions, by tool call id.
        """
        marker = end.marker
        if self.earlier and not any(message.role == MessageRole.ASSISTANT for message in self.said):
            # The first answer after a run that ended early: the memory lacks that run's messages.
            marker = _fit_marker(given, marker)
        self.said.append(build_assistant_message(text, thinking, end.pending, marker))
        self.conversation_id = end.conversation_id
        self.raw = raw
        self.sent = None
        self.answers = {}
        self.open = []
        self.open_answers = {}
        self.complete = not end.pending
        self.pending = [_dump_call(call, details) for call in end.pending]
        self._number([call for call in self.pending if call["question"]])
        self._refuse([call for call in end.pending if call.problem])

    def _number(self, questions: Sequence[dict[str, Any]]) -> None:
        """Give each question a number: the model may give two calls one id."""
        for call in questions:
            self.questions_asked += 1
            call["number"] = self.questions_asked

    def ask_open(self, calls: Sequence[PendingToolCall]) -> None:
        """Note the calls that an earlier turn has left open, to ask persons about."""
        self.open = [
            {
                "tool_id": call.tool_call_id,
                "tool_name": call.tool_name,
                "tool_kwargs": dict(call.tool_input),
                "details": {},
                "recovered": True,
            }
            for call in calls
        ]
        self._number(self.open)

    def _refuse(self, broken: Sequence[ToolCallMessage]) -> None:
        """Answer the calls whose arguments are no JSON object: they are never run."""
        for call in broken:
            self.answers[call.tool_call_id] = {"content": call.problem, "is_error": True}
        if broken:
            self._tell_when_complete()

    @property
    def refused(self) -> bool:
        """Return whether none of the last answer's calls can be run, which the agent is told."""
        return not self.complete and not self.pending

    @property
    def asked(self) -> bool:
        """Return whether there is a question for a person that has no answer yet."""
        return bool(self.list_questions())

    def list_questions(self) -> list[dict[str, Any]]:
        """Return the calls that persons are to decide about, and have not yet.

        They are tools of the agent's own, and whatever an earlier turn has left open.
        """
        left = [call for call in self.open if call["tool_id"] not in self.open_answers]
        own = [c for c in self.pending if c["question"] and c["tool_id"] not in self.answers]
        return [*left, *own]

    def take_decision(self, tool_id: str, answer: dict[str, Any]) -> None:
        """Take the answer to a question: a person's ``decision``, or why there is none."""
        if any(call["tool_id"] == tool_id for call in self.open):
            self.open_answers[tool_id] = answer
            return
        self.answers[tool_id] = answer
        self._tell_when_complete()

    def take_result(self, tool_id: str, output: dict[str, Any]) -> None:
        """Take the output of one of your tools (``content`` or ``blocks``, ``is_error``)."""
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

    def list_runnable(self, own: frozenset[str]) -> list[ToolSelection] | None:
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

    def build_output(self, name: str, calls: list[ToolSelection]) -> AgentOutput:
        """Return the output of the step."""
        return AgentOutput(
            response=self.last_answer, tool_calls=calls, raw=self.raw, current_agent_name=name
        )

    @property
    def last_answer(self) -> ChatMessage:
        """Return the agent's last message of this run."""
        # Results of tools may stand behind it.
        return next(m for m in reversed(self.said) if m.role == MessageRole.ASSISTANT)

    def find_open_end(self) -> ResponseCompleted | None:
        """Return the end of the turn that still waits, to be given up."""
        marker = _find_marker(self.said)
        if not self.pending or marker is None:
            return None
        calls = tuple(
            ToolCallMessage(call["tool_id"], call["tool_name"], call["tool_kwargs"])
            for call in self.pending
        )
        return ResponseCompleted(marker, calls)

    def move_to(self, marker: Marker) -> None:
        """Note the conversation's newest message after its turn was given up."""
        for message in reversed(self.said):
            if message.role == MessageRole.ASSISTANT:
                message.additional_kwargs[MARKER_KEY] = marker.to_dict()
                return


def _make_key(name: str) -> str:
    """Return the key in the store, which takes a dot for a step into a nested value."""
    return f"letta:{name.replace('%', '%25').replace('.', '%2E')}"


def _load_messages(stored: Sequence[Any]) -> list[ChatMessage]:
    return [ChatMessage.model_validate(message) for message in stored]


def _dump_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    return [message.model_dump(mode="json") for message in messages]


def _find_new(entries: Sequence[HistoryMessage]) -> int:
    """Return the index behind the newest answer of an agent."""
    return max((i + 1 for i, e in enumerate(entries) if e.marker is not None), default=0)


def _find_marker(said: Sequence[ChatMessage]) -> Marker | None:
    """Return the newest marker in these messages."""
    for message in reversed(said):
        if message.role == MessageRole.ASSISTANT:
            return Marker.find_in(message.additional_kwargs)
    return None


def _fit_marker(given: Sequence[HistoryMessage], marker: Marker) -> Marker:
    """Return the marker as the next history needs it, which lacks the messages of earlier runs."""
    at = 0 if marker.previous is None else _find_new(given)
    inputs, earlier = digest_inputs([entry for entry in given[at:] if entry.role != "system"])
    before = given[at - 1].marker if at else None
    previous = before.key if before is not None else None
    return replace(marker, inputs=inputs, earlier=earlier, previous=previous)


def _find_place(digests: Sequence[str], history: Sequence[HistoryMessage]) -> int | None:
    """Return the index behind the messages that an earlier run had been given.

    A run adds at least one message of its own, so it is never the end. ``None``: the history has
    none of them, because it was trimmed at its front or is another one.
    """
    at = [i for i, entry in enumerate(history) if entry.role != "system"]
    # From the newest place back: the same messages may stand in a history twice.
    for count in range(len(at) - 1, 0, -1):
        length = min(count, len(digests), _COMPARED)
        known = [history[i].digest() for i in at[count - length : count]]
        if length and known == list(digests[-length:]):
            return at[count]
    return None


def _find_first(history: Sequence[HistoryMessage]) -> int:
    """Return the index of the first message that is no system message."""
    return next((i for i, e in enumerate(history) if e.role != "system"), len(history))


def _dump_call(call: ToolCallMessage, details: dict[str, Any]) -> dict[str, Any]:
    """Return a call as the state keeps it."""
    return {
        "tool_id": call.tool_call_id,
        "tool_name": call.tool_name,
        "tool_kwargs": dict(call.tool_input),
        "question": call.tool_call_id in details,
        "details": details.get(call.tool_call_id) or {},
    }
