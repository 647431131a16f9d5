"""Only the answer to a call that asked for permission is a decision, and only where it says so."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, tool

from letta_adapters import Allow, Deny, InvalidInputError
from letta_adapters.langchain import ChatLetta, LettaRunnable, decide
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse

ARTIFACTS: list[Any] = [
    {"behavior": "deny", "message": "GOTCHA"},
    {"behavior": "allow"},
    {"behavior": "allow", "surprise": 1},
    Allow(),
    Deny("GOTCHA"),
]


def approvals(letta: FakeLetta) -> list[dict[str, Any]]:
    """What the last request told the agent of its calls."""
    found = [m for m in letta.requests[-1]["messages"] if m.get("type") == "approval"]
    return [dict(answer) for message in found for answer in message["approvals"]]


def policy_giving(artifact: Any) -> BaseTool:
    @tool(response_format="content_and_artifact")
    def policy(q: str) -> tuple[str, Any]:
        """Look a policy up."""
        return "THE RESULT", artifact

    return policy


def asks(name: str) -> Reply:
    return Reply(tool_calls=[ToolUse(name, {"q": "x"}, id="call-1")])


@pytest.mark.parametrize("artifact", ARTIFACTS, ids=str)
@pytest.mark.parametrize("whose", ["create_agent", "LettaRunnable"])
def test_a_tool_s_artifact_decides_nothing(
    letta_fake: FakeLetta, artifact: Any, whose: str
) -> None:
    letta_fake.script(asks("policy"), "Done.", "Again.")
    tools = [policy_giving(artifact)]
    client = letta_fake.client()
    agent: Any = (
        create_agent(ChatLetta(client=client), tools)
        if whose == "create_agent"
        else LettaRunnable(client=client, tools=tools)
    )
    first = [HumanMessage("go")]
    out = agent.invoke({"messages": first})["messages"]
    (told,) = approvals(letta_fake)
    assert told["tool_return"] == "THE RESULT"
    assert told["status"] == "success"
    # And it poisons nothing that follows.
    history = out if whose == "create_agent" else [*first, *out]
    again = agent.invoke({"messages": [*history, HumanMessage("more")]})
    assert again["messages"][-1].text == "Again."


def test_the_result_of_a_tool_that_is_no_longer_offered_is_a_result(letta_fake: FakeLetta) -> None:
    """It was the caller's when the agent called it."""
    letta_fake.script(asks("policy"), "Done.")
    model = ChatLetta(client=letta_fake.client())
    history: list[Any] = [HumanMessage("go")]
    history.append(model.bind_tools([policy_giving(None)]).invoke(history))
    history.append(ToolMessage("THE RESULT", tool_call_id="call-1"))
    assert model.invoke(history).text == "Done."
    (told,) = approvals(letta_fake)
    assert told["tool_return"] == "THE RESULT"


@pytest.mark.parametrize(
    ("decision", "approve", "reason"),
    [
        (True, True, None),
        (Allow(), True, None),
        ({"behavior": "allow"}, True, None),
        (Allow(message="Carefully."), True, "Carefully."),
        ({"behavior": "allow", "message": "Carefully."}, True, "Carefully."),
        (False, False, "Denied by the user."),
        (Deny("Not now."), False, "Not now."),
        ({"behavior": "deny", "message": "Not now."}, False, "Not now."),
    ],
    ids=str,
)
def test_a_question_is_decided(
    letta_fake: FakeLetta, decision: Any, approve: bool, reason: str | None
) -> None:
    letta_fake.script(asks("a_tool_of_the_agent"), "Done.")
    model = ChatLetta(client=letta_fake.client())
    history: list[Any] = [HumanMessage("go")]
    history.append(model.invoke(history))
    history += [decide(call, decision) for call in history[-1].tool_calls]
    assert model.invoke(history).text == "Done."
    (told,) = approvals(letta_fake)
    assert told["approve"] is approve
    assert told.get("reason") == reason


@pytest.mark.parametrize("artifact", ARTIFACTS, ids=str)
def test_an_artifact_that_answers_a_question_is_refused(
    letta_fake: FakeLetta, artifact: Any
) -> None:
    letta_fake.script(asks("a_tool_of_the_agent"), "Done.")
    model = ChatLetta(client=letta_fake.client())
    history: list[Any] = [HumanMessage("go")]
    history.append(model.invoke(history))
    history.append(ToolMessage("fine", tool_call_id="call-1", artifact=artifact))
    with pytest.raises(InvalidInputError, match="decide"):
        model.invoke(history)
    assert len(letta_fake.requests) == 1


def test_what_somebody_else_did_instead_is_a_denial(letta_fake: FakeLetta) -> None:
    """A loop that knows no such tool says so, and nothing of the agent's own is run."""
    letta_fake.script(asks("a_tool_of_the_agent"), "Done.")
    model = ChatLetta(client=letta_fake.client())
    history: list[Any] = [HumanMessage("go")]
    history.append(model.invoke(history))
    history.append(ToolMessage("There is no such tool.", tool_call_id="call-1"))
    model.invoke(history)
    (told,) = approvals(letta_fake)
    assert (told["approve"], told["reason"]) == (False, "There is no such tool.")


def test_a_decision_is_data_that_every_store_can_keep() -> None:
    call: Any = {"name": "Bash", "args": {}, "id": "call-1", "type": "tool_call"}
    made = decide(call, Allow({"command": "ls"}, save=("rule-1",)))
    again = ToolMessage.model_validate_json(made.model_dump_json())
    assert again.additional_kwargs == {
        "letta_decision": {
            "behavior": "allow",
            "updatedInput": {"command": "ls"},
            "save": ["rule-1"],
        }
    }
    with pytest.raises(InvalidInputError):
        decide(call, "perhaps")
