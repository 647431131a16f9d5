"""What happens is logged below ``letta_adapters``: facts in fields, and nothing of any content."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from letta_adapters import LettaError, Message, Postpone, Rest, RetryMessage, tool
from letta_adapters.backends.base import Conversation
from letta_adapters.client.client import AsyncLettaClient
from letta_adapters.client.record import PLAIN, TurnFacts, TurnRecord
from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.model_protocol import Reply, ToolUse

SECRET = "the user's " + "own words"


@pytest.fixture
def letta() -> FakeLetta:
    return FakeLetta(Reply(["Hel", "lo ", SECRET]), "Good.")


@tool
def fail() -> str:
    """Fail."""
    raise ValueError("broken")


def _ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith("letta_adapters")]


async def test_a_turn_is_logged_with_its_ids_and_how_it_ended(
    letta: FakeLetta, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "letta_adapters")
    async with letta.async_client() as client:
        async with client.create_session(include_partial_messages=True) as session:
            result = await session.run_turn(SECRET, otid="otid-of-mine")
    begun, ended = _ours(caplog)
    assert [begun.name, begun.levelname, begun.getMessage()] == [
        "letta_adapters.turns",
        "INFO",
        "A turn starts.",
    ]
    assert ended.getMessage().startswith("A turn ended after ")
    for record in (begun, ended):
        facts = vars(record)
        assert facts["agent_id"] == result.agent_id
        assert facts["conversation_id"] == result.conversation_id
        assert facts["otid"] == "otid-of-mine"
        assert facts["backend"] == "rest"
    facts = vars(ended)
    assert facts["run_id"] == result.run_ids[-1]
    assert facts["duration_ms"] >= 1
    assert (facts["stop_reason"], facts["error_code"]) == ("end_turn", None)
    assert (facts["input_tokens"], facts["output_tokens"]) == (100, 20)
    assert SECRET not in caplog.text


async def test_at_debug_requests_show_their_sizes_and_nothing_that_they_say(
    letta: FakeLetta, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "letta_adapters")
    key = "sk-of" + "-mine-1234567890"
    rest = Rest(base_url="http://letta.fake", api_key=key, headers={"X-Other": key})
    async with AsyncLettaClient(rest, http_client=letta.http_client()) as client:
        async with client.create_session() as session:
            await session.run_turn(SECRET)
        await client.agents.list(query=SECRET)
    requests = [r for r in _ours(caplog) if r.name == "letta_adapters.http"]
    posts = [r for r in requests if vars(r)["path"].endswith("/messages")]
    assert vars(posts[0])["method"] == "POST"
    assert "200 after " in posts[0].getMessage()
    told = "".join(f"{r.getMessage()} {vars(r)}" for r in _ours(caplog))
    assert SECRET not in told
    assert "own%20words" not in told
    assert key not in told


async def test_a_stop_and_its_reader_s_leaving_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    letta = FakeLetta(Reply("One two three.", token_delay=0.05), "Good.")
    caplog.set_level(logging.INFO, "letta_adapters")
    async with letta.async_client() as client:
        async with client.create_session(include_partial_messages=True) as session:
            await session.send("Hi.")
            reading = session.stream()
            await reading.__anext__()
            await reading.__anext__()
            await session.abort()
            async for _ in reading:
                pass
            await session.send("Hi.")
            async with session.stream() as stream:
                await stream.__anext__()
    said = [record.getMessage().partition(" after ")[0] for record in _ours(caplog)]
    assert said == [
        "A turn starts.",
        "The turn is told to stop.",
        "A turn ended",
        "A turn starts.",
        "A turn ended",
    ]
    assert [vars(r)["error_code"] for r in _ours(caplog) if "ended" in r.message] == [
        "cancelled",
        "cancelled",
    ]


async def test_a_message_that_is_refused_is_logged_with_its_code(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "letta_adapters")
    async with FakeLetta().async_client() as client:
        async with client.create_session() as session:
            opened = await session.initialize()
            await client.conversations.delete(opened.conversation_id)
            with pytest.raises(LettaError) as caught:
                await session.run_turn("Hi.")
    assert [vars(r).get("error_code") for r in _ours(caplog)] == [None, caught.value.code]


async def test_user_code_that_raises_is_a_warning_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    letta = FakeLetta(Reply(tool_calls=[ToolUse("fail", {})]), "Sorry.")
    caplog.set_level(logging.WARNING, "letta_adapters")
    async with letta.async_client() as client:
        async with client.create_session(tools=[fail]) as session:
            await session.run_turn("Do it.")
    (record,) = _ours(caplog)
    assert (record.name, record.levelname) == ("letta_adapters.tools", "WARNING")
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


async def test_nothing_is_told_of_single_fragments_at_info(
    caplog: pytest.LogCaptureFixture,
) -> None:
    letta = FakeLetta(Reply([f"w{n} " for n in range(50)]))
    caplog.set_level(logging.INFO, "letta_adapters")
    async with letta.async_client() as client:
        async with client.create_session(include_partial_messages=True) as session:
            await session.run_turn("Hi.")
    assert len(_ours(caplog)) == 2


async def test_a_repeated_call_of_the_model_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Only Letta Code tells of one, and it repeats one when it likes to."""
    caplog.set_level(logging.INFO, "letta_adapters")
    record = TurnRecord(TurnFacts(Conversation("agent-1", "conv-1"), "local", "otid", "x", PLAIN))

    async def read_next() -> list[Message]:
        return [RetryMessage("overloaded", 1, 3, 500)]

    assert len(await record.watch(read_next)()) == 1
    told = _ours(caplog)[-1]
    assert (told.levelname, told.getMessage()) == ("INFO", "The model call is repeated.")
    assert vars(told)["conversation_id"] == "conv-1"


