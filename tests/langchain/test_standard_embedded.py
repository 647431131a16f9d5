"""``langchain-tests`` over the real embedded runtime."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel

from letta_adapters import LettaClient
from letta_adapters.langchain import ChatLetta
from tests.langchain._standard import Standard


class TestChatLettaEmbedded(Standard):
    @property
    def model_override_value(self) -> str | None:
        return "lmstudio/scripted-two"

    @pytest.fixture
    def vcr(self) -> Any:
        """There is no HTTP to record: the benchmark of streaming may run at once."""
        return SimpleNamespace(responses=["live"])

    @pytest.fixture
    def model(self, embedded: LettaClient, embedded_agent: str) -> BaseChatModel:
        type(self).params = {"agent_id": embedded_agent, "client": embedded}
        return ChatLetta(**self.params)
