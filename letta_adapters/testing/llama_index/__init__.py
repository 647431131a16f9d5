"""Conformance suites for LlamaIndex LLMs and agents, as pytest classes to subclass.

LlamaIndex has no such suites. Give a subclass the fixture ``subject`` and run it with
``pytest-asyncio`` installed::

    import pytest

    from letta_adapters.llama_index import LettaLLM
    from letta_adapters.testing import FakeLetta
    from letta_adapters.testing.llama_index import LLMConformance, LLMSubject

    class TestMyLLM(LLMConformance):
        @pytest.fixture
        def subject(self):
            letta = FakeLetta()
            yield LLMSubject(letta.script, lambda **given: LettaLLM(client=letta.client(), **given))

The model behind the LLM must be one that says what it is told to
(:class:`~letta_adapters.testing.scripted_model.ScriptedModel`, or a recording of one).
"""

import pytest

# pytest rewrites assertions, so that a failed one shows the values, only in modules that are
# registered before their import.
pytest.register_assert_rewrite(f"{__name__}.agents", f"{__name__}.llms")

from letta_adapters.testing.llama_index.agents import AgentConformance, AgentSubject  # noqa: E402
from letta_adapters.testing.llama_index.llms import LLMConformance, LLMSubject  # noqa: E402
from letta_adapters.testing.llama_index.watching import Spans, watching  # noqa: E402

__all__ = [
    "AgentConformance",
    "AgentSubject",
    "LLMConformance",
    "LLMSubject",
    "Spans",
    "watching",
]
