"""Internal: show the keyword arguments that a ``TypedDict`` names in a signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

F = TypeVar("F", bound=Callable[..., Any])


def show_keywords(kwargs: type[Any]) -> Callable[[F], F]:
    """Let the signature of a constructor that takes ``**options`` show some of them by name.

    They would be seen by type checkers alone otherwise, and not by whoever inspects the class.
    (Pydantic adds the fields of a class to its signature by itself.)

    Args:
        kwargs: A ``TypedDict`` of these arguments, all of which may be left out.
    """

    def mark(init: F) -> F:
        *named, rest = inspect.signature(init).parameters.values()
        shown = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in get_type_hints(kwargs).items()
        ]
        vars(init)["__signature__"] = inspect.Signature([*named, *shown, rest])
        return init

    return mark
