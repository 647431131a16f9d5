"""Objects that are printed or logged say what they are, and never a secret."""

from __future__ import annotations

import pytest

from letta_adapters import (
    AsyncLettaClient,
    InvalidInputError,
    LettaClient,
    Local,
    MessagePage,
    Remote,
    Rest,
    ResultMessage,
    Usage,
)
from letta_adapters.testing.fakes import FakeLetta

SECRET = "s3cr" + "et-of-mine"


def test_a_client_says_where_its_agents_live() -> None:
    rest = Rest(base_url="https://letta.example.org/v1", api_key=SECRET, headers={"user": SECRET})
    assert repr(AsyncLettaClient(rest)) == (
        "<AsyncLettaClient backend='rest' base_url='https://letta.example.org' open>"
    )
    remote = Remote(url="wss://letta.example.org/ws", auth_token=SECRET)
    assert repr(AsyncLettaClient(remote)) == (
        "<AsyncLettaClient backend='remote' url='wss://letta.example.org/ws' open>"
    )
    assert SECRET not in repr(rest) + str(rest) + repr(remote) + str(remote)


async def test_a_client_on_this_machine_says_its_directory(tmp_path: object) -> None:
    client = AsyncLettaClient(Local(data_dir=str(tmp_path), env={"SOME_KEY": SECRET}))
    await client.close()
    shown = repr(client)
    assert shown.startswith("<AsyncLettaClient backend='local' data_dir=")
    assert shown.endswith(" closed>")
    assert SECRET not in shown


@pytest.mark.parametrize(
    "address",
    [
        f"https://user:{SECRET}@letta.example.org",
        f"https://letta.example.org/?token={SECRET}",
        f"https://letta.example.org/#{SECRET}",
    ],
)
def test_an_address_that_holds_a_secret_is_refused_without_showing_it(address: str) -> None:
    for make in (
        lambda: AsyncLettaClient(Rest(base_url=address, api_key="")),
        lambda: AsyncLettaClient(Remote(url=address.replace("http", "ws"))),
    ):
        with pytest.raises(InvalidInputError) as caught:
            make()
        assert SECRET not in repr(caught.value) + str(caught.value)


def test_a_session_says_its_ids_and_whether_it_is_open() -> None:
    with FakeLetta("Hello.").client() as client:
        agent_id = client.agents.list()[0]["id"]
        session = client.resume_session(agent_id)
        assert repr(session) == f"<Session backend='rest' agent_id='{agent_id}' not open yet>"
        with session:
            assert repr(session) == (
                f"<Session backend='rest' agent_id='{agent_id}' conversation_id='default' open>"
            )
        assert repr(session).endswith(" conversation_id='default' closed>")
        assert repr(client.agents) == "<Agents backend='rest'>"
        assert repr(client.conversations) == "<Conversations backend='rest'>"
        assert repr(client.models) == "<Models backend='rest'>"
    assert repr(client) == "<LettaClient backend='rest' base_url='http://letta.fake' closed>"


async def test_an_asynchronous_session_and_its_stream_say_the_same() -> None:
    async with FakeLetta("Hello.").async_client() as client:
        async with client.create_session() as session:
            assert repr(session).startswith("<AsyncSession backend='rest' agent_id='agent-")
            await session.send("Hi.")
            stream = session.stream()
            assert repr(stream) == "<MessageStream open>"
            async for _ in stream:
                pass
            assert repr(stream) == "<MessageStream at its end>"
            page = await session.list_messages()
            assert (
                repr(page)
                == f"<MessagePage messages={len(page.messages)} order='desc' has_more=False>"
            )


def test_a_result_says_how_it_ended_and_the_first_words_of_the_answer() -> None:
    text = "word " * 100
    good = ResultMessage(True, text, "end_turn", Usage(), 1, conversation_id="conv-1")
    assert repr(good) == (
        "ResultMessage(success=True, stop_reason='end_turn', "
        f"result={('word ' * 12).strip() + '...'!r}, conversation_id='conv-1')"
    )
    bad = ResultMessage(
        False, None, "error", Usage(), 1, error_code="timeout", error_detail="Too late."
    )
    assert repr(bad) == (
        "ResultMessage(success=False, stop_reason='error', error_code='timeout', "
        "error_detail='Too late.', conversation_id=None)"
    )


def test_a_page_shows_none_of_its_messages() -> None:
    page = MessagePage((), [{"content": SECRET}], has_more=True)
    assert repr(page) == "<MessagePage messages=0 order='desc' has_more=True>"


def test_a_client_shown_in_the_child_of_a_fork_makes_nothing() -> None:
    client = LettaClient(Rest(base_url="http://localhost:8283", api_key=""))
    made = client._made
    client._home = object()  # as after a fork: this process has another bridge
    assert repr(client) == "<LettaClient backend='rest' base_url='http://localhost:8283' open>"
    assert client._made is made
