"""Test both applications offline, with the testing kit of letta-adapters and nothing else."""

from __future__ import annotations

import pytest
from travel.advice import Assistant, advise, tokens
from travel.library import ask

from letta_adapters import Rest
from letta_adapters.langchain import ChatLetta
from letta_adapters.llama_index import LettaLLM
from letta_adapters.sync import LettaClient
from letta_adapters.testing import (
    FakeLetta,
    LettaCassette,
    LocalLetta,
    ModelError,
    Reply,
    ToolUse,
)

# -- a Letta in memory: fast, and says what the test tells it --------------------------------------


def test_advice(letta_fake: FakeLetta) -> None:
    letta_fake.script("The Forum.")
    assert advise(ChatLetta(client=letta_fake.client()), "Rome") == "The Forum."
    assert letta_fake.said[-1].endswith("What should I see in Rome?")


def test_the_assistant_looks_at_the_weather_and_remembers(letta_fake: FakeLetta) -> None:
    letta_fake.script(
        Reply(tool_calls=[ToolUse("get_weather", {"city": "Rome"})]), "Sunny: walk.", "Still sunny."
    )
    asked: list[str] = []

    def weather(city: str) -> str:
        asked.append(city)
        return "sunny"

    assistant = Assistant(weather, client=letta_fake.client())
    assert assistant.answer("What shall we do in Rome?") == "Sunny: walk."
    assert assistant.answer("And tomorrow?") == "Still sunny."
    assert asked == ["Rome"]
    # The agent has its memory: only what is new was sent.
    assert letta_fake.said == ["What shall we do in Rome?", "And tomorrow?"]


def test_a_model_that_fails(letta_fake: FakeLetta) -> None:
    letta_fake.script(Reply(error=ModelError(429, "no quota left")))
    with pytest.raises(Exception, match="no quota left"):
        advise(ChatLetta(client=letta_fake.client()), "Rome")


def test_questions_about_brochures(letta_fake: FakeLetta) -> None:
    letta_fake.script("At nine.")
    answer, sources = ask(LettaLLM(client=letta_fake.client()), "When does the Forum open?")
    assert answer == "At nine."
    assert len(sources) == 2
    assert "the Forum opens at nine" in letta_fake.said[-1]


# -- a recording of a real server: nothing about it was imagined -----------------------------------


def test_streaming_from_a_recording(letta_cassette: LettaCassette) -> None:
    """Replay a recording; record it with LETTA_BASE_URL and ``--letta-record=rewrite``."""
    letta_cassette.script("One is in Rome, one in Athens.")
    rest = Rest(base_url=letta_cassette.base_url, api_key=letta_cassette.api_key or "")
    http_client = letta_cassette.http_client()
    with LettaClient(rest, http_client=http_client) as client:
        agent = client.create_agent(
            name="travel", model="openai-proxy/scripted", system_prompt="Be brief."
        )
        model = ChatLetta(agent_id=agent, client=client)
        assert "".join(tokens(model, "Where are the forums?")) == "One is in Rome, one in Athens."


# -- the real runtime on this machine, with a model that is told what to say -----------------------


def test_with_the_real_runtime(letta_local: LocalLetta) -> None:
    letta_local.model.script("The Forum.")
    model = ChatLetta(agent_id=letta_local.agent(), client=letta_local.client)
    assert advise(model, "Rome") == "The Forum."
    assert "What should I see in Rome?" in letta_local.model.requests[-1].last_user_text
