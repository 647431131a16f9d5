"""Internal: keep the memory of a LettaAgent's run, and read the history of a step.

The memory holds plain messages, which every serializer can store: LlamaIndex' default memory is
lost between two runs on one ``Context`` with pydantic 2.14 and newer, because its chat store can no
longer be serialized, and is dropped with a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import Field
from llama_index.core.memory import BaseMemory
from llama_index.core.memory.types import BaseChatStoreMemory
from llama_index.core.storage.chat_store import SimpleChatStore

from letta_adapters.chat import HistoryMessage
from letta_adapters.llama_index.messages import to_entry


class LettaMemory(BaseMemory):
    """Hold all messages of a chat, in order. The agent keeps its own memory on its server.

    Example:
        ```python
        memory = LettaMemory()
        await agent.run("My name is Ada.", memory=memory)
        ```
    """

    messages: list[ChatMessage] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which it is serialized."""
        return "LettaMemory"

    @classmethod
    def from_defaults(cls, **kwargs: Any) -> LettaMemory:
        """Return an empty memory.

        Args:
            kwargs: Have no effect.
        """
        return cls()

    def get(self, input: str | None = None, **kwargs: Any) -> list[ChatMessage]:
        """Return all messages.

        Args:
            input: Has no effect: no message is chosen by what is asked.
            kwargs: Have no effect.
        """
        return list(self.messages)

    def get_all(self) -> list[ChatMessage]:
        """Return all messages."""
        return list(self.messages)

    def put(self, message: ChatMessage) -> None:
        """Add a message."""
        self.messages.append(message)

    def set(self, messages: list[ChatMessage]) -> None:
        """Replace all messages."""
        self.messages = list(messages)

    def reset(self) -> None:
        """Remove all messages."""
        self.messages = []


class _PlainStore(SimpleChatStore):
    """Hold LlamaIndex' chat store in a form whose messages are serialized as messages are.

    The serializer of LlamaIndex' own class takes an argument that pydantic 2.14 gives another
    meaning.
    """

    store: dict[str, list[ChatMessage]] = Field(default_factory=dict)


def make_storable(memory: BaseMemory) -> None:
    """Let a context store this memory, with any pydantic; the messages stay where they are."""
    chat_store = getattr(memory, "chat_store", None)
    # Only LlamaIndex' own class has the fault: a subclass may serialize in its own way.
    if type(chat_store) is SimpleChatStore and isinstance(memory, BaseChatStoreMemory):
        mended = _PlainStore()
        # The same dict, not a copy: whoever holds the old store sees new messages too.
        mended.store = chat_store.store
        memory.chat_store = mended


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
    async def read(cls, messages: Sequence[ChatMessage], memory: BaseMemory) -> History:
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
        return cls(list(messages), _undecorate(given, stored), stored)


def _undecorate(
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
