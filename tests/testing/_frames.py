"""Random App Server sessions with planted secrets, recorded by the real recorder.

The frames have the forms of the recorded sessions in ``cassettes/app_server_*.yaml``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from letta_adapters.testing.recording.websocket import WebSocketRecorder
from tests.testing._recordings import Maker, Memory, uuid_of

URL = "ws://127.0.0.1:43117/ws"
Ask = Callable[[Memory], dict[str, Any]]


class MixedMaker(Maker):
    """Makes recordings of a Letta API, of an App Server, and of both in one file."""

    def talk(self) -> None:
        which = self.shape.choice(["requests", "frames", "both"])
        if which != "frames":
            super().talk()
        if which != "requests":
            Session(self).record()


class Session:
    """Talks on one connection; both sides of every frame are made here."""

    def __init__(self, maker: Maker) -> None:
        self.maker, self.shape, self.noise = maker, maker.shape, maker.noise
        self.now = 0.0
        self.seq = 0
        self.run = 0
        self.recorder = WebSocketRecorder(clock=self._clock)
        self.wire = self.recorder.opened(URL, {"Authorization": f"Bearer {maker.out.auth}"})

    def record(self) -> None:
        """Add a session to the scenario: its frames, and what a client sends to play it."""
        self.maker.ids["host"] = f"agent-local-{self.maker.fresh()}"
        self._start()
        for _ in range(self.shape.randint(1, 3)):
            self.shape.choice([self._talk, self._talk, self._ask, self._secret])()
        self.maker.out.interactions += self.recorder.cassette.interactions

    def _clock(self) -> float:
        self.now += 0.001
        return self.now

    # The two directions ---------------------------------------------------------------------------

    def _send(self, ask: Ask) -> dict[str, Any]:
        """A frame of ours, with the fresh ids that it has in every run."""

        def step(memory: Memory) -> str:
            frame = ask(memory)
            frame.setdefault("request_id", f"la-{memory.noise.getrandbits(128):032x}")
            return json.dumps(frame)

        text = step(self.maker.memory())
        self.maker.out.frames.append(step)
        self.wire.sent(text)
        sent: dict[str, Any] = json.loads(text)
        return sent

    def _came(self, kind: str, **fields: Any) -> None:
        frame = {"type": kind, **fields}
        plain = self.shape.random() < 0.5
        self.now += self.shape.choice([0.0, 0.02, 0.4])
        self.wire.came(json.dumps(frame, ensure_ascii=plain))

    def _told(self, kind: str, **fields: Any) -> None:
        """A frame of the conversation's, as the server numbers them."""
        self.seq += 1
        key = f"{kind}:{self.seq}:{self.maker.fresh()}"
        runtime = self._runtime(self.maker.ids)
        given = {"emitted_at": self._moment(), "event_seq": self.seq, "idempotency_key": key}
        self._came(kind, runtime=runtime, **given, **fields)

    def _answer(self, sent: dict[str, Any], **fields: Any) -> None:
        kind, request = f"{sent['type']}_response", sent["request_id"]
        self._came(kind, request_id=request, success=True, **fields)

    def _runtime(self, ids: dict[str, str]) -> dict[str, str]:
        return {"agent_id": ids["host"], "conversation_id": "local-conv-1"}

    def _moment(self) -> str:
        return self.maker.now().replace("+00:00", f".{self.noise.randint(0, 999):03d}Z")

    # What is said ---------------------------------------------------------------------------------

    def _start(self) -> None:
        persona, system = self.maker.some(), self.maker.some()
        folder = self.shape.choice(["home", "windows"])
        cwd = self.maker.out.planted.get(folder, "/tmp/somewhere")

        def start(memory: Memory) -> dict[str, Any]:
            body = {"name": "a", "system": system, "memory_blocks": [{"value": persona}]}
            agent = {"body": body, "pin_global": False}
            return {"type": "runtime_start", "create_agent": agent, "cwd": memory.live.get(folder)}

        sent = self._send(start)
        agent = {"id": self.maker.ids["host"], "system": f"{system} {self.maker.some()}"}
        agent["llm_config"] = {"model_endpoint": "http://127.0.0.1:8399/v1"}
        conversation = {"id": "local-conv-1", "created_at": self._moment()}
        self._answer(sent, agent=agent, conversation=conversation, cwd=sent["cwd"])
        self._told(
            "update_device_status",
            device_status={
                "current_working_directory": cwd,
                "git_context": {"user": self.maker.some()},
                "pending_control_requests": [{"request": {"input": {"x": self.maker.some()}}}],
            },
        )
        self._told("update_loop_status", loop_status={"status": "WAITING_ON_INPUT"})

    def _input(self) -> None:
        said = self.maker.some()

        def send(memory: Memory) -> dict[str, Any]:
            message = {"role": "user", "content": said}
            message["client_message_id"] = uuid_of(memory.noise)
            payload = {"kind": "create_message", "messages": [message]}
            return {"type": "input", "runtime": self._runtime(memory.ids), "payload": payload}

        sent = self._send(send)
        self.run += 1
        (message,) = sent["payload"]["messages"]
        queued = {"client_message_id": message["client_message_id"], "content": said}
        self._told("update_queue", queue=[queued], removed=[])
        self._came("input_accepted", request_id=sent["request_id"], disposition="started")

    def _talk(self) -> None:
        """A turn; in its middle the client may ask for something else."""
        self._input()
        texts = {
            "reasoning_message": ("reasoning", self.maker.some()),
            "assistant_message": ("content", f"{self.maker.some()} {self.maker.some()}"),
        }
        for kind, (name, text) in texts.items():
            for piece in self.maker.split(text):
                content: Any = piece if name == "reasoning" else [{"type": "text", "text": piece}]
                self._delta(kind, f"ui-msg-{self.run}:{name}:0", **{name: content})
                if self.shape.random() < 0.25:
                    self._look()
        self._finish()

    def _look(self) -> None:
        """A request of ours between two pieces of an answer."""
        sent = self._send(
            lambda memory: {"type": "conversation_messages_list", **self._runtime(memory.ids)}
        )
        self._answer(sent, messages=[{"content": self.maker.some()}])

    def _ask(self) -> None:
        """A turn that calls tools: an approval, and a function of ours."""
        self._input()
        calls = [self.maker.call[:-1] + str(number) for number in range(self.shape.randint(1, 2))]
        arguments = {call: {"city": "Paris", "note": self.maker.some()} for call in calls}
        for call, piece in self._interleaved({c: json.dumps(a) for c, a in arguments.items()}):
            part = {"name": "Bash", "arguments": piece, "tool_call_id": call}
            self._delta("approval_request_message", f"letta-msg-{self.run}", tool_call=part)
        for call in calls:
            self._permission(call, arguments[call])
            self._function(call, arguments[call])
        self._finish()

    def _interleaved(self, texts: dict[str, str]) -> Iterator[tuple[str, str]]:
        queues = [[(call, piece) for piece in self.maker.split(t)] for call, t in texts.items()]
        while any(queues):
            yield self.shape.choice([queue for queue in queues if queue]).pop(0)

    def _permission(self, call: str, given: dict[str, Any]) -> None:
        request = {"subtype": "can_use_tool", "tool_call_id": call, "input": given}
        request["permission_suggestions"] = [{"id": "save", "text": f"Allow '{self.maker.some()}'"}]
        self._told("control_request", request_id=f"perm-{call}", request=request)
        edited = self.maker.some()

        def decide(memory: Memory) -> dict[str, Any]:
            answer = {"decision": {"behavior": "allow", "updated_input": {"note": edited}}}
            asked = f"perm-{memory.ids.get(call, call)}"
            payload = {"kind": "approval_response", "request_id": asked, **answer}
            return {"type": "input", "runtime": self._runtime(memory.ids), "payload": payload}

        self.maker.ids[call] = call
        sent = self._send(decide)
        self._came("input_accepted", request_id=sent["request_id"], disposition="started")

    def _function(self, call: str, given: dict[str, Any]) -> None:
        name = f"tool-{self.run}-{call}"
        self.maker.ids[name] = f"external-tool-{self.maker.fresh()}"
        asked = {"tool_name": "add", "tool_call_id": call, "input": given}
        self._came(
            "external_tool_call_request",
            request_id=self.maker.ids[name],
            runtime=self._runtime(self.maker.ids),
            **asked,
        )
        returned = self.maker.some()

        def answer(memory: Memory) -> dict[str, Any]:
            result = {"content": [{"type": "text", "text": returned}], "is_error": False}
            request = {"type": "external_tool_call_response", "request_id": memory.ids[name]}
            return {**request, "result": result}

        self._send(answer)
        self._delta(
            "tool_return_message",
            f"synthetic-tool-return-{self.maker.fresh()}",
            tool_call_id=call,
            tool_return=returned,
        )

    def _secret(self) -> None:
        """A value under a name that tells nothing, set as the agent's secret."""
        if "password" not in self.maker.out.planted:
            return self._look()

        def apply(memory: Memory) -> dict[str, Any]:
            given = {"PLACE": memory.live["password"]}
            return {"type": "secret_apply", "agent_id": memory.ids["host"], "set": given}

        self._answer(self._send(apply), names=["PLACE"])
        return None

    def _delta(self, kind: str, message: str, **fields: Any) -> None:
        delta = {"id": message, "message_type": kind, "date": self._moment(), "type": "message"}
        delta |= {"run_id": f"local-run-{self.run}", **self._runtime(self.maker.ids), **fields}
        self._told("stream_delta", delta=delta)

    def _finish(self) -> None:
        turn = f"turn-{self.maker.fresh()}"
        self._told("turn_finished", turn_id=turn, stop_reason="end_turn")
