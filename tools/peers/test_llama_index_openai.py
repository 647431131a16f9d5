"""Test ``llama-index-llms-openai`` and LlamaIndex' ``FunctionAgent`` on a scripted endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent

from letta_adapters.testing.llama_index import (
    AgentConformance,
    AgentSubject,
    LLMConformance,
    LLMSubject,
)
from letta_adapters.testing.scripted_model import ScriptedModel

OpenAI = pytest.importorskip("llama_index.llms.openai").OpenAI
SECRET = "sk-scripted-0123456789"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


def llm_of(model: ScriptedModel, **fields: Any) -> Any:
    return OpenAI(model="gpt-4.1", api_base=model.base_url, api_key=SECRET, **fields)


class TestOpenAI(LLMConformance):
    @pytest.fixture
    def subject(self, model: ScriptedModel) -> LLMSubject:
        def make(**fields: Any) -> Any:
            return llm_of(model, **fields)

        return LLMSubject(model.script, make, secret=SECRET)


class TestFunctionAgent(AgentConformance):
    @pytest.fixture
    def subject(self, model: ScriptedModel) -> AgentSubject:
        def make(**fields: Any) -> Any:
            return FunctionAgent(llm=llm_of(model), **fields)

        async def said(_: Any) -> list[str]:
            messages = model.requests[-1].messages
            return [str(m["content"]) for m in messages if m["role"] == "user"]

        return AgentSubject(model.script, make, said)
