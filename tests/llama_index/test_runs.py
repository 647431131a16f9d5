"""What one run leaves open, and what the next run on the same context does about it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.agent.workflow.workflow_events import AgentStream, ToolCall
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.workflow import Context
from workflows.context import PickleSerializer

from letta_adapters import HistoryMismatchError
from letta_adapters.chat.cache import recent
from letta_adapters.llama_index import (
    ApprovalRequiredEvent,
    LettaAgent,
    LettaAgentWorkflow,
    LettaMemory,
)
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.llama_index.agents import run
from letta_adapters.testing.scripted_model import ModelError, Reply, ToolUse
from tests.llama_index.conftest import World

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called"),
]
STOP = "Stop. Do nothing more."


class Payments:
    """A tool that must not run unasked."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def pay(self, n: int) -> str:
        """Pay."""
        self.made.append(n)
        return f"paid {n}"


@pytest.fixture
def payments() -> Payments:
    return Payments()


def paying(n: int) -> Reply:
    return Reply(tool_calls=[ToolUse("pay", {"n": n}, id=f"pay-{n}")])


def alone(world: World, payments: Payments, **fields: Any) -> Any:
    return world.agent(tools=[payments.pay], **fields)


def in_workflow(world: World, payments: Payments, **fields: Any) -> Any:
    agent = world.agent(tools=[payments.pay], name="a", description="Pays.")
    return LettaAgentWorkflow(agents=[agent], **fields)


kinds = pytest.mark.parametrize("make", [alone, in_workflow], ids=["alone", "in a workflow"])


async def ends_early(agent: Any, ctx: Context, **kwargs: Any) -> None:
    """A run that does not come to its end."""
    with pytest.raises(Exception, match=r"Max iterations|timed out|quota|Quota"):
        await run(agent, "go", ctx, **kwargs)


async def cancelled(agent: Any, ctx: Context, when: Callable[[Any], bool], text: str) -> None:
    """A run that is cancelled at the first event of that kind."""
    handler = agent.run(text, ctx=ctx)
    async for event in handler.stream_events():
        if when(event):
            await handler.cancel_run()
            break
    with contextlib.suppress(BaseException):
        await asyncio.wait_for(handler, 20)


# -- calls that a run leaves open -------------------------------------------------------------


@kinds
async def test_a_call_that_the_limit_left_open_is_not_run_by_the_next_run(
    own_world: World, payments: Payments, make: Callable[..., Any]
) -> None:
    own_world.script(paying(1), paying(2), "I stopped.")
    agent = make(own_world, payments)
    ctx = Context(agent)
    await ends_early(agent, ctx, max_iterations=2)
    output, _ = await run(agent, STOP, ctx)
    assert (str(output), payments.made) == ("I stopped.", [1])
    (found,) = await own_world.said_anywhere()
    assert [" ".join(found).count(text) for text in ("go", STOP)] == [1, 1]


@kinds
async def test_the_conversation_goes_on_after_a_run_that_ended_early(
    letta_fake: FakeLetta, payments: Payments, make: Callable[..., Any]
) -> None:
    client = letta_fake.client()
    world = World(client, client, client.create_agent(name="a"), letta_fake.script)
    world.script(paying(1), paying(2), "I stopped.", "Third.", "Fourth.")
    agent = make(world, payments)
    ctx = Context(agent)
    await ends_early(agent, ctx, max_iterations=2, memory=LettaMemory())
    await run(agent, STOP, ctx)
    await run(agent, "three", ctx)
    output, _ = await run(agent, "four", ctx)
    assert str(output) == "Fourth."
    assert await world.said_anywhere() == [["go", STOP, "three", "four"]]
    (answer,) = letta_fake.requests[2]["messages"][0]["approvals"]
    assert (answer["type"], answer["tool_call_id"], answer["status"]) == ("tool", "pay-2", "error")
    assert "Not run: the run that asked for this call ended" in answer["tool_return"]


