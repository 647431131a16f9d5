"""OpenTelemetry sees one tree for each turn, which ends once, and no content without consent."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from letta_adapters import (
    ConfigurationError,
    LettaError,
    ToolCallMessage,
    ToolResultMessage,
    Usage,
    tracing,
)
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.model_protocol import Reply, ToolUse
from letta_adapters.tracing.spans import NOTHING_AROUND, TurnTrace, get_instruments

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class World:
    """An application's own providers, which keep what they get."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.tracer = self.tracers.get_tracer("application")

    def instrument(self, **options: Any) -> None:
        tracing.instrument(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def names(self) -> list[str]:
        return [span.name for span in self.spans.get_finished_spans()]

    def one(self, name: str) -> ReadableSpan:
        (span,) = [s for s in self.spans.get_finished_spans() if s.name.split(" ")[0] == name]
        return span

    def parent(self, name: str) -> str | None:
        parent = self.one(name).parent
        if parent is None:
            return None
        found = {s.context.span_id: s.name for s in self.spans.get_finished_spans()}
        return found[parent.span_id]

    def sums(self, metric: str) -> dict[tuple[str, ...], float]:
        """Return the sums of a metric by operation and kind of token."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            tuple(
                str(point.attributes[name])
                for name in ("gen_ai.operation.name", "gen_ai.token.type", "error.type")
                if name in point.attributes
            ): point.sum
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for found in scope.metrics
            if found.name == metric
            for point in found.data.data_points
        }


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.instrument()
    yield made
    tracing.uninstrument()


def _tool(world: World) -> Any:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        with world.tracer.start_as_current_span("inner"):
            return a + b

    return add


def _script() -> FakeLetta:
    return FakeLetta(Reply(tool_calls=[ToolUse("add", {"a": 1, "b": 2})]), "It is three.")


def _check_tree(world: World) -> None:
    assert sorted(world.names()) == [
        "chat fake/model",
        "chat fake/model",
        "execute_tool add",
        "inner",
        "invoke_agent",
        "outer",
    ]
    assert world.parent("inner") == "execute_tool add"
    assert world.parent("execute_tool") == "invoke_agent"
    assert world.parent("invoke_agent") == "outer"
    turn = dict(world.one("invoke_agent").attributes or {})
    assert turn["gen_ai.operation.name"] == "invoke_agent"
    assert turn["gen_ai.provider.name"] == "letta"
    assert str(turn["gen_ai.agent.id"]).startswith("agent-")
    assert str(turn["gen_ai.conversation.id"]).startswith("conv-")
    assert turn["gen_ai.request.model"] == "fake/model"
    assert turn["gen_ai.response.finish_reasons"] == ("end_turn",)
    assert turn["gen_ai.usage.input_tokens"] == 200
    assert turn["gen_ai.usage.output_tokens"] == 40
    called = dict(world.one("execute_tool").attributes or {})
    assert called["gen_ai.tool.name"] == "add"
    assert str(called["gen_ai.tool.call.id"]).startswith("call-")
    assert world.sums("gen_ai.client.token.usage") == {
        ("invoke_agent", "input"): 200,
        ("invoke_agent", "output"): 40,
    }
    assert set(world.sums("gen_ai.client.operation.duration")) == {
        ("invoke_agent",),
        ("chat",),
        ("execute_tool",),
    }
    assert set(world.sums("gen_ai.client.operation.time_to_first_chunk")) == {("chat",)}
    # No content, as nobody has asked for it.
    assert "three" not in str([dict(s.attributes or {}) for s in world.spans.get_finished_spans()])


def test_a_blocking_turn_is_one_tree_over_its_threads(world: World) -> None:
    with _script().client() as client, world.tracer.start_as_current_span("outer"):
        with client.create_session(tools=[_tool(world)]) as session:
            assert session.run_turn("What is 1 + 2?").success
    _check_tree(world)


async def test_an_asynchronous_turn_is_one_tree(world: World) -> None:
    async with _script().async_client() as client:
        with world.tracer.start_as_current_span("outer"):
            async with client.create_session(tools=[_tool(world)]) as session:
                await session.send("What is 1 + 2?")
                async for _ in session.stream():
                    # The turn's span is not the reader's.
                    with world.tracer.start_as_current_span("reading"):
                        pass
    assert {
        s.parent.span_id
        for s in world.spans.get_finished_spans()
        if s.name == "reading" and s.parent
    } == {world.one("outer").context.span_id}
    kept = [s for s in world.spans.get_finished_spans() if s.name != "reading"]
    world.spans.clear()
    world.spans.export(kept)
    _check_tree(world)


async def test_content_is_captured_where_the_environment_asks_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    world.instrument()
    async with _script().async_client() as client:
        async with client.create_session(tools=[_tool(world)]) as session:
            await session.run_turn("What is 1 + 2?")
    turn = dict(world.one("invoke_agent").attributes or {})
    assert json.loads(str(turn["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": "What is 1 + 2?"}]}
    ]
    assert json.loads(str(turn["gen_ai.output.messages"])) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "It is three."}]}
    ]
    called = dict(world.one("execute_tool").attributes or {})
    assert json.loads(str(called["gen_ai.tool.call.arguments"])) == {"a": 1, "b": 2}
    assert called["gen_ai.tool.call.result"] == "3"


def _failed(world: World) -> str:
    span = world.one("invoke_agent")
    assert span.status.status_code.name == "ERROR"
    return str((span.attributes or {})["error.type"])


async def test_a_stream_that_is_left_in_the_middle_ends_its_span_once(world: World) -> None:
    async with FakeLetta("One two three.").async_client() as client:
        async with client.create_session(include_partial_messages=True) as session:
            await session.send("Count.")
            async with session.stream() as stream:
                await stream.__anext__()
            assert _failed(world) == "cancelled"
    assert world.names().count("invoke_agent") == 1


async def test_an_abort_ends_the_span_once(world: World) -> None:
    letta = FakeLetta(Reply("One two three.", token_delay=0.05))
    async with letta.async_client() as client:
        async with client.create_session(include_partial_messages=True) as session:
            await session.send("Count.")
            stream = session.stream()
            await stream.__anext__()
            await stream.__anext__()
            await session.abort()
            async for _ in stream:
                pass
    assert _failed(world) == "cancelled"


async def test_a_turn_that_nobody_reads_ends_with_its_session(world: World) -> None:
    async with FakeLetta("One two three.").async_client() as client:
        async with client.create_session() as session:
            await session.send("Count.")
            assert world.names() == []
    assert _failed(world) == "cancelled"


async def test_a_cancelled_task_ends_the_spans_of_its_turn_and_tool(world: World) -> None:
    began = asyncio.Event()

    async def wait() -> str:
        """Wait."""
        began.set()
        await asyncio.sleep(60)
        return ""

    letta = FakeLetta(Reply(tool_calls=[ToolUse("wait", {})]))
    async with letta.async_client() as client:
        async with client.create_session(tools=[wait]) as session:
            running = asyncio.ensure_future(session.run_turn("Wait."))
            await began.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
    assert _failed(world) == "cancelled"
    assert (world.one("execute_tool").attributes or {})["error.type"] == "cancelled"


async def test_a_message_that_is_refused_has_a_failed_span(world: World) -> None:
    letta = FakeLetta()
    async with letta.async_client() as client:
        async with client.create_session() as session:
            opened = await session.initialize()
            await client.conversations.delete(opened.conversation_id)
            with pytest.raises(LettaError) as caught:
                await session.run_turn("Hi.")
    assert _failed(world) == caught.value.code


async def test_a_failing_tool_has_a_failed_span(world: World) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        raise ValueError("broken")

    async with _script().async_client() as client:
        async with client.create_session(tools=[add]) as session:
            assert (await session.run_turn("Go.")).success
    assert (world.one("execute_tool").attributes or {})["error.type"] == "tool_error"
    assert world.one("invoke_agent").status.status_code.name == "UNSET"


class Broken(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("on_start")

    def on_end(self, span: Any) -> None:
        raise RuntimeError("on_end")


async def test_a_broken_processor_breaks_no_turn(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.tracers.add_span_processor(Broken())
    world.instrument()
    try:
        async with _script().async_client() as client:
            async with client.create_session(tools=[lambda_free_add]) as session:
                assert (await session.run_turn("What is 1 + 2?")).result == "It is three."
    finally:
        tracing.uninstrument()
    assert "OpenTelemetry failed; the turn goes on." in caplog.text


def lambda_free_add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


lambda_free_add.__name__ = "add"


def test_a_tool_of_the_server_is_a_span_from_its_call_to_its_result(world: World) -> None:
    on = get_instruments()
    assert on is not None
    trace = TurnTrace(on, {}, {}, content=None, around=NOTHING_AROUND)
    trace.see([ToolCallMessage("call-1", "web_search", {})])
    trace.see([ToolResultMessage("call-1", "found", False)])
    # This one is asked about first, and denied: nothing runs.
    trace.see([ToolCallMessage("call-2", "send_mail", {}, requires_approval=True)])
    trace.see([ToolResultMessage("call-2", "denied", True)])
    trace.end(Usage(), None, {}, None)
    trace.end(Usage(), "late", {}, None)
    assert world.names() == ["chat", "execute_tool web_search", "chat", "invoke_agent"]


@pytest.mark.parametrize("adapter", ["langchain", "llama_index"])
def test_an_adapter_s_tokens_are_counted_by_its_framework_alone(world: World, adapter: str) -> None:
    client = FakeLetta("Hello.").client()
    if adapter == "langchain":
        pytest.importorskip("langchain_core", reason="the extra `langchain` is not installed")
        from letta_adapters.langchain import ChatLetta

        assert ChatLetta(client=client).invoke("Hi.").text == "Hello."
    else:
        pytest.importorskip("llama_index.core", reason="the extra `llama-index` is not installed")
        from letta_adapters.llama_index import LettaLLM

        assert str(LettaLLM(client=client).complete("Hi.")) == "Hello."
    turn = dict(world.one("invoke_agent").attributes or {})
    assert [name for name in turn if name.startswith("gen_ai.usage")] == []
    assert turn["letta.usage.input_tokens"] == 100
    assert world.sums("gen_ai.client.token.usage")[("invoke_agent", "input")] == 100
    client.close()


async def test_after_uninstrument_nothing_is_reported(world: World) -> None:
    tracing.uninstrument()
    async with FakeLetta("Hello.").async_client() as client:
        await client.prompt("Hi.")
    assert world.names() == []


def test_without_opentelemetry_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"letta-adapters\[otel\]"):
        tracing.instrument()
