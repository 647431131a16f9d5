"""Internal: read and write the header of a memory file as Letta Code does (letta 0.34.12).

It looks like YAML and is read by Letta Code's own few rules: a field is a line and its value the
rest of that line, quotes and all; an indented line belongs to the field before it; and only a value
of ``>`` or ``|`` (with ``-`` or ``+``) alone is a text in the lines below. So a description stands
here as it is: quoted as YAML wants some, the agent would see the quotes.
"""

from __future__ import annotations

import re
from typing import Final

from letta_adapters.errors import InvalidInputError

_NAME: Final = "description"
# JavaScript's white space, which is not Python's.
_SPACE: Final = "\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_BREAK: Final = re.compile(r"[\r\n]")
_BLOCK: Final = re.compile(r"[|>][+-]?")
# To the check of a commit these say nothing.
_EMPTY: Final = ('""', "''")


def split(text: str) -> tuple[str, str]:
    """Return a file's header, with its last line, and what follows; a header may be missing."""
    # At line feeds only: `splitlines` also cuts at U+2028 and others, which belong to the text.
    lines = text.split("\n")
    if lines[0] != "---" or "---" not in lines[1:]:
        return "", text
    end = lines.index("---", 1)
    return "\n".join(lines[: end + 1]) + "\n", "\n".join(lines[end + 1 :])


def read_fields(header: str) -> dict[str, str]:
    """Return the fields of a header; one that holds a list, or nothing, is ``""``."""
    fields = {}
    for entry in _list_entries(header.replace("\r\n", "\n").replace("\r", "\n")):
        name, value = _read_line(entry[0])
        if name:
            fields[name] = _read_block(value[0], entry[1:]) if _BLOCK.fullmatch(value) else value
    return fields


def tidy(description: str) -> str | None:
    """Return a description without the white space around it, and ``None`` for an empty one."""
    return description.strip(_SPACE) or None


def make_header(label: str, description: str | None) -> str:
    """Return the header of a new file, whose commit is refused without these fields.

    Raises:
        InvalidInputError: The description would be read as something else.
    """
    about = _write_description(label, description)
    return f"---\nname: {label.rpartition('/')[2]}\n{about}\n---\n"


def replace_description(header: str, label: str, description: str | None) -> str:
    """Return a header with another description, and its other fields as they are.

    Raises:
        InvalidInputError: The description would be read as something else.
    """
    if not header:
        return make_header(label, description)
    kept = [
        line
        for entry in _list_entries(header)
        if _read_line(entry[0])[0] != _NAME
        for line in entry
    ]
    return "\n".join(["---", *kept, _write_description(label, description), "---", ""])


def _write_description(label: str, description: str | None) -> str:
    # In one line, as the commit of a file with further ones is refused.
    lines = (line.strip(_SPACE) for line in _BREAK.split(description or ""))
    about = " ".join(line for line in lines if line) or f"Memory block {label}"
    if _BLOCK.fullmatch(about) or about in _EMPTY:
        raise InvalidInputError(
            f"The description {about!r} cannot stand in the file of {label!r}, where it would be "
            "read as something else.",
            hint="Describe it in words.",
        )
    return f"{_NAME}: {about}"


def _list_entries(header: str) -> list[list[str]]:
    """Return the fields of a header, each with its further lines: indented ones and empty ones."""
    entries: list[list[str]] = []
    # All but the two lines of dashes, and the empty text behind the last line feed.
    for line in header.split("\n")[1:-2]:
        if entries and (_is_indented(line) or not line):
            entries[-1].append(line)
        else:
            entries.append([line])
    return entries


def _is_indented(line: str) -> bool:
    return line[:1] != "" and line[0] in _SPACE


def _read_line(line: str) -> tuple[str, str]:
    """Return the name and the value of a field; ``""`` for the name of a line that is none."""
    name, colon, value = line.partition(":")
    if not colon or _is_indented(line):
        return "", ""
    return name.strip(_SPACE), value.strip(_SPACE)


def _read_block(style: str, lines: list[str]) -> str:
    """Return the text of several lines: as they are (``|``), or joined to paragraphs (``>``)."""
    margins = [len(line) - len(line.lstrip(_SPACE)) for line in lines if line.strip(_SPACE)]
    margin = min(margins, default=0)
    texts = [line[margin:] if line.strip(_SPACE) else "" for line in lines]
    if style == "|":
        return "\n".join(texts).strip(_SPACE)
    joined, breaks = "", 0
    for text in texts:
        if text:
            joined += ("\n" * breaks or " ") + text
            breaks = 0
        else:
            breaks += 1
    return joined.strip(_SPACE)
