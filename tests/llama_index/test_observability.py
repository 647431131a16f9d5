"""What LlamaIndex' instrumentation sees of calls, steps and the agent's own tools."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.callbacks.llama_debug import LlamaDebugHandler

from letta_adapters import LettaClient, LettaError
from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.llama_index.instrumentation import ServerTool, active_span_id
from letta_adapters.testing.llama_index import Spans, watching
from letta_adapters.testing.llama_index.agents import run
from letta_adapters.testing.scripted_model import ModelError, Reply, ScriptedModel, ToolUse
from tests.llama_index.test_llm import USER

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
QUOTA = ModelError(429, "No quota left", "insufficient_quota", "insufficient_quota")


@pytest.fixture
def watched() -> Iterator[tuple[Spans, Any]]:
    with watching() as both:
        yield both


@pytest.fixture
def spans(watched: tuple[Spans, Any]) -> Spans:
    return watched[0]


@pytest.fixture
def events(watched: tuple[Spans, Any]) -> Any:
    return watched[1]


@pytest.fixture
def llm(embedded: LettaClient, embedded_agent: str, embedded_model: ScriptedModel) -> LettaLLM:
    embedded_model.clear()
    return LettaLLM(agent_id=embedded_agent, client=embedded)


@pytest.fixture
def script(embedded_model: ScriptedModel) -> Any:
    return embedded_model.script


async def test_the_span_of_a_stream_is_open_until_its_end(
    llm: LettaLLM, script: Any, spans: Spans, events: Any
) -> None:
    script(*["One two."] * 4)
    for _ in llm.stream_chat(USER):
        assert spans.named("stream_chat") == []
        assert active_span_id.get() is None, "what is done between two tokens is no part of it"
    async for _ in await llm.astream_chat(USER):
        assert spans.named("astream_chat") == []
    assert len(list(llm.stream_complete("hi"))) > 1
    assert len([_ async for _ in await llm.astream_complete("hi")]) > 1
    ended = [(name, how, result.raw["usage"]["total_tokens"]) for name, how, result in spans.seen]
    assert ended == [
        (f"LettaLLM.{method}", "end", 120)
        for method in ("stream_chat", "astream_chat", "stream_complete", "astream_complete")
    ]
    assert spans.open_spans == {}
    chats = [e for e in events.seen if type(e).__name__.startswith("LLMChat")]
    assert {event.span_id.partition("-")[0] for event in chats} == {
        "LettaLLM.stream_chat",
        "LettaLLM.astream_chat",
    }


def test_a_stream_that_is_left_early_ends_well(llm: LettaLLM, script: Any, spans: Spans) -> None:
    script("One two three.", "Fine.")
    stream = llm.stream_chat(USER)
    next(stream)
    stream.close()
    ((how, result),) = spans.named("stream_chat")
    assert (how, result.delta) == ("end", "One ")


async def test_a_stream_that_fails_is_dropped(llm: LettaLLM, script: Any, spans: Spans) -> None:
    script(Reply(error=QUOTA), Reply(error=QUOTA))
    with pytest.raises(LettaError, match="quota"):
        list(llm.stream_chat(USER))
    with pytest.raises(LettaError, match="quota"):
        [_ async for _ in await llm.astream_complete("hi")]
    assert [how for _, how, _ in spans.seen] == ["drop", "drop"]


async def test_calls_that_fail(llm: LettaLLM, script: Any, events: Any) -> None:
    script(*[Reply(error=QUOTA)] * 4)
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm.callback_manager = CallbackManager([debug])
    for call in (lambda: llm.chat(USER), lambda: llm.complete("hi")):
        with pytest.raises(LettaError, match="quota"):
            call()
    with pytest.raises(LettaError, match="quota"):
        await llm.achat(USER)
    with pytest.raises(LettaError, match="quota"):
        await llm.acomplete("hi")
    assert len(events.named("ExceptionEvent")) >= 4
    pairs = debug.get_event_pairs(CBEventType.LLM)
    assert ["exception" in (end.payload or {}) for _, end in pairs] == [True] * 4


def test_a_stream_nobody_reads_does_not_stay_open(llm: LettaLLM, spans: Spans) -> None:
    stream = llm.stream_chat(USER)
    assert len(spans.open_spans) == 1
    del stream
    gc.collect()
    assert (spans.open_spans, spans.named("stream_chat")) == ({}, [("end", None)])


async def test_an_agents_own_tools_have_spans(
    embedded: LettaClient,
    embedded_agent: str,
    llm: LettaLLM,
    script: Any,
    spans: Spans,
    events: Any,
    tmp_path: Path,
) -> None:
    uses = [
        ToolUse("Bash", {"command": command, "description": "a test"}, id=f"seen-{command[:4]}")
        for command in ("echo seen", "exit 3")
    ]
    script(Reply(text="Let me see.", tool_calls=uses), "Done.")
    options = {"permission_mode": "unrestricted", "cwd": tmp_path}
    agent = LettaAgent(agent_id=embedded_agent, client=embedded, session_options=options)
    await run(agent, "go")
    (good, output), (bad, error) = spans.named("Bash")
    assert (good, "seen" in output.content, bad) == ("end", True, "drop")
    assert "3" in str(error)
    assert str(spans.parents["Bash.acall"]).startswith("BaseWorkflowAgent.run_agent_step")
    called = events.named("AgentToolCallEvent")
    assert [event.tool.name for event in called] == ["Bash", "Bash"]
    assert all(event.span_id.startswith("Bash.acall") for event in called)
    # The turn itself counts like a call of a model.
    ((how, response),) = spans.named("LettaLLM.astream_chat")
    assert (how, response.raw["usage"]["total_tokens"]) == ("end", 240)
    assert spans.open_spans == {}


async def test_an_agents_turn_that_fails_is_dropped(
    embedded: LettaClient, embedded_agent: str, llm: LettaLLM, script: Any, spans: Spans
) -> None:
    script(Reply(error=QUOTA))
    agent = LettaAgent(agent_id=embedded_agent, client=embedded)
    with pytest.raises(LettaError, match="quota"):
        await run(agent, "go")
    assert [how for how, _ in spans.named("LettaLLM.astream_chat")] == ["drop"]


def test_a_tool_of_the_agent_cannot_be_run_from_here() -> None:
    with pytest.raises(NotImplementedError, match="agent's side"):
        ServerTool("Bash")("ls")
