"""Middleware of agents, and a model that stands in for another one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    HumanInTheLoopMiddleware,
    LLMToolSelectorMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolRetryMiddleware,
    dynamic_prompt,
)
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from tests.tutorials.control import call_all, calls, gives, line
from tests.tutorials.langchain.conftest import WITH_PARALLEL_CALLS, WITH_RECORDING, Performed

SERVER = Path(__file__).parents[2] / "mcp_fixtures" / "everything.py"
THREAD: Any = {"configurable": {"thread_id": "1"}}


def ask(text: str) -> Any:
    return {"messages": [HumanMessage(text)]}


class Mail:
    """Tools, and what they did."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def send(self, to: str) -> str:
        """Send the mail."""
        self.did.append(f"sent to {to}")
        return f"Sent to {to}."

    def read(self, folder: str) -> str:
        """Read the newest mail."""
        self.did.append(f"read {folder}")
        return "Ada asks for tea."

    def flaky(self, what: str) -> str:
        """Look something up; the first time it fails."""
        self.did.append(f"tried {what}")
        if len(self.did) == 1:
            raise ConnectionError("no answer")
        return f"Found {what}."


def human_in_the_loop(model: Any) -> Any:
    """Stop before a call: go on, edit it, or refuse it. What is harmless is not asked about."""
    mail = Mail()
    agent = create_agent(
        model,
        [mail.send, mail.read],
        middleware=[HumanInTheLoopMiddleware(interrupt_on={"send": True, "read": False})],
        checkpointer=InMemorySaver(),
    )
    edited = {"name": "send", "args": {"to": "Grace"}}
    decisions = [
        {"type": "approve"},
        {"type": "edit", "edited_action": edited},
        {"type": "reject", "message": "Not now."},
    ]
    seen = []
    for number, decision in enumerate(decisions):
        config: Any = {"configurable": {"thread_id": f"mail-{number}"}}
        asked = agent.invoke(ask(f"Round {number}: read, and send."), config)
        requests = asked["__interrupt__"][0].value["action_requests"]
        state = agent.invoke(Command(resume={"decisions": [decision]}), config)
        seen.append([[request["args"] for request in requests], state["messages"]])
    return [seen, sorted(mail.did)]


@WITH_PARALLEL_CALLS
def test_human_in_the_loop(performed: Performed) -> None:
    both = call_all(("read", {"folder": "inbox"}), ("send", {"to": "Ada"}))
    script = [
        line("Round 0", both),
        line(["asks for tea", "Sent to Ada."], "Done 0."),
        line("Round 1", calls("send", to="Ada")),
        line("Sent to Grace.", "Done 1."),
        line("Round 2", calls("send", to="Ada")),
        line("Not now.", "Left it."),
    ]
    seen, did = performed.same(human_in_the_loop, script)
    assert did == ["read inbox", "sent to Ada", "sent to Grace"]
    assert [requests for requests, _ in seen] == [[{"to": "Ada"}]] * 3
    assert [messages[-1]["ai"] for _, messages in seen] == ["Done 0.", "Done 1.", "Left it."]


def summarization(model: Any) -> Any:
    """Sum the older messages up, once there are too many."""
    agent = create_agent(
        model,
        [],
        middleware=[SummarizationMiddleware(model, trigger=("messages", 4), keep=("messages", 1))],
        checkpointer=InMemorySaver(),
    )
    for text in ("I am Ada.", "I like tea.", "What do you know of me?"):
        state = agent.invoke(ask(text), THREAD)
    return state


def test_summarization(performed: Performed) -> None:
    script = [
        line("I am Ada.", "Hello."),
        line("I like tea.", "Noted."),
        line(["I am Ada.", "I like tea."], "Ada, who likes tea."),
        line("What do you know of me?", "All of it.", knows="tea"),
    ]
    state = performed.same(summarization, script)
    assert "Ada, who likes tea." in state["messages"][0]["human"]
    assert state["messages"][1:] == [{"human": "What do you know of me?"}, {"ai": "All of it."}]


def tool_selector(model: Any) -> Any:
    """Let a first call choose the tools that the agent gets."""
    mail = Mail()
    agent = create_agent(
        model,
        [mail.send, mail.read, mail.flaky],
        middleware=[LLMToolSelectorMiddleware(model=model, max_tools=1)],
    )
    return [agent.invoke(ask("What is new?")), mail.did]