async def test_a_question_that_a_run_left_open_is_answered_with_a_fact_and_never_denied(
    letta_fake: FakeLetta,
) -> None:
    client = letta_fake.client()
    world = World(client, client, client.create_agent(name="a"), letta_fake.script)
    world.script(Reply(tool_calls=[ToolUse("danger", {}, id="ask-1")]), "I stopped.")
    agent = world.agent()
    ctx = Context(agent)
    await cancelled(agent, ctx, lambda e: isinstance(e, ApprovalRequiredEvent), "go")
    output, events = await run(agent, STOP, ctx)
    assert str(output) == "I stopped."
    assert not [e for e in events if isinstance(e, ApprovalRequiredEvent)]
    (answer,) = letta_fake.requests[1]["messages"][0]["approvals"]
    assert (answer["type"], answer["tool_call_id"], answer["status"]) == ("tool", "ask-1", "error")
    assert "Not run" in answer["tool_return"]


@kinds
async def test_a_timeout_leaves_nothing_that_the_next_run_does(
    letta_fake: FakeLetta, make: Callable[..., Any]
) -> None:
    class Slow(Payments):
        async def pay(self, n: int) -> str:
            """Pay."""
            self.made.append(n)
            await asyncio.sleep(30)
            return "paid"

    client = letta_fake.client()
    world = World(client, client, client.create_agent(name="a"), letta_fake.script)
    payments = Slow()
    world.script(paying(1), "I stopped.")
    agent = make(world, payments, timeout=3.0)
    ctx = Context(agent)
    await ends_early(agent, ctx)
    output, _ = await run(agent, STOP, ctx)
    assert (str(output), payments.made) == ("I stopped.", [1])
    (answer,) = letta_fake.requests[1]["messages"][0]["approvals"]
    assert "may have been running" in answer["tool_return"]


async def test_a_hand_off_leaves_nothing_that_the_next_run_does(
    letta_fake: FakeLetta, payments: Payments
) -> None:
    """The run is handed over beside a call, ends early there, and comes back in the next one."""
    client = letta_fake.client()
    world = World(client, client, client.create_agent(name="a"), letta_fake.script)
    there = ToolUse("handoff", {"to_agent": "two", "reason": "It knows."}, id="handoff-1")
    back = ToolUse("handoff", {"to_agent": "one", "reason": "Done."}, id="handoff-2")
    world.script(
        Reply(tool_calls=[there]), paying(1), paying(2), Reply(tool_calls=[back]), "One again."
    )
    one = world.agent(name="one", description="Routes.", can_handoff_to=["two"])
    two = world.agent(name="two", description="Pays.", can_handoff_to=["one"], tools=[payments.pay])
    workflow = AgentWorkflow(agents=[one, two], root_agent="one")
    ctx = Context(workflow)
    await ends_early(workflow, ctx, max_iterations=3)
    output, _ = await run(workflow, STOP, ctx)
    assert (str(output), payments.made) == ("One again.", [1])


# -- the last word of a run -------------------------------------------------------------------


@kinds
async def test_the_last_word_knows_the_tools_results_and_the_conversation_goes_on(
    own_world: World, payments: Payments, make: Callable[..., Any]
) -> None:
    own_world.script(paying(1), paying(2), "Paid once.", "Nothing else.")
    agent = make(own_world, payments, early_stopping_method="generate")
    ctx = Context(agent)
    output, _ = await run(agent, "go", ctx, max_iterations=2, memory=LettaMemory())
    assert (str(output), payments.made) == ("Paid once.", [1])
    place = output.raw["conversation_id"]
    output, _ = await run(agent, STOP, ctx)
    assert (str(output), payments.made) == ("Nothing else.", [1])
    assert output.raw["conversation_id"] == place
    said = " ".join(await own_world.said(place))
    assert (said.count("go"), said.count(STOP)) == (1, 1)


