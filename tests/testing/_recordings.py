"""Random recordings with planted secrets, and the ground truth about them.

Two random sources: ``shape`` decides what is planted where, ``noise`` what differs between two
recordings of one scenario (ids, dates, keys, names): one shape with two noises is a re-recording.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from letta_adapters.testing.cassette import (
    Cassette,
    Interaction,
    RecordedError,
    RecordedRequest,
    RecordedResponse,
    is_frame,
)

ALNUM = string.ascii_letters + string.digits
KINDS = ("key", "password", "unicode", "url", "home", "windows", "email", "host")


def text_of(rng: random.Random, length: int, alphabet: str = ALNUM) -> str:
    return "".join(rng.choice(alphabet) for _ in range(length))


def uuid_of(rng: random.Random) -> str:
    raw = f"{rng.getrandbits(128):032x}"
    return f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-a{raw[17:20]}-{raw[20:]}"


@dataclass
class Scenario:
    """One recording and everything a judge must know about it."""

    seed: int
    noise_seed: int
    steps: list[Callable[[Memory], RecordedRequest]] = field(default_factory=list)
    frames: list[Callable[[Memory], str]] = field(default_factory=list)
    interactions: list[Interaction] = field(default_factory=list)
    planted: dict[str, str] = field(default_factory=dict)  # kind -> the text that must vanish
    core: dict[str, str] = field(default_factory=dict)  # kind -> what of it is private
    environment: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    hosts: tuple[str, ...] = ()
    auth: str = ""
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def cassette(self) -> Cassette:
        return Cassette(self.interactions)

    def private(self) -> dict[str, str]:
        """What must not be readable afterwards.

        An address or path is known by its form: where a stream broke within the only one, the
        piece that is left is a word like any other.
        """
        whole = "\n".join(readings(self.cassette))
        by_form = ("home", "windows", "email", "url")
        return {
            kind: core
            for kind, core in self.core.items()
            if kind not in by_form or self.planted[kind] in whole
        }


@dataclass
class Memory:
    """What a client has when it sends a request: ids from answers, its key, fresh ids."""

    ids: dict[str, str]
    noise: random.Random
    live: dict[str, str]


class Maker:
    """Makes one :class:`Scenario`."""

    def __init__(self, seed: int, noise_seed: int | None = None) -> None:
        self.shape = random.Random(seed)
        self.noise = random.Random((seed if noise_seed is None else noise_seed) * 7919 + 1)
        self.out = Scenario(seed, noise_seed or seed)
        self.ids = {
            name: f"{name}-{uuid_of(self.noise)}" for name in ("agent", "conv", "run", "block")
        }
        self.call = f"call_{text_of(self.noise, 8, '0123456789abcdef')}"
        self.day = f"2026-{self.noise.randint(1, 12):02d}-{self.noise.randint(10, 28)}"

    def make(self) -> Scenario:
        self.out.ids = self.ids
        self._secrets()
        self.talk()
        return self.out

    def talk(self) -> None:
        """What is said: a few requests to a Letta API."""
        self._create()
        for _ in range(self.shape.randint(1, 3)):
            self.shape.choice([self._stream, self._stream, self._tools, self._plain])()

    def memory(self) -> Memory:
        """The recording client's."""
        return Memory(self.ids, self.noise, {"auth": self.out.auth, **self.out.planted})

    def fresh(self) -> str:
        """A UUID that is another one in every recording."""
        return uuid_of(self.noise)

    # What is private -----------------------------------------------------------------------------

    def _secrets(self) -> None:
        shape, noise = self.shape, self.noise
        key = "sk-" + shape.choice(["let-", "", "proj-"]) + text_of(noise, 24)
        password = (
            text_of(noise, 6)
            + shape.choice(['/"', "\\", "+/", "&=", "'", " "])
            + (text_of(noise, 7) + "9z")
        )
        home = "/home/" + text_of(noise, 10, string.ascii_lowercase)
        made = {
            "key": key,
            "password": password,
            "unicode": "pä" + text_of(noise, 9) + "ßω漢" + text_of(noise, 8) + "7q",
            "url": "postgres://svc:" + text_of(noise, 12) + "@db.internal/letta",
            "home": home + "/projects/one",
            "windows": "C:\\Users\\" + text_of(noise, 9, string.ascii_letters) + "\\AppData",
            "email": text_of(noise, 10, string.ascii_lowercase) + "@" + "corp-mail.io",
            "host": "box" + text_of(noise, 9, string.ascii_lowercase),
        }
        chosen = shape.sample(KINDS, shape.randint(2, len(KINDS)))
        self.out.planted = {kind: made[kind] for kind in KINDS if kind in chosen}
        self.out.core = {kind: _core(kind, text) for kind, text in self.out.planted.items()}
        self.out.auth = key if "key" in chosen else text_of(noise, 24)
        for kind in ("password", "unicode"):
            if kind in chosen:
                if shape.random() < 0.5:
                    self.out.environment[f"{kind.upper()}_PASSWORD"] = made[kind]
                else:
                    self.out.secrets.append(made[kind])
        if "host" in chosen:
            self.out.hosts = (made["host"],)

    def encoded(self, text: str) -> str:
        """``text`` in some encoding, within some text."""
        way = self.shape.randrange(11)
        left = "x" * self.shape.randint(0, 5) + self.shape.choice([" ", "=", ": ", '"'])
        right = self.shape.choice([" and so on", "", "\n", '"', "/rest"])
        if way == 0:
            return left + json.dumps(text)[1:-1] + right
        if way == 1:
            return left + json.dumps(json.dumps(text)[1:-1])[1:-1] + right
        if way == 2:
            return left + text.replace("/", "\\/") + right
        if way == 3:
            return left + quote(text, safe="") + right
        if way in (4, 5):
            coded = base64.b64encode((left + text + right).encode()).decode()
            return "blob " + (coded if way == 4 else coded.replace("+", "-").replace("/", "_"))
        if way == 6:
            # Letters would become part of a name that is known by its form.
            glue = b"(" if text in self._structured() else b"x"
            coded = base64.b64encode(glue * self.shape.randint(0, 2) + text.encode()).decode()
            return "raw " + coded.rstrip("=")
        if way == 7:
            image = bytes(self.shape.randrange(256) for _ in range(60))
            secret = _core_secret(text).encode() if text not in self._structured() else b""
            return "data:image/png;base64," + base64.b64encode(image + secret + image).decode()
        if way == 8:
            return left + json.dumps({"cwd": text, "n": [1, text]}) + right
        return left + text + right

    def _structured(self) -> list[str]:
        # Within binary data only known secrets are looked for.
        wanted = ("home", "windows", "email", "host", "url")
        return [text for kind, text in self.out.planted.items() if kind in wanted]

    def some(self) -> str:
        """A piece of text, often with something planted."""
        if self.shape.random() < 0.7:
            return self.encoded(self.shape.choice(list(self.out.planted.values())))
        return self.shape.choice(["hello there", "born 1990-05-17", "naïve café \u2028 ok", "{}"])

    def now(self) -> str:
        clock = f"{self.noise.randint(0, 23):02d}:{self.noise.randint(0, 59):02d}:07"
        return f"{self.day}T{clock}+00:00"

    # What is said --------------------------------------------------------------------------------

    def _add(
        self, request: Callable[[Memory], RecordedRequest], response: RecordedResponse
    ) -> None:
        self.out.steps.append(request)
        self.out.interactions.append(Interaction(request(self.memory()), response))

    def _create(self) -> None:
        note = self.some()
        sensitive = self.shape.random() < 0.6 and "password" in self.out.planted

        def request(memory: Memory) -> RecordedRequest:
            body: dict[str, Any] = {"name": "a", "note": note}
            if sensitive:
                body["secrets"] = {"PLACE": memory.live["password"]}
            return _post("/v1/agents/", body, memory)

        answer = {
            "id": self.ids["agent"],
            "created_at": self.now(),
            "system": f"The current date is {_prose(self.day)}. {self.some()}",
            "llm_config": {"model_endpoint": "http://127.0.0.1:8399/v1"},
            "created_by_id": "user-00000000-0000-4000-8000-000000000000",
            "blocks": [{"id": self.ids["block"], "value": self.some()}],
        }
        self._add(request, _json_response(answer))
        self._add(
            lambda memory: _post(f"/v1/conversations/?agent_id={memory.ids['agent']}", {}, memory),
            _json_response({"id": self.ids["conv"], "agent_id": self.ids["agent"]}),
        )

    def _message(self) -> tuple[Callable[[Memory], RecordedRequest], str]:
        said = self.some()

        def request(memory: Memory) -> RecordedRequest:
            message = {"role": "user", "content": said, "otid": uuid_of(memory.noise)}
            path = f"/v1/conversations/{memory.ids['conv']}/messages"
            return _post(path, {"messages": [message], "streaming": True}, memory)

        return request, said

    def _stream(self) -> None:
        request, said = self._message()
        uuid = self.fresh()
        events: list[Any] = [self._event("ping", self.fresh())]
        for kind, name in (("reasoning_message", "reasoning"), ("assistant_message", "content")):
            text = f"You said {said}; {self.some()} {self.some()}"
            otid = uuid[:-2] + f"{int(uuid[-2:], 16) & 0x80 | len(events) % 3:02x}"
            for piece in self.split(text):
                event = self._event(kind, uuid, "message") | {"otid": otid, name: piece}
                events.append(event)
        events.append({"message_type": "stop_reason", "stop_reason": "end_turn"})
        self._add(request, self._sse(events))

    def _tools(self) -> None:
        request, _ = self._message()
        uuid = self.fresh()
        queues = []
        for number in range(self.shape.randint(1, 3)):
            arguments = json.dumps({"city": "Paris", "note": self.some()})
            call = self.call[:-1] + str(number)
            queues.append([(call, piece) for piece in self.split(arguments)])
        events = []
        while any(queues):
            queue = self.shape.choice([queue for queue in queues if queue])
            call, piece = queue.pop(0)
            part = {"name": None, "arguments": piece, "tool_call_id": call}
            event = self._event("approval_request_message", uuid, "message")
            events.append(event | {"tool_call": part, "tool_calls": part})
        self._add(request, self._sse(events))
        returned = self.some()
        call = self.call[:-1] + "0"

        def answer(memory: Memory) -> RecordedRequest:
            result = {"type": "tool", "tool_call_id": memory.ids.get("call", call)}
            message = {"type": "tool_return", "tool_returns": [result | {"tool_return": returned}]}
            path = f"/v1/conversations/{memory.ids['conv']}/messages"
            return _post(path, {"messages": [message]}, memory)

        self.ids["call"] = call
        time = f'{{"status": "OK", "time": "{self.day} 09:59:05 PM UTC+0000"}}'
        self._add(answer, _json_response({"messages": [{"content": time + self.some()}]}))

    def _plain(self) -> None:
        value = self.some()

        def request(memory: Memory) -> RecordedRequest:
            path = f"/v1/agents/{memory.ids['agent']}/messages?q={quote(value)}&token="
            return _send("GET", path + quote(memory.live["auth"]), None, memory)

        detail = f"{{'type': 'missing', 'input': {self.some()!r}, 'id': '{self.ids['run']}'}}"
        status = self.shape.choice([200, 422])
        body = {"detail": detail, "trace_id": text_of(self.noise, 31, "0123456789abcdef") + "a"}
        self._add(request, _json_response(body, status))

    def _event(self, kind: str, uuid: str, prefix: str = "ping") -> dict[str, Any]:
        return {
            "id": f"{prefix}-{uuid}",
            "date": self.now(),
            "message_type": kind,
            "otid": None,
            "run_id": self.ids["run"],
        }

    def split(self, text: str) -> Iterator[str]:
        position = 0
        while position < len(text):
            size = self.shape.choice([1, 2, 3, 5, 8, 13, 40])
            yield text[position : position + size]
            position += size

    def _sse(self, events: list[Any]) -> RecordedResponse:
        plain = self.shape.random() < 0.5
        frames = [f"data: {json.dumps(event, ensure_ascii=plain)}\n\n" for event in events]
        body = ("".join(frames) + "data: [DONE]\n\n").encode()
        error = None
        how = self.shape.random()
        if how < 0.15:
            body = body[: self.shape.randrange(len(body) // 2, len(body))]
            body = body.decode("utf-8", "ignore").encode()
            error = RecordedError("RemoteProtocolError", len(body))
        headers = (("content-type", "text/event-stream"), ("x-org-id", self.ids["run"]))
        return RecordedResponse(200, "OK", headers, body, error=error)


def _core(kind: str, text: str) -> str:
    if kind == "url":
        return text.split(":")[2].split("@")[0]
    if kind == "home":
        return text.split("/")[2]
    if kind == "windows":
        return text.split("\\")[2]
    return text.partition("@")[0] if kind == "email" else text


def _core_secret(text: str) -> str:
    return text


def _prose(day: str) -> str:
    months = "January February March April May June July August September October November December"
    year, month, number = day.split("-")
    return f"{months.split()[int(month) - 1]} {number}, {year}"


def _post(path: str, body: Any, memory: Memory) -> RecordedRequest:
    return _send("POST", path, json.dumps(body).encode(), memory)


def _send(method: str, path: str, body: bytes | None, memory: Memory) -> RecordedRequest:
    headers = (
        ("Authorization", f"Bearer {memory.live['auth']}"),
        ("X-Api-Key", memory.live["auth"]),
        ("Content-Type", "application/json"),
        ("User-Agent", "fuzz"),
    )
    return RecordedRequest(method, f"http://127.0.0.1:8283{path}", headers, body or b"")


def _json_response(value: Any, status: int = 200) -> RecordedResponse:
    headers = (
        ("content-type", "application/json"),
        ("date", "Sun, 22 Nov 2026 21:59:05 GMT"),
        ("set-cookie", "sid=" + "abcdef0123456789; Path=/"),
    )
    return RecordedResponse(status, "OK", headers, json.dumps(value).encode())


# The judge: what somebody with time and no knowledge of the sanitizer could read out of a file ----


def surviving(cassette: Cassette, private: dict[str, str]) -> list[str]:
    """The kinds of which eight characters in a row can still be read, in whatever encoding."""
    everything = "\n".join(readings(cassette))
    return [
        kind
        for kind, text in private.items()
        if any(text[start : start + 8] in everything for start in range(len(text) - 7))
    ]


def readings(cassette: Cassette) -> set[str]:
    """Everything that can be read in a cassette, in whatever encoding."""
    found = set()
    # The same texts stand in the file, in a body and in its fields.
    for text in set(_texts(cassette)):
        found |= set(_readings(text, 4))
    return found


def _texts(cassette: Cassette) -> Iterator[str]:
    yield cassette.dumps()
    socket: dict[str, list[str]] = {}  # goes on while the client says something else
    for item in cassette:
        for body in (item.request.body, item.response.body):
            text = body.decode("utf-8", "replace")
            yield text
            joined = socket if is_frame(item) else {}
            for line in text.split("\n"):
                for path, value in _leaves(line.removeprefix("data: ")):
                    yield value
                    joined.setdefault(path, []).append(value)
            if joined is not socket:
                yield from ("".join(values) for values in joined.values())
    yield from ("".join(values) for values in socket.values())


def _leaves(line: str) -> Iterator[tuple[str, str]]:
    try:
        value = json.loads(line)
    except ValueError:
        return
    stack = [("", value)]
    owner = ""
    if isinstance(value, dict):
        event = value.get("delta") or value
        owner = f"{event.get('id')}{(event.get('tool_call') or {}).get('tool_call_id')}"
    while stack:
        path, item = stack.pop()
        if isinstance(item, dict):
            stack += [(f"{path}.{key}", child) for key, child in item.items()]
        elif isinstance(item, list):
            stack += [(f"{path}[]", child) for child in item]
        elif isinstance(item, str):
            yield owner + path, item


def _readings(text: str, depth: int) -> Iterator[str]:
    yield text
    if not depth or len(text) < 8:
        return
    if "\\" in text:
        plain = re.sub(r"\\u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), text)
        plain = plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        yield from _readings(re.sub(r"\\(.)", r"\1", plain), depth - 1)
    if "%" in text and unquote(text) != text:
        yield from _readings(unquote(text), depth - 1)
    for token in re.findall(r"[A-Za-z0-9+/_-]{11,}", text):
        for raw in _decode(token):
            yield raw.decode("utf-8", "replace")
            if depth > 3 and raw.isascii():
                yield from _readings(raw.decode(), depth - 2)


@lru_cache(maxsize=1 << 14)
def _decode(token: str) -> tuple[bytes, ...]:
    """What it is in base64, wherever that begins; ids come again and again."""
    token = token.replace("-", "+").replace("_", "/")
    pieces = [token[shift:] for shift in range(4)]
    return tuple(base64.b64decode(piece[: len(piece) // 4 * 4] or "AAAA") for piece in pieces)
