"""Internal: read JSON, fast."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json


def read_json(data: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deep.
    """
    try:
        return from_json(data)
    except ValueError:
        return json.loads(data)  # accepts lone surrogates, which from_json does not
