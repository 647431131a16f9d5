"""Keep the memory of a LettaAgent's run as plain messages, which every serializer can store.

LlamaIndex' default memory is lost between two runs on one ``Context`` with pydantic 2.14 and newer:
its chat store can no longer be serialized, and is dropped with a warning.

Internal: not part of the public API.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import Field
from llama_index.core.memory import BaseMemory
from llama_index.core.memory.types import BaseChatStoreMemory
from llama_index.core.storage.chat_store import SimpleChatStore


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
