"""What a LettaAgent's run keeps in the workflow's context: JSON, under the agent's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from llama_index.core.agent.workflow.workflow_events import AgentOutput
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.tools import ToolSelection
from llama_index.core.workflow import Context

from letta_adapters.calls import CallEnd, Entry, Marker
from letta_adapters.llama_index.convert import MARKER_KEY, assistant_message
from letta_adapters.messages import ToolCallMessage


@dataclass(slots=True)
class AgentState:
    """One agent's part of a run.

    ``said``: messages of this run that are not in the memory yet. ``pending``: calls that wait for
    an answer, with what is known of each. ``raw``: what the last answer says about itself.
    ``known``: how many of the messages after the newest marker the conversation holds although
    their turn failed.
    """

    name: str
    run_id: str = ""
    conversation_id: str | None = None
    said: list[ChatMessage] = field(default_factory=list)
    pending: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)
    known: int = 0
    complete: bool = False

    @classmethod
    async def load(cls, ctx: Context, name: str) -> AgentState:
        """The state in the context's store; a new one if there is none."""
        stored = await ctx.store.get(f"letta:{name}", default=None)
        if not stored:
            return cls(name)
        said = [ChatMessage.model_validate(message) for message in stored["said"]]
        return cls(**{**stored, "said": said})

    async def save(self, ctx: Context) -> None:
        """Put it back."""
        said = [message.model_dump(mode="json") for message in self.said]
        plain = {k: v for k, v in asdict(replace(self, said=[])).items() if k != "said"}
        await ctx.store.set(f"letta:{self.name}", {**plain, "said": said})

    # -- what is sent -----------------------------------------------------------------------

    def entries(self, entries: list[Entry]) -> list[Entry]:
        """The history, with what the exchange has to know of it."""
        last = max((i for i, e in enumerate(entries) if e.role == "user"), default=None)
        if last is not None and entries[last].id is None:
            entries[last] = replace(entries[last], id=f"{self.run_id}:{self.name}")
        left = self.known
        for at in range(_after_marker(entries), len(entries)):
            if left <= 0:
                break
            if entries[at].role == "user":
                entries[at] = replace(entries[at], known=True)
                left -= 1
        return entries

    def failed(self, entries: Sequence[Entry], *, stored: bool) -> None:
        """The turn failed: its messages are in the conversation all the same, or are not."""
        if stored:
            new = entries[_after_marker(entries) :]
            self.known = sum(entry.role == "user" for entry in new)

    # -- what came --------------------------------------------------------------------------

    def heard(
        self, text: str, thinking: str, end: CallEnd, raw: dict[str, Any], details: dict[str, Any]
    ) -> None:
        """The agent's answer."""
        self.said.append(assistant_message(text, thinking, end.pending, end.marker))
        self.conversation_id = end.conversation_id
        self.raw = raw
        self.known = 0
        self.answers = {}
        self.complete = not end.pending
        self.pending = [_pending(call, details) for call in end.pending]
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
        """Is there a question for a person that has no answer yet?"""
        return bool(self.questions())

    def questions(self) -> list[dict[str, Any]]:
        """Calls that ask whether a tool of the agent's own may run, and have no decision yet."""
        return [c for c in self.pending if c["question"] and c["tool_id"] not in self.answers]

    def decided(self, tool_id: str, decision: dict[str, Any]) -> None:
        """A person's answer."""
        self.answers[tool_id] = {"decision": decision}
        self._tell_when_complete()

    def answered(self, tool_id: str, content: str, is_error: bool) -> None:
        """What one of your tools gave."""
        self.answers[tool_id] = {"content": content, "is_error": is_error}
        self._tell_when_complete()

    def _tell_when_complete(self) -> None:
        """The server wants all answers at once."""
        if any(call["tool_id"] not in self.answers for call in self.pending):
            return
        for call in self.pending:
            answer = self.answers[call["tool_id"]]
            extra = {"tool_call_id": call["tool_id"], "name": call["tool_name"]}
            extra |= {k: v for k, v in answer.items() if k != "content"}
            content = answer.get("content") or answer.get("decision", {}).get("behavior", "")
            self.said.append(
                ChatMessage(role=MessageRole.TOOL, content=content, additional_kwargs=extra)
            )
        self.pending = []

    def waiting_for(self, own: frozenset[str]) -> list[ToolSelection] | None:
        """Calls of your tools to run now; ``None`` when the agent is to be asked (or is done)."""
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
        """What the step gives."""
        response = next(m for m in reversed(self.said) if m.role == MessageRole.ASSISTANT)
        return AgentOutput(
            response=response, tool_calls=calls, raw=self.raw, current_agent_name=name
        )

    # -- the end ----------------------------------------------------------------------------

    def take_said(self) -> list[ChatMessage]:
        """What this run said; the next one starts anew."""
        said, self.said = self.said, []
        self.run_id = ""
        self.complete = False
        self.pending = []
        self.answers = {}
        return said

    def take_end(self) -> CallEnd | None:
        """The end of a turn that still waits, to be given up."""
        waiting = self.pending
        message = next((m for m in reversed(self.said) if m.role == MessageRole.ASSISTANT), None)
        self.take_said()
        marker = Marker.from_dict((message.additional_kwargs if message else {}).get(MARKER_KEY))
        if not waiting or marker is None:
            return None
        calls = tuple(
            ToolCallMessage(call["tool_id"], call["tool_name"], call["tool_kwargs"])
            for call in waiting
        )
        return CallEnd(marker, calls)


def _after_marker(entries: Sequence[Entry]) -> int:
    return max((i + 1 for i, e in enumerate(entries) if e.marker is not None), default=0)


def _pending(call: ToolCallMessage, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "tool_id": call.tool_call_id,
        "tool_name": call.tool_name,
        "tool_kwargs": dict(call.tool_input),
        "question": call.tool_call_id in details,
        "details": details.get(call.tool_call_id) or {},
    }
