"""The memory of a LettaAgent's run: plain messages, which every serializer can store.

LlamaIndex' default memory is lost between two runs on one ``Context`` with pydantic 2.14 and newer:
its chat store can no longer be serialized, and is dropped with a warning.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import Field
from llama_index.core.memory import BaseMemory
from llama_index.core.memory.types import BaseChatStoreMemory
from llama_index.core.storage.chat_store import SimpleChatStore


class LettaMemory(BaseMemory):
    """All messages, in order. What the agent knows of them is on its server."""

    messages: list[ChatMessage] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialized."""
        return "LettaMemory"

    @classmethod
    def from_defaults(cls, **kwargs: Any) -> LettaMemory:
        """An empty one."""
        return cls()

    def get(self, input: str | None = None, **kwargs: Any) -> list[ChatMessage]:
        """All messages."""
        return list(self.messages)

    def get_all(self) -> list[ChatMessage]:
        """All messages."""
        return list(self.messages)

    def put(self, message: ChatMessage) -> None:
        """Add one."""
        self.messages.append(message)

    def set(self, messages: list[ChatMessage]) -> None:
        """Replace them."""
        self.messages = list(messages)

    def reset(self) -> None:
        """Forget them."""
        self.messages = []


class _PlainStore(SimpleChatStore):
    """LlamaIndex' chat store, whose messages are serialized as messages are.

    The serializer of its own takes an argument that pydantic 2.14 gives another meaning.
    """

    store: dict[str, list[ChatMessage]] = Field(default_factory=dict)


def make_storable(memory: BaseMemory) -> None:
    """Let a context store this memory, with any pydantic; the messages stay where they are."""
    chat_store = getattr(memory, "chat_store", None)
    if type(chat_store) is SimpleChatStore and isinstance(memory, BaseChatStoreMemory):
        mended = _PlainStore()
        mended.store = chat_store.store
        memory.chat_store = mended
