"""Internal: check the arguments of an LLM or an agent, and keep its backend in every copy.

LlamaIndex' own dumps know fields only: without this module, whatever they make would ask the
environment for a backend, and might talk to another one. A key never is in a dump.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import BaseModel, SecretStr
from llama_index.core.llms.llm import LLM
from llama_index.core.objects.base import ObjectRetriever
from llama_index.core.prompts.base import BasePromptTemplate
from llama_index.core.tools import BaseTool

from letta_adapters.backends.config import spec_from_data, spec_to_data
from letta_adapters.chat import ChatClients
from letta_adapters.errors import InvalidInputError
from letta_adapters.options import ReasoningEffort
from letta_adapters.options_base import did_you_mean
from letta_adapters.permissions import Allow, Deny

# Fields and arguments that name the backend.
WHERE: Final = frozenset({"backend", "client", "api_key", "base_url"})


class OwnKwargs(TypedDict, total=False):
    """The keyword arguments of ``LettaAgent`` that its fields do not show as they are."""

    client: Any
    api_key: SecretStr | str | None
    base_url: str | None
    timeout: float | None
    session_options: dict[str, Any] | None
    llm: LLM | Mapping[str, Any] | None


class LettaAgentKwargs(OwnKwargs, total=False):
    """The keyword arguments of ``LettaAgent``; see there.

    Those from ``name`` on are ``BaseWorkflowAgent``'s, and those from ``verbose`` on a workflow's.
    """

    agent_id: str | None
    conversation_id: str | None
    model: str | None
    reasoning_effort: ReasoningEffort | None
    backend: Any
    max_steps: int | None
    temperature: float | None
    max_tokens: int | None
    on_mismatch: Literal["fork", "continue", "error"]
    coalesce: bool
    ask_timeout: float | None
    ask_timeout_answer: Allow | Deny | bool | Mapping[str, Any] | None
    name: str
    description: str
    system_prompt: str | None
    tools: Sequence[BaseTool | Callable[..., Any]] | None
    tool_retriever: ObjectRetriever[Any] | None
    can_handoff_to: list[str] | None
    initial_state: dict[str, Any] | None
    state_prompt: str | BasePromptTemplate | None
    output_cls: type[BaseModel] | None
    structured_output_fn: Callable[[list[ChatMessage]], Any] | None
    streaming: bool
    early_stopping_method: Literal["force", "generate"]
    verbose: bool
    num_concurrent_runs: int | None
    resource_manager: Any
    service_manager: Any


def refuse_unknown(cls: type, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse an argument that no field takes: pydantic would drop it.

    Args:
        cls: The class that is made.
        given: The names of the arguments.
        known: The names that it takes.

    Raises:
        InvalidInputError: The error names the argument, and the one that may be meant.
    """
    names = sorted(known)
    for name in given:
        if name not in names:
            # A misspelt name is the usual cause.
            hint = did_you_mean(name, names) or f"It takes {', '.join(names)}."
            raise InvalidInputError(f"{cls.__name__} takes no {name!r}.", hint=hint)


def make_clients(backend: Any, client: Any, api_key: Any, base_url: str | None) -> ChatClients:
    """Return the caller for these arguments; ``backend`` may be the data in a dump.

    Args:
        backend: The backend, or its data from a dump.
        client: A client to use instead.
        api_key: The key of a Letta API.
        base_url: The address of a Letta API.

    Raises:
        InvalidInputError: Two of them name a backend.
        ConfigurationError: The dump withheld a key, and its variable is not set here.
    """
    if not isinstance(backend, Mapping):
        return ChatClients(backend=backend, client=client, api_key=api_key, base_url=base_url)
    # An address beside a dump is that of a copy which is to ask elsewhere.
    if base_url is not None and base_url != backend.get("base_url"):
        return ChatClients(api_key=api_key, base_url=base_url)  # the dump's was replaced
    # A dump has no key; one that is passed beside it fills the gap.
    secret = getattr(api_key, "get_secret_value", lambda: api_key)()
    known = {"LETTA_API_KEY": str(secret)} if secret else None
    return ChatClients(backend=spec_from_data(backend, known), client=client)


def dump_backend(clients: ChatClients) -> dict[str, Any]:
    """Return the caller's backend as data, for a dump.

    Raises:
        InvalidInputError: It holds a secret that no environment variable stands for.
    """
    return spec_to_data(clients.spec)