async def test_the_last_word_of_an_agent_that_has_answered(letta_fake: FakeLetta) -> None:
    client = letta_fake.client()
    world = World(client, client, client.create_agent(name="a"), letta_fake.script)
    world.script("Answer.", "Summary.", "Next.")
    agent = world.agent(early_stopping_method="generate")
    ctx = Context(agent)
    output, _ = await run(agent, "go", ctx, max_iterations=1)
    assert str(output) == "Summary."
    output, _ = await run(agent, "next", ctx)
    assert output.raw["conversation_id"] and len(await world.said_anywhere()) == 1


async def test_a_last_word_that_fails_is_made_up_for_by_the_next_run(
    letta_fake: FakeLetta, payments: Payments
) -> None:
    client = letta_fake.client()
    world = World(client, client, client.create_agent(name="a"), letta_fake.script)
    quota = ModelError(429, "No quota left", "insufficient_quota", "insufficient_quota")
    world.script(paying(1), paying(2), Reply(error=quota, repeat=True))
    agent = alone(world, payments, early_stopping_method="generate")
    ctx = Context(agent)
    with pytest.raises(Exception, match="quota"):
        await run(agent, "go", ctx, max_iterations=2)
    world.script("I stopped.")
    output, _ = await run(agent, STOP, ctx)
    assert (str(output), payments.made) == ("I stopped.", [1])
    assert await world.said_anywhere() == [["go", STOP]]


# -- stop, then ask ---------------------------------------------------------------------------


def _streams(event: Any) -> bool:
    return isinstance(event, AgentStream)


@pytest.mark.parametrize("named", [False, True], ids=["fresh", "named"])
@pytest.mark.parametrize("turn", [1, 2])
async def test_stop_in_the_middle_of_an_answer_then_ask(
    own_world: World, turn: int, named: bool
) -> None:
    # The recordings have the same ids, and what this process knows of one is not true of the next.
    recent.drop(lambda _: True)
    place = await own_world.client_create() if named else None
    agent = own_world.agent(conversation_id=place)
    ctx = Context(agent)
    before = ["one"] if turn == 2 else []
    own_world.script(
        *["First." for _ in before],
        Reply(text=[f"w{n} " for n in range(60)], token_delay=0.1),
        "Four.",
        "Six.",
    )
    for text in before:
        await run(agent, text, ctx)
    await cancelled(agent, ctx, _streams, "Tell a long story.")
    output, _ = await run(agent, "What is 2+2?", ctx)
    assert str(output) == "Four."
    output, _ = await run(agent, "What is 3+3?", ctx)
    assert str(output) == "Six."
    said = [*before, "Tell a long story.", "What is 2+2?", "What is 3+3?"]
    (found,) = await own_world.said_anywhere()
    assert [" ".join(found).count(text) for text in said] == [1] * len(said)


@pytest.mark.parametrize("turn", [1, 2])
async def test_stop_in_a_tool_then_ask(own_world: World, turn: int) -> None:
    begun: list[int] = []

    async def pay(n: int) -> str:
        """Pay."""
        begun.append(n)
        await asyncio.sleep(30)
        return "paid"

    agent = own_world.agent(tools=[pay])
    ctx = Context(agent)
    before = ["one"] if turn == 2 else []
    # Letta Code may have asked the model what follows the stopped call, before it was stopped.
    answers = [Reply("Four.", when="2+2"), Reply("Six.", when="3+3")]
    own_world.script(*["First." for _ in before], paying(1), *answers)
    for text in before:
        await run(agent, text, ctx)
    await cancelled(agent, ctx, lambda e: isinstance(e, ToolCall), "Pay it.")
    output, _ = await run(agent, "What is 2+2?", ctx)
    assert str(output) == "Four."
    output, _ = await run(agent, "What is 3+3?", ctx)
    assert str(output) == "Six."
    said = [*before, "Pay it.", "What is 2+2?", "What is 3+3?"]
    (found,) = await own_world.said_anywhere()
    assert [" ".join(found).count(text) for text in said] == [1] * len(said)
    assert begun in ([], [1])


