"""Internal: describe the parts of a framework that an adapter uses although they are not public.

Each adapter keeps its own in a module ``_compat``, and a test finds each of them in the installed
framework. A framework may change such a part in any release.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrivatePart:
    """Describe a name, or a key of a dict, that an adapter reads.

    Attributes:
        name: The name or key.
        source: The module, and the class or function in it, where it stands.
        seen_in: The distribution and the version that it was last seen in.
        when_gone: What the adapter does without it.
    """

    name: str
    source: str
    seen_in: str
    when_gone: str


@dataclass(frozen=True, slots=True)
class PrivateMethod:
    """Describe a method that an adapter overrides or calls.

    Attributes:
        owner: The class of the framework, as ``module:Class``.
        name: The method or property.
        parameters: The names of its parameters (``**`` before one that takes all others); ``None``
            for a property.
        seen_in: The distribution and the version that it was last seen in.
        when_gone: What happens if it is renamed, or is called with other arguments.
    """

    owner: str
    name: str
    parameters: tuple[str, ...] | None
    seen_in: str
    when_gone: str
