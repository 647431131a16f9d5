"""Internal: the settings of a model as a server shows them, and the reasoning effort in them.

A server replaces a model's settings as a whole and fills up what is missing with defaults of its
own, so that whoever changes one of them has to send the others as they are. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from letta_adapters.errors import UnsupportedOptionError

Settings = Mapping[str, Any]

# Where the settings of a provider hold the effort: as the schemas of the Letta API 0.16.8 have it
# and, below the line, those that Letta Code 0.34 sends to later ones. Other providers have none.
_PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    "openai": ("reasoning", "reasoning_effort"),
    "sglang": ("reasoning", "reasoning_effort"),
    "chatgpt_oauth": ("reasoning", "reasoning_effort"),
    "anthropic": ("effort",),
    # --
    "openrouter": ("reasoning", "reasoning_effort"),
    "bedrock": ("effort",),
    "moonshot": ("reasoning_effort",),
    "zai": ("reasoning_effort",),
}
# The API shows this for a conversation whose settings have no limit of output tokens, and would
# take it for a limit if it were sent back.
_UNSET_LIMIT: Final = 4096
# The fields of a listed model, and what the settings of a model call them.
_LISTED: Final[Mapping[str, str]] = {
    "provider_type": "provider_type",
    "temperature": "temperature",
    "max_tokens": "max_output_tokens",
    "parallel_tool_calls": "parallel_tool_calls",
    "strict": "strict",
}


def of_listed(model: Settings) -> dict[str, Any]:
    """Return the settings that a model of the Letta API's list has by itself."""
    return {ours: model[name] for name, ours in _LISTED.items() if model.get(name) is not None}


def of_agent(agent: Settings) -> dict[str, Any]:
    """Return the settings that an agent's model has now."""
    found = _given(agent.get("model_settings"))
    used = agent.get("llm_config") or {}
    # Only these tell the truth: the settings say by default that parallel calls are allowed, and
    # never what form an answer must have.
    truth = {name: used.get(name) for name in ("parallel_tool_calls", "response_format")}
    return found | _given(truth) if found else found


def of_conversation(conversation: Settings) -> dict[str, Any]:
    """Return the settings that a conversation has as its own; none if it has its agent's."""
    found = _given(conversation.get("model_settings"))
    if found.get("max_output_tokens") == _UNSET_LIMIT:
        del found["max_output_tokens"]
    return found


def _given(settings: Any) -> dict[str, Any]:
    found = settings if isinstance(settings, Mapping) else {}
    return {name: value for name, value in found.items() if value is not None}


def with_effort(settings: Settings, effort: str, model: str | None, backend: str) -> dict[str, Any]:
    """Return the settings with another effort, and everything else as it was.

    Args:
        settings: The settings of a model of the Letta API.
        effort: The effort.
        model: The model's handle, for the error.
        backend: The name of the backend, for the error.

    Raises:
        UnsupportedOptionError: The model's provider has no effort.
    """
    provider = str(settings.get("provider_type") or "")
    place = _PLACES.get(provider)
    if place is None:
        raise refuse_effort(model, backend, f"models of the provider {provider!r} have none.")
    made = dict(settings)
    if len(place) == 1:
        made[place[0]] = effort
    else:
        # The settings beside it stay, and the caller's own mapping is not changed.
        made[place[0]] = {**(made.get(place[0]) or {}), place[1]: effort}
    return made


def read_effort(settings: Any) -> str | None:
    """Return the effort that a model's settings hold, whatever provider they are of."""
    found = settings if isinstance(settings, Mapping) else {}
    nested = found.get("reasoning")
    inner = nested.get("reasoning_effort") if isinstance(nested, Mapping) else None
    said = inner or found.get("effort") or found.get("reasoning_effort")
    return said if isinstance(said, str) else None


def check_kept(found: Any, effort: str, backend: str) -> None:
    """Refuse an effort that the server left out of the agent or the conversation it returned.

    Servers drop in silence what their version does not know.

    Args:
        found: The agent or the conversation.
        effort: The effort that it was given.
        backend: The name of the backend, for the error.

    Raises:
        UnsupportedOptionError: The effort is not in its settings.
    """
    shown = found if isinstance(found, Mapping) else {}
    if read_effort(shown.get("model_settings")) != effort:
        raise refuse_effort(
            shown.get("model"), backend, "the server drops it from the settings of the model."
        )


def refuse_effort(model: str | None, backend: str, why: str) -> UnsupportedOptionError:
    """Return the refusal of an effort for a model that has none.

    Args:
        model: The model's handle.
        backend: The name of the backend.
        why: The reason, which ends with a full stop.
    """
    return UnsupportedOptionError(
        "reasoning_effort",
        backend=backend,
        reason=f"the model {model!r} does not take one; {why}",
    )
