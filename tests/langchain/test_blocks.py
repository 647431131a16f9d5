"""Images and other blocks in a history are delivered, or refused by name; none vanishes."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

from letta_adapters import InvalidInputError
from letta_adapters.chat.payload import as_message, as_request
from letta_adapters.chat.request import HistoryMessage
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
IMAGE = {"type": "image", "base64": PIXEL, "mime_type": "image/png"}
MEDIA: list[Any] = [
    {"type": "audio", "base64": PIXEL, "mime_type": "audio/wav"},
    {"type": "video", "base64": PIXEL, "mime_type": "video/mp4"},
    {"type": "file", "base64": PIXEL, "mime_type": "application/pdf"},
]


def images(letta: FakeLetta) -> list[str]:
    """The images of the last request, wherever in it they stand."""
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("type") == "image":
                found.append(value["source"]["data"])
            for item in value.values():
                look(item)
        elif isinstance(value, list):
            for item in value:
                look(item)

    look(letta.requests[-1]["messages"])
    return found


@pytest.mark.parametrize("tail", [[HumanMessage("What was it?")], []], ids=["asked", "last"])
def test_an_image_that_another_model_gave_is_delivered(
    letta_fake: FakeLetta, tail: list[Any]
) -> None:
    drawn = AIMessage([{"type": "text", "text": "Here it is."}, IMAGE])
    ChatLetta(client=letta_fake.client()).invoke([HumanMessage("Draw."), drawn, *tail])
    assert [base64.b64decode(i) for i in images(letta_fake)] == [base64.b64decode(PIXEL)]
    assert "Here it is." in str(letta_fake.requests[-1])


def test_an_image_in_a_result_that_nobody_waits_for_is_delivered(letta_fake: FakeLetta) -> None:
    call: Any = {"name": "photo", "args": {}, "id": "c1", "type": "tool_call"}
    history = [
        HumanMessage("Look."),
        AIMessage("", tool_calls=[call]),
        ToolMessage([{"type": "text", "text": "A photo."}, IMAGE], tool_call_id="c1"),
    ]
    for tail in ([], [HumanMessage("Well?")]):
        ChatLetta(client=letta_fake.client()).invoke([*history, *tail])
        assert len(images(letta_fake)) == 1


def test_an_image_that_a_tool_gave_is_delivered(letta_fake: FakeLetta) -> None:
    @tool
    def photo() -> list[dict[str, Any]]:
        """Take a photo."""
        return [{"type": "text", "text": "A photo."}, IMAGE]

    letta_fake.script(Reply(tool_calls=[ToolUse("photo", {}, id="c1")]), "Nice.")
    agent = LettaRunnable(client=letta_fake.client(), tools=[photo], output="text")
    assert agent.invoke("go") == "Nice."
    assert len(images(letta_fake)) == 1


@pytest.mark.parametrize("block", [IMAGE, *MEDIA], ids=lambda b: b["type"])
def test_what_a_system_message_cannot_hold_is_refused(letta_fake: FakeLetta, block: Any) -> None:
    system = SystemMessage([{"type": "text", "text": "Be kind."}, block])
    with pytest.raises(InvalidInputError, match=block["type"]):
        ChatLetta(client=letta_fake.client()).invoke([system, HumanMessage("hello")])
    assert letta_fake.requests == []


@pytest.mark.parametrize("block", MEDIA, ids=lambda b: b["type"])
@pytest.mark.parametrize("role", [AIMessage, HumanMessage])
def test_what_no_letta_message_holds_is_refused(
    letta_fake: FakeLetta, role: Any, block: Any
) -> None:
    with pytest.raises(InvalidInputError, match=block["type"]):
        ChatLetta(client=letta_fake.client()).invoke([role([block]), HumanMessage("hello")])
    assert letta_fake.requests == []


def test_a_model_s_own_affairs_in_its_answers_say_nothing(letta_fake: FakeLetta) -> None:
    answer = AIMessage(
        [
            {"type": "reasoning", "reasoning": "Hm."},
            {"type": "some_provider_thing", "value": 1},
            {"type": "text", "text": "Yes."},
        ]
    )
    ChatLetta(client=letta_fake.client()).invoke([HumanMessage("a"), answer, HumanMessage("b")])
    assert "Yes." in str(letta_fake.requests[-1])


@pytest.mark.parametrize("role", ["tool", "assistant"])
def test_an_app_server_gets_the_images_too(role: Any) -> None:
    part = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    given = HistoryMessage(role, [{"type": "text", "text": "See."}, part], tool_call_id="c1")
    for tail in ([], [HistoryMessage("user", "Well?")]):
        for sent in (
            as_message([given, *tail], ""),
            as_request([HistoryMessage("user", "a"), given], ""),
        ):
            held = [*sent.history, {"content": sent.content}]
            found = [p for m in held if isinstance(m["content"], list) for p in m["content"]]
            assert part in found
