"""What is left of a call that failed in part: conversations, tokens, the answer that was given."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context
from pydantic import BaseModel

from letta_adapters import StructuredOutputError
from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.llama_index.structured_output import Draft
from letta_adapters.testing import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests._refusing import (
    call_again_at_once,
    client_of,
    count_conversations,
    refuse_messages,
)

DEEP = '{"name": ' + "[" * 100_000

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # LlamaIndex' own


class Person(BaseModel):
    """A person."""

    name: str


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    call_again_at_once(monkeypatch)


def test_a_call_that_is_made_again_leaves_no_conversations() -> None:
    letta = FakeLetta("Hello.")
    client = client_of(letta, refuse_messages(2))
    assert LettaLLM(client=client).complete("hi").text == "Hello."
    assert count_conversations(letta, client) == 0


async def test_an_agent_uses_the_conversation_of_a_refused_message_again() -> None:
    letta = FakeLetta("Hello.")
    client = client_of(letta, refuse_messages(1))
    agent = LettaAgent(client=client)
    context = Context(agent)
    with pytest.raises(Exception, match="slow down"):
        await agent.run("hi", ctx=context)
    assert str(await agent.run("hi", ctx=context)) == "Hello."
    assert count_conversations(letta, client) == 1


def test_an_object_that_was_mended_counts_the_tokens_of_both_turns() -> None:

    counted: list[int] = []

    class Count(BaseCallbackHandler):
        def __init__(self) -> None:
            super().__init__([], [])

        def on_event_start(self, *args: Any, **kwargs: Any) -> str:
            return ""

        def on_event_end(self, event_type: Any, payload: Any = None, **kwargs: Any) -> None:
            response = payload["response"]
            counted.append(response.raw["usage"]["total_tokens"])

        def start_trace(self, trace_id: str | None = None) -> None:
            """Nothing is traced."""

        def end_trace(self, *args: Any, **kwargs: Any) -> None:
            """Nothing is traced."""

    def ask(*replies: Any) -> int:
        llm = LettaLLM(client=FakeLetta(*replies).client())
        llm.callback_manager = CallbackManager([Count()])
        assert llm.structured_predict(Person, PromptTemplate("Who?")) == Person(name="Ada")
        return counted[-1]

    assert ask("Ada.", '{"name": "Ada"}') == 2 * ask('{"name": "Ada"}')


def test_chosen_calls_stand_where_they_cannot_be_given_up() -> None:
    def fail_reads(request: httpx.Request) -> httpx.Response | None:
        gone = request.method in ("GET", "DELETE") and "/conversations/" in request.url.path
        return httpx.Response(400, json={"detail": "not now"}) if gone else None

    def add(a: int) -> int:
        """Add one."""
        return a + 1

    letta = FakeLetta(Reply(tool_calls=[ToolUse("add", {"a": 1})]))
    llm = LettaLLM(client=client_of(letta, fail_reads))
    tool = FunctionTool.from_defaults(add)
    assert str(llm.predict_and_call([tool], user_msg="Add.")) == "2"


def test_an_object_that_is_nested_too_deeply_is_mended() -> None:
    llm = LettaLLM(client=FakeLetta(DEEP, '{"name": "Ada"}').client())
    *_, last = llm.stream_structured_predict(Person, PromptTemplate("Who?"))
    assert last == Person(name="Ada")


def test_an_object_that_stays_nested_too_deeply_is_none() -> None:
    llm = LettaLLM(client=FakeLetta(DEEP, DEEP).client())
    with pytest.raises(StructuredOutputError):
        list(llm.stream_structured_predict(Person, PromptTemplate("Who?")))


def test_nothing_is_shown_of_an_object_that_is_nested_too_deeply() -> None:
    assert Draft().feed([("text", DEEP)]) == []


def test_arguments_that_are_nested_too_deeply_are_mended() -> None:
    calls = [Reply(tool_calls=[ToolUse("Person", raw)]) for raw in (DEEP, '{"name": "Ada"}')]
    llm = LettaLLM(client=FakeLetta(*calls).client())
    program = FunctionCallingProgram.from_defaults(
        output_cls=Person, prompt_template_str="Who?", llm=llm
    )
    assert program() == Person(name="Ada")


class Failing(BaseCallbackHandler):
    """Fail at the end of a call while it is told to."""

    fails = True

    def __init__(self) -> None:
        super().__init__([], [])

    def on_event_start(self, *args: Any, **kwargs: Any) -> str:
        """Begin an event."""
        return ""

    def on_event_end(self, *args: Any, **kwargs: Any) -> None:
        """Fail."""
        if self.fails:
            raise RuntimeError("the exporter is down")

    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing is traced."""

    def end_trace(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is traced."""


async def test_an_answer_is_kept_whatever_a_handler_makes_of_its_end() -> None:
    letta, handler = FakeLetta("First.", "Second."), Failing()
    agent = LettaAgent(client=letta.client())
    agent._letta.callback_manager = CallbackManager([handler])
    context = Context(agent)
    with pytest.raises(RuntimeError, match="exporter"):
        await agent.run("one", ctx=context)
    handler.fails = False
    assert str(await agent.run("two", ctx=context)) == "Second."
    assert letta.said == ["one", "two"]


@pytest.mark.parametrize("extra", [{"name": 5}, {"id": uuid.UUID(int=1)}, {"id": 7}])
def test_a_message_with_odd_names_is_sent(extra: dict[str, Any]) -> None:
    llm = LettaLLM(client=FakeLetta("Hello.").client())
    message = ChatMessage(role=MessageRole.USER, content="hi", additional_kwargs=extra)
    assert llm.chat([message]).message.content == "Hello."


async def test_the_end_of_a_call_with_broken_arguments_tells_the_agent_s_message() -> None:
    ends: list[Any] = []

    class Watch(Failing):
        fails = False

        def on_event_end(self, event_type: Any, payload: Any = None, **kwargs: Any) -> None:
            """Take the message that the call ended with."""
            ends.append(payload["response"].message)

    def add(a: int) -> int:
        """Add one."""
        return a + 1

    letta = FakeLetta(Reply(tool_calls=[ToolUse("add", '{"a": ', id="c1")]), "Sorry.")
    agent = LettaAgent(client=letta.client(), tools=[add])
    agent._letta.callback_manager = CallbackManager([Watch()])
    assert str(await agent.run("Add.")) == "Sorry."
    assert [message.role for message in ends] == [MessageRole.ASSISTANT] * 2


async def test_the_failure_of_an_event_is_told_also_where_tokens_are_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError("no such event")

    monkeypatch.setattr("letta_adapters.llama_index.step._make_event", fail)
    agent = LettaAgent(client=FakeLetta("One two three.").client(), coalesce=True)
    with pytest.raises(Exception, match="no such event"):
        await agent.run("hi")
