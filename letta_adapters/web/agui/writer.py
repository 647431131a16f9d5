"""Internal: a room's messages as AG-UI events, in the order that the protocol allows.

Pure: messages (the dicts of a room's events) in, events out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ag_ui.core import (
    AssistantMessage,
    BaseEvent,
    CustomEvent,
    FunctionCall,
    Interrupt,
    ReasoningEndEvent,
    ReasoningMessage,
    ReasoningMessageContentEvent,
    ReasoningMessageEndEvent,
    ReasoningMessageStartEvent,
    ReasoningStartEvent,
    RunErrorEvent,
    RunFinishedCancelledOutcome,
    RunFinishedEvent,
    RunFinishedInterruptOutcome,
    RunFinishedSuccessOutcome,
    StepFinishedEvent,
    StepStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    TokenUsage,
    ToolCall,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
    ToolMessage,
    UserMessage,
)

from letta_adapters.engine.assembler import join_text
from letta_adapters.engine.deltas import extract_stream_text_delta
from letta_adapters.web.events import write_json

_ANSWER_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean", "description": "Whether the tool may run."},
        "message": {"type": "string", "description": "With a refusal: a word to the agent."},
    },
    "required": ["approved"],
    "additionalProperties": False,
}
# What a client of AG-UI learns by other events, or not at all.
_SILENT: Final = frozenset({"init", "system", "error", "result"})
# What a model says; the first of it begins a step.
_OUTPUT: Final = frozenset({"stream_event", "assistant", "reasoning", "tool_call"})


class Writer:
    """The events of one turn, as one client reads them.

    It goes on over the runs that a turn is cut into where it waits for an answer. A step is one
    call of the model: it begins with the first that the model says, and ends with the first result
    of a tool, where the model is called anew, or with the run.

    Args:
        own: The id of the client's own message, which it has already.
    """

    def __init__(self, own: str | None = None) -> None:
        self._own = own
        # The text so far of each message that is being said, and what kind it is of.
        self._open: dict[str, tuple[str, str]] = {}
        self._told: set[str] = set()
        self._had: set[str] = set()
        self._steps = 0
        self._in_step = False

    def write(self, message: Mapping[str, Any]) -> list[BaseEvent]:
        """Return the events for a message of a room's.

        Args:
            message: What ``message.to_dict()`` made of it.
        """
        kind = str(message.get("type"))
        if kind in _OUTPUT:
            said = self._write_output(kind, message)
            return [*self._begin_step(), *said] if said else []
        if kind == "user":
            return self._write_text(kind, message)
        if kind == "tool_result":
            told = [] if message["tool_call_id"] in self._had else [_make_result(message)]
            return [*self._end_step(), *told]
        if kind in _SILENT:
            return []
        # AG-UI cannot take text back: it is ended, and the event says that it is void.
        void = self.close() if kind == "retry" else []
        # What AG-UI has no event for is not lost: "letta.retry", "letta.queue_update", ...
        return [*void, CustomEvent(name=f"letta.{kind}", value=dict(message))]

    def skip_result(self, tool_call_id: str) -> None:
        """Do not tell the result of a call, which the client itself has brought.

        Args:
            tool_call_id: The call.
        """
        self._had.add(tool_call_id)

    def _write_output(self, kind: str, message: Mapping[str, Any]) -> list[BaseEvent]:
        if kind == "stream_event":
            return self._write_fragment(message["event"])
        if kind == "tool_call":
            return self._write_call(message)
        return self._write_text(kind, message)

    def _begin_step(self) -> list[BaseEvent]:
        if self._in_step:
            return []
        self._in_step = True
        self._steps += 1
        return [StepStartedEvent(step_name=f"step-{self._steps}")]

    def _end_step(self) -> list[BaseEvent]:
        if not self._in_step:
            return []
        self._in_step = False
        return [StepFinishedEvent(step_name=f"step-{self._steps}")]

    def _write_fragment(self, event: Mapping[str, Any]) -> list[BaseEvent]:
        delta = extract_stream_text_delta(event)
        # Without an id a fragment could not be joined with its whole message.
        if delta is None or not (event.get("otid") or event.get("id")):
            return []
        id_ = _name(event, delta.kind)
        return [] if id_ in self._told else self._say(id_, delta.kind, join_text([delta.text]))

    def _write_text(self, kind: str, message: Mapping[str, Any]) -> list[BaseEvent]:
        id_ = _name(message, kind)
        is_own = kind == "user" and self._own is not None and message.get("otid") == self._own
        if id_ in self._told or is_own or message.get("redacted"):
            return []
        whole = join_text([message["content"]])
        said = self._open.get(id_, ("", kind))[0]
        # A viewer who came late may have missed the first fragments; it has no way to draw anew.
        rest = whole[len(said) :] if whole.startswith(said) else ""
        return [*self._say(id_, kind, rest), *self._end(id_)]

    def _say(self, id_: str, kind: str, text: str) -> list[BaseEvent]:
        events: list[BaseEvent] = []
        thinks = kind == "reasoning"
        if id_ not in self._open:
            self._open[id_] = ("", kind)
            if thinks:
                events.append(ReasoningStartEvent(message_id=id_))
                events.append(ReasoningMessageStartEvent(message_id=id_, role="reasoning"))
            else:
                role: Any = kind
                events.append(TextMessageStartEvent(message_id=id_, role=role))
        if text:
            self._open[id_] = (self._open[id_][0] + text, kind)
            said = ReasoningMessageContentEvent if thinks else TextMessageContentEvent
            events.append(said(message_id=id_, delta=text))
        return events

    def _end(self, id_: str) -> list[BaseEvent]:
        _, kind = self._open.pop(id_)
        self._told.add(id_)
        if kind == "reasoning":
            return [ReasoningMessageEndEvent(message_id=id_), ReasoningEndEvent(message_id=id_)]
        return [TextMessageEndEvent(message_id=id_)]

    def _write_call(self, message: Mapping[str, Any]) -> list[BaseEvent]:
        id_ = message["tool_call_id"]
        if id_ in self._told:
            return []
        self._told.add(id_)
        return [
            ToolCallStartEvent(tool_call_id=id_, tool_call_name=message["tool_name"]),
            ToolCallArgsEvent(tool_call_id=id_, delta=_write_arguments(message)),
            ToolCallEndEvent(tool_call_id=id_),
        ]

    def close(self) -> list[BaseEvent]:
        """Return the ends of what is being said, and of its step: no run may end before them."""
        said = [event for id_ in tuple(self._open) for event in self._end(id_)]
        return [*said, *self._end_step()]


def write_end(result: Mapping[str, Any], thread_id: str, run_id: str) -> BaseEvent:
    """Return the last event of a run whose turn has ended.

    Args:
        result: The turn's result, as ``message.to_dict()`` made it.
        thread_id: The client's name of the thread.
        run_id: The client's name of the run.
    """
    usage = [_count(result["usage"])]
    if result["success"]:
        return RunFinishedEvent(
            thread_id=thread_id,
            run_id=run_id,
            outcome=RunFinishedSuccessOutcome(),
            usage=usage,
        )
    # AG-UI has an outcome for what a user stopped; an error would be shown as a fault.
    if result["error_code"] == "cancelled":
        return RunFinishedEvent(
            thread_id=thread_id,
            run_id=run_id,
            outcome=RunFinishedCancelledOutcome(),
            usage=usage,
        )
    return RunErrorEvent(
        message=result["error_detail"] or "The turn failed.",
        code=result["error_code"],
        usage=usage,
    )


def write_interrupt(
    calls: Iterable[Mapping[str, Any]], thread_id: str, run_id: str
) -> RunFinishedEvent:
    """Return the last event of a run whose turn waits for answers.

    Args:
        calls: The calls that wait, as an ``approval`` event has them.
        thread_id: The client's name of the thread.
        run_id: The client's name of the run.
    """
    interrupts = [
        Interrupt(
            id=call["tool_call_id"],
            reason="tool_call",
            message=f"May {call['tool_name']} run?",
            tool_call_id=call["tool_call_id"],
            response_schema=dict(_ANSWER_SCHEMA),
            metadata={key: call[key] for key in ("tool_name", "input", "kind", "recovered")},
        )
        for call in calls
    ]
    outcome = RunFinishedInterruptOutcome(interrupts=interrupts)
    return RunFinishedEvent(thread_id=thread_id, run_id=run_id, outcome=outcome)


def write_history(messages: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return the stored messages of a room as those of AG-UI.

    Args:
        messages: The messages of a ``snapshot`` event.
    """
    shown: list[Any] = []
    seen: set[str] = set()
    for message in messages:
        made = _show(message)
        # Two messages of one id would be one for a front end.
        if made is not None and made.id not in seen:
            seen.add(made.id)
            shown.append(made)
    return shown


