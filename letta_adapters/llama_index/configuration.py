"""Check the arguments of an LLM or an agent, and keep its backend in dumps, pickles and copies.

LlamaIndex' own dumps know fields only: without this module, whatever they make would ask the
environment for a backend, and might talk to another one. A key never is in a dump.

Internal: not part of the public API.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from letta_adapters.backends.config import spec_from_data, spec_to_data
from letta_adapters.chat import ChatClients
from letta_adapters.errors import InvalidInputError

# Fields and arguments that name the backend.
WHERE: Final = frozenset({"backend", "client", "api_key", "base_url"})


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
            like = difflib.get_close_matches(name, names, n=1)
            # A misspelt name is the usual cause.
            hint = f"Did you mean {like[0]}?" if like else f"It takes {', '.join(names)}."
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
    if base_url is not None and base_url != backend.get("base_url"):
        return ChatClients(api_key=api_key, base_url=base_url)  # the dump's was replaced
    # A dump has no key; one that is passed beside it fills the gap.
    secret = getattr(api_key, "get_secret_value", lambda: api_key)()
    known = {"LETTA_API_KEY": str(secret)} if secret else None
    return ChatClients(backend=spec_from_data(backend, known), client=client)


def dump_backend(caller: ChatClients) -> dict[str, Any]:
    """Return the caller's backend as data, for a dump.

    Raises:
        InvalidInputError: It holds a secret that no environment variable stands for.
    """
    return spec_to_data(caller.spec)
