"""Read the history that a step is given, and the memory behind it.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import BaseMemory

from letta_adapters.chat import HistoryMessage
from letta_adapters.llama_index.messages import to_entry


@dataclass(frozen=True, slots=True)
class History:
    """Hold the history of a step, and all that the memory behind it holds.

    Attributes:
        messages: The history as LlamaIndex gave it.
        entries: The same for the history rule.
        memory: All messages of the memory, without system messages; the history may be its end.
    """

    messages: list[ChatMessage]
    entries: list[HistoryMessage]
    memory: list[HistoryMessage]

    @classmethod
    async def of(cls, messages: Sequence[ChatMessage], memory: BaseMemory) -> History:
        """Read the memory behind the messages.

        Args:
            messages: The history of the step.
            memory: The memory.

        Raises:
            InvalidInputError: Content that Letta's messages do not have.
        """
        given = [to_entry(message) for message in messages]
        # A message that stands in both is read once: reading an image can be costly.
        made = {id(m): entry for m, entry in zip(messages, given, strict=True)}
        kept = await memory.aget_all()
        stored = [made[id(m)] if id(m) in made else to_entry(m) for m in kept]
        stored = [entry for entry in stored if entry.role != "system"]
        return cls(list(messages), _undecorated(given, stored), stored)


def _undecorated(
    given: list[HistoryMessage], memory: Sequence[HistoryMessage]
) -> list[HistoryMessage]:
    """Return the history with the digests that its messages have in the memory.

    LlamaIndex puts a workflow's state, or the content of a memory's blocks, around the newest
    user's message for one call; the next history shows it as it was. A message that an application
    changed is another text, in which the memory's is not found.
    """
    # From the newest message back, because a memory may have cut off the oldest ones.
    at = [i for i, entry in enumerate(given) if entry.role != "system"]
    for i, stored in zip(reversed(at), reversed(memory), strict=False):
        entry = given[i]
        if entry.role != stored.role:
            break
        # Only a user's message is ever decorated, and only by text around it.
        decorated = entry.role == "user" and entry.digest() != stored.digest()
        if decorated and stored.text and stored.text in entry.text:
            given[i] = replace(entry, kept=stored.digest())
    return given
