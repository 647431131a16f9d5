"""Internal: turn App Server frames into messages, from an accepted input to ``turn_finished``.

The wire: JSON frames over a WebSocket (``letta`` 0.34.12). ``stream_delta`` carries Letta's own
events, ``control_request`` asks whether a tool may run, ``external_tool_call_request`` asks for a
client-side tool's result, and only ``turn_finished`` ends a turn: a ``stop_reason`` ends one model
call. Both kinds of questions become :attr:`~TurnState.pending` calls, so that a caller sees one
rule for every protocol. Feed one frame at a time and stop while calls are pending.

The rules: docs/protocol.md ("What ends a turn")
and docs/protocol.md ("Approvals and client-side tools").
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from letta_adapters.engine.app_server_errors import find_failure
from letta_adapters.engine.assembler import Assembler, join_text, list_dicts
from letta_adapters.engine.shapes import find_misshapen
from letta_adapters.engine.stop_reasons import DECISIVE_STOP_REASONS, Failure, StopReason
from letta_adapters.engine.stored import read_item
from letta_adapters.engine.turn_state import TurnState
from letta_adapters.messages import (
    LoopStatusMessage,
    Message,
    QueueUpdateMessage,
    RetryMessage,
    ToolCallMessage,
    ToolResultMessage,
    UnknownMessage,
    Usage,
    content_text,
)

#: The version of the protocol that this package speaks, as ``app_server_info`` names it.
PROTOCOL_VERSION: Final = 1
_TAKEN_OUT = "The message was taken out of the queue before its turn began."
# The failure of a turn that stopped without saying how it ended.
_UNSAID = Failure("protocol_error", "The server stopped and did not say how the turn ended.")
_PAUSED = Failure(
    "protocol_error",
    "The agent waits for the answer to a tool call that the server did not ask about.",
    stop_reason="requires_approval",
)
#: The failure of a turn in which the model was not shown an image.
UNSEEN = Failure(
    "unsupported_image",
    "The model cannot see images: Letta Code left out the one of this message, or of a tool's "
    "result. Use a model with vision.",
)
_Handler = Callable[["AppTurn", dict[str, Any], list[Message]], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a call that the server asks about, or the decision to ask somebody.

    If ``granted``, it runs without a question. If ``refused`` holds a text, it does not run whoever
    is asked. Otherwise somebody is asked, and told ``about``.
    """

    granted: bool = False
    refused: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


Judge = Callable[[str, Mapping[str, Any]], Verdict]

# The number of frames that are recognised when they come again.
_REMEMBERED_FRAMES = 64
# The output of a running shell command so far has such an id; the complete result follows under
# another one.
_PROGRESS_ID = "synthetic-tool-return-stream-"


