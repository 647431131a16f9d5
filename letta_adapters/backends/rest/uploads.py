"""Internal: check what is uploaded as a form, before any of it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from letta_adapters.backends.base import Files
from letta_adapters.errors import InvalidInputError

_METHODS: Final = ("POST", "PUT", "PATCH")


def check_files(method: str, files: Files) -> list[tuple[str, Any]]:
    """Return the parts of a form that are files, each with the name of its field.

    Args:
        method: The HTTP method.
        files: The files, in the form that httpx takes.

    Raises:
        InvalidInputError: The method carries no form, there is no file, or one is neither bytes nor
            text nor an object that reads bytes.
    """
    if method not in _METHODS:
        raise InvalidInputError(
            f"{method} uploads no files.", hint=f"Use one of {', '.join(_METHODS)}."
        )
    pairs = list(_iterate_pairs(files))
    if not pairs:
        raise InvalidInputError("files names no file.", hint="Leave it out to send JSON.")
    for name, file in pairs:
        _check_file(name, file)
    return pairs


def make_form(body: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the fields that go with files: text, and numbers and truth values as JSON has them.

    Args:
        body: The fields; those that are ``None`` are left out.

    Raises:
        InvalidInputError: A value is none that a form can hold.
    """
    made: dict[str, str] = {}
    for name, value in (body or {}).items():
        if value is None:
            continue
        if not isinstance(value, str | int | float):
            raise InvalidInputError(
                f"body[{name!r}] is {type(value).__name__}; beside files it goes into a form, "
                "which holds text, numbers and truth values.",
                hint="Give it as text (json.dumps), if the route reads that.",
            )
        made[name] = value if isinstance(value, str) else json.dumps(value)
    return made


def _iterate_pairs(files: Files) -> Iterator[tuple[str, Any]]:
    wrong = InvalidInputError(
        f"files must be a mapping or a sequence of pairs, not {type(files).__name__}.",
        hint='For example files={"file": ("agent.af", data)}.',
    )
    given: Any = files
    if isinstance(given, Mapping):
        yield from given.items()
        return
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise wrong
    for pair in given:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise wrong
        yield pair


def _check_file(name: str, file: Any) -> None:
    content = file[1] if isinstance(file, tuple) and len(file) in (2, 3, 4) else file
    if isinstance(content, str | bytes):
        return
    if not callable(getattr(content, "read", None)):
        raise InvalidInputError(
            f"files[{name!r}] must be bytes, text, an open file, or (name, file[, type]), not "
            f"{type(content).__name__}.",
            hint="Open a path in binary mode: open(path, 'rb').",
        )
    if getattr(content, "closed", False):
        raise InvalidInputError(f"files[{name!r}] is closed.", hint="Open the file again.")
    if isinstance(getattr(content, "encoding", None), str):
        raise InvalidInputError(
            f"files[{name!r}] is open as text.", hint="Open it in binary mode: open(path, 'rb')."
        )
