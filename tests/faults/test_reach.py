"""Who may be reached: ids name one thing, requests stay below the base URL, nothing is followed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from letta_adapters import Local, Remote, Rest
from letta_adapters.backends.base import Conversation
from letta_adapters.backends.rest import conversations, recovery
from letta_adapters.chat.marker import Marker
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.errors import (
    ConfigurationError,
    InvalidInputError,
    LettaError,
    ProtocolError,
)
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]
KEY = "sk-let-" + "very-secret-0123456789"

CLIMBS = [
    "conv-x/../../agents/agent-other",
    "conv-x%2f..%2f..",
    "conv-x?limit=1",
    "conv-x#",
    "conv-x\r\nx-evil: 1",
    "conv-x\n",
    "conv-x\x00",
    "conv-x y",
    "conv-ä",
    "conv-" + "x" * 500,
    "..",
    ".",
    "",
    7,
    None,
]


# -- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [b for b in CLIMBS if isinstance(b, str)])
async def test_a_conversation_id_that_is_none_is_refused_before_any_request(
    server: Server, client: AsyncLettaClient, bad: str
) -> None:
    with pytest.raises(InvalidInputError):
        client.resume_session(agent_id=ev.AGENT, conversation_id=bad)
    with pytest.raises(InvalidInputError):
        await client.list_messages(ev.AGENT, bad)
    with pytest.raises(InvalidInputError):
        await client.conversations.retrieve(bad)
    assert server.requests == []


@pytest.mark.parametrize("bad", ["agent-x/../..", "agent-x?x", "agent-x\n", "conv-1", "", ".."])
async def test_an_agent_id_that_is_none_is_refused_before_any_request(
    server: Server, client: AsyncLettaClient, bad: str
) -> None:
    with pytest.raises(InvalidInputError):
        client.create_session(bad)
    with pytest.raises(InvalidInputError):
        client.resume_session(agent_id=bad, conversation_id=ev.CONV)
    if bad != "conv-1":  # any id will do where the API itself says what it is
        for call in (
            client.agents.delete(bad),
            client.agents.update(bad, name="x"),
            client.conversations.create(bad),
            client.conversations.list(bad),
        ):
            with pytest.raises(InvalidInputError):
                await call
    assert server.requests == []


@pytest.mark.parametrize("bad", CLIMBS)
def test_a_marker_with_an_id_that_is_none_is_no_marker(bad: Any) -> None:
    good = Marker("rest", "agent-1", "conv-1", ("x",)).to_dict()
    assert Marker.from_dict(good) is not None
    assert Marker.from_dict(good | {"conversation_id": bad}) is None
    if bad != "":
        assert Marker.from_dict(good | {"agent_id": bad}) is None


@pytest.mark.parametrize("bad", ["../agents/agent-2", "", "run-1/../x", {"id": 1}])
def test_a_run_id_of_the_server_s_that_is_none_is_a_protocol_error(bad: Any) -> None:
    with pytest.raises(ProtocolError):
        recovery.run_path(bad)


def test_a_conversation_made_by_hand_is_checked_where_it_becomes_a_path() -> None:
    with pytest.raises(InvalidInputError):
        conversations.conversation_path(Conversation("agent-1", "conv-1/../x"))


@pytest.mark.parametrize("made", [{"id": "conv-1/../../x"}, {"id": ["conv-1"]}, [], {}, "conv-1"])
async def test_a_made_conversation_without_an_id_is_a_protocol_error(
    server: Server, client: AsyncLettaClient, made: Any
) -> None:
    server.override("POST", r"/conversations/?$", lambda wire: wire.answer(200, made))
    with pytest.raises(ProtocolError):
        await client.create_session(ev.AGENT).send("hello")


# -- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "@evil.test/v1",
        ".evil.test/v1",
        ":1/v1",
        "//evil.test/v1",
        "v1/agents",
        "https://evil.test/v1",
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "/v1/%252e%252e/admin",
        "/v1/..%2fadmin",
        "/v1/..%5cadmin",
        "/v1/agents#x",
        "/v1/agents\r\nx: y",
        "/v1\\..\\x",
        "",
        5,
    ],
)
async def test_a_request_that_leaves_the_base_url_is_refused(
    server: Server, client: AsyncLettaClient, path: Any
) -> None:
    with pytest.raises(InvalidInputError):
        await client.request("GET", path)
    assert server.requests == []


@pytest.mark.parametrize("method", ["GET /x HTTP/1.1\r\nhost: evil", "", "G T", None])
async def test_a_method_that_is_none_is_refused(
    server: Server, client: AsyncLettaClient, method: Any
) -> None:
    with pytest.raises(InvalidInputError):
        await client.request(method, "/v1/models/")
    assert server.requests == []


async def test_a_path_may_hold_a_query_and_quoted_text(
    server: Server, client: AsyncLettaClient
) -> None:
    server.override("GET", "/v1/tools", lambda wire: wire.answer(200, []))
    assert await client.request("get", "/v1/tools/?name=a%20b") == []
    assert server.requests[0].query == {"name": "a b"}


# -- redirects and cookies ------------------------------------------------------------------------


def moved(status: int, where: str) -> Callable[[Any], None]:
    return lambda wire: wire.answer(status, b"", location=where)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_host_is_not_followed(
    server: Server, rest: MakeRest, status: int
) -> None:
    with Server() as other:
        options = rest(api_key=KEY, project="p", headers={"x-mine": "1"})
        async with AsyncLettaClient(options) as client:
            server.override("POST", "/messages$", moved(status, f"{other.url}/v1/anything"))
            with pytest.raises(ProtocolError, match="another place") as caught:
                await resume(client).send("hello")
            assert caught.value.accepted is False
            server.override("GET", "/v1/models", moved(status, f"{other.url}/v1/models/"))
            with pytest.raises(ProtocolError, match="another place"):
                await client.models.list()
        assert other.requests == []
    assert len(server.sent()) == 1


async def test_a_redirect_to_another_scheme_is_not_followed(
    server: Server, client: AsyncLettaClient
) -> None:
    secure = server.url.replace("http://", "https://")
    server.override("GET", "/v1/models", moved(307, f"{secure}/v1/models/"))
    with pytest.raises(ProtocolError, match="https://"):
        await client.models.list()


async def test_a_user_s_own_http_client_follows_nothing_either(
    server: Server, rest: MakeRest
) -> None:
    with Server() as other:
        async with httpx.AsyncClient(follow_redirects=True) as mine:
            async with AsyncLettaClient(rest(), http_client=mine) as client:
                server.override("POST", "/messages$", moved(307, f"{other.url}/v1/x/messages"))
                with pytest.raises(ProtocolError):
                    await resume(client).send("hello")
        assert other.requests == []


async def test_a_redirect_on_the_same_host_is_followed(
    server: Server, client: AsyncLettaClient
) -> None:
    server.override("GET", "/v1/models$", moved(307, "/v1/models/"))
    server.override("GET", "/v1/models/$", lambda wire: wire.answer(200, [{"handle": "a/b"}]))
    assert await client.request("GET", "/v1/models") == [{"handle": "a/b"}]


async def test_a_redirect_that_would_lose_the_message_is_not_followed(
    server: Server, client: AsyncLettaClient
) -> None:
    server.override("POST", "/messages$", moved(302, "/v1/elsewhere"))
    with pytest.raises(ProtocolError, match="lose what it holds"):
        await resume(client).send("hello")
    assert server.count("GET", "elsewhere") == 0


async def test_a_circle_of_redirects_ends(server: Server, client: AsyncLettaClient) -> None:
    server.override("GET", "/v1/models", moved(307, "/v1/models/"), times=100)
    with pytest.raises(ProtocolError, match="circle"):
        await client.models.list()
    assert server.count("GET", "/v1/models") < 10


@pytest.mark.parametrize("where", ["http://[", "http://a:99999/", "ftp://x/", "\x7f", "http://"])
async def test_a_redirect_to_nowhere_is_an_error_of_ours(
    server: Server, client: AsyncLettaClient, where: str
) -> None:
    server.override("GET", "/v1/models", moved(307, where), times=3)
    with pytest.raises(LettaError):
        await client.models.list()


async def test_cookies_are_neither_kept_nor_sent(server: Server, client: AsyncLettaClient) -> None:
    server.override(
        "GET", "/v1/models", lambda wire: wire.answer(200, [], set_cookie="session=evil; Path=/")
    )
    await client.models.list()
    await client.models.list()
    assert "cookie" not in server.requests[1].headers


# -- keys -----------------------------------------------------------------------------------------

BAD_KEYS = [f"{KEY[:5]}\n{KEY[5:]}", f"{KEY} {KEY}", f"{KEY}ä", f"{KEY}\x00"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Callable[[], Any]] = [
        lambda: Rest(api_key=key),
        lambda: Remote(url="ws://h", auth_token=key),
        lambda: Rest(headers={"authorization": f"{key}\n"}),
        lambda: Rest(project=f"{key}\n"),
        lambda: Local(openai_compatible={"base_url": "http://h/v1", "api_key": key}),
    ]
    monkeypatch.setenv("LETTA_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LETTA_APP_SERVER_URL", "ws://127.0.0.1:9")
    if "\x00" not in key:
        monkeypatch.setenv("LETTA_API_KEY", key)
        monkeypatch.setenv("LETTA_APP_SERVER_TOKEN", key)
        made += [lambda: AsyncLettaClient("cloud"), lambda: AsyncLettaClient("remote")]
    for make in made:
        with pytest.raises(InvalidInputError) as caught:
            make()
        assert KEY not in f"{caught.value!r} {caught.value}"
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    ["http://me:{}@h:1", "http://{}@h:1", "http://h:1?token={}", "http://h:1/#{}", "http://h:1 {}"],
)
def test_an_address_with_a_secret_in_it_is_refused_and_not_shown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hunter" + "2hunter2"
    url = url.format(secret)
    web = url.replace("http", "ws")
    monkeypatch.setenv("LETTA_BASE_URL", url)
    monkeypatch.setenv("LETTA_APP_SERVER_URL", web)
    for make in (
        lambda: Rest(base_url=url),
        lambda: Remote(url=web),
        lambda: Local(openai_compatible={"base_url": url}),
        lambda: AsyncLettaClient(),
        lambda: AsyncLettaClient("remote"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            make()
        assert secret not in f"{caught.value!r} {caught.value}"


def test_a_dump_in_json_shows_no_secret_and_is_no_key() -> None:
    places = [
        Rest(api_key=KEY, headers={"Authorization": KEY, "user_id": "user-1"}),
        Remote(url="ws://h", auth_token=KEY),
        Local(
            env={"OPENAI_API_KEY": KEY}, openai_compatible={"base_url": "http://h", "api_key": KEY}
        ),
    ]
    for place in places:
        assert KEY not in place.model_dump_json() + repr(place) + str(place)
    assert places[0].model_dump(mode="json")["headers"]["user_id"] == "user-1"
    # What a dump shows in place of a key is not taken for one.
    for place in places[:2]:
        with pytest.raises(InvalidInputError, match="mask"):
            type(place)(**place.model_dump(mode="json", exclude_none=True))


def test_a_pickle_holds_no_secret_and_takes_it_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases: list[tuple[Any, str]] = [
        (Rest(base_url="http://h", api_key=KEY), "LETTA_API_KEY"),
        (Remote(url="ws://h", auth_token=KEY), "LETTA_APP_SERVER_TOKEN"),
        (Local(env={"OPENAI_API_KEY": KEY, "PLAIN": "1"}), "OPENAI_API_KEY"),
        (
            Local(openai_compatible={"base_url": "http://h", "api_key": KEY}),
            "LMSTUDIO_API_KEY",
        ),
        (Local(api=Rest(base_url="http://h", api_key=KEY)), "LETTA_API_KEY"),
    ]
    for place, variable in cases:
        monkeypatch.delenv(variable, raising=False)
        data = pickle.dumps(place)
        assert KEY.encode() not in data
        with pytest.raises(ConfigurationError, match=variable):
            pickle.loads(data)
        monkeypatch.setenv(variable, KEY)
        assert pickle.loads(data) == place
        monkeypatch.delenv(variable)


def test_a_header_with_a_secret_does_not_travel() -> None:
    with pytest.raises(InvalidInputError, match="Authorization"):
        pickle.dumps(Rest(headers={"Authorization": KEY}))


def test_a_backend_without_a_secret_travels_as_it_is() -> None:
    for place in (Rest(base_url="http://h", api_key=""), Local(), Remote(url="ws://h")):
        assert pickle.loads(pickle.dumps(place)) == place


def test_a_copy_in_this_process_keeps_its_secret() -> None:
    rest = Rest(api_key=KEY).model_copy(update={"project": "p"})
    assert rest.api_key == SecretStr(KEY)
