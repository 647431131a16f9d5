"""Connect model providers to Letta Code, and check the fields that a provider needs.

Internal: not part of the public API.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from letta_adapters.client.requests import Requests
from letta_adapters.errors import InvalidInputError, UnsupportedOptionError


async def connect_provider(
    requests: Requests, provider: str, given: Mapping[str, str | None]
) -> list[str]:
    """Connect a provider; see :meth:`~letta_adapters.AsyncLettaClient.connect_provider`."""
    if requests.backend.name == "rest":
        raise UnsupportedOptionError(
            "connect_provider",
            backend="rest",
            supported_by=("local", "remote"),
            reason="the providers of a Letta API server are configured where it runs.",
        )
    # Letta Code stores what it is given and fails only when a model is used, so it is checked here.
    body = {"target": "local"}
    listed = await requests.make("COMMAND", "list_connect_providers", body=body)
    known = {str(item["id"]): item for item in listed.get("providers") or ()}
    fields = {name: value for name, value in given.items() if value is not None}
    method = _checked(known, provider, fields)
    asked: dict[str, Any] = {**body, "provider_id": provider, "fields": fields}
    if method is not None:
        asked["auth_method_id"] = method
    await requests.make("COMMAND", "connect_provider", body=asked)
    # A provider that was just connected is in the list only if that is made anew.
    models = await requests.make("COMMAND", "list_models", body={"force": True})
    handles = [str(e["handle"]) for e in models.get("entries") or () if e.get("handle")]
    return list(dict.fromkeys(handles))


def _checked(
    known: Mapping[str, Mapping[str, Any]], provider: str, fields: Mapping[str, str]
) -> str | None:
    """Return the sign-in method with these fields; ``None`` if the provider has only one."""
    about = known.get(provider)
    if about is None:
        near = difflib.get_close_matches(str(provider), known, n=3, cutoff=0.4)
        alike = ", ".join(map(repr, near or sorted(known)[:5]))
        raise InvalidInputError(
            f"Letta Code knows no provider {provider!r}.", hint=f"It knows {alike}, ..."
        )
    if about.get("is_oauth"):
        raise InvalidInputError(
            f"{provider!r} is connected by signing in, in a browser.",
            hint="Run `letta connect`, or use the provider's variant with an API key.",
        )
    # A provider has either several ways to sign in, or one set of fields.
    ways = [(m.get("id"), m.get("fields") or []) for m in about.get("auth_methods") or ()]
    ways = ways or [(None, about.get("fields") or [])]
    problem = ""
    for method, wanted in ways:
        names = [str(field["key"]) for field in wanted]
        missing = [f["key"] for f in wanted if f.get("required") and not fields.get(f["key"])]
        unknown = sorted(set(fields) - set(names))
        if not missing and not unknown:
            return None if method is None else str(method)
        problem = problem or f"{provider!r} takes {', '.join(names)}."
    raise InvalidInputError(problem, hint="api_key= and base_url= are apiKey and baseUrl there.")
