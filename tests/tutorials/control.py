"""A play for two: the control model and a Letta agent are asked the same, and say the same.

A tutorial is a function of the model. It is run once with the framework's own OpenAI model, which
talks to a scripted model directly, and once with ours, behind which the same script speaks through
a Letta. What the function returns must then be the same.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from letta_adapters.testing.scripted_model import ModelError, ModelRequest, Reply, ToolUse


@dataclass(frozen=True)
class Line:
    """What the model says, and what it must have heard for it.

    ``heard``: all of these are in what is new: what stands after the model's last answer.
    ``knows``: all of these are somewhere in what the model is shown.
    ``shape``: the name of a schema: the reply's one call of that name is said as JSON text, where
    the request offers no tool of that name but asks for JSON.
    ``anytime``: lines of calls that run at the same time; they come in any order.
    """

    says: Reply
    heard: tuple[str, ...] = ()
    knows: tuple[str, ...] = ()
    shape: str | None = None
    anytime: bool = False

    def fits(self, request: ModelRequest) -> bool:
        """Tell whether the model has heard enough to say it."""
        new, known = shown(request)
        return all(t in new for t in self.heard) and all(t in known for t in self.knows)

    def reply(self, request: ModelRequest) -> Reply:
        """Return what is said, in the form that was asked for."""
        offered = {tool["function"]["name"] for tool in request.tools if "function" in tool}
        if self.shape is None or self.shape in offered:
            return _with_ids(self.says)
        return Reply(json.dumps(self.says.tool_calls[0].arguments))

    def static(self) -> Reply:
        """Return the reply for a script that can only wait for the user's words."""
        when = self.heard[0] if self.anytime and self.heard else None
        return replace(_with_ids(self.says), when=when)


def line(heard: str | Sequence[str], says: str | Reply, **more: Any) -> Line:
    """Make a line; ``more`` are :class:`Line`'s fields, with one text where it takes several."""
    knows = _several(more.pop("knows", ()))
    reply = Reply(says) if isinstance(says, str) else says
    return Line(reply, _several(heard), knows, **more)


def calls(name: str, /, **arguments: Any) -> Reply:
    """Call one tool."""
    return Reply(tool_calls=[ToolUse(name, arguments)])


def call_all(*named: tuple[str, Mapping[str, Any]]) -> Reply:
    """Call several tools at once."""
    return Reply(tool_calls=[ToolUse(name, dict(arguments)) for name, arguments in named])


def gives(heard: str | Sequence[str], shape: str, /, *, knows: Any = (), **fields: Any) -> Line:
    """Make a line that gives an object of a schema of that name."""
    return line(heard, calls(shape, **fields), knows=knows, shape=shape)


def shown(request: ModelRequest) -> tuple[str, str]:
    """Return what is new in a request, and all that is in it, as text."""
    texts, new_from = [], 0
    for at, message in enumerate(request.messages):
        if message.get("role") == "assistant":
            new_from = at + 1
        texts.append(_text(message))
    return "\n".join(texts[new_from:]), "\n".join(texts)


class Stage:
    """Where a script is spoken: give it as ``ScriptedModel(respond=stage)``.

    Lines are said in their order, each once; a request that no line fits fails the play.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: list[Line] = []
        self._unheard: list[str] = []

    def set(self, lines: Sequence[Line]) -> None:
        """Begin a play."""
        with self._lock:
            self._left, self._unheard = list(lines), []

    def __call__(self, request: ModelRequest) -> Reply:
        """Say the next line."""
        with self._lock:
            for at, next_ in enumerate(self._left):
                if next_.fits(request):
                    return self._left.pop(at).reply(request)
                if not next_.anytime:
                    break
            new, _ = shown(request)
            self._unheard.append(new[-600:])
        return Reply(error=ModelError(400, f"nothing in the script fits: {new[-300:]}"))

    def end(self) -> None:
        """Fail if something was asked that is not in the script, or not asked that is."""
        assert not self._unheard, f"not in the script: {self._unheard}; left: {self._left}"
        assert not self._left, f"never said: {self._left}"


def _with_ids(reply: Reply) -> Reply:
    """Models give every call an id of its own."""
    named = [replace(call, id=f"call_{uuid.uuid4().hex[:12]}") for call in reply.tool_calls]
    return replace(reply, tool_calls=named)


def _several(texts: str | Sequence[str]) -> tuple[str, ...]:
    return ((texts,) if texts else ()) if isinstance(texts, str) else tuple(texts)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text") or "") for part in content)