def test_a_tool_selector(performed: Performed) -> None:
    script = [
        gives("What is new?", "ToolSelectionResponse", tools=["read"]),
        line("What is new?", calls("read", folder="inbox")),
        gives("What is new?", "ToolSelectionResponse", tools=["read"]),
        line("asks for tea", "Tea is wanted."),
    ]
    state, did = performed.same(tool_selector, script)
    assert did == ["read inbox"]
    assert state["messages"][-1] == {"ai": "Tea is wanted."}


def resilience(model: Any) -> Any:
    """Go on although a tool fails once and a model is down, and stop after so many calls."""

    def down(_: Any) -> Any:
        raise ConnectionError("down")

    class Down(type(model)):
        """A model of the same class that cannot be reached."""

        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            down(None)

    mail = Mail()
    broken = Down.model_construct(**{n: getattr(model, n) for n in type(model).model_fields})
    agent = create_agent(
        broken,
        [mail.flaky],
        middleware=[
            ModelCallLimitMiddleware(run_limit=5),
            ModelFallbackMiddleware(model),
            ToolRetryMiddleware(max_retries=1, initial_delay=0, jitter=False),
        ],
    )
    chain = RunnableLambda(down).with_fallbacks([model])
    return [agent.invoke(ask("Find tea.")), mail.did, chain.invoke("Are you there?")]


def test_fallbacks_and_retries(performed: Performed) -> None:
    script = [
        line("Find tea.", calls("flaky", what="tea")),
        line("Found tea.", "There is tea."),
        line("Are you there?", "I am."),
    ]
    state, did, answer = performed.same(resilience, script)
    assert did == ["tried tea", "tried tea"]
    assert state["messages"][-1] == {"ai": "There is tea."}
    assert answer == {"ai": "I am."}


def context_engineering(model: Any) -> Any:
    """Make the system prompt of what is known by then, and let the agent keep a list of todos."""

    @dynamic_prompt
    def by_length(request: Any) -> str:
        return f"You have {len(request.messages)} messages."

    agent = create_agent(
        model, [], middleware=[by_length, TodoListMiddleware()], checkpointer=InMemorySaver()
    )
    agent.invoke(ask("Plan my day."), THREAD)
    return agent.invoke(ask("What is left?"), THREAD)


@WITH_RECORDING
def test_prompts_of_the_moment(performed: Performed) -> None:
    todo = {"content": "tea", "status": "pending"}
    script = [
        line("Plan my day.", calls("write_todos", todos=[todo]), knows="You have 1 messages."),
        line("", "Tea first.", knows="You have 3 messages."),
        line("What is left?", "Tea.", knows="You have 5 messages."),
    ]
    state = performed.same(context_engineering, script)
    assert state["todos"] == [todo]
    assert state["messages"][-1] == {"ai": "Tea."}


def mcp_tools(model: Any) -> Any:
    """Give an agent the tools of a server of the Model Context Protocol."""
    return asyncio.run(_with_a_server(model))


async def _with_a_server(model: Any) -> Any:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    ran: list[str] = []
    start = StdioServerParameters(command=sys.executable, args=[str(SERVER), "stdio"])
    async with stdio_client(start) as streams, ClientSession(*streams) as session:
        await session.initialize()

        def as_tool(listed: Any) -> StructuredTool:
            async def run(**arguments: Any) -> str:
                ran.append(listed.name)
                result = await session.call_tool(listed.name, arguments)
                return "\n".join(part.text for part in result.content)

            # Named in another way from version 2 of the mcp package on.
            schema = getattr(listed, "input_schema", None) or listed.inputSchema
            return StructuredTool(
                name=listed.name,
                description=listed.description,
                args_schema=schema,
                coroutine=run,
            )

        found = (await session.list_tools()).tools
        tools = [as_tool(listed) for listed in found if listed.name in ("add", "rows")]
        agent = create_agent(model, tools)
        return [await agent.ainvoke(ask("What is 2 and 3?")), ran]


def test_tools_of_an_mcp_server(performed: Performed) -> None:
    pytest.importorskip("mcp", reason="the mcp package is not installed (extra: mcp)")
    script = [
        line("What is 2 and 3?", calls("add", a=2, b=3)),
        line("5", calls("rows")),
        line("rows", "It is 5, and here are rows."),
    ]
    state, ran = performed.same(mcp_tools, script)
    assert ran == ["add", "rows"]
    assert [m.get("tool") for m in state["messages"]][2] == "5"
    assert state["messages"][-1] == {"ai": "It is 5, and here are rows."}