class AppTurn(TurnState):
    """A turn that is fed the frames of its conversation and returns messages."""

    def __init__(
        self,
        *,
        include_partial_messages: bool = False,
        client_tools: Iterable[str] = (),
        judge: Judge = lambda *_: Verdict(),
        include_status_messages: bool = False,
    ) -> None:
        super().__init__(include_partial_messages=include_partial_messages)
        self.over = False
        # True if the agent lives on a Letta API, which counts a prompt's tokens in another way.
        self.on_api = False
        # The open requests that this side has to answer, by tool call id.
        self.permissions: dict[str, str] = {}
        self.external: dict[str, str] = {}
        # Permission requests that need no question: calls that are allowed or refused beforehand,
        # and client-side tools, which are asked about when they are to run.
        self.grants: list[str] = []
        self.refusals: list[tuple[str, str]] = []
        # Names of tools that the server ran, or is about to run, without a question.
        self.unasked: tuple[str, ...] = ()
        # True while the message waits behind a turn of somebody else.
        self.queued = False
        # True if the model is not shown an image of the message.
        self.unseen = False
        self._client_tools = frozenset(client_tools)
        self._judge = judge
        self._status_messages = include_status_messages
        self._client_message_id = ""
        self._executing: tuple[str, ...] = ()
        self._calls: dict[str, ToolCallMessage] = {}
        self._asking: frozenset[str] = frozenset()
        self._given: set[str] = set()
        self._runs: Mapping[str, Any] = {}
        # Frames that came lately, as after a reconnect the server may send some again.
        self._seen: deque[str] = deque(maxlen=_REMEMBERED_FRAMES)
        # True if the server says that nothing runs any more, but not how the turn ended.
        self.ending = False
        self._error: dict[str, Any] = {}
        # True if the agent has said or called anything since its tools' last results.
        self._spoke = False
        # Tracebacks of this side's tools and callbacks, by tool call id.
        self._tracebacks: dict[str, str] = {}

    def accepted(self, client_message_id: str, *, queued: bool) -> None:
        """Take note that the server has the message; ``queued`` if it waits for another turn."""
        self._client_message_id = client_message_id
        self.queued = queued
        self.input_stored = None if queued else True

    def resolve(self, tool_call_ids: Iterable[str]) -> None:
        """Take note that the pending calls are answered, even those not asked about yet."""
        for call_id in tool_call_ids:
            self._given.add(call_id)
            self.permissions.pop(call_id, None)
        self.pending = ()

    def tool_result(self, message: ToolResultMessage) -> bool:
        """Note a tool's result, and return whether it is to be shown.

        The server reports every tool's result itself; only this side knows the exceptions.
        """
        # A result of this side has no id. It is kept back until the server reports it.
        if message.id is None and message.traceback is not None:
            self._tracebacks[message.tool_call_id] = message.traceback
        return message.id is not None and super().tool_result(message)

    def feed(self, frame: dict[str, Any]) -> list[Message]:
        """Take one frame; return the messages it completes, in order."""
        out: list[Message] = []
        kind = frame.get("type")
        try:
            if self.over or self._is_repeated(frame):
                return out
            if self.queued and not self._starts(frame):
                if kind == "update_queue":
                    self._on_queue(frame, out)
                return out
            # A kind that is no text, such as a list, could not even be looked up.
            handler = _FRAMES.get(kind) if type(kind) is str else None
            if handler is not None:
                handler(self, frame, out)
            elif not _is_answer(kind):
                out.append(_make_unknown(frame))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            # A known frame whose fields have other types than those this version knows, or that is
            # too deep to be compared or written again.
            self.misread(_make_unknown(frame).raw, str(kind), "content", out)
        return out

    @property
    def silent(self) -> bool:
        """True if the turn ended well and showed no message of the agent."""
        return self.failure is None and not self._spoke

    def take_stored(self, items: Iterable[dict[str, Any]]) -> list[Message]:
        """Take the stored messages of a turn that showed none of them.

        Args:
            items: The stored messages, oldest first.
        """
        # A stored turn may have several steps; the answer is what follows the last tool result.
        told: list[dict[str, Any]] = []
        for item in items:
            told = [] if item.get("message_type") == "tool_return_message" else [*told, item]
        out: list[Message] = []
        for item in told:
            kind = item.get("message_type")
            if kind not in _TEXTS:
                continue
            if field := find_misshapen(item):
                self.misread(item, str(kind), field, out)
            else:
                self._on_text(dict(item), out)
        end = len(out)
        self.assembler.flush(out)
        return [*out[:end], *self.collect(out[end:])]

    def end_unsaid(self) -> list[Message]:
        """End a turn of which the server says that nothing runs any more, but not how it ended."""
        failure = find_failure("error", self._error, None) if self._error else None
        self.fail(failure or _UNSAID)
        return self.cut()

    def cut(self) -> list[Message]:
        """Close all open messages, as the connection is gone or the agent did not stop in time."""
        out: list[Message] = []
        self.over = True
        self._flush_calls(out)
        self.assembler.flush_broken(out)
        return self.collect(out)

    # -- frames -----------------------------------------------------------------------------

    def _is_repeated(self, frame: Mapping[str, Any]) -> bool:
        key = frame.get("idempotency_key")
        # A frame without a key cannot be recognised, and counts as new.
        if type(key) is not str:
            return False
        if key in self._seen:
            return True
        self._seen.append(key)
        return False

    def _is_foreign(self, run_id: object) -> bool:
        """Return whether the run is another message's; the server names those of every run."""
        messages = self._runs.get(run_id) if type(run_id) is str else None
        return bool(messages) and self._client_message_id not in (messages or ())

    def _starts(self, frame: Mapping[str, Any]) -> bool:
        """Return whether the queued message's own turn starts with this frame."""
        mine = self._client_message_id
        if frame.get("type") == "update_queue":
            for item in list_dicts(frame.get("removed")):
                if item.get("client_message_id") == mine:
                    return self._left(str(item.get("disposition")))
        elif frame.get("type") == "stream_delta":
            # The first event of a turn repeats its message, with the id that its sender gave it.
            self.queued = frame["delta"].get("otid") != mine
        if not self.queued:
            self.input_stored = True
        return not self.queued

    def _left(self, disposition: str) -> bool:
        """Take note that the message left the queue: its turn starts, or it will never be sent."""
        self.queued = False
        self.input_stored = disposition != "cancelled"
        if not self.input_stored:
            self.over = True
            self.fail(Failure("cancelled", _TAKEN_OUT, stop_reason="cancelled"))
        return self.input_stored

    def _on_delta(self, frame: dict[str, Any], out: list[Message]) -> None:
        delta = frame["delta"]
        kind = delta["message_type"]
        handler = _DELTAS.get(kind)
        if type(kind) is not str:
            self.misread(delta, "stream_delta", "message_type", out)
            return
        if handler is not None and (field := find_misshapen(delta)):
            self.misread(delta, kind, field, out)
            return
        run_id = delta.get("run_id")
        if self._is_foreign(run_id):
            return  # the late tail of an earlier turn, or a turn of somebody else
        if type(run_id) is str and run_id != self.run_id:
            self.note_run(run_id)
        if handler is None:
            out.extend(read_item(delta) if kind == "user_message" else (UnknownMessage(delta),))
        else:
            handler(self, delta, out)

    def _on_loop(self, frame: dict[str, Any], out: list[Message]) -> None:
        status = frame["loop_status"]
        runs_of = status.get("client_message_ids_by_run_id") or {}
        # With another type it could not be told whose run it is.
        if not all(type(messages) is list for messages in runs_of.values()):
            raise TypeError("client_message_ids_by_run_id")
        self._runs = runs_of
        self._executing = tuple(status.get("executing_tool_call_ids") or ())
        # It waits before a turn begins, too: only after a run does this mean that nothing is left.
        self.ending = status.get("status") == "WAITING_ON_INPUT" and self.run_id is not None
        if self._status_messages:
            runs = tuple(status.get("active_run_ids") or ())
            out.append(LoopStatusMessage(str(status.get("status") or ""), runs, self._executing))

    def _on_queue(self, frame: dict[str, Any], out: list[Message]) -> None:
        if self._status_messages:
            items, removed = list_dicts(frame.get("queue")), list_dicts(frame.get("removed"))
            out.append(QueueUpdateMessage(tuple(items), tuple(removed)))

    def _on_control(self, frame: dict[str, Any], out: list[Message]) -> None:
        request = frame["request"]
        name = request["tool_name"]
        call_id = request["tool_call_id"]
        request_id = frame["request_id"]
        # A question about a call comes after the call itself, which must be shown first.
        self._flush_calls(out)
        # Such a call runs here: whether it may is asked when the server wants its result.
        if name in self._client_tools:
            self.grants.append(request_id)
            return
        call = self._apply_input(
            self._call(call_id, name, request.get("input")), request.get("input")
        )
        # By the arguments that would run, which need not be those that were shown.
        verdict = self._judge(name, call.tool_input)
        if verdict.refused:
            self.refusals.append((request_id, verdict.refused))
            return
        # Arguments that cannot be read are never granted: nobody knows what would run.
        if verdict.granted and not call.problem:
            self.grants.append(request_id)
            return
        self.permissions[call_id] = request_id
        self.details[call_id] = {
            "suggestions": tuple(list_dicts(request.get("permission_suggestions"))),
            "blocked_path": request.get("blocked_path"),
            "diffs": tuple(list_dicts(request.get("diffs"))),
            **verdict.about,
        }
        self.pending = (call,)

    @staticmethod
    def _apply_input(call: ToolCallMessage, given: Any) -> ToolCallMessage:
        """Return the call with the arguments that the question is about, as those would run."""
        if call.problem or not isinstance(given, dict) or given == call.tool_input:
            return call
        return replace(call, tool_input=given, raw_arguments=json.dumps(given))

    def _on_external(self, frame: dict[str, Any], out: list[Message]) -> None:
        """Handle the request for the result of one client-side tool.

        The server asks one by one; all of the step run at once.
        """
        call_id = frame["tool_call_id"]
        self.external[call_id] = frame["request_id"]
        self._flush_calls(out)
        # It was answered together with the first of its step: the result is on its way.
        if call_id in self._given:
            return
        first = self._call(call_id, frame["tool_name"], frame.get("input"))
        # The server names all calls of the step at once, so that those of this side need not wait.
        others = (self._calls.get(i) for i in self._executing if i != call_id)
        self.pending = (
            first,
            *(
                call
                for call in others
                if call is not None
                and call.tool_name in self._client_tools
                and call.tool_call_id not in self._given
            ),
        )

    def _call(self, call_id: str, name: str, given: Any) -> ToolCallMessage:
        """Return the call as it was shown, or made from the question about it."""
        shown = self._calls.get(call_id)
        # Some models count the ids of their calls anew in each step, so the name must match as
        # well.
        if shown is not None and shown.tool_name == name:
            return shown
        self._spoke = True
        tool_input = given if isinstance(given, dict) else {}
        raw = json.dumps(tool_input)
        return ToolCallMessage(call_id, name, tool_input, raw, True, run_id=self.run_id)

    def _on_finished(self, frame: dict[str, Any], out: list[Message]) -> None:
        run_id = frame.get("run_id")
        # The server has named the run of every turn that ran at all before the turn ends.
        if self._is_foreign(run_id) or (run_id and self.run_ids and run_id not in self.run_ids):
            return  # the end of another turn
        if run_id:
            self.note_run(run_id)
        self.over = True
        reason = frame.get("stop_reason")
        if type(reason) is not str:  # without a reason it is not known to be a success
            raise TypeError("stop_reason")
        # The reasons before were of single model calls; this one is the turn's.
        self.stop = StopReason()
        self.stop.see(reason)
        failure = find_failure(reason, self._error, frame.get("error"))
        if reason == "requires_approval":  # that is no end: the calls it waits for were not shown
            failure = _PAUSED
        if failure is not None:
            self.fail(failure)
            if failure.code == "conversation_busy":
                self.input_stored = False  # refused before it was stored
        self._flush_calls(out)
        # A turn that was cut off has cut its last text too, which must not pass for a whole one.
        if reason in DECISIVE_STOP_REASONS:
            self.assembler.flush_broken(out)
        else:
            self.assembler.flush(out)
        self.collect(out)

    # -- deltas -----------------------------------------------------------------------------

    def _on_text(self, delta: dict[str, Any], out: list[Message]) -> None:
        self._spoke = True
        self._flush_calls(out)
        # The id of a delta is the stored message's own and names one text.
        delta.setdefault("otid", delta.get("id"))
        start = len(out)
        self.assembler.text(delta, out)
        self.collect(out, start)
        if self.partial:
            out.append(self.fragment(delta))

    def _on_call(self, delta: dict[str, Any], out: list[Message]) -> None:
        self._spoke = True
        start = len(out)
        self.assembler.call(delta, out, approval=True)
        self.collect(out, start)
        if self.partial:
            out.append(self.fragment(delta))

    def _on_classified(self, delta: dict[str, Any], out: list[Message]) -> None:
        self._asking = frozenset(delta.get("user_input_tool_call_ids") or ())
        self._flush_calls(out)
        unasked = frozenset(delta.get("auto_allowed_tool_call_ids") or ())
        names = (self._tool_names.get(i, "") for i in sorted(unasked))
        self.unasked += tuple(name for name in names if name not in self._client_tools)

    def _flush_calls(self, out: list[Message]) -> None:
        """Hand the step's calls out; they come whole, but who decides is known only afterwards."""
        open_calls = self.assembler.open_calls()
        if not open_calls:
            return
        start = len(out)
        ids = frozenset(call.tool_call_id for call in open_calls)
        for call in self.assembler.take_calls(ids):
            asks = call.tool_name in self._client_tools or self._asks_for(call)
            shown = replace(call, requires_approval=asks)
            self._calls[call.tool_call_id] = shown
            # An id that was answered before names a new call from here on.
            self._given.discard(call.tool_call_id)
            out.append(shown)
        self._asking = frozenset()
        self.collect(out, start)

    def _asks_for(self, call: ToolCallMessage) -> bool:
        """Return whether somebody is asked about the call.

        A question of the server's alone may be answered here.
        """
        if call.tool_call_id not in self._asking:
            return False
        return not self._judge(call.tool_name, call.tool_input).granted

    def _on_return(self, delta: dict[str, Any], out: list[Message]) -> None:
        self._spoke = False
        # What a command has written so far is a fragment; taken for its result it would hide the
        # rest.
        if str(delta.get("id")).startswith(_PROGRESS_ID):
            if self.partial:
                out.append(self.fragment(delta))
            return
        self._flush_calls(out)
        for item in list_dicts(delta.get("tool_returns")) or [delta]:
            call_id = str(item["tool_call_id"])
            self.external.pop(call_id, None)
            text = join_text((content_text(item.get("tool_return")),))
            message = ToolResultMessage(
                call_id,
                text,
                item.get("status") == "error",
                self._tool_names.get(call_id),
                id=str(delta.get("id")),
                otid=delta.get("id"),
                run_id=delta.get("run_id"),
                traceback=self._tracebacks.pop(call_id, None),
            )
            if self.tool_result(message):
                out.append(message)

    def _on_usage(self, delta: dict[str, Any], out: list[Message]) -> None:
        cached = delta.get("cached_input_tokens")
        written = delta.get("cache_write_tokens")
        prompt = delta.get("prompt_tokens") or 0
        if not self.on_api:
            # Letta Code counts the prompt without the tokens that came from the cache or went into
            # it.
            prompt += (cached or 0) + (written or 0)
        self.usage = self.usage + Usage(
            prompt,
            delta.get("completion_tokens") or 0,
            delta.get("total_tokens") or 0,
            cached,
            written,
            delta.get("reasoning_tokens"),
            delta.get("context_tokens"),
            1,
        )

    def _on_error(self, delta: dict[str, Any], out: list[Message]) -> None:
        """Keep an error, as it is not known yet whether the server tries again.

        ``turn_finished`` decides.
        """
        self.ending = self.ending or delta.get("is_terminal") is True
        # A loop error tells less than an error message, and must not replace one.
        if delta["message_type"] == "error_message" or not self._error:
            self._error = delta

    def _on_event(self, delta: dict[str, Any], out: list[Message]) -> None:
        handler = _EVENTS.get(str(delta.get("event_type")))
        if handler is None:
            out.append(UnknownMessage(delta))
        else:
            handler(self, delta, out)

    def _on_omitted(self, delta: dict[str, Any], _: list[Message]) -> None:
        """Fail the turn if one of the images that the model is not shown belongs to it."""
        data = delta["event_data"]
        self.unseen = self._client_message_id in (data.get("otids") or ())
        if self.unseen or not self._calls.keys().isdisjoint(data.get("tool_call_ids") or ()):
            self.fail(UNSEEN)

    def _on_retry(self, delta: dict[str, Any], out: list[Message]) -> None:
        data = delta.get("event_data") or delta
        # All that the failed attempt said is void, and so are the calls it was going to make.
        self.assembler = Assembler()
        self._answer.clear()
        self._error = {}
        self.ending = False
        out.append(
            RetryMessage(
                str(data.get("message") or data.get("reason") or "The model call failed."),
                int(data.get("attempt") or 1),
                int(data.get("max_attempts") or 0),
                int(data.get("delay_ms") or 0),
                delta.get("run_id"),
            )
        )

    def _on_nothing(self, _: dict[str, Any], out: list[Message]) -> None:
        """Do nothing: other events say the same."""