class Gate:
    """Holds one request of a fake Letta back, before or after the server has taken it."""

    def __init__(self, fake: FakeLetta) -> None:
        self.reached = threading.Event()
        self._handle = fake._handle
        self._taken: bool | None = None
        fake._handle = self._through

    def shut(self, *, taken: bool) -> None:
        """The next message is held back."""
        self._taken = taken

    async def _through(self, request: Any) -> Any:
        taken = self._taken
        if taken is None or request.method != "POST" or "/messages" not in request.url.path:
            return await self._handle(request)
        self._taken = None
        answer = await self._handle(request) if taken else None
        self.reached.set()
        await asyncio.sleep(30)
        return answer


@pytest.mark.parametrize("taken", [False, True], ids=["not taken", "taken"])
@pytest.mark.parametrize("turn", [1, 2])
async def test_stop_before_the_server_has_said_anything_then_ask(
    letta_fake: FakeLetta, taken: bool, turn: int
) -> None:
    gate = Gate(letta_fake)
    client = letta_fake.client()
    world = World(client, client, client.create_agent(name="a"), letta_fake.script)
    agent = world.agent()
    ctx = Context(agent)
    before = ["one"] if turn == 2 else []
    for text in before:
        await run(agent, text, ctx)
    gate.shut(taken=taken)
    handler = agent.run("two", ctx=ctx)
    while not gate.reached.is_set():
        await asyncio.sleep(0.01)
    await handler.cancel_run()
    with contextlib.suppress(BaseException):
        await asyncio.wait_for(handler, 20)
    await run(agent, "three", ctx)
    output, _ = await run(agent, "four", ctx)
    assert str(output) == "You said: four"
    assert await world.said_anywhere() == [[*before, "two", "three", "four"]]


@pytest.mark.parametrize("taken", [False, True], ids=["not taken", "taken"])
async def test_a_result_whose_request_was_stopped_is_told_once(
    letta_fake: FakeLetta, taken: bool
) -> None:
    """Also where the model gave both calls one id."""
    gate = Gate(letta_fake)
    client = letta_fake.client()
    world = World(client, client, client.create_agent(name="a"), letta_fake.script)

    def pay(n: int) -> str:
        """Pay."""
        if n == 2:
            gate.shut(taken=taken)
        return f"paid {n}"

    calls = [Reply(tool_calls=[ToolUse("pay", {"n": n}, id="same")]) for n in (1, 2)]
    world.script(*calls, *(["I paid."] if taken else []), "Four.")
    agent = world.agent(tools=[pay])
    ctx = Context(agent)
    handler = agent.run("Pay both.", ctx=ctx)
    while not gate.reached.is_set():
        await asyncio.sleep(0.01)
    await handler.cancel_run()
    with contextlib.suppress(BaseException):
        await asyncio.wait_for(handler, 20)
    output, _ = await run(agent, "What is 2+2?", ctx)
    assert str(output) == "Four."
    sent = [message for body in letta_fake.requests for message in body["messages"]]
    told = [a["tool_return"] for m in sent if m["type"] == "approval" for a in m["approvals"]]
    assert told == ["paid 1", "paid 2"]
    assert await world.said_anywhere() == [["Pay both.", "What is 2+2?"]]


async def test_a_context_with_a_serializer_of_its_own_keeps_what_only_that_can_store(
    letta_fake: FakeLetta,
) -> None:
    client = letta_fake.client()
    agent = LettaAgent(agent_id=client.create_agent(name="a"), client=client)
    ctx: Any = Context(agent, serializer=PickleSerializer())
    await run(agent, "one", ctx)
    await ctx.store.set("seen", {1, 2})
    await run(agent, "two", ctx)
    assert await ctx.store.get("seen") == {1, 2}
    assert letta_fake.said == ["one", "two"]


# -- another history --------------------------------------------------------------------------


def _history(*texts: str) -> list[ChatMessage]:
    roles = (MessageRole.USER, MessageRole.ASSISTANT)
    return [ChatMessage(role=roles[at % 2], content=text) for at, text in enumerate(texts)]


