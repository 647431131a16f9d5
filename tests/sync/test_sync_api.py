"""The sync face, member by member, against the misbehaving server in a good mood."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import letta_adapters as la
from letta_adapters import LettaClient, Rest
from letta_adapters.errors import InvalidInputError, NotFoundError, UnsupportedOptionError
from tests.faults import _events as ev
from tests.faults._server import Server
from tests.faults._wire import asks, echo, status
from tests.faults.conftest import resume

MakeRest = Callable[..., Rest]


def test_a_session(server: Server, client: LettaClient) -> None:
    session = client.create_session(ev.AGENT)
    assert (session.agent_id, session.conversation_id, session.session_id) == (None, None, None)
    init = session.initialize()
    assert init.conversation_id == session.conversation_id
    assert init.session_id == session.session_id
    assert init.agent_id == session.agent_id == ev.AGENT
    assert session.run_turn("hello").result == "You said: hello"
    kinds = [m["message_type"] for m in session.list_messages().raw]
    assert kinds == ["assistant_message", "user_message", "system_message"]
    state = session.bootstrap_state()
    assert (state.agent_id, state.has_pending_approval) == (ev.AGENT, False)
    assert not session.recover_pending_approvals().recovered
    session.abort()
    session.close()


def test_a_session_that_does_not_open_is_closed(server: Server, client: LettaClient) -> None:
    server.override("POST", "/v1/conversations/", status(404, {"detail": "Agent not found"}), 1)
    session = client.create_session(ev.AGENT)
    with pytest.raises(NotFoundError), session:
        raise AssertionError("not reached")
    with pytest.raises(la.SessionClosedError):
        session.run_turn("hello")


def test_the_client(server: Server, client: LettaClient) -> None:
    agent = client.create_agent(model="x/y", name="Ada", persona="Kind.")
    assert client.agents.retrieve(agent)["name"] == "Ada"
    assert [a["id"] for a in client.agents.list()] == [ev.AGENT, agent]
    server.override("PATCH", "/v1/", status(200, {"id": agent, "name": "Eve"}), 2)
    assert client.agents.update(agent, name="Eve")["name"] == "Eve"
    client.agents.delete(agent)
    assert client.agents.create(model="x/y").startswith("agent-")
    assert client.models.list()[0]["handle"] == "openai-proxy/scripted"
    assert client.list_messages(conversation_id=ev.CONV).raw[0]["message_type"]
    conversation = client.conversations.create(ev.AGENT)["id"]
    assert client.conversations.retrieve(conversation)["agent_id"] == ev.AGENT
    assert client.conversations.update(conversation, summary="x")["id"]
    server.override("GET", "/v1/conversations/$", status(200, []), 1)
    assert client.conversations.list(ev.AGENT) == []
    server.override("POST", "/fork$", status(200, {"id": ev.CONV}), 1)
    assert client.conversations.fork(conversation)["id"] == ev.CONV
    server.override("DELETE", "/v1/conversations/", status(200, None), 1)
    client.conversations.delete(conversation)
    assert client.request("get", f"/v1/agents/{ev.AGENT}")["id"] == ev.AGENT


def test_module_functions(server: Server, rest: MakeRest, client: LettaClient) -> None:
    assert la.prompt("hello", ev.AGENT, client=client).success
    assert la.create_agent(client=client, model="x/y").startswith("agent-")
    assert la.create_agent(backend=rest(), model="x/y").startswith("agent-")
    with la.create_session(ev.AGENT, backend=rest()) as session:
        assert session.run_turn("again").success
    with la.resume_session(ev.CONV, agent_id=ev.AGENT, client=client) as session:
        assert session.run_turn("more").success
    with pytest.raises(InvalidInputError, match="either client or backend"):
        la.create_session(ev.AGENT, client=client, backend=rest())


def test_another_model_for_a_conversation(server: Server, client: LettaClient) -> None:
    server.override("PATCH", "/v1/conversations/", status(200, {"id": ev.CONV}), 1)
    session = client.resume_session(ev.CONV, model="other/model")
    assert session.initialize().model == "other/model"
    with client.create_session(ev.AGENT, model="other/model") as fresh:
        assert fresh.run_turn("hello").success
    with pytest.raises(UnsupportedOptionError, match="agent's model"):
        client.resume_session(ev.AGENT, model="other/model").initialize()
    bodies = [r.body for r in server.requests if r.method in ("PATCH", "POST")][:2]
    assert bodies == [{"model": "other/model"}] * 2


def test_an_image_from_a_tool_is_shown_as_its_text(server: Server, client: LettaClient) -> None:
    def draws() -> list[la.TextContent]:
        return [la.TextContent("a "), la.TextContent("picture")]

    server.script(asks(ev.call("draws", arguments="{}")), echo)
    session = resume(client, tools=[draws])
    session.send("hello")
    result = next(m for m in session.stream() if m.type == "tool_result")
    assert result.content == "a picture"
