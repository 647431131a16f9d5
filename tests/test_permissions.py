"""What a ``can_use_tool`` callback may answer."""

from __future__ import annotations

import dataclasses

import pytest

from letta_adapters.errors import InvalidInputError
from letta_adapters.permissions import Allow, Deny, PermissionContext, normalise_decision


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
        ({"behavior": "allow", "message": "x"}, "message"),
        ({"behavior": "deny", "updatedInput": {}}, "updatedInput"),
        ({"behavior": "allow", "updatedInput": {}, "updated_input": {}}, "both"),
        ({"behavior": "allow", "updatedInput": "ls"}, "updated input"),
        ({"behavior": "allow", "updatedInput": {1: 2}}, "updated input"),
        ({"behavior": "allow", "updatedPermissions": [{"id": "x"}]}, "updatedPermissions"),
        ({"behavior": "deny", "message": 3}, "message"),
        ({"behavior": "deny", "interrupt": "yes"}, "interrupt"),
        (Allow(["a"]), "updated input"),  # type: ignore[arg-type]
        (Deny(None), "message"),  # type: ignore[arg-type]
        (Deny("", "no"), "interrupt"),  # type: ignore[arg-type]
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
        def __await__(self):  # type: ignore[no-untyped-def]
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
        context.tool_call_id = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        PermissionContext("call_1")  # type: ignore[misc]


def test_an_allow_may_save_suggestions() -> None:
    assert normalise_decision(Allow(save=("save-default",))) == Allow(save=("save-default",))
    with pytest.raises(InvalidInputError, match="save"):
        normalise_decision(Allow(save=["save-default"]))  # type: ignore[arg-type]