_FRAMES: dict[str, _Handler] = {
    "stream_delta": AppTurn._on_delta,
    "update_loop_status": AppTurn._on_loop,
    "update_queue": AppTurn._on_queue,
    # Three a turn, of 13 kB each, about the state of the machine and not the conversation.
    "update_device_status": AppTurn._on_nothing,
    "control_request": AppTurn._on_control,
    "external_tool_call_request": AppTurn._on_external,
    "turn_finished": AppTurn._on_finished,
}

_TEXTS = ("assistant_message", "reasoning_message")
_DELTAS: dict[str, _Handler] = {
    "assistant_message": AppTurn._on_text,
    "reasoning_message": AppTurn._on_text,
    "hidden_reasoning_message": AppTurn._on_text,
    "approval_request_message": AppTurn._on_call,
    "tool_call_message": AppTurn._on_call,
    "approval_classification_end": AppTurn._on_classified,
    "tool_return_message": AppTurn._on_return,
    "usage_statistics": AppTurn._on_usage,
    "error_message": AppTurn._on_error,
    "loop_error": AppTurn._on_error,
    "retry": AppTurn._on_retry,
    "event_message": AppTurn._on_event,
    "stop_reason": AppTurn._on_nothing,
    "client_tool_start": AppTurn._on_nothing,
    "client_tool_end": AppTurn._on_nothing,
}

_EVENTS: dict[str, _Handler] = {
    "retry": AppTurn._on_retry,
    "letta_adapters_images_omitted": AppTurn._on_omitted,
}


def _is_answer(kind: Any) -> bool:
    """Return whether it answers a request of this client, which whoever asked has got already."""
    return kind == "input_accepted" or (type(kind) is str and kind.endswith("_response"))


def _make_unknown(frame: Mapping[str, Any]) -> UnknownMessage:
    """Return a frame that is no message of the agent, under its own name."""
    return UnknownMessage({"message_type": str(frame.get("type") or ""), **frame})
