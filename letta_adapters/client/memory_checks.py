"""Internal: check labels and texts of memory before anything is sent."""

from __future__ import annotations

import re
from typing import Final

from letta_adapters.errors import InvalidInputError

MAX_LABEL: Final = 200
# Some readers end a line at U+2028 and U+2029 as well, and a label is one line.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Git reads these in a path as a pattern, or as the beginning of an instruction.
_PATTERN: Final = re.compile(r'[*?\[\]:\\"<>|]')
INDEX: Final = "MEMORY"


def check_label(label: object) -> str:
    """Return a label; raise InvalidInputError if it can be none on any backend."""
    if not isinstance(label, str) or not label.strip() or _CONTROL.search(label):
        raise InvalidInputError(f"{_show(label)} cannot be a label: it is one line of text.")
    if len(label) > MAX_LABEL:
        raise InvalidInputError(
            f"A label has at most {MAX_LABEL} characters, and this one {len(label)}."
        )
    check_text(label, "label")
    return label


def check_file_label(label: str) -> str:
    """Return the path of the file that a label names in a memory repository.

    Raises:
        InvalidInputError: The path would leave the repository, be hidden, or mean something else
            to git.
    """
    parts = label.split("/")
    bad = not all(part and part.strip(". ") == part for part in parts)
    # File systems count a name in bytes, of which one character may take several.
    if bad or _PATTERN.search(label) or len(f"{parts[-1]}.md".encode()) > 255:
        raise InvalidInputError(
            f"{_show(label)} cannot be the label of a file in a memory repository.",
            hint='Use a name, or a path as "projects/letta", without "." and " " at its ends and '
            'without any of *?[]:\\"<>|.',
        )
    if label.endswith(".md"):
        raise InvalidInputError(f"Leave the .md out: the label is {label.removesuffix('.md')!r}.")
    return f"{label}.md"


def check_text(text: object, what: str) -> None:
    """Refuse what is no text, or what no server stores as it is (a NUL, half a character)."""
    if text is None:
        return
    if not isinstance(text, str):
        raise InvalidInputError(f"{what} must be text, not {type(text).__name__}.")
    # The Letta API takes a NUL out without a word (letta 0.16.8).
    if "\0" in text:
        raise InvalidInputError(f"{what} holds a NUL, which cannot be stored.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{what} holds a surrogate: half a character.") from None


def check_limit(label: str, value: str, limit: int | None) -> None:
    """Refuse a value that is longer than its limit, which the API stores all the same.

    The agent's own memory tools then fail on the block (letta 0.16.8).
    """
    if limit is not None and len(value) > limit:
        raise InvalidInputError(
            f"The value of {label!r} has {len(value)} characters; its limit is {limit}.",
            code="memory_limit",
            hint="Shorten it, or raise the limit: client.blocks.update(id, limit=...).",
        )


def _show(value: object) -> str:
    return repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
