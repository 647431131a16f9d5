"""A program that calls the whole public API; type checkers read it, nobody runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import letta_adapters as letta
from letta_adapters import Allow, Deny, Local, PermissionContext, Remote, Rest, Tool, tool, tracing
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.options import ReasoningEffort

BACKENDS: list[Rest | Local | Remote] = [
    Rest(api_key="key"),
    Rest(base_url="https://letta.example.org", api_key=None, headers={"user_id": "user-1"}),
    Rest(max_connections=10, max_keepalive_connections=5, keepalive_expiry=None),
    Local(data_dir="state", inherit_env=["SSH_AUTH_SOCK"], env={"A": "b"}),
    Local(data_dir=Path("state"), api=Rest(api_key="key"), openai_compatible={"base_url": "u"}),
    Remote(url="ws://localhost:4500", auth_token="token"),
]
KEY: str | None = None if (held := Rest(api_key="key").api_key) is None else held.get_secret_value()
HOME: Path | None = Local(data_dir="state").data_dir


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD: Tool = add
HARD: ReasoningEffort = "xhigh"


def add_slowly(a: int, b: int, context: letta.ToolContext | None = None) -> int:
    """Add two numbers, and tell of it."""
    if context is not None and not context.stopped:
        context.report(f"{context.tool_call_id} of {context.agent_id}", progress=1, total=2)
    return a + b


SLOWLY: Tool = tool(add_slowly, timeout=5)


def may_use(
    name: str, tool_input: Mapping[str, object], context: PermissionContext
) -> Allow | Deny:
    return Allow() if name == "add" else Deny(f"Not {name} ({context!r}, {tool_input})")


def read(message: letta.Message) -> str:
    """Tell messages apart by their type, and have their fields."""
    return read_talk(message) or read_rest(message)


def read_talk(message: letta.Message) -> str:
    if message.type == "init":
        return f"{message.agent_id} {message.conversation_id} {message.session_id} {message.tools}"
    if message.type in ("user", "system"):
        return str(message.to_dict())
    if message.type == "assistant":
        return message.content
    if message.type == "reasoning":
        return f"{message.content} {message.redacted}"
    if message.type == "tool_call":
        return f"{message.tool_name} {message.tool_input['a']}"
    if message.type == "tool_result":
        return f"{message.content} {message.is_error} {message.traceback}"
    if message.type == "tool_progress":
        done: float | None = message.progress
        return f"{message.tool_name} {message.content} {done} {message.total} {message.number}"
    return ""


def read_rest(message: letta.Message) -> str:
    if message.type == "stream_event":
        delta = letta.extract_stream_text_delta(message)
        return "" if delta is None else f"{delta.kind}: {delta.text}"
    if message.type == "error":
        return f"{message.error_code} {message.message}"
    if message.type == "retry":
        return f"{message.attempt} of {message.max_attempts} in {message.delay_ms} ms"
    if message.type == "result":
        usage: letta.Usage = message.usage + letta.Usage(total_tokens=1)
        return f"{message.raise_for_status().result} {usage.total_tokens}"
    return json.dumps(letta.message_from_dict(message.to_dict()).to_dict())


def sync_program() -> None:
    agent: str = letta.create_agent(model="letta/auto", memory=[{"label": "human", "value": "Ada"}])
    result: letta.ResultMessage = letta.prompt("Hi", agent)
    with letta.create_session(agent, tools=[add], can_use_tool=may_use) as session:
        session.send(["Look:", letta.image_from_file("a.png"), letta.TextContent("It is mine.")])
        for message in session.stream():
            print(read(message))
        page: letta.MessagePage = session.list_messages(limit=10, order="asc")
        print([m.content for m in page.messages if m.type == "user"], page.raw[0]["date"])
        state: letta.BootstrapState = session.bootstrap_state()
        print(state.has_pending_approval, session.recover_pending_approvals().denied, result.result)
        session.update_model("letta/auto")
        session.update_model("letta/auto", reasoning_effort="low")
        session.update_model(reasoning_effort=HARD)
        session.update_toolset("auto")
        session.change_device_state(permission_mode="acceptEdits", cwd="src")
        print(session.device_status(), session.queued(), session.resume_queue(), session.unsent)
        session.abort()
    with letta.LettaClient(BACKENDS[0]) as client:
        client.create_agent(tags=["a"], cwd=Path("src"), reasoning_effort="none")
        client.create_session(offered_tools=["Read", add.name], reasoning_effort=HARD).close()
        with client.resume_session(agent_id=agent, include_partial_messages=True) as again:
            counted: letta.StructuredResult[int] = again.run_turn("Hi", output_schema=int)
            count: int = counted.raise_for_status().output
            print(count)
            print(again.run_turn("Hi", timeout=60).raise_for_status().usage.step_count)
            again.send("Hi")
            texts: list[str] = list(again.text_stream())
            print("".join(texts))
        print(
            client.agents.list(tags=["a"]), client.conversations.list(agent), client.models.list()
        )
        print(client.request("GET", "/v1/agents", params={"limit": 1}), letta.__version__)
        shown: letta.AgentFile = client.agents.export_file(agent, "a.af", overwrite=True)
        print(letta.inspect_agent_file(b"{}").demands, [t.source for t in shown.untrusted])
        print(client.agents.import_file(shown, trust=["multiply"], secrets={"KEY": "x"})[0])
        client.request("POST", "/v1/x", files={"file": ("a.af", b"{}")}, body={"name": "a"})
        status: letta.RuntimeStatus = client.runtime_status()
        print(status)


def memories(client: letta.LettaClient, agent: str) -> letta.MemoryItem:
    """Read and change what agents know, and look at what the server keeps."""
    persona: letta.MemoryItem = client.agents.memory.read(agent, "persona", shared_by=True)
    client.agents.memory.write(agent, "persona", "I am Ada.", if_match=persona.version)
    changes: Sequence[letta.MemoryCommit] = client.agents.memory.history(agent, limit=1)
    print(client.agents.memory.diff(agent, changes[0].sha), persona.limit, persona.shared_by)
    found: Sequence[letta.Passage] = client.agents.passages.search(agent, "tea", tags=["drinks"])
    made: letta.ServerTool = client.tools.create("def f() -> int: ...", requires_approval=True)
    client.tools.attach(agent, made.id)
    run: letta.Run = client.runs.retrieve("run-1")
    steps: Sequence[letta.RunStep] = client.runs.steps(run.id)
    print([p.text for p in found], [s.usage.total_tokens for s in steps], run.status)
    client.conversations.recompile("conv-1")
    client.agents.memory.attach(agent, client.blocks.create("team", "x", limit=10).id or "")
    return client.agents.memory.create(agent, "notes", description="What to remember.")


def helpers(
    session: letta.Session, aio: letta.AsyncSession, pending: letta.PendingToolCall
) -> letta.RecoveryResult:
    """Pass each kind of content and each kind of option object."""
    png: letta.ImageContent = letta.image_from_bytes(b"...", detail="low")
    more = [letta.image_from_base64("..."), letta.image_from_url("https://example.org/a.png")]
    session.send([png, *more, "What are they?"])
    print(aio.conversation_id, pending.tool_name, pending.tool_call_id)
    letta.create_agent(
        memory=[letta.MemoryBlock(label="human", value="Ada")],
        sleeptime=letta.Sleeptime(trigger="off"),
    )
    with letta.resume_session("conv-1") as again:
        return again.recover_pending_approvals()


async def approvals(session: letta.AsyncSession, blocking: letta.Session) -> None:
    """Answer calls that wait, at once, later, or from somewhere else."""
    waiting: tuple[letta.PendingToolCall, ...] = await session.pending_approvals()
    answers: dict[str, Allow | Deny | bool] = {call.tool_call_id: Allow() for call in waiting}
    await session.respond(answers)
    result: letta.ResultMessage = blocking.respond_turn({"call-1": Deny("No."), "call-2": True})
    counted: int = blocking.respond_turn({"call-1": True}, output_schema=int).output
    asked: letta.StructuredResult[str] = letta.prompt("Hi", output_schema=str, output_repairs=0)
    print(counted, asked.output)
    recovered: tuple[letta.RecoveredCall, ...] = result.recovered
    print([call.allowed for call in recovered])
    await session.detach()
    letta.create_session("agent-1", ask_timeout=60.0, ask_timeout_answer=letta.Postpone())


def connect(connector: letta.Connector) -> letta.LettaClient:
    """Give a client connections of one's own."""
    return letta.LettaClient(BACKENDS[-1], connector=connector)