def _show(message: Mapping[str, Any]) -> Any:
    kind = message.get("type")
    if kind == "tool_call":
        function = FunctionCall(name=message["tool_name"], arguments=_write_arguments(message))
        call = ToolCall(id=message["tool_call_id"], function=function)
        return AssistantMessage(id=_name(message, "tool_call"), tool_calls=[call])
    if kind == "tool_result":
        result = _make_result(message)
        return ToolMessage(
            id=result.message_id, tool_call_id=result.tool_call_id, content=result.content
        )
    made = {"user": UserMessage, "assistant": AssistantMessage, "reasoning": ReasoningMessage}
    cls: Any = made.get(str(kind))
    if cls is None or message.get("redacted"):
        return None
    return cls(id=_name(message, str(kind)), content=join_text([message["content"]]))


def _name(message: Mapping[str, Any], kind: str) -> str:
    """Return the id of a message: Letta gives a thought and the answer after it the same one."""
    return str(message.get("otid") or f"{message.get('id')}-{kind}")


def _make_result(message: Mapping[str, Any]) -> ToolCallResultEvent:
    # By its call, which has one result: a live one has no id of its own yet.
    id_ = message["tool_call_id"]
    content = join_text([message["content"]])
    return ToolCallResultEvent(message_id=f"{id_}-result", tool_call_id=id_, content=content)


def _write_arguments(message: Mapping[str, Any]) -> str:
    # As the model wrote them: arguments that are no JSON would be lost otherwise.
    return join_text([message.get("raw_arguments") or write_json(message["tool_input"])])


def _count(usage: Mapping[str, Any]) -> TokenUsage:
    return TokenUsage(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        total_tokens=usage["total_tokens"],
        reasoning_tokens=usage["reasoning_tokens"],
        cached_input_tokens=usage["cached_input_tokens"],
        cache_write_input_tokens=usage["cache_write_tokens"],
    )
