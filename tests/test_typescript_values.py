"""Values in the form of the TypeScript SDKs work or are refused by name; none is lost silently."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from letta_adapters import (
    Allow,
    AssistantMessage,
    InvalidInputError,
    Local,
    Remote,
    Rest,
    StreamEvent,
    StreamTextDelta,
    extract_stream_text_delta,
    tool,
)
from letta_adapters.langchain import ChatLetta
from letta_adapters.llama_index import LettaLLM
from letta_adapters.options import AgentOptions, SessionOptions
from letta_adapters.permissions import normalise_decision
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.model_protocol import Reply, ToolUse
from tools.typescript import load, read_rows

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
}
TEXT = {"type": "text", "text": "Sunny."}
WHOLE = {"message_type": "assistant_message", "content": "Hi"}
THOUGHT = {"message_type": "reasoning_message", "reasoning": "Hm"}


# -- fragments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "kind", "text"),
    [
        (WHOLE, "assistant", "Hi"),
        ({**WHOLE, "content": [{"type": "text", "text": "Hi"}]}, "assistant", "Hi"),
        ({**WHOLE, "content": {"type": "text", "text": "Hi"}}, "assistant", "Hi"),
        (THOUGHT, "reasoning", "Hm"),
        (
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}},
            "assistant",
            "Hi",
        ),
        ({"type": "content_block_delta", "delta": {"reasoning": "Hm"}}, "reasoning", "Hm"),
    ],
)
def test_text_of_a_fragment_in_every_form(event: dict[str, Any], kind: Any, text: str) -> None:
    expected = StreamTextDelta(kind, text)
    assert extract_stream_text_delta(StreamEvent(event)) == expected
    assert extract_stream_text_delta(StreamEvent(event).to_dict()) == expected
    # In TypeScript the function takes the event alone.
    assert extract_stream_text_delta(event) == expected


@pytest.mark.parametrize(
    "message",
    [
        None,
        "Hi",
        {},
        AssistantMessage("Hi"),
        AssistantMessage("Hi").to_dict(),
        StreamEvent({"type": "content_block_start", "content_block": {"type": "text"}}),
        StreamEvent({"type": "content_block_delta", "delta": {"text": ""}}),
        StreamEvent({"type": "content_block_delta", "delta": None}),
        {"type": "stream_event", "event": None},
        {"message_type": "tool_call_message"},
        {"message_type": ["assistant_message"]},
        {"message_type": "assistant_message", "content": [{"type": "text", "text": 5}]},
    ],
)
def test_no_text_where_there_is_no_fragment_of_one(message: Any) -> None:
    assert extract_stream_text_delta(message) is None


# -- results of tools ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "content", "is_error"),
    [
        ({"content": [TEXT]}, [TEXT], False),
        ({"content": [TEXT], "details": {"a": 1}}, [TEXT], False),
        ({"content": [TEXT], "isError": False}, [TEXT], False),
        ({"content": [TEXT], "isError": True}, [TEXT], True),
        ({"content": [TEXT], "is_error": True, "details": None}, [TEXT], True),
        ({"content": "No such city.", "isError": True}, "No such city.", True),
        ({"content": [], "isError": True}, "", True),
        (
            {"content": [TEXT, {"type": "image", "data": PNG, "mimeType": "image/png"}]},
            [TEXT, IMAGE],
            False,
        ),
        ([{"type": "image", "data": PNG, "mimeType": "image/png"}], [IMAGE], False),
        ({"content": [{"type": "text", "text": ""}]}, "", False),
        # Data that only has the same word in it.
        ({"content": "a page"}, '{"content":"a page"}', False),
        ({"content": [1]}, '{"content":[1]}', False),
        ({"content": [TEXT], "isError": "no"}, None, False),
        ({"content": [TEXT], "isError": True, "is_error": False}, None, False),
        ({"content": [TEXT], "title": "a page"}, None, False),
    ],
)
async def test_result_of_a_tool_in_the_sdk_s_form(
    returned: Any, content: Any, is_error: bool
) -> None:
    result = await tool(lambda: returned, name="weather").run({})
    assert result.is_error is is_error
    if content is None:
        assert isinstance(result.content, str)
        assert '"Sunny."' in result.content
    else:
        assert result.content == content


def test_a_failure_in_the_sdk_s_form_reaches_the_agent_as_one() -> None:
    letta = FakeLetta(Reply(tool_calls=[ToolUse("weather", {})]), "It failed.")

    def weather() -> dict[str, Any]:
        """Return the weather."""
        return {"content": [{"type": "text", "text": "No network."}], "isError": True}

    with letta.client() as client, client.create_session(None, tools=[weather]) as session:
        session.send("Sunny?")
        results = [m for m in session.stream() if m.type == "tool_result"]
    assert [(r.content, r.is_error) for r in results] == [("No network.", True)]


def test_a_tool_as_an_object_with_its_function_is_refused() -> None:
    given = {"name": "weather", "label": "Weather", "parameters": {}, "execute": lambda _, a: a}
    with pytest.raises(InvalidInputError, match=r"'execute'.*tool\(fn, name="):
        tool(given)


# -- options ------------------------------------------------------------------------------------

GIVEN = {
    "CreateAgentOptions": AgentOptions,
    "CreateSessionOptions": SessionOptions,
    "LettaCodeClientSessionOptions": SessionOptions,
    "LettaCodeLocalAppServerOptions": Local,
    "LettaCodeRemoteClientOptions": Remote,
    "LettaCodeCloudClientOptions": Rest,
}


def _spelled_otherwise() -> list[tuple[Any, str, str]]:
    """Return options class, its name in TypeScript, and the word that an error has to hold."""
    found = []
    for row in read_rows(load()):
        owner, _, name = row.name.partition(".")
        cls = GIVEN.get(owner)
        if cls is None or not name or not row.ours or name in cls.model_fields or name == "backend":
            continue
        found.append((cls, name, re.findall(r"\w+", row.ours)[-1]))
    return found


@pytest.mark.parametrize(("cls", "name", "ours"), _spelled_otherwise())
def test_an_option_in_the_sdk_s_spelling_is_refused_with_ours(
    cls: Any, name: str, ours: str
) -> None:
    # `base_tools` is there as well; its own error says that it takes no list.
    wanted = "base_tools" if name == "baseTools" else ours
    with pytest.raises(InvalidInputError, match=rf"{name}: is not an option.*\b{wanted}\b"):
        cls(**{name: 1}, **({"url": "ws://127.0.0.1:1"} if cls is Remote else {}))


@pytest.mark.parametrize("cls", [ChatLetta, LettaLLM])
@pytest.mark.parametrize(
    ("name", "ours"), [("agentId", "agent_id"), ("sessionOptions", "session_options")]
)
def test_the_adapters_say_the_same(cls: Any, name: str, ours: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"'{name}'.*'{ours}'"):
        cls(**{name: "x"})


@pytest.mark.parametrize("prompt", [{"preset": "default"}, {"type": "custom", "text": "Hi"}])
def test_no_object_is_a_prompt(prompt: Any) -> None:
    with pytest.raises(InvalidInputError, match="append_system_prompt"):
        AgentOptions(system_prompt=prompt)


def test_a_reference_to_a_block_says_where_it_goes() -> None:
    with pytest.raises(InvalidInputError, match=r"blockId: is not an option.*block_ids"):
        AgentOptions(memory=[{"blockId": "block-1"}])


# -- permissions --------------------------------------------------------------------------------


def test_chosen_suggestions_are_saved() -> None:
    answer = {"behavior": "allow", "updatedInput": None, "updatedPermissions": ["save-default"]}
    assert normalise_decision(answer) == Allow(save=("save-default",))


@pytest.mark.parametrize("rules", ["save-default", [{"tool": "Bash"}], ["a", 1], {"a": 1}])
def test_rules_are_refused_by_name(rules: Any) -> None:
    with pytest.raises(InvalidInputError, match="updatedPermissions"):
        normalise_decision({"behavior": "allow", "updatedPermissions": rules})


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.agents.update("agent-1", modelSettings={}),
        lambda client: client.conversations.create("agent-1", modelSettings={}),
        lambda client: client.conversations.update("conv-1", modelSettings={}),
    ],
)
def test_a_field_of_the_api_in_typescripts_spelling_is_refused_and_not_ignored(call: Any) -> None:
    fake = FakeLetta()
    with fake.client() as client, pytest.raises(InvalidInputError, match="'modelSettings'") as said:
        call(client)
    assert "'model_settings'" in str(said.value.hint)
