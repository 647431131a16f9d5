"""What an LLM and an agent are after LlamaIndex has dumped, copied, pickled and loaded them."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.workflow import Context

from letta_adapters import ConfigurationError, InvalidInputError, Local, Rest
from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.llama_index._compat import WORKFLOW_KWARGS
from letta_adapters.llama_index.configuration import LettaAgentKwargs
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.llama_index.agents import run
from letta_adapters.testing.scripted_model import Reply, ToolUse

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called"),
]
URL = "http://letta.example:8283"
KEY = "not-a-" + "real-key"


def place(of: Any) -> Any:
    clients = (of._letta if isinstance(of, LettaAgent) else of)._runner.clients
    return (clients.backend_name, getattr(clients.spec, "base_url", None))


def _dict(llm: LettaLLM) -> LettaLLM:
    return LettaLLM.from_dict(llm.to_dict())


def _json(llm: LettaLLM) -> LettaLLM:
    return LettaLLM.from_json(llm.to_json())


def _pickle(llm: LettaLLM) -> LettaLLM:
    return pickle.loads(pickle.dumps(llm))


ways = pytest.mark.parametrize(
    "again", [_dict, _json, _pickle, copy.copy, copy.deepcopy, LettaLLM.model_copy]
)
Again = Callable[[LettaLLM], LettaLLM]


@ways
def test_an_llm_asks_the_same_backend(again: Again, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_API_KEY", KEY)
    monkeypatch.delenv("LETTA_BASE_URL", raising=False)
    for given in (
        {"backend": Rest(base_url=URL, api_key=KEY)},
        {"base_url": URL, "api_key": KEY},
    ):
        made = again(LettaLLM(agent_id="agent-1", temperature=0.5, **given))
        assert place(made) == ("rest", URL)
        assert (made.agent_id, made.temperature) == ("agent-1", 0.5)
        assert made._runner.clients.spec.api_key.get_secret_value() == KEY
    assert place(again(LettaLLM(backend=Local())))[0] == "local"


def test_a_dump_holds_no_key_and_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LettaLLM(base_url=URL, api_key=KEY)
    assert KEY not in str(llm.to_dict()) + llm.to_json() + repr(llm)
    assert KEY.encode() not in pickle.dumps(llm)
    monkeypatch.delenv("LETTA_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="LETTA_API_KEY"):
        LettaLLM.from_dict(llm.to_dict())
    again = LettaLLM.from_dict(llm.to_dict(), api_key=KEY)
    assert place(again) == ("rest", URL)


def test_a_copy_with_another_address_asks_that_one() -> None:
    llm = LettaLLM(base_url=URL, api_key=KEY)
    other = llm.model_copy(update={"base_url": "http://other.example", "max_retries": 0})
    assert place(other) == ("rest", "http://other.example")
    assert (other.max_retries, place(llm)) == (0, ("rest", URL))
    assert place(llm.model_copy(update={"backend": Local()}))[0] == "local"
    with pytest.raises(ValueError, match="max_retries"):
        llm.model_copy(update={"max_retries": -1})


def test_a_model_is_called_by_its_handle_and_not_by_its_agent(letta_fake: FakeLetta) -> None:
    client = letta_fake.client()
    llm = LettaLLM(client=client, agent_id=client.create_agent(name="ada", model="big/model"))
    assert llm.metadata.model_name == "letta"
    llm.complete("hello")
    assert llm.metadata.model_name == "big/model"


def test_a_copy_with_other_session_options_has_them() -> None:
    llm = LettaLLM(backend=Local(), session_options={"permission_mode": "plan"})
    assert llm.model_copy(update={"session_options": {}})._session.permission_mode is None
    assert llm.model_copy(update={"model": "other/model"}).metadata.model_name == "other/model"


async def test_an_agent_asks_the_same_backend(letta_fake: FakeLetta) -> None:
    client = letta_fake.client()
    agent = LettaAgent(name="ada", agent_id=client.create_agent(name="a"), client=client)
    for made in (
        LettaAgent(**agent.model_dump(exclude={"llm"})),
        LettaAgent(**agent.model_dump()),
        agent.model_copy(),
        copy.deepcopy(agent),
    ):
        assert place(made) == place(agent) == ("rest", "http://letta.fake")
        assert (made.name, made.agent_id) == ("ada", agent.agent_id)
    copied = agent.model_copy(update={"name": "bob"})
    assert (copied.name, str(await copied.run("hi"))) == ("bob", "You said: hi")


def test_an_argument_that_nothing_takes_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match=r"'agentid'.*agent_id"):
        LettaLLM(agentid="agent-1")
    with pytest.raises(InvalidInputError, match=r"'agentid'.*agent_id"):
        LettaAgent(agentid="agent-1")
    with pytest.raises(InvalidInputError, match=r"'max_step'.*max_steps"):
        LettaAgent(max_step=3)


def test_the_agents_typed_keywords_are_all_that_it_takes() -> None:
    place = {"backend", "client", "api_key", "base_url"}
    taken = LettaAgent.model_fields.keys() | place | set(WORKFLOW_KWARGS)
    assert LettaAgentKwargs.__annotations__.keys() == taken


def test_who_inspects_the_agents_class_sees_every_keyword() -> None:
    shown = inspect.signature(LettaAgent).parameters
    assert all(about.kind is inspect.Parameter.KEYWORD_ONLY for about in shown.values())
    keys = ["agent_id", "client", "api_key", "base_url", "timeout", "llm", "name", "tools"]
    assert [name for name in keys if name not in shown] == []
    assert shown["timeout"].default is None
    assert shown["name"].default == "Agent"


async def test_settings_of_the_model_and_steps_reach_the_letta_api(letta_fake: FakeLetta) -> None:
    client = letta_fake.client()
    about: dict[str, Any] = {"agent_id": client.create_agent(name="a"), "client": client}
    settings = {"temperature": 0.25, "max_tokens": 77, "max_steps": 3}
    agent = LettaAgent(**about, **settings)
    await agent.run("hi")
    (made,) = letta_fake._conversations.values()
    assert made["model_settings"]["temperature"] == 0.25
    assert made["model_settings"]["max_output_tokens"] == 77
    assert letta_fake.requests[-1]["max_steps"] == 3
    place = {"conversation_id": made["id"]}
    LettaLLM(**about, **settings).complete("hi", **place)
    LettaLLM(**about).complete("hi", temperature=0.5, **place)
    assert made["model_settings"]["temperature"] == 0.5


async def test_an_effort_reaches_the_letta_api_also_from_a_copy(letta_fake: FakeLetta) -> None:
    client = letta_fake.client()
    about: dict[str, Any] = {"agent_id": client.create_agent(name="a"), "client": client}
    await LettaAgent(**about, reasoning_effort="high").model_copy().run("hi")
    (made,) = letta_fake._conversations.values()
    assert made["model_settings"]["reasoning"] == {"reasoning_effort": "high"}
    place = {"conversation_id": made["id"]}
    llm = LettaLLM(**about, reasoning_effort="low")
    assert "reasoning_effort" in llm.to_dict()
    llm.model_copy().complete("hi", **place)
    assert made["model_settings"]["reasoning"] == {"reasoning_effort": "low"}
    with pytest.raises(InvalidInputError, match="all calls of one object"):
        llm.complete("hi", reasoning_effort="high")
    with pytest.raises(InvalidInputError, match="differs"):
        LettaLLM(**about, reasoning_effort="low", session_options={"reasoning_effort": "high"})
    with pytest.raises(ValueError, match="reasoning_effort"):
        LettaLLM(**about, reasoning_effort="enormous")


async def test_names_with_dots_are_two_agents(letta_fake: FakeLetta) -> None:
    client = letta_fake.client()
    there = ToolUse("handoff", {"to_agent": "a.b", "reason": "It knows."}, id="handoff-1")
    back = ToolUse("handoff", {"to_agent": "a", "reason": "It asked."}, id="handoff-2")
    letta_fake.script(Reply(tool_calls=[there]), Reply(tool_calls=[back]), "I am a.")
    agents = [
        LettaAgent(
            name=name,
            description=f"Is {name}.",
            agent_id=client.create_agent(name=name),
            client=client,
        )
        for name in ("a", "a.b")
    ]
    workflow = AgentWorkflow(agents=agents, root_agent="a")
    output, _ = await run(workflow, "go", Context(workflow))
    assert (str(output), output.current_agent_name) == ("I am a.", "a")
