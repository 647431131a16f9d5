"""The conformance suite for LlamaIndex agents."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.agent.workflow.workflow_events import (
    AgentOutput,
    AgentStream,
    ToolCall,
    ToolCallResult,
)
from llama_index.core.base.llms.types import ThinkingBlock
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context, JsonSerializer
from workflows.errors import WorkflowRuntimeError

from letta_adapters.testing.llama_index.llms import ADA, Person, add
from letta_adapters.testing.llama_index.watching import watching
from letta_adapters.testing.scripted_model import ModelError, Reply, ToolUse

_QUOTA = ModelError(429, "No quota left", "insufficient_quota", "insufficient_quota")


@dataclass
class AgentSubject:
    """The agent under test.

    Attributes:
        script: ``script(*replies)`` sets what the model behind the agent says next.
        make: ``make(**fields)`` returns an agent; ``name``, ``description``, ``tools``,
            ``system_prompt``, ``can_handoff_to``, ``output_cls`` and ``early_stopping_method`` are
            among the fields.
        said: ``said(output)`` returns the user's messages in the conversation that a run ended in,
            as the agent's model knows them.
    """

    script: Callable[..., None]
    make: Callable[..., Any]
    said: Callable[[AgentOutput], Awaitable[list[str]]]


def explode(why: str) -> str:
    """Fails."""
    raise ValueError(why)


def make_add_call(a: int, b: int, id: str) -> ToolUse:
    """Return a call of the tool ``add``."""
    return ToolUse("add", {"a": a, "b": b}, id=id)


async def run(agent: Any, message: Any, ctx: Any = None, **kwargs: Any) -> tuple[Any, list[Any]]:
    """Return the result and the events of a run."""
    handler = agent.run(message, ctx=ctx, **kwargs)
    events = [event async for event in handler.stream_events()]
    return await handler, events


def list_kinds(events: list[Any]) -> list[str]:
    """Return the kinds of events in order, with runs of stream events as one."""
    found: list[str] = []
    for event in events:
        name = type(event).__name__
        if found[-1:] != [name] or name != "AgentStream":
            found.append(name)
    return found


@contextmanager
def _ignore_old_fields() -> Iterator[None]:
    """Ignore the warnings of LlamaIndex' own code.

    It looks at tools, and at a context between two runs, in ways that warn.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:is_running called")
