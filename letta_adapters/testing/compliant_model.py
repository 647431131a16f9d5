"""Internal: a scripted model that does what it is asked, for suites written for real models.

Give it as ``ScriptedModel(respond=comply)``. It calls a tool that it is told to call (or whose name
the question uses), with arguments made to fit the tool's schema. It answers with JSON where JSON is
asked for, it says what a tool returned, and else it repeats the question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from letta_adapters.testing.model_protocol import ModelRequest, Reply, ToolUse

_REMINDER: Final = re.compile(r"<system-reminder>.*?</system-reminder>\s*", re.DOTALL)
_QUOTED: Final = re.compile(r"[\"'“”「]([^\"'“”「」]+)[\"'“”」]")
_SCHEMA: Final = re.compile(
    r"that fits this JSON schema, and with nothing else: (\{.*\})", re.DOTALL
)
_WORD: Final = 5


def comply(request: ModelRequest) -> Reply:
    """Return the reply to a request."""
    messages = request.messages
    if messages and messages[-1].get("role") == "tool":
        # The step after a tool call: the suites look for the tool's result in the answer.
        return request.echo()
    text = _REMINDER.sub("", request.last_user_text).strip()
    tool = _choose_tool(request, text)
    if tool is not None:
        said = re.sub(r"<instructions>.*", "", text, flags=re.DOTALL)
        arguments = _make_data(tool.get("parameters") or {}, said, {})
        return Reply(tool_calls=[ToolUse(tool["name"], arguments, id=_next_id(request))])
    schema = _SCHEMA.search(text)
    if schema is not None:
        data = json.loads(schema[1].partition("\n</instructions>")[0])
        return Reply(json.dumps(_make_data(data, text, data.get("$defs") or {})))
    if "JSON object" in text:
        keys = [name for name in _QUOTED.findall(text) if re.fullmatch(r"\w+", name)]
        return Reply(json.dumps({name: f"a {name}" for name in keys or ["answer"]}))
    return Reply(f"You said: {text}")


def _next_id(request: ModelRequest) -> str:
    """Return a call id that is new in its conversation, whichever process the model runs in."""
    calls = sum(len(message.get("tool_calls") or ()) for message in request.messages)
    return f"call_{len(request.messages)}_{calls + 1}"


def _choose_tool(request: ModelRequest, text: str) -> Mapping[str, Any] | None:
    functions: list[Mapping[str, Any]] = [
        tool["function"] for tool in request.tools if "function" in tool
    ]
    told = re.search(r"Answer by calling (.+?)\. Do not answer", text)
    if told is not None:
        return next((f for f in functions if f["name"] in told[1]), None)
    # The longest name wins: one tool's name may be a part of another's.
    named = [f for f in functions if f["name"] in text]
    if named:
        return max(named, key=lambda f: len(f["name"]))
    # Natural questions use a word of the tool's name; short words are in every sentence.
    words = set(re.findall(r"[a-z]+", text.lower()))
    for function in functions:
        parts = [part for part in function["name"].lower().split("_") if len(part) >= _WORD]
        if "_" in function["name"] and words & set(parts):
            return function
    return None


def _make_data(schema: Mapping[str, Any], text: str, defs: Mapping[str, Any]) -> Any:
    """Return data that fits a schema, with values that the text offers."""
    defs = schema.get("$defs") or defs
    if "$ref" in schema:
        return _make_data(defs.get(str(schema["$ref"]).rpartition("/")[2]) or {}, text, defs)
    for name in ("anyOf", "oneOf", "allOf"):
        # An optional value is made, not left out: suites assert on it.
        options = [s for s in schema.get(name) or () if s.get("type") != "null"]
        if options:
            return _make_data(options[0], text, defs)
    if "enum" in schema:
        return next((v for v in schema["enum"] if str(v) in text), schema["enum"][0])
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        return {name: _make_data(part, text, defs) for name, part in properties.items()}
    if kind == "array":
        return [_make_data(schema.get("items") or {}, text, defs)]
    if kind in ("integer", "number"):
        found = re.search(r"-?\d+", text)
        return int(found[0]) if found else 1
    if kind == "boolean":
        return True
    quoted = _QUOTED.search(text)
    return quoted[1] if quoted else text[:80]
