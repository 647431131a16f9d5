"""Names of system prompts that the TypeScript SDK and the ``letta`` command know.

``systemPrompt`` of ``@letta-ai/letta-code-sdk`` 0.1.14 takes the names of the first group, and
``--system`` of ``letta`` 0.34 those of the second. Neither the App Server nor the Letta API has
names for prompts: they would store the name itself as the prompt.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Letta's own prompt, which an agent gets when none is given.
OWN: Final = frozenset({"default", "letta"})
_OF_THE_SDK: Final = ("letta-claude", "letta-codex", "letta-gemini", "claude", "codex", "gemini")
_OF_THE_COMMAND: Final = ("source-claude", "source-codex", "source-gemini")
_NAMES: Final = frozenset({*_OF_THE_SDK, *_OF_THE_COMMAND})


def prompt_of(value: Any) -> Any:
    """Return the prompt that ``system_prompt`` means for a new agent; ``None`` for Letta's own.

    Raises:
        ValueError: It is a preset that has no text here, or the TypeScript SDK's object.
    """
    if isinstance(value, str) and value.strip() in OWN:
        return None
    return literal_prompt(value)


def literal_prompt(value: Any) -> Any:
    """Return the prompt as it is, where no preset can stand for one.

    Raises:
        ValueError: It is the name of a preset, or the TypeScript SDK's object.
    """
    if isinstance(value, Mapping) and value.get("type") == "preset":
        raise ValueError(
            "a preset is no object here: leave system_prompt out for Letta's own prompt, and write "
            "what is to be added to it as append_system_prompt"
        )
    if isinstance(value, str) and value.strip() in _NAMES | OWN:
        raise ValueError(
            f"{value.strip()!r} is the name of a preset, whose text only the letta command has. "
            "Leave system_prompt out for Letta's own prompt, or write the prompt's text"
        )
    return value