class AgentConformance:
    """The suite for agents: subclass it and give it the fixture ``subject``.

    ::

        class TestMyAgent(AgentConformance):
            @pytest.fixture
            def subject(self):
                letta = FakeLetta()
                client = letta.client()

                async def said(output):  # the user's messages, as the model knows them
                    place = output.raw["conversation_id"]
                    page = client.list_messages(output.raw["agent_id"], place, order="asc")
                    return [m.content for m in page.messages if m.type == "user"]

                make = lambda **fields: LettaAgent(client=client, **fields)
                yield AgentSubject(letta.script, make, said)
    """

    @pytest.fixture
    def subject(self) -> AgentSubject:
        """Return the agent under test."""
        raise NotImplementedError("Give your subclass the fixture `subject`.")

    # -- one run ----------------------------------------------------------------------------

    async def test_an_answer_streams(self, subject: AgentSubject) -> None:
        """Check that tokens come first, each with the text so far, and then the output."""
        subject.script("One two three.")
        output, events = await run(subject.make(), "count")
        assert str(output) == "One two three."
        assert list_kinds(events)[-3:] == ["AgentStream", "AgentOutput", "StopEvent"]
        streamed = [event for event in events if isinstance(event, AgentStream)]
        assert "".join(event.delta for event in streamed) == "One two three."
        assert streamed[-1].response == "One two three."

    async def test_thoughts_stream(self, subject: AgentSubject) -> None:
        """Check that thoughts stream as ``thinking_delta``, and are a block of the answer."""
        subject.script(Reply(text="One.", reasoning="Hm hm."))
        output, events = await run(subject.make(), "think")
        streamed = [event for event in events if isinstance(event, AgentStream)]
        assert "".join(event.thinking_delta or "" for event in streamed) == "Hm hm."
        assert isinstance(output.response.blocks[0], ThinkingBlock)

    async def test_tokens_are_told(self, subject: AgentSubject) -> None:
        """Check that the output's ``raw`` has the token counts."""
        subject.script("One.")
        output, _ = await run(subject.make(), "count")
        raw = output.raw if isinstance(output.raw, dict) else {}
        # The scripted model's usage if a script names none.
        assert (raw.get("usage") or {}).get("total_tokens") == 120

    async def test_local_tools_run_in_the_workflow(self, subject: AgentSubject) -> None:
        """Check that a call, its result and the next step follow, with the user's message once."""
        subject.script(
            Reply(text="Let me add.", tool_calls=[make_add_call(2, 3, "add-1")]), "It is 5."
        )
        output, events = await run(subject.make(tools=[add]), "2 + 3?")
        assert str(output) == "It is 5."
        shown = [name for name in list_kinds(events) if name not in ("AgentInput", "AgentSetup")]
        assert shown == [
            *["AgentStream", "AgentOutput", "ToolCall", "ToolCallResult"],
            *["AgentStream", "AgentOutput", "StopEvent"],
        ]
        assert [(c.tool_name, c.tool_output.content) for c in output.tool_calls] == [("add", "5")]
        assert await subject.said(output) == ["2 + 3?"]

    async def test_tools_run_at_the_same_time(self, subject: AgentSubject) -> None:
        """Check that two calls of one step run at once, and that one answer follows both."""
        both = asyncio.Event()
        met: list[str] = []

        async def meet(name: str) -> str:
            """Meet somebody."""
            met.append(name)
            # Neither call ends before both have begun.
            if len(met) == 2:
                both.set()
            await asyncio.wait_for(both.wait(), 10)
            return f"met {name}"

        calls = [ToolUse("meet", {"name": name}, id=f"meet-{name}") for name in ("Ada", "Bob")]
        subject.script(Reply(tool_calls=calls), "Both.")
        output, _ = await run(subject.make(tools=[meet]), "go")
        assert (str(output), sorted(met)) == ("Both.", ["Ada", "Bob"])
        assert sorted(c.tool_output.content for c in output.tool_calls) == ["met Ada", "met Bob"]

    async def test_a_tool_that_fails_is_told(self, subject: AgentSubject) -> None:
        """Check that the agent reads a tool's error, and that the run goes on."""
        subject.script(Reply(tool_calls=[ToolUse("explode", {"why": "boom"}, id="e-1")]), "I see.")
        output, _ = await run(subject.make(tools=[FunctionTool.from_defaults(explode)]), "go")
        assert str(output) == "I see."
        (result,) = output.tool_calls
        assert (result.tool_output.is_error, result.tool_output.content) == (True, "boom")

    async def test_structured_output(self, subject: AgentSubject) -> None:
        """Check that ``output_cls`` gives an object of that class."""
        subject.script("Ada is 36.", self.structured(subject))
        output, _ = await run(subject.make(output_cls=Person), "Who?")
        assert output.get_pydantic_model(Person) == Person(name="Ada", age=36)

    def structured(self, subject: AgentSubject) -> Any:
        """Return the model's answer when a ``Person`` is asked for: JSON, or a tool call."""
        return ADA

    @pytest.mark.parametrize("method", ["force", "generate"])
    async def test_too_many_rounds(self, subject: AgentSubject, method: str) -> None:
        """Check that too many rounds are an error, or an answer from the results so far."""
        subject.script(Reply(tool_calls=[make_add_call(1, 1, "round-1")]), "Enough.", "Still here.")
        agent = subject.make(tools=[add], early_stopping_method=method)
        if method == "force":
            with pytest.raises(WorkflowRuntimeError, match="Max iterations"):
                await run(agent, "go", max_iterations=1)
            return
        output, _ = await run(agent, "go", max_iterations=1)
        assert str(output) == "Enough."

    # -- several runs -----------------------------------------------------------------------

    async def test_it_remembers_between_two_runs(self, subject: AgentSubject) -> None:
        """Check that two runs on one context are one conversation, and nothing is said twice."""
        subject.script("First.", "Second.")
        agent = subject.make()
        ctx = Context(agent)
        with _ignore_old_fields():
            await run(agent, "one", ctx)
            second, _ = await run(agent, "two", ctx)
        assert await subject.said(second) == ["one", "two"]

    async def test_it_remembers_in_another_process(self, subject: AgentSubject) -> None:
        """Check that a stored context works with another agent object."""
        subject.script("First.", "Second.")
        agent = subject.make(name="ada")
        ctx = Context(agent)
        with _ignore_old_fields():
            await run(agent, "one", ctx)
            # By way of JSON text, as a database would keep it: an object that survives as a
            # reference would hide what is not stored.
            stored = json.dumps(ctx.to_dict(serializer=JsonSerializer()))
            again = subject.make(name="ada")
            resumed = Context.from_dict(again, json.loads(stored), serializer=JsonSerializer())
            second, _ = await run(again, "two", resumed)
        assert await subject.said(second) == ["one", "two"]

    async def test_a_result_that_is_the_answer(self, subject: AgentSubject) -> None:
        """Check ``return_direct``, and a run after it."""
        subject.script(Reply(tool_calls=[make_add_call(2, 3, "direct-1")]), "And more.")
        agent = subject.make(tools=[FunctionTool.from_defaults(add, return_direct=True)])
        ctx = Context(agent)
        with _ignore_old_fields():
            output, _ = await run(agent, "2 + 3?", ctx)
            assert str(output) == "5"
            output, _ = await run(agent, "go on", ctx)
        assert str(output) == "And more."

    async def test_contexts_do_not_see_each_other(self, subject: AgentSubject) -> None:
        """Check that two contexts of one agent are two conversations."""
        subject.script("First.", "Second.")
        agent = subject.make()
        # Both contexts are of one agent object, which must keep nothing of the first.
        await run(agent, "one", Context(agent))
        second, _ = await run(agent, "two", Context(agent))
        assert await subject.said(second) == ["two"]

    async def test_saying_yes_twice_counts_twice(self, subject: AgentSubject) -> None:
        """Check that the same words again are a new message."""
        subject.script("First.", "Second.")
        agent = subject.make()
        ctx = Context(agent)
        with _ignore_old_fields():
            await run(agent, "yes", ctx)
            output, _ = await run(agent, "yes", ctx)
        assert str(output) == "Second."
        assert await subject.said(output) == ["yes", "yes"]

    async def test_a_failed_turn_is_not_said_twice(self, subject: AgentSubject) -> None:
        """Check that the run after a failed one goes on, and every message is said once."""
        # Some servers ask the model again a few times, so one error is not enough.
        fails = [Reply(error=_QUOTA, when="two")] * 6
        subject.script("First.", *fails, Reply("Third.", when="three"))
        agent = subject.make()
        ctx = Context(agent)
        with _ignore_old_fields():
            await run(agent, "one", ctx)
            with pytest.raises(Exception, match=r"quota|Quota|two|step"):
                await run(agent, "two", ctx)
            output, _ = await run(agent, "three", ctx)
        assert str(output) == "Third."
        # Some servers keep the message of a failed turn, others are sent it again with the next
        # one. Either is right, as long as the agent read it once.
        said = " ".join(await subject.said(output))
        assert [said.count(word) for word in ("one", "two", "three")] == [1, 1, 1]

    # -- several agents ---------------------------------------------------------------------

    async def test_hand_off_and_back(self, subject: AgentSubject) -> None:
        """Check that an agent gives the run to another, and gets it back in the next run."""
        there = ToolUse("handoff", {"to_agent": "two", "reason": "It knows."}, id="handoff-1")
        back = ToolUse("handoff", {"to_agent": "one", "reason": "Done."}, id="handoff-2")
        subject.script(
            Reply(tool_calls=[there]), "Two here.", Reply(tool_calls=[back]), "One again."
        )
        one = subject.make(name="one", description="Knows nothing.", can_handoff_to=["two"])
        two = subject.make(name="two", description="Knows all.", can_handoff_to=["one"])
        workflow = AgentWorkflow(agents=[one, two], root_agent="one")
        ctx = Context(workflow)
        with _ignore_old_fields():
            output, events = await run(workflow, "help", ctx)
            assert (str(output), output.current_agent_name) == ("Two here.", "two")
            assert [e.tool_name for e in events if type(e) is ToolCall] == ["handoff"]
            output, _ = await run(workflow, "and now?", ctx)
        assert (str(output), output.current_agent_name) == ("One again.", "one")

    # -- who watches ------------------------------------------------------------------------

    async def test_a_turn_has_a_span_with_its_tokens(self, subject: AgentSubject) -> None:
        """Check that each step has one LLM span, closed at the stream's end, with the usage."""
        subject.script(Reply(tool_calls=[make_add_call(2, 3, "span-1")]), "It is 5.")
        with watching() as (spans, events):
            _, seen = await run(subject.make(tools=[add]), "2 + 3?")
        assert [type(e) for e in seen if isinstance(e, ToolCallResult)] == [ToolCallResult]
        ended = [result for how, result in spans.named("stream_chat") if how == "end"]
        totals = [(getattr(r, "raw", None) or {}).get("usage", {}) for r in ended]
        assert [usage.get("total_tokens") for usage in totals] == [120, 120]
        # A span that stays open leaks in every tracer, and shows as a call that never ended.
        assert spans.open_spans == {}
        assert len(events.named("LLMChatEndEvent")) == 2