@kinds
async def test_another_history_on_the_same_context_is_told_to_a_conversation_of_its_own(
    own_world: World, payments: Payments, make: Callable[..., Any]
) -> None:
    own_world.script("Hi Alice.", "You are Bob.")
    agent = make(own_world, payments)
    ctx = Context(agent)
    first, _ = await run(agent, "I am Alice.", ctx)
    history = _history("I am Bob.", "Hi Bob.")
    second, _ = await run(agent, "Who am I?", ctx, chat_history=history)
    assert first.raw["conversation_id"] != second.raw["conversation_id"]
    told = await own_world.told(second.raw["conversation_id"])
    assert ("I am Bob." in told, "Alice" in told) == (True, False)


async def test_a_single_message_given_as_the_history_is_another_history(
    letta_fake: FakeLetta, payments: Payments
) -> None:
    client = letta_fake.client()
    world = World(client, client, client.create_agent(name="a"), letta_fake.script)
    agent = alone(world, payments)
    ctx = Context(agent)
    await run(agent, "I am Alice.", ctx)
    handler = agent.run(chat_history=_history("Who am I?"), ctx=ctx)
    await handler
    assert sorted(await world.said_anywhere()) == [["I am Alice."], ["Who am I?"]]


async def test_another_memory_on_the_same_context_is_used(
    letta_fake: FakeLetta, payments: Payments
) -> None:
    client = letta_fake.client()
    world = World(client, client, client.create_agent(name="a"), letta_fake.script)
    agent = alone(world, payments)
    ctx = Context(agent)
    await run(agent, "I am Alice.", ctx)
    memory = LettaMemory(messages=_history("I am Bob.", "Hi Bob."))
    await run(agent, "Who am I?", ctx, memory=memory)
    said = sorted(await world.said_anywhere())
    assert said == [["I am Alice."], ["I am Bob.", "Who am I?"]]
    assert [m.content for m in memory.get()][:3] == ["I am Bob.", "Hi Bob.", "Who am I?"]


async def test_another_history_is_refused_where_that_is_asked_for(
    letta_fake: FakeLetta, payments: Payments
) -> None:
    client = letta_fake.client()
    world = World(client, client, client.create_agent(name="a"), letta_fake.script)
    agent = alone(world, payments, on_mismatch="error")
    ctx = Context(agent)
    await run(agent, "I am Alice.", ctx)
    with pytest.raises(HistoryMismatchError, match="another one"):
        await run(agent, "Who am I?", ctx, chat_history=_history("I am Bob.", "Hi Bob."))
    assert await world.said_anywhere() == [["I am Alice."]]


async def test_stop_in_a_question_of_letta_code_then_ask(
    embedded: Any, embedded_model: Any, tmp_path: Path
) -> None:
    world = World(embedded, embedded, "", embedded_model.script)
    world.agent_id = world.another("asks")
    embedded_model.clear()
    about = {"command": f"touch {tmp_path / 'made'}", "description": "a test"}
    world.script(Reply(tool_calls=[ToolUse("Bash", about, id="ask-1")]), "Four.", "Six.")
    agent = world.agent(session_options={"cwd": str(tmp_path)})
    ctx = Context(agent)
    await cancelled(agent, ctx, lambda e: isinstance(e, ApprovalRequiredEvent), "Make it.")
    output, events = await run(agent, "What is 2+2?", ctx)
    assert str(output) == "Four."
    assert not [e for e in events if isinstance(e, ApprovalRequiredEvent)]
    output, _ = await run(agent, "What is 3+3?", ctx)
    assert str(output) == "Six."
    assert list(tmp_path.iterdir()) == []
    (found,) = await world.said_anywhere()
    said = ["Make it.", "What is 2+2?", "What is 3+3?"]
    assert [" ".join(found).count(text) for text in said] == [1, 1, 1]
    assert "denied" not in " ".join(found).lower()