async def async_program() -> None:
    async with letta.AsyncLettaClient(Local(data_dir="state")) as client:
        agent: str = await client.create_agent(name="Ada")
        async with client.create_session(agent, tools=[ADD]) as session:
            await session.send("Hi")
            transcript = letta.Transcript()
            async for message in session.stream():
                rows: tuple[letta.Row, ...] = transcript.apply(message)
                print(read(message), [row.text for row in rows])
            page = await session.list_messages()
            transcript.rebase(page)
        try:
            await letta.aprompt("Hi", agent, turn_timeout=5.0)
        except letta.TimeoutAfterAcceptanceError as error:
            print(error.code, error.hint, error.message)


def frameworks() -> None:
    for model in (
        ChatLetta(api_key="key", agent_id="agent-1", model="letta/auto", timeout=5, stop=["END"]),
        ChatLetta(backend=Local(data_dir="state"), on_mismatch="continue", scope="thread"),
    ):
        print(model.invoke("Hi").text, model.bind_tools([add]).invoke("2 + 2?").content)
    runnable = LettaRunnable(agent_id="agent-1", tools=[add], ask_timeout=60)
    print(runnable.invoke("Hi"))
    llm = LettaLLM(agent_id="agent-1", api_key="key", temperature=0.5)
    print(llm.complete("Hi").text)
    agent = LettaAgent(agent_id="agent-1", tools=[add], timeout=5.0, on_mismatch="error")
    print(agent.agent_id)


def report() -> None:
    tracing.instrument(capture_content=False)
    tracing.uninstrument()
