"""Internal: translate one call from LangChain's arguments to those of the shared layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

from letta_adapters.chat import ChatRequest
from letta_adapters.chat.constraints import (
    ConstrainedRequest,
    Constraints,
    from_tool_choice,
    with_schema,
)
from letta_adapters.chat.request import SCOPES, Scope, refuse_per_call
from letta_adapters.errors import InvalidInputError
from letta_adapters.langchain.call_site import (
    CallSite,
    find_span,
    locate_call,
    locate_run,
    name_run,
)
from letta_adapters.langchain.messages import check_decisions, to_entries, to_wire_tools
from letta_adapters.langchain.runs import drop_watcher
from letta_adapters.langchain.structured_output import make_validator, to_json_schema
from letta_adapters.options import SessionOptions
from letta_adapters.tracing.spans import get_context, get_instruments, is_inside

# The keyword arguments of a call that have an effect. Those that start with ``letta_`` come from
# this package itself, bound to the model or added on the way.
_OWN: Final = frozenset(
    {
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "model",
        "temperature",
        "max_tokens",
        "timeout",
        "max_steps",
        "agent_id",
        "conversation_id",
        "thread_id",
        "scope",
        "letta_asks",
        "letta_open",
        "letta_seen",
        "letta_shows_tools",
        "response_format",
        "letta_shape",
        "letta_validate",
    }
)
# Arguments that LangChain itself passes on, which ask nothing of the agent.
_PASSED: Final = frozenset(
    {"strict", "stream", "stream_usage", "ls_structured_output_format", "structured_output_format"}
)
_KNOWN: Final = _OWN | _PASSED
PLACES: Final = ("conversation_id", "thread_id", "agent_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDefaults:
    """Hold what a model's calls have in common; a call's own arguments win over it.

    Attributes:
        agent_id, conversation_id, thread_id, scope, model, temperature, max_tokens, max_steps,
            agent_free, on_mismatch: As the fields of ``ChatLetta``.
        timeout: The seconds that a call may take.
        session: The options of a session, checked.
    """

    agent_id: str | None
    conversation_id: str | None
    thread_id: str | None
    scope: Scope | None
    model: str | None
    timeout: float | None
    temperature: float | None
    max_tokens: int | None
    max_steps: int | None
    agent_free: bool
    on_mismatch: Literal["fork", "continue", "error"]
    session: SessionOptions


def build_request(
    defaults: RequestDefaults,
    messages: list[BaseMessage],
    stop: list[str] | None,
    kwargs: Mapping[str, Any],
    run_manager: Any = None,
) -> ConstrainedRequest:
    """Put the model's defaults, the call's arguments and the run's configuration together.

    Args:
        defaults: The settings of the model, for what the call leaves open.
        messages: The whole history.
        stop: Texts that end the answer.
        kwargs: The call's arguments, bound ones included.
        run_manager: LangChain's manager of the run, which knows where the call is made.

    Raises:
        InvalidInputError: An argument has no effect, bad content, or a choice that is no tool.
    """
    unknown = sorted(k for k in kwargs if k not in _KNOWN and kwargs[k] is not None)
    if unknown:
        hint = "Neither the Letta API nor Letta Code has such a setting per call."
        raise refuse_per_call("ChatLetta", unknown[0], hint)
    tools, constraints = from_tool_choice(
        to_wire_tools(kwargs.get("tools") or (), strict=kwargs.get("strict")),
        kwargs.get("tool_choice"),
        parallel=kwargs.get("parallel_tool_calls"),
    )
    shape = kwargs.get("letta_shape")
    if shape is not None:  # bound by `with_structured_output` together with its validator
        validate = kwargs["letta_validate"]
        constraints = with_schema(constraints, shape["schema"], validate, tool=shape["tool"])
    # Agents of LangChain bind this one by themselves (`ProviderStrategy`).
    wanted = kwargs.get("response_format")
    if wanted is not None and shape is None:
        constraints = _add_format(constraints, wanted, beside=bool(tools))
    # Before the call is made: a decision in the wrong field would be sent as the tool's result.
    check_decisions(messages)
    call = ChatRequest(
        entries=to_entries(messages),
        tools=tools,
        **_find_place(defaults, kwargs, run_manager),
        aside=shape is not None,
        model=_choose(defaults, kwargs, "model"),
        settings=_choose_settings(defaults, kwargs),
        max_steps=_choose(defaults, kwargs, "max_steps"),
        timeout=_choose(defaults, kwargs, "timeout"),
        agent_free=defaults.agent_free,
        on_mismatch=defaults.on_mismatch,
        note=constraints.note,
        standing=constraints.standing,
        session=defaults.session,
        name_model=True,
        asks=kwargs.get("letta_asks"),
        **_find_trace(kwargs, run_manager),
        on_open=kwargs.get("letta_open"),
    )
    return ConstrainedRequest(call, constraints, stop)


def _find_trace(kwargs: Mapping[str, Any], run_manager: Any) -> dict[str, Any]:
    """Return what the spans of the call's turns go by, where they are reported."""
    run = run_manager or getattr(kwargs.get("letta_seen"), "run", None)
    trace = get_context(lambda: find_span(run))
    return {
        "trace": trace,
        "tools_shown": bool(kwargs.get("letta_shows_tools")) and is_inside(trace),
    }


