"""The question that ``can_use_tool(name, input, context)`` is asked, and its answers.

::

    async def can_use_tool(name, tool_input, context):
        if name == "Bash" and "rm " in tool_input["command"]:
            return Deny("Nothing is deleted here.")
        return Allow()

An answer is :class:`Allow`, :class:`Deny`, :class:`Postpone`, a bool, or the dict of the TypeScript
SDK.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from letta_adapters._utils.invoke import is_async_callable
from letta_adapters.errors import InvalidInputError

_HINT = "Return Allow(), Deny('why'), True or False."
_ALLOW_KEYS = frozenset(
    {"behavior", "message", "save", "updatedInput", "updatedPermissions", "updated_input"}
)
_DENY_KEYS = frozenset({"behavior", "message", "interrupt"})


@dataclass(frozen=True, slots=True)
class Allow:
    """Run the tool, with ``updated_input`` in place of the model's arguments if it is given.

    ``save`` holds ids of ``context.suggestions`` to remember, so that the same call is not asked
    about again in this conversation, as long as this client lives (Letta Code only). Nothing is
    written to a file. ``message`` is a word to the agent with it, if the agent's side runs the
    tool::

        return Allow({**tool_input, "timeout": 10})
    """

    updated_input: Mapping[str, Any] | None = None
    save: tuple[str, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    """Do not run the tool. The model reads ``message``; ``interrupt`` also ends the turn."""

    message: str = ""
    interrupt: bool = False


@dataclass(frozen=True, slots=True)
class Postpone:
    """Decide later: leave the turn and its pending calls as they are, and end its stream here.

    The turn ends with the error ``detached``; ``session.respond()`` goes on with it, from any
    process (Letta API only).
    """


# The effect of a call; docs/permissions.md has the table of what follows from it.
CallKind: TypeAlias = Literal[
    "client_tool",
    "own_memory",
    "notes",
    "reads_cwd",
    "reads",
    "writes_cwd",
    "writes",
    "executes",
    "network",
    "unrestricted_child",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionContext:
    """The origin of a permission question and its subject.

    ``kind`` is the effect of the call. ``client_tool``: it runs in this process (a Python
    function). ``own_memory``: it reads the agent's memory or writes its notes there. ``notes``: it
    touches no file at all. ``reads_cwd`` / ``writes_cwd``: a plain file below the working
    directory, after links were followed. ``reads`` / ``writes``: any other file, such as one that
    may hold a secret. ``executes``: it runs a command, or is a tool that this version does not
    know. ``network``: it talks to another machine. ``unrestricted_child``: it starts an agent whose
    tools are asked about by nobody.

    ``default`` is the session's answer without a callback, given its ``permission_mode``,
    ``allowed_tools`` and ``disallowed_tools``; ``return context.default`` is a valid answer.

    ``client_tool`` is true for a tool that runs in this process and not on the agent's side.
    ``suggestions`` (``{"id", "text"}``: see :class:`Allow`) are there for a tool that Letta Code
    runs. ``blocked_path`` and ``diffs`` come from Letta Code (App Server protocol of ``letta``
    0.34); the Letta API has none of them.

    ``recovered`` is true for a call that an earlier turn left open (its process has ended, say). A
    ``client_tool`` may have begun then, and may have done all or a part of its work; a tool that
    the agent's side runs has not.
    """

    tool_call_id: str
    agent_id: str | None = None
    conversation_id: str | None = None
    suggestions: tuple[Mapping[str, Any], ...] = ()
    blocked_path: str | None = None
    diffs: tuple[Mapping[str, Any], ...] = ()
    client_tool: bool = False
    kind: CallKind = "executes"
    default: Allow | Deny = field(default_factory=Deny)
    recovered: bool = False


def check_callback(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``callback`` as a function of a tool's name, its input and the context.

    A callback with two parameters, as in the TypeScript SDK, is called without the context.

    Raises:
        InvalidInputError: It can be called with neither three nor two arguments. If that were found
            out only when it is asked, every tool would be denied.
    """
    try:
        # Found out now, when the session is made, and not when the first tool is asked about.
        signature = inspect.signature(callback)
    except (TypeError, ValueError):  # in C, or a class that does not tell
        return callback
    # Three first: a callback that takes any number of arguments is to see the context.
    for count in (3, 2):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        if count == 3:
            return callback
        return _without_context(callback)
    raise InvalidInputError(
        f"can_use_tool takes {signature}, and is called with (name, input, context).",
        hint="Write it as: def can_use_tool(name, input, context): ...",
    )


def _without_context(callback: Callable[..., Any]) -> Callable[..., Any]:
    def ask(name: str, tool_input: dict[str, Any], _: PermissionContext) -> Any:
        return callback(name, tool_input)

    async def ask_async(name: str, tool_input: dict[str, Any], _: PermissionContext) -> Any:
        return await callback(name, tool_input)

    return ask_async if is_async_callable(callback) else ask