@pytest.mark.parametrize("by", ["run_turn", "recover", "adapter"])
def test_calls_that_were_left_open_and_get_an_answer_are_logged(
    by: str, caplog: pytest.LogCaptureFixture
) -> None:
    letta = FakeLetta(Reply(tool_calls=[ToolUse("fail", {})]), "Good.")
    with letta.client() as client:
        place = client.conversations.create(client.create_agent(name="a"))["id"]
        later: Any = {"tools": [fail], "can_use_tool": lambda *_: Postpone()}
        with client.resume_session(place, **later) as session:
            session.run_turn(SECRET)
        caplog.set_level(logging.INFO, "letta_adapters")
        with client.resume_session(place) as session:
            if by == "run_turn":
                session.run_turn(SECRET)
            elif by == "recover":
                session.recover_pending_approvals()
            else:
                ChatLetta(client=client, conversation_id=place).invoke(SECRET)
    (told,) = [r for r in _ours(caplog) if "left open" in r.getMessage()]
    assert told.getMessage() == "1 tool call(s) that were left open get an answer."
    assert (told.levelname, vars(told)["conversation_id"]) == ("INFO", place)
    assert SECRET not in caplog.text


def test_another_conversation_than_the_history_s_is_logged(
    letta: FakeLetta, caplog: pytest.LogCaptureFixture
) -> None:
    with letta.client() as client:
        model = ChatLetta(client=client)
        answer = model.invoke([HumanMessage("one")])
        caplog.set_level(logging.INFO, "letta_adapters")
        edited = model.invoke([HumanMessage(SECRET), answer, HumanMessage("two")])
    metadata = edited.response_metadata
    (told,) = [r for r in _ours(caplog) if r.getMessage().startswith("Another conversation")]
    assert told.getMessage() == f"Another conversation: {metadata['forked']}."
    assert (told.name, told.levelname) == ("letta_adapters.chat", "INFO")
    assert vars(told)["conversation_id"] == metadata["conversation_id"]
    assert SECRET not in caplog.text


def test_without_an_application_s_own_logging_nothing_is_printed() -> None:
    handlers = logging.getLogger("letta_adapters").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