def _find_place(
    defaults: RequestDefaults, kwargs: Mapping[str, Any], run_manager: Any
) -> dict[str, Any]:
    """Return the agent, the conversation and the place of a call.

    The call's argument wins over the model's default; the place in the graph decides the rest.
    """
    scope = kwargs.get("scope") or defaults.scope
    if scope is not None and scope not in SCOPES:
        raise InvalidInputError(
            f"scope must be one of {', '.join(SCOPES)}, not {scope!r}.",
            hint="Leave it out to let the place in the graph decide.",
        )
    seen: CallSite | None = kwargs.get("letta_seen")
    if seen is None:
        seen = locate_run(run_manager, scope)
    made: dict[str, Any] = {"scope": scope, "place": seen.place}
    for name in PLACES:
        # An argument of the call is the application's latest word; the configuration comes next.
        given = seen.named.get(name) if kwargs.get(name) is None else kwargs[name]
        made[name] = getattr(defaults, name) if given is None else str(given)
    # A node that asks for structured output asks a question on the side, with a history of its own;
    # so it does not go on in the conversation that the graph's configuration names.
    aside = kwargs.get("letta_shape") is not None and seen.place.node
    inherits = scope in ("thread", "node") or (scope is None and seen.place.keeps and not aside)
    if made["conversation_id"] is None and inherits:
        made["conversation_id"] = seen.conversation_id
    return made


def _add_format(constraints: Constraints, wanted: Any, *, beside: bool) -> Constraints:
    """Return the constraints that a ``response_format`` means (``ProviderStrategy`` binds one)."""
    kind = wanted.get("type") if isinstance(wanted, Mapping) else "json_schema"
    if kind == "text":
        return constraints
    schema = {} if kind == "json_object" else to_json_schema(wanted)
    validate = make_validator(schema or None)
    return with_schema(constraints, schema, validate, tool=None, beside=beside)


def _choose(defaults: RequestDefaults, kwargs: Mapping[str, Any], name: str) -> Any:
    """Return the call's argument, whatever it is, or else the model's default."""
    value = kwargs.get(name)
    return getattr(defaults, name) if value is None else value


def read_stop(value: Any) -> list[str] | None:
    """Return the texts that end an answer: one, or several.

    Args:
        value: A text, a list of texts, or ``None``.

    Raises:
        InvalidInputError: Something in it is no text.
    """
    if value is None or isinstance(value, str):
        return None if value is None else [value]
    if isinstance(value, Sequence) and all(isinstance(word, str) for word in value):
        return list(value)
    raise InvalidInputError(f"stop must be a text or a list of texts, not {value!r}.")


def _choose_settings(defaults: RequestDefaults, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model settings of a call: its own, or else the model's."""
    names = ("temperature", "max_tokens")
    # An explicit `None` leaves a setting to the agent, whatever the model's is.
    given = {name: kwargs.get(name, getattr(defaults, name)) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def merge_config(
    config: RunnableConfig | None, kwargs: Mapping[str, Any], scope: Scope | None, callbacks: Any
) -> tuple[RunnableConfig | None, dict[str, Any]]:
    """Return the configuration, and the arguments together with the place of the call.

    The place is not known any later, and neither is the run that the spans of its turns belong to.

    Args:
        config: The configuration of the call.
        kwargs: The call's arguments.
        scope: The model's scope, for a call that is given none.
        callbacks: The callbacks of the model itself.
    """
    if "letta_seen" in kwargs:
        return config, dict(kwargs)
    whole = ensure_config(config)
    seen = locate_call(config, whole, kwargs.get("scope") or scope)
    config = drop_watcher(config, whole)
    if get_instruments() is not None:
        config, run = name_run(config, callbacks)
        seen = replace(seen, run=run)
    return config, {**kwargs, "letta_seen": seen}
