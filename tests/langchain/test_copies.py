"""Where a model's calls go survives every copy, dump and load; its key never travels."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumpd, dumps, load, loads
from langchain_core.runnables import ConfigurableField
from pydantic_core import PydanticSerializationError

from letta_adapters import ConfigurationError, InvalidInputError, Local, Remote, Rest
from letta_adapters.backends.config import api_address
from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.fakes import FakeLetta

# `load` and `loads` are in beta, says LangChain.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")

HERE, THERE = "http://here.test", "http://there.test"
KEY = "sk-let-" + "abcdef123456"


def through_json(model: ChatLetta) -> Any:
    text = dumps(model)
    assert KEY not in text
    return loads(text, allowed_objects=[ChatLetta], valid_namespaces=["letta_adapters"])


def through_fields(model: ChatLetta) -> ChatLetta:
    return ChatLetta(**model.model_dump())


def through_json_fields(model: ChatLetta) -> ChatLetta:
    text = model.model_dump_json()
    assert KEY not in text
    return ChatLetta(**json.loads(text))


def through_validation(model: ChatLetta) -> ChatLetta:
    return ChatLetta.model_validate(model.model_dump())


def through_pickle(model: ChatLetta) -> Any:
    data = pickle.dumps(model)
    assert KEY.encode() not in data
    return pickle.loads(data)


def through_configuration(model: ChatLetta) -> Any:
    field = ConfigurableField(id="t")
    made: Any = model.configurable_fields(temperature=field)
    return made._prepare({"configurable": {"t": 0.5}})[0]


WAYS: list[Callable[[ChatLetta], Any]] = [
    through_json,
    through_fields,
    through_json_fields,
    through_validation,
    through_pickle,
    copy.copy,
    copy.deepcopy,
    ChatLetta.model_copy,
    lambda model: model.model_copy(deep=True),
    lambda model: model.model_copy(update={"timeout": 5.0}),
    through_configuration,
]
NAMES = [
    *["dumps", "model_dump", "model_dump_json", "model_validate", "pickle", "copy", "deepcopy"],
    *["model_copy", "model_copy deep", "model_copy update", "configurable_fields"],
]


def spec_of(model: ChatLetta) -> Any:
    return model._runner.clients.spec


def address_of(model: ChatLetta) -> Any:
    """Where it goes in the end: a key that is named is the same as the environment's own."""
    spec = spec_of(model)
    return api_address(spec) if isinstance(spec, Rest) else spec


BACKENDS: list[dict[str, Any]] = [
    {"backend": Rest(base_url=HERE, api_key=KEY, project="p", background=True)},
    {"backend": Rest(base_url=HERE, api_key="")},
    {"backend": Local(data_dir=Path("somewhere"), env={"PLAIN": "1"})},
    {"backend": Local(api=Rest(base_url=HERE, api_key=KEY))},
    {"backend": Remote(url="ws://here.test:1", auth_token=KEY)},
    {"base_url": HERE, "api_key": KEY},
    {"base_url": HERE},
    {"backend": "local"},
    {},
]


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
@pytest.mark.parametrize("fields", BACKENDS, ids=lambda f: str(f)[:40])
@pytest.mark.parametrize("environment", ["the same", "another server"])
def test_the_backend_survives(
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[ChatLetta], Any],
    fields: dict[str, Any],
    environment: str,
) -> None:
    monkeypatch.setenv("LETTA_API_KEY", KEY)
    monkeypatch.setenv("LETTA_APP_SERVER_TOKEN", KEY)
    if environment != "the same":
        monkeypatch.setenv("LETTA_BASE_URL", THERE)
    model = ChatLetta(agent_id="agent-1", **fields)
    again = way(model)
    assert isinstance(again, ChatLetta)
    assert address_of(again) == address_of(model)
    assert type(spec_of(again)) is type(spec_of(model))
    assert again.agent_id == "agent-1"
    if fields.get("base_url"):
        assert spec_of(again).base_url == HERE


