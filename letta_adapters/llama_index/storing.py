"""What LlamaIndex stores and copies of an LLM or an agent says where its agent lives.

LlamaIndex' dumps, pickles and copies know fields only: without this, whatever they make would ask
the environment for a backend, and may talk to another one. A key never is in a dump.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from letta_adapters.calls import Caller
from letta_adapters.errors import InvalidInputError
from letta_adapters.spec_data import spec_from_data, spec_to_data

# Fields and arguments that say where calls go.
WHERE: Final = frozenset({"backend", "client", "api_key", "base_url"})


def refuse_unknown(cls: type, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse an argument that no field takes: pydantic would drop it.

    Raises:
        InvalidInputError: naming it, and what it is like.
    """
    names = sorted(known)
    for name in given:
        if name not in names:
            like = difflib.get_close_matches(name, names, n=1)
            hint = f"Did you mean {like[0]}?" if like else f"It takes {', '.join(names)}."
            raise InvalidInputError(f"{cls.__name__} takes no {name!r}.", hint=hint)


def caller_of(backend: Any, client: Any, api_key: Any, base_url: str | None) -> Caller:
    """Return the caller for these arguments; ``backend`` may be what a dump says of it.

    Raises:
        InvalidInputError: two of them name a backend.
        ConfigurationError: the dump withheld a key, and its variable is not set here.
    """
    if not isinstance(backend, Mapping):
        return Caller(backend=backend, client=client, api_key=api_key, base_url=base_url)
    if base_url is not None and base_url != backend.get("base_url"):
        return Caller(api_key=api_key, base_url=base_url)  # the dump's was replaced
    secret = getattr(api_key, "get_secret_value", lambda: api_key)()
    known = {"LETTA_API_KEY": str(secret)} if secret else None
    return Caller(backend=spec_from_data(backend, known), client=client)


def data_of(caller: Caller) -> dict[str, Any]:
    """Return where the caller's calls go, for a dump.

    Raises:
        InvalidInputError: it holds a secret that no environment variable stands for.
    """
    return spec_to_data(caller.spec)
