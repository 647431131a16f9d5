"""A call that cannot be made is refused before anything is sent."""

from __future__ import annotations

import math
from typing import Any

import pytest

from letta_adapters import InvalidInputError
from letta_adapters.chat import ChatRequest, HistoryMessage
from letta_adapters.chat.request import Place, check_request
from letta_adapters.messages import PendingToolCall
from tests.chat.builders import IMAGE, OTHER_TOOL, TOOL, result, user

# Half of a surrogate pair, as an odd file name has it: UTF-8 cannot hold it.
ODD = "\udc80"


def test_a_call_that_can_be_made_stays_as_it_is() -> None:
    call = ChatRequest(
        entries=[HistoryMessage("system", "Be brief."), user("Hello."), result("3")],
        tools=[TOOL, OTHER_TOOL],
        agent_id="agent-1",
        conversation_id="conv-1",
        thread_id="t",
        timeout=0.5,
        max_steps=1,
        model="openai/gpt-4o",
    )
    assert check_request(call) == call


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"agent_id": ""}, "agent id"),
        ({"agent_id": "agent-1/../x"}, "agent id"),
        ({"agent_id": "conv-1"}, "agent id"),
        ({"conversation_id": ""}, "conversation id"),
        ({"conversation_id": "a b"}, "conversation id"),
        ({"thread_id": ""}, "thread_id is empty"),
        ({"thread_id": "  "}, "thread_id is empty"),
        ({"place": Place(" ")}, "thread_id is empty"),
        ({"timeout": 0}, "greater than 0, not 0"),
        ({"timeout": -1.0}, "greater than 0, not -1.0"),
        ({"timeout": math.nan}, "not nan"),
        ({"timeout": math.inf}, "not inf"),
        ({"max_steps": 0}, "at least 1, not 0"),
        ({"model": ""}, "model is empty"),
        ({"tools": [TOOL, TOOL]}, "add"),
        ({"tools": [{"name": "no spaces"}]}, "no spaces"),
    ],
)
def test_a_call_that_cannot_be_made_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_request(ChatRequest(entries=[user("Hello.")], **fields))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"thread_id": ODD}, "thread_id"),
        ({"place": Place(f"t{ODD}")}, "thread_id"),
        ({"model": ODD}, "The model's name"),
        ({"note": ODD}, "The note"),
        ({"tools": [{**TOOL, "description": ODD}]}, "The tool 'add'"),
        ({"tools": [{**TOOL, "parameters": {"properties": {ODD: {}}}}]}, "The tool 'add'"),
        ({"tools": [{**TOOL, "parameters": {"enum": ["a", ODD]}}]}, "The tool 'add'"),
        ({"entries": [user(ODD)]}, "role 'user'"),
        ({"entries": [HistoryMessage("system", ODD)]}, "role 'system'"),
        ({"entries": [user("Hello.", name=ODD)]}, "role 'user'"),
        (
            {
                "entries": [
                    HistoryMessage("assistant", tool_calls=(PendingToolCall("c", "add", ODD),))
                ]
            },
            "role 'assistant'",
        ),
    ],
)
def test_text_that_cannot_be_sent_is_refused_by_the_name_of_its_place(
    fields: dict[str, Any], where: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_request(ChatRequest(**{"entries": [user("Hello.")], **fields}))
    assert where in str(caught.value)


def test_results_of_tools_are_cleaned_instead() -> None:
    parts = [{"type": "text", "text": f"file{ODD}.txt"}, IMAGE]
    made = check_request(
        ChatRequest(entries=[result(f"file{ODD}.txt"), result(parts), user("Which?")])
    )
    assert [entry.content for entry in made.entries] == [
        "file?.txt",
        [{"type": "text", "text": "file?.txt"}, IMAGE],
        "Which?",
    ]


def test_results_in_any_script_are_left_alone() -> None:
    made = check_request(ChatRequest(entries=[result("Grüße, 世界 🌍")]))
    assert made.entries[0].content == "Grüße, 世界 🌍"


def test_the_call_that_was_given_is_not_changed() -> None:
    entries = [result(ODD)]
    check_request(ChatRequest(entries=entries))
    assert entries == [result(ODD)]
