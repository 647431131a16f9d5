"""Internal: name the keyword arguments of ``LettaRunnable`` to editors and type checkers.

A test compares them with the fields of ``ChatLetta``, which checks their values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr
from typing_extensions import TypedDict

from letta_adapters.options import ReasoningEffort
from letta_adapters.permissions import Allow, Deny, Postpone

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
    from langchain_core.language_models import ModelProfile
    from langchain_core.rate_limiters import BaseRateLimiter


class ModelFields(TypedDict, total=False):
    """The fields of ``ChatLetta``, but for ``name`` and ``model``: here they mean others."""

    cache: Any
    verbose: bool
    callbacks: list[BaseCallbackHandler] | BaseCallbackManager | None
    tags: list[str] | None
    metadata: dict[str, Any] | None
    custom_get_token_ids: Callable[[str], list[int]] | None
    rate_limiter: BaseRateLimiter | None
    disable_streaming: bool | Literal["tool_calling"]
    output_version: str | None
    profile: ModelProfile | None
    backend: Any
    client: Any
    letta_api_key: SecretStr | str | None
    api_key: SecretStr | str | None
    letta_base_url: str | None
    base_url: str | None
    max_retries: int
    session_options: dict[str, Any]
    agent_id: str | None
    conversation_id: str | None
    thread_id: str | None
    scope: Literal["thread", "node", "fresh"] | None
    model_name: str | None
    reasoning_effort: ReasoningEffort | None
    timeout: float | None
    streaming: bool
    temperature: float | None
    max_tokens: int | None
    stop: list[str] | None
    stop_sequences: list[str] | None
    max_steps: int | None
    agent_free: bool
    on_mismatch: Literal["fork", "continue", "error"]


class AskingFields(TypedDict, total=False):
    """How long ``can_use_tool`` has for each question, and the answer when that time is up."""

    ask_timeout: float | None
    ask_timeout_answer: Allow | Deny | Postpone | bool | None


class RunnableFields(ModelFields, AskingFields, total=False):
    """The keyword arguments of ``LettaRunnable`` that it does not name itself."""