@pytest.mark.parametrize("way", WAYS[:5], ids=NAMES[:5])
@pytest.mark.parametrize(
    ("fields", "variable"),
    [
        ({"backend": Rest(base_url=HERE, api_key=KEY)}, "LETTA_API_KEY"),
        ({"base_url": HERE, "api_key": KEY}, "LETTA_API_KEY"),
        ({"backend": Local(api=Rest(base_url=HERE, api_key=KEY))}, "LETTA_API_KEY"),
        ({"backend": Remote(url="ws://here.test:1", auth_token=KEY)}, "LETTA_APP_SERVER_TOKEN"),
        ({"backend": Local(env={"OPENAI_API_KEY": KEY})}, "OPENAI_API_KEY"),
    ],
    ids=lambda f: str(f)[:30],
)
def test_a_key_that_is_not_there_fails_the_load_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[ChatLetta], Any],
    fields: dict[str, Any],
    variable: str,
) -> None:
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigurationError, match=variable):
        way(ChatLetta(**fields))


def test_a_key_that_the_loader_was_given_is_used() -> None:
    data = dumpd(ChatLetta(base_url=HERE, api_key=KEY))
    again = load(
        data,
        secrets_map={"LETTA_API_KEY": KEY},
        allowed_objects=[ChatLetta],
        valid_namespaces=["letta_adapters"],
    )
    assert spec_of(again) == Rest(base_url=HERE, api_key=KEY)


def test_a_secret_that_nothing_stands_for_can_be_traced_and_not_loaded() -> None:
    model = ChatLetta(backend=Rest(base_url=HERE, api_key="", headers={"X-Token": KEY}))
    assert dumpd(model)["type"] == "not_implemented"
    assert KEY not in dumps(model)
    with pytest.raises(PydanticSerializationError, match="X-Token"):
        model.model_dump()


def test_a_client_s_backend_survives(letta_fake: FakeLetta) -> None:
    model = ChatLetta(client=letta_fake.client())
    for again in (through_json(model), through_pickle(model), through_fields(model)):
        assert again.client is None
        assert spec_of(again) == spec_of(model)
    for same in (copy.deepcopy(model), model.model_copy(deep=True), copy.copy(model)):
        assert same.client is model.client
        assert same.invoke("hello").text == "You said: hello"


def test_a_copy_goes_where_its_fields_say(letta_fake: FakeLetta) -> None:
    model = ChatLetta(base_url=HERE, api_key="")
    assert spec_of(model).base_url == HERE
    for update in ({"letta_base_url": THERE}, {"base_url": THERE}):
        moved = model.model_copy(update=update)
        assert spec_of(moved).base_url == THERE
    assert spec_of(model).base_url == HERE
    other = letta_fake.client()
    here = ChatLetta(client=letta_fake.client()).model_copy(update={"client": other})
    assert here._runner.clients._client is other


def test_an_assignment_counts() -> None:
    model = ChatLetta(base_url=HERE)
    assert spec_of(model).base_url == HERE
    model.letta_base_url = THERE
    assert spec_of(model).base_url == THERE


def test_a_copy_s_other_fields_count(letta_fake: FakeLetta) -> None:
    model = ChatLetta(client=letta_fake.client())
    copied = model.model_copy(
        update={"max_retries": 0, "session_options": {"memfs": True}, "metadata": {"a": 1}}
    )
    assert copied._runner._max_retries == 0
    assert copied._session.memfs is True
    assert copied.metadata is not None
    assert copied.metadata["a"] == 1


@pytest.mark.parametrize(
    ("update", "says"),
    [
        ({"base_ulr": THERE}, "base_ulr"),
        ({"agent_id": ""}, "agent_id"),
        ({"timeout": 0}, "timeout"),
        ({"session_options": {"surprise": 1}}, "surprise"),
        ({"backend": Local()}, "backend="),
    ],
    ids=str,
)
def test_an_update_is_checked(update: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        ChatLetta(base_url=HERE).model_copy(update=update)


def test_a_backend_that_means_nothing_is_refused() -> None:
    for backend in ({"kind": "nowhere"}, {"url": "x"}, 3, "nowhere"):
        with pytest.raises(InvalidInputError, match="ackend"):
            ChatLetta(backend=backend)