def normalise_decision(value: object) -> Allow | Deny:
    """Return the decision in the answer of a ``can_use_tool`` callback.

    Args:
        value: :class:`Allow`, :class:`Deny`, ``True``, ``False``, or the TypeScript SDK's
            ``{"behavior": "allow", "updatedInput": {...}}`` / ``{"behavior": "deny", "message":
            "...", "interrupt": True}`` (``updated_input``, and ``save`` with a list of ids, are
            understood too).

    Raises:
        InvalidInputError: It is anything else, ``None`` and a misspelt key included: an unclear
            answer allows nothing.
    """
    # Checked even if it is an object of ours, whose fields nobody has looked at yet.
    if isinstance(value, Allow):
        return _allow(value.updated_input, value.save, value.message)
    if isinstance(value, Deny):
        return _deny(value.message, value.interrupt)
    # Nothing else that is true in Python: a text such as "no" would allow the call.
    if isinstance(value, bool):
        return Allow() if value else Deny()
    if isinstance(value, Mapping):
        return _from_mapping(value)
    # A coroutine that nobody awaits makes Python warn; closing it leaves this error alone.
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise InvalidInputError("can_use_tool's answer was never awaited.", hint=_HINT)
    raise InvalidInputError(
        f"can_use_tool returned {type(value).__name__}, not a decision.", hint=_HINT
    )


def encode_decision(decision: Allow | Deny) -> dict[str, Any]:
    """Return a decision as JSON, which every store of messages can hold.

    :func:`normalise_decision` reads it when the message comes back.

    Args:
        decision: The decision.
    """
    if isinstance(decision, Deny):
        made: dict[str, Any] = {"behavior": "deny", "message": decision.message}
        return made | ({"interrupt": True} if decision.interrupt else {})
    made = {"behavior": "allow"}
    if decision.updated_input is not None:
        made["updatedInput"] = dict(decision.updated_input)
    if decision.save:
        made["save"] = list(decision.save)
    if decision.message:
        made["message"] = decision.message
    return made


def _from_mapping(value: Mapping[Any, Any]) -> Allow | Deny:
    behavior = value.get("behavior")
    if behavior not in ("allow", "deny"):
        raise InvalidInputError(
            f"can_use_tool returned a dict whose 'behavior' is {behavior!r}.",
            hint='It must be "allow" or "deny".',
        )
    # A misspelt key would be ignored, and with it what the callback has decided.
    known = _ALLOW_KEYS if behavior == "allow" else _DENY_KEYS
    unknown = sorted(str(key) for key in value if key not in known)
    if unknown:
        raise InvalidInputError(
            f"can_use_tool returned an unknown key {unknown[0]!r} with {behavior!r}.",
            hint=f"Known keys: {', '.join(sorted(known))}.",
        )
    if behavior == "deny":
        message = value.get("message")
        interrupt = value.get("interrupt")
        return _deny("" if message is None else message, False if interrupt is None else interrupt)
    # Both spellings are in use; two different inputs would leave open which one runs.
    given = [value[key] for key in ("updatedInput", "updated_input") if value.get(key) is not None]
    if len(given) > 1:
        raise InvalidInputError(
            "can_use_tool returned both 'updatedInput' and 'updated_input'.", hint="Keep one."
        )
    save = value.get("save") or _read_permissions(value.get("updatedPermissions"))
    message = value.get("message")
    return _allow(
        given[0] if given else None,
        tuple(save) if isinstance(save, list) else save,  # JSON has lists only
        "" if message is None else message,
    )


def _read_permissions(given: object) -> tuple[str, ...]:
    """Return the ids of suggestions that a callback of the TypeScript SDK chose."""
    if not given:
        return ()
    if isinstance(given, (list, tuple)) and all(isinstance(item, str) for item in given):
        return tuple(given)
    # Ignored in silence, rules that the callback believes to be set would not hold.
    raise InvalidInputError(
        "can_use_tool returned 'updatedPermissions' that are no ids of suggestions.",
        hint="Return ids of context.suggestions, or use allowed_tools= / disallowed_tools=.",
    )


def _allow(updated_input: object, save: object, message: object) -> Allow:
    if not isinstance(message, str):
        raise InvalidInputError("can_use_tool's allow message is not a string.", hint=_HINT)
    if not isinstance(save, tuple) or not all(isinstance(item, str) for item in save):
        raise InvalidInputError(
            "can_use_tool's 'save' is not a tuple of suggestion ids.",
            hint="Return Allow(save=tuple(s['id'] for s in context.suggestions)).",
        )
    if updated_input is None:
        return Allow(save=save, message=message)
    if not isinstance(updated_input, Mapping) or not all(isinstance(k, str) for k in updated_input):
        raise InvalidInputError(
            "can_use_tool's updated input is not an object of argument names and values.",
            hint="Return Allow({'argument': value, ...}).",
        )
    return Allow(updated_input, save, message)


def _deny(message: object, interrupt: object) -> Deny:
    if not isinstance(message, str):
        raise InvalidInputError("can_use_tool's deny message is not a string.", hint=_HINT)
    if not isinstance(interrupt, bool):
        raise InvalidInputError("can_use_tool's 'interrupt' is not a bool.", hint=_HINT)
    return Deny(message, interrupt)
