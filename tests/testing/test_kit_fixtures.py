"""The plugin's fixtures, as another project's tests use them."""

from __future__ import annotations

import pytest

from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.local import LocalLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests._wheel import needs_wheel

pytest_plugins = ["pytester"]


def test_a_letta_in_memory(letta_fake: FakeLetta) -> None:
    letta_fake.script("Hello Ada.")
    assert ChatLetta(client=letta_fake.client()).invoke("I am Ada.").text == "Hello Ada."
    assert letta_fake.said == ["I am Ada."]


@needs_wheel
def test_the_real_runtime(letta_local: LocalLetta) -> None:
    use = ToolUse("Bash", {"command": "echo so", "description": "a test"})
    letta_local.model.script(Reply(tool_calls=[use]), "It is so.")
    agent_id = letta_local.agent()
    assert letta_local.agent() == agent_id
    with letta_local.client.create_session(agent_id, allowed_tools=["Bash"]) as session:
        assert session.run_turn("is it?").result == "It is so."
    assert "so" in str(letta_local.model.requests[-1].messages[-1]["content"])


@needs_wheel
def test_nothing_is_left_from_the_test_before(letta_local: LocalLetta) -> None:
    assert letta_local.model.requests == []
    letta_local.model.script("Hello.")
    assert letta_local.client.prompt("hi", letta_local.agent("other")).result == "Hello."


@pytest.mark.slow
def test_other_projects_do_not_notice_the_plugin(pytester: pytest.Pytester) -> None:
    """It is installed with the package; who uses vcrpy has a folder of the same name."""
    (pytester.mkdir("cassettes") / "theirs.yaml").write_text("interactions: []\nversion: 1\n")
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("-p", "letta_adapters.testing.plugin")
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    light = (
        "import sys, letta_adapters.testing.plugin; "
        "print(sorted({'httpx', 'vcr', 'yaml', 'pydantic'} & set(sys.modules)))"
    )
    assert pytester.runpython_c(light).stdout.str().strip() == "[]"
