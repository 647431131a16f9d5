"""Internal: read JSON that comes from anywhere, so that every reader sees the same in it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

from letta_adapters.errors import InvalidInputError

# How deep Python itself reads differs by version, and what was read is walked and written again.
_MAX_DEPTH: Final = 100


def parse_object(data: bytes, refuse: Callable[[str], InvalidInputError]) -> dict[str, Any]:
    """Return a JSON object.

    Args:
        data: Its text.
        refuse: Returns the error, for a reason.

    Raises:
        InvalidInputError: It is no JSON, no object, nested too deeply, or has a name twice.
    """

    reader = _Reader(refuse)
    try:
        found = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=reader.make_object,
            parse_constant=reader.refuse_constant,
            parse_float=reader.read_float,
        )
    except InvalidInputError:
        raise
    except RecursionError:
        raise refuse("it is nested too deeply") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise refuse(f"it is no JSON ({error})") from None
    if _is_deep(found):
        raise refuse(f"it is nested more than {_MAX_DEPTH} deep")
    if not isinstance(found, dict):
        raise refuse("it is no JSON object")
    return found


class _Reader:
    """The hooks by which the parser asks for parts of a text."""

    def __init__(self, refuse: Callable[[str], InvalidInputError]) -> None:
        self._refuse = refuse

    def refuse_constant(self, text: str) -> Any:
        raise self._refuse(f"{text} is no JSON")

    def read_float(self, text: str) -> float:
        # Python reads 1e999 as infinity, which is no JSON when it is written again.
        value = float(text)
        if not math.isfinite(value):
            raise self._refuse(f"the number {text[:20]} is too large")
        return value

    def make_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        # Of two readers one may see the first and the other the last, and so another content.
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise self._refuse(f"the name {twice!r} stands twice in one object")
        return made


def _is_deep(found: object) -> bool:
    level = [found]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True
