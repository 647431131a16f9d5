"""An import brings nothing that was not named, and a file that is refused sends nothing.

The server here is played, as no real one loses approvals or changes between two requests; the
real one is in ``tests/behaviour/test_agent_files.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from letta_adapters import (
    AgentFile,
    AsyncLettaClient,
    ConflictError,
    InvalidInputError,
    Local,
    ProtocolError,
    Remote,
    Rest,
    UnsupportedOptionError,
    inspect_agent_file,
)
from tests.agent_files._bundles import FILE, LINK, PROGRAM, Maker, entry, nest
from tests.agent_files._made import CORE, agent, document, dump, tool

ASKED = ("skill:sum", "executable:run.sh")
NEW = "agent-00000000-0000-4000-8000-000000000001"
MCP = {"id": "mcp-0", "server_type": "sse", "server_name": "web", "server_url": "https://a.example"}


class Api:
    """Imports what it is sent; ``tools`` are there before, ``forgets`` drops the approvals."""

    def __init__(self) -> None:
        self.tools: list[dict[str, Any]] = []
        self.forgets = False
        self.requests: list[tuple[str, str]] = []
        self.form: dict[str, str] = {}
        self.document: dict[str, Any] = {}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.requests.append((request.method, path))
        if path == "/v1/tools/":
            names = request.url.params.get_list("names")
            return httpx.Response(200, json=[t for t in self.tools if t["name"] in names])
        if path == "/v1/tools/mcp/servers":
            return httpx.Response(200, json={"web": {}})
        if path == "/v1/agents/import":
            self._take(request.headers["content-type"], await request.aread())
            return httpx.Response(200, json={"agent_ids": [NEW]})
        if path.endswith("/export"):
            # As ASCII, as JSON can hold what UTF-8 cannot.
            return httpx.Response(200, content=json.dumps(self.document).encode())
        rules = [] if self.forgets else self.document["agents"][0]["tool_rules"]
        made = {"id": NEW, "tools": self.document["tools"], "tool_rules": rules}
        return httpx.Response(200, json=made)

    def _take(self, kind: str, body: bytes) -> None:
        whole = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        for part in whole.get_payload():
            name = part.get_param("name", header="content-disposition")
            content = part.get_payload(decode=True)
            if name == "file":
                self.document = json.loads(content)
            else:
                self.form[str(name)] = content.decode()

    @property
    def imported(self) -> bool:
        return ("POST", "/v1/agents/import") in self.requests


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def client(api: Api) -> AsyncLettaClient:
    http_client = httpx.AsyncClient(transport=httpx.MockTransport(api))
    return AsyncLettaClient(
        Rest(base_url="http://127.0.0.1:9", api_key=""), http_client=http_client
    )


Trust = Callable[[AgentFile], Any]


@pytest.mark.parametrize(
    "trust",
    [lambda shown: shown.digest, lambda shown: [shown.tools[0].digest]],
    ids=["the file", "its tool"],
)
async def test_a_trusted_tool_is_imported_as_one_that_asks(
    client: AsyncLettaClient, api: Api, trust: Trust
) -> None:
    data = dump()
    assert await client.agents.import_file(data, trust=trust(inspect_agent_file(data))) == [NEW]
    rule = {"type": "requires_approval", "tool_name": "multiply"}
    assert api.document["agents"][0]["tool_rules"] == [rule]
    assert api.document["tools"][0]["default_requires_approval"] is True
    assert api.form == {
        "model": "openai/gpt-5",
        "override_existing_tools": "false",
        "append_copy_suffix": "false",
    }


async def test_names_are_enough_for_a_file_that_was_shown_and_only_for_that(
    client: AsyncLettaClient, api: Api
) -> None:
    shown = inspect_agent_file(dump())
    with pytest.raises(InvalidInputError, match="nobody has trusted: multiply"):
        await client.agents.import_file(dump(), trust=["multiply"])
    assert not api.requests
    await client.agents.import_file(shown, trust=["multiply"], allow=["run:multiply"])
    assert api.document["agents"][0]["tool_rules"] == []


@pytest.mark.parametrize(
    ("fields", "options", "says"),
    [
        ({}, {"trust": ()}, "nobody has trusted"),
        ({}, {"trust": ["sha256:0"]}, "nobody has trusted"),
        ({}, {"allow": ["run:other"]}, "does not ask for 'run:other'"),
        ({}, {"allow": "run:multiply"}, "must be a list"),
        ({}, {"secrets": {"PATH": "x"}}, "no tool of the file knows PATH"),
        ({"mcp_servers": [MCP]}, {}, "'mcp:web', which nobody has allowed"),
        (
            {"agents": [agent(messages=[{"id": "m", "role": "approval", "approve": True}])]},
            {},
            "strip_messages=True",
        ),
        ({"agents": [agent(llm_config={"model_endpoint": "http://evil"})]}, {}, "Pass model="),
        (
            {"agents": [agent(), agent(id="agent-1", llm_config={"handle": "a/b"})]},
            {},
            "Pass model=",
        ),
        ({"agents": [agent(embedding_config={"x": 1})]}, {}, "Pass embedding="),
    ],
)
async def test_what_was_not_named_is_refused_before_anything_is_sent(
    client: AsyncLettaClient, api: Api, fields: Any, options: Any, says: str
) -> None:
    data = dump(**fields)
    given = {"trust": inspect_agent_file(data).digest} | options
    with pytest.raises(InvalidInputError, match=says):
        await client.agents.import_file(data, **given)
    assert not api.requests


async def test_a_file_gives_its_agent_no_variables_tags_or_parts_of_this_server(
    client: AsyncLettaClient, api: Api
) -> None:
    made = agent(
        tags=["books", "letta-adapters:default", "role:subagent", "parent:agent-1"],
        metadata={"letta_adapters": {"permission_mode": "unrestricted"}, "mine": 1},
        secrets={"TOKEN": "theirs", "LD_PRELOAD": "/evil.so"},
        tools=["run_code"],
        include_base_tools=True,
        folder_ids=["source-1"],
        hidden=True,
        messages=[{"id": "m", "role": "approval", "approve": True}],
    )
    data = dump(agents=[made])
    await client.agents.import_file(
        data,
        trust=inspect_agent_file(data).digest,
        secrets={"TOKEN": "mine"},
        strip_messages=True,
        model="anthropic/claude",
        name="copy",
    )
    (sent,) = api.document["agents"]
    assert sent["tags"] == ["books"]
    assert sent["metadata"] == {"mine": 1}
    assert sent["secrets"] == {"TOKEN": "mine"}
    assert not sent["tool_exec_environment_variables"]
    assert sent["include_base_tools"] is False
    assert not {"tools", "folder_ids", "hidden"} & set(sent)
    assert sent["messages"] == sent["in_context_message_ids"] == []
    assert (api.form["model"], api.form["name"]) == ("anthropic/claude", "copy")


@pytest.mark.parametrize(
    ("other", "replace", "refused"),
    [
        ({"source_code": "def multiply(): ..."}, False, True),
        ({"source_code": "def multiply(): ..."}, True, False),
        ({}, False, False),
        ({"tool_type": "external_mcp"}, True, True),
    ],
)
async def test_another_tool_of_the_name_is_not_taken_for_the_one_of_the_file(
    client: AsyncLettaClient, api: Api, other: Any, replace: bool, refused: bool
) -> None:
    api.tools = [tool(**other)]
    shown = inspect_agent_file(dump())
    work = client.agents.import_file(shown, trust=shown.digest, override_existing_tools=replace)
    if refused:
        with pytest.raises(ConflictError, match="multiply"):
            await work
    else:
        await work
    assert api.imported is not refused


async def test_a_tool_of_the_server_does_not_pass_as_one_of_lettas_own(
    client: AsyncLettaClient, api: Api
) -> None:
    api.tools = [tool("wipe")]
    data = dump(tools=[{**CORE, "name": "wipe"}, tool()])
    with pytest.raises(ConflictError, match="wipe"):
        await client.agents.import_file(data, trust=inspect_agent_file(data).digest)
    assert not api.imported


async def test_an_mcp_server_of_the_name_keeps_its_address(
    client: AsyncLettaClient, api: Api
) -> None:
    data = dump(mcp_servers=[MCP])
    digest = inspect_agent_file(data).digest
    with pytest.raises(ConflictError, match="web"):
        await client.agents.import_file(data, trust=digest, allow=["mcp:web"])
    assert not api.imported


async def test_an_agent_whose_approvals_the_server_lost_is_deleted(
    client: AsyncLettaClient, api: Api
) -> None:
    api.forgets = True
    with pytest.raises(ProtocolError, match="multiply without the approvals"):
        await client.agents.import_file(dump(), trust=inspect_agent_file(dump()).digest)
    assert api.requests[-1] == ("DELETE", f"/v1/agents/{NEW}")


async def test_an_export_holds_no_secret_and_nobody_else_may_read_it(
    client: AsyncLettaClient, api: Api, tmp_path: Path
) -> None:
    api.document = document(agents=[agent(secrets={"TOKEN": "abc"})])
    shown = await client.agents.export_file(NEW, tmp_path / "a.af")
    assert shown.secrets == ("TOKEN",)
    assert shown.exposed_secrets == ()
    assert b"abc" not in (tmp_path / "a.af").read_bytes()
    assert (tmp_path / "a.af").stat().st_mode & 0o777 == 0o600
    assert inspect_agent_file(tmp_path / "a.af") == shown


async def test_an_export_replaces_nothing_unasked(
    client: AsyncLettaClient, api: Api, tmp_path: Path
) -> None:
    api.document = document()
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "a.af").symlink_to("kept")
    (tmp_path / "b.af").symlink_to("nowhere")
    for name in ("kept", "a.af", "b.af", "none/a.af"):
        with pytest.raises(InvalidInputError):
            await client.agents.export_file(NEW, tmp_path / name)
    assert not api.requests
    # A link is replaced itself, not what it leads to.
    await client.agents.export_file(NEW, tmp_path / "a.af", overwrite=True)
    assert (tmp_path / "kept").read_text() == "kept"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.af", "b.af", "kept"]


async def test_an_export_that_is_no_agent_is_not_written(
    client: AsyncLettaClient, api: Api, tmp_path: Path
) -> None:
    for api.document in ({}, {"agents": []}, document(tools=[])):
        with pytest.raises(ProtocolError, match="something else than an agent"):
            await client.agents.export_file(NEW, tmp_path / "a.af")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "answer",
    [
        {"agents": [None]},
        {"agents": 5},
        {"agents": {"a": 1}},
        ["agents"],
        document(agents=[agent(secrets=5)]),
        document(agents=[agent(secrets=[["TOKEN"]])]),
        document(agents=[agent(secrets="TOKEN")]),
        document(agents=[agent(metadata=json.loads('{"a":' * 400 + "1" + "}" * 400))]),
    ],
    ids=["null", "number", "object", "list", "secrets", "lists", "text", "deep"],
)
async def test_an_export_of_another_shape_is_an_error_of_the_protocol(
    client: AsyncLettaClient, api: Api, tmp_path: Path, answer: Any
) -> None:
    api.document = answer
    with pytest.raises(ProtocolError, match="something else than an agent"):
        await client.agents.export_file(NEW, tmp_path / "a.af")
    assert not list(tmp_path.iterdir())


async def test_half_a_character_in_an_export_is_kept(
    client: AsyncLettaClient, api: Api, tmp_path: Path
) -> None:
    api.document = document(agents=[agent(system="\ud83d and \u05e9")])
    shown = await client.agents.export_file(NEW, tmp_path / "a.af")
    assert shown.agents[0].system == "\ud83d and \u05e9"
    assert inspect_agent_file(tmp_path / "a.af") == shown


async def test_a_backend_without_files_names_those_that_have_them(tmp_path: Path) -> None:
    async with AsyncLettaClient(Remote(url="ws://127.0.0.1:9", auth_token="x")) as remote:
        with pytest.raises(UnsupportedOptionError, match=r"export_file.*rest or local"):
            await remote.agents.export_file("agent-local-1", tmp_path / "a.af")
        with pytest.raises(UnsupportedOptionError, match=r"import_file.*rest or local"):
            await remote.agents.import_file(dump())
    over_api = Local(data_dir=tmp_path, api=Rest(base_url="http://127.0.0.1:9", api_key="x"))
    async with AsyncLettaClient(over_api) as client:
        with pytest.raises(UnsupportedOptionError, match="rest or local"):
            await client.agents.export_file("agent-1", tmp_path / "a.af")


async def test_a_file_of_the_other_kind_names_the_backend_that_takes_it(
    client: AsyncLettaClient, api: Api, tmp_path: Path
) -> None:
    bundle = Maker(tmp_path / "made").agent()
    with pytest.raises(UnsupportedOptionError, match=r"git bundle.*local") as caught:
        await client.agents.import_file(bundle)
    assert caught.value.supported_by == ("local",)
    assert api.requests == []
    # Before a runtime is started.
    async with AsyncLettaClient(Local(data_dir=tmp_path)) as local:
        with pytest.raises(UnsupportedOptionError, match=r"Letta API \(.af\).*rest") as caught:
            await local.agents.import_file(dump())
    assert caught.value.supported_by == ("rest",)
    assert not (tmp_path / ".letta").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"allow": ["skill:sum"]}, "'executable:run.sh', which nobody has allowed"),
        ({"allow": ["skill:sum", "executable:run.sh", "mod:x"]}, "does not ask for 'mod:x'"),
        ({"allow": [*ASKED], "trust": "sha256:" + "0" * 64}, "another file"),
        ({"allow": [*ASKED], "secrets": {"KEY": "x"}}, "no tool of the file knows KEY"),
        ({"allow": [*ASKED], "embedding": "x/y"}, "embedding"),
        ({"allow": [*ASKED], "override_existing_tools": True}, "override_existing_tools"),
        ({"allow": [*ASKED]}, "link.md' is a symbolic link"),
    ],
)
async def test_a_bundle_is_refused_before_a_runtime_is_started(
    tmp_path: Path, options: dict[str, Any], why: str
) -> None:
    maker = Maker(tmp_path / "made")
    data = maker.agent(
        nest(maker, [b"skills", b"sum", b"SKILL.md"], FILE),
        entry(maker, PROGRAM, b"run.sh"),
        entry(maker, LINK, b"link.md", b"/etc/passwd"),
    )
    home = tmp_path / "home"
    async with AsyncLettaClient(Local(data_dir=home)) as client:
        with pytest.raises(InvalidInputError, match=why):
            await client.agents.import_file(data, **options)
    assert not home.exists() or not list(home.iterdir())
