"""What a ``can_use_tool`` callback may answer."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from letta_adapters.errors import InvalidInputError
from letta_adapters.options import SessionOptions
from letta_adapters.permissions import (
    Allow,
    Deny,
    PermissionContext,
    encode_decision,
    normalise_decision,
)


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        (True, Allow()),
        (False, Deny()),
        (Allow(), Allow()),
        (Allow({"city": "Rome"}), Allow({"city": "Rome"})),
        (Deny("no", interrupt=True), Deny("no", True)),
        ({"behavior": "allow"}, Allow()),
        ({"behavior": "allow", "updatedInput": None}, Allow()),
        ({"behavior": "allow", "message": "go on"}, Allow(message="go on")),
        ({"behavior": "allow", "updatedPermissions": []}, Allow()),
        ({"behavior": "allow", "updatedInput": {}}, Allow({})),
        ({"behavior": "allow", "updatedInput": {"a": 1}}, Allow({"a": 1})),
        ({"behavior": "allow", "updated_input": {"a": 1}}, Allow({"a": 1})),
        ({"behavior": "allow", "updatedPermissions": []}, Allow()),
        ({"behavior": "deny"}, Deny()),
        ({"behavior": "deny", "message": None, "interrupt": None}, Deny()),
        ({"behavior": "deny", "message": "no", "interrupt": True}, Deny("no", True)),
    ],
)
def test_answers(answer: object, decision: Allow | Deny) -> None:
    assert normalise_decision(answer) == decision


@pytest.mark.parametrize(
    ("decision", "stored"),
    [
        (Allow(), {"behavior": "allow"}),
        (
            Allow({"city": "Rome"}, ("rule-1",), "Carefully."),
            {
                "behavior": "allow",
                "updatedInput": {"city": "Rome"},
                "save": ["rule-1"],
                "message": "Carefully.",
            },
        ),
        (Deny(), {"behavior": "deny", "message": ""}),
        (Deny("no", True), {"behavior": "deny", "message": "no", "interrupt": True}),
    ],
)
def test_a_decision_is_stored_as_json_and_read_again(
    decision: Allow | Deny, stored: dict[str, Any]
) -> None:
    assert encode_decision(decision) == stored
    assert normalise_decision(json.loads(json.dumps(stored))) == decision


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (None, "NoneType"),
        (1, "int"),
        ("allow", "str"),
        (Allow, "type"),
        ({}, "behavior"),
        ({"behavior": "ask"}, "'ask'"),
        ({"behavior": []}, "behavior"),
        ({"behavior": "allow", "updateInput": {"a": 1}}, "updateInput"),
        ({"behavior": "allow", "message": 5}, "message"),
        ({"behavior": "deny", "updatedInput": {}}, "updatedInput"),
        ({"behavior": "allow", "updatedInput": {}, "updated_input": {}}, "both"),
        ({"behavior": "allow", "updatedInput": "ls"}, "updated input"),
        ({"behavior": "allow", "updatedInput": {1: 2}}, "updated input"),
        ({"behavior": "allow", "updatedPermissions": [{"id": "x"}]}, "updatedPermissions"),
        ({"behavior": "deny", "message": 3}, "message"),
        ({"behavior": "deny", "interrupt": "yes"}, "interrupt"),
        (Allow(["a"]), "updated input"),
        (Deny(None), "message"),
        (Deny("", "no"), "interrupt"),
    ],
)
def test_an_unclear_answer_allows_nothing(answer: object, named: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        normalise_decision(answer)
    assert named in caught.value.message


async def test_a_coroutine_that_nobody_awaited_is_named_and_closed() -> None:
    async def ask() -> bool:
        return True

    class Promise:
        def __await__(self):
            yield

    for answer in (ask(), Promise()):
        with pytest.raises(InvalidInputError, match="never awaited"):
            normalise_decision(answer)


def test_context_is_frozen_and_keyword_only() -> None:
    context = PermissionContext(tool_call_id="call_1", client_tool=True)
    assert context.client_tool
    assert (context.agent_id, context.suggestions, context.blocked_path, context.diffs) == (
        None,
        (),
        None,
        (),
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.tool_call_id = "x"
    with pytest.raises(TypeError):
        PermissionContext("call_1")


def test_an_allow_may_save_suggestions() -> None:
    assert normalise_decision(Allow(save=("save-default",))) == Allow(save=("save-default",))
    with pytest.raises(InvalidInputError, match="save"):
        normalise_decision(Allow(save=["save-default"]))


def test_a_callback_with_two_arguments_is_called_without_the_context() -> None:
    given = SessionOptions(can_use_tool=lambda name, tool_input: (name, tool_input))
    assert given.can_use_tool is not None
    context = PermissionContext(tool_call_id="call_1")
    assert given.can_use_tool("Bash", {"a": 1}, context) == ("Bash", {"a": 1})


async def test_an_asynchronous_callback_with_two_arguments_stays_one() -> None:
    async def ask(name: str, tool_input: dict[str, object]) -> bool:
        return name == "Bash"

    given = SessionOptions(can_use_tool=ask)
    assert given.can_use_tool is not None
    assert await given.can_use_tool("Bash", {}, PermissionContext(tool_call_id="call_1")) is True


@pytest.mark.parametrize(
    "callback",
    [lambda name, tool_input, context: True, lambda *args: True, lambda a, b, c, d=1: True, max],
    ids=["three", "any", "one more", "no signature"],
)
def test_a_callback_that_takes_the_question_is_used_as_it_is(callback: object) -> None:
    assert SessionOptions(can_use_tool=callback).can_use_tool is callback


@pytest.mark.parametrize(
    "callback", [lambda: True, lambda name: True, lambda a, b, c, d: True, lambda *, name: True]
)
def test_a_callback_that_cannot_be_asked_is_refused_at_once(callback: object) -> None:
    with pytest.raises(InvalidInputError, match="name, input, context"):
        SessionOptions(can_use_tool=callback)
