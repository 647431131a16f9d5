"""``init_letta_model``: what ``init_chat_model`` is for the providers LangChain knows."""

from __future__ import annotations

from typing import Any

from letta_adapters.errors import InvalidInputError
from letta_adapters.langchain.chat_model import ChatLetta

_PREFIX = "letta:"


def init_letta_model(name: str | None = None, **kwargs: Any) -> ChatLetta:
    """A :class:`ChatLetta` by name; LangChain's own ``init_chat_model`` refuses ``letta:``.

    Args:
        name: An agent (``"letta:agent-..."``, ``"agent-..."``), or a model for the default agent
            (``"letta:anthropic/..."``); ``None`` or ``"letta:"``: the default agent as it is.
        kwargs: Fields of :class:`ChatLetta`.

    Raises:
        InvalidInputError: another provider's name.
    """
    wanted = (name or "").removeprefix(_PREFIX)
    if not wanted:
        return ChatLetta(**kwargs)
    if wanted.startswith("agent-"):
        return ChatLetta(agent_id=wanted, **kwargs)
    provider = wanted.partition(":")[0]
    if ":" in wanted and "/" not in provider:
        raise InvalidInputError(
            f"{name!r} names the provider {provider!r}.",
            hint="Use init_chat_model for it, or a handle of Letta's: provider/model.",
        )
    return ChatLetta(model_name=wanted, **kwargs)
