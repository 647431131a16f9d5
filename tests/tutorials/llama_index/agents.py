"""Tutorials about agents, which any agent of LlamaIndex may play."""

import json
from typing import Any

from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, ToolCall, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.workflow import (
    Context,
    HumanResponseEvent,
    InputRequiredEvent,
    JsonSerializer,
)
from pydantic import BaseModel

from tests.tutorials.llama_index.stage import Fill, Stage, calls, tutorial


@tutorial(
    calls("kilometres", miles=100.0),
    calls("hours", kilometres=160.9, speed=80.0),
    "It takes about two hours.",
    about_agents=True,
    recorded=True,
)
async def a_first_agent(stage: Stage) -> Any:
    """An agent with two tools, of which one needs what the other gave."""

    def kilometres(miles: float) -> float:
        """Convert miles to kilometres."""
        stage.note("kilometres", miles)
        return round(miles * 1.609, 1)

    async def hours(kilometres: float, speed: float) -> float:
        """Return how long a way takes."""
        stage.note("hours", kilometres, speed)
        return round(kilometres / speed, 1)

    agent = stage.agent(tools=[kilometres, hours], system_prompt="You plan journeys.")
    response = await agent.run("How long do 100 miles take at 80 km/h?")
    used = [
        (call.tool_name, call.tool_kwargs, str(call.tool_output)) for call in response.tool_calls
    ]
    return {"answer": str(response), "used": used}


@tutorial("Hello Grace.", "You are Grace.", about_agents=True, recorded=True)
async def an_agent_that_remembers(stage: Stage) -> Any:
    """Two runs with one context and one memory."""
    agent = stage.agent(system_prompt="You are a good listener.")
    ctx = Context(agent)
    memory = ChatMemoryBuffer.from_defaults(token_limit=4000)
    first = await agent.run("I am Grace.", ctx=ctx, memory=memory)
    second = await agent.run("Who am I?", ctx=ctx, memory=memory)
    # A context may keep a copy of the memory that it was given.
    kept = await ctx.store.get("memory")
    return {"answers": [str(first), str(second)], "memory": kept.get_all()}


@tutorial(
    calls("remember", key="seat", value="12A"),
    "Noted.",
    calls("recall", key="seat"),
    "You sit on 12A.",
    about_agents=True,
)
async def a_context_that_is_stored(stage: Stage) -> Any:
    """What tools keep in a context is there after it was written down and read again."""

    async def remember(ctx: Context, key: str, value: str) -> str:
        """Keep a value."""
        stage.note("remember", key, value)
        await ctx.store.set(f"notes-{key}", value)
        return "kept"

    async def recall(ctx: Context, key: str) -> str:
        """Return a value."""
        stage.note("recall", key)
        return str(await ctx.store.get(f"notes-{key}"))

    agent = stage.agent(tools=[remember, recall])
    ctx = Context(agent)
    memory = ChatMemoryBuffer.from_defaults()
    first = await agent.run("I sit on 12A.", ctx=ctx, memory=memory)
    text = json.dumps(ctx.to_dict(serializer=JsonSerializer()))
    kept = [message.model_dump_json() for message in memory.get_all()]

    ctx = Context.from_dict(agent, json.loads(text), serializer=JsonSerializer())
    said = [ChatMessage.model_validate_json(message) for message in kept]
    memory = ChatMemoryBuffer.from_defaults(chat_history=said)
    second = await agent.run("Where do I sit?", ctx=ctx, memory=memory)
    seat, memory = await ctx.store.get("notes-seat"), await ctx.store.get("memory")
    return {"answers": [str(first), str(second)], "seat": seat, "memory": memory.get_all()}


@tutorial(calls("look_up", word="dog"), "A dog is a canine.", about_agents=True, recorded=True)
async def events_of_a_run(stage: Stage) -> Any:
    """What a user interface shows while an agent works."""

    def look_up(word: str) -> str:
        """Look a word up."""
        stage.note("look_up", word)
        return f"{word}: a canine"

    agent = stage.agent(name="librarian", tools=[look_up])
    handler = agent.run("What is a dog?")
    text, tools = "", []
    async for event in handler.stream_events():
        if isinstance(event, AgentStream):
            text += event.delta
            assert event.current_agent_name == "librarian"
        elif isinstance(event, ToolCallResult):
            tools.append(("result", event.tool_name, str(event.tool_output)))
        elif isinstance(event, ToolCall):
            tools.append(("call", event.tool_name, event.tool_kwargs))
    return {"text": text, "tools": tools, "answer": str(await handler)}


@tutorial(
    calls("search", query="bees"),
    calls("handoff", to_agent="writer", reason="I have the facts."),
    calls("write", text="Bees dance."),
    calls("handoff", to_agent="reviewer", reason="It is written."),
    "It may be printed.",
    about_agents=True,
    recorded=True,
)
async def agents_that_hand_over(stage: Stage) -> Any:
    """Research, writing and review, by three agents with one state."""

    async def search(ctx: Context, query: str) -> str:
        """Search for facts."""
        stage.note("search", query)
        async with ctx.store.edit_state() as state:
            state["state"]["facts"] = "Bees dance to show the way."
        return "Bees dance to show the way."

    async def write(ctx: Context, text: str) -> str:
        """Keep the text."""
        stage.note("write", text)
        async with ctx.store.edit_state() as state:
            state["state"]["text"] = text
        return "written"

    researcher = stage.agent(
        name="researcher",
        description="Finds facts.",
        system_prompt="You find facts, and hand over to the writer.",
        tools=[search],
        can_handoff_to=["writer"],
    )
    writer = stage.agent(
        name="writer",
        description="Writes.",
        system_prompt="You write, and hand over to the reviewer.",
        tools=[write],
        can_handoff_to=["reviewer"],
    )
    reviewer = stage.agent(
        name="reviewer", description="Reviews.", system_prompt="You review.", tools=[]
    )
    workflow = AgentWorkflow(
        agents=[researcher, writer, reviewer],
        root_agent="researcher",
        initial_state={"facts": "", "text": ""},
    )
    handler = workflow.run("Write about bees.")
    order: list[str] = []
    async for event in handler.stream_events():
        name = getattr(event, "current_agent_name", None)
        if name and name not in order[-1:]:
            order.append(name)
    response = await handler
    state = await handler.ctx.store.get("state")
    return {"answer": str(response), "order": order, "state": state}


@tutorial(
    calls("delete", file="draft.txt"),
    "It is deleted.",
    calls("delete", file="book.txt"),
    "I left it where it is.",
    about_agents=True,
    recorded=True,
)
async def a_person_in_the_loop(stage: Stage) -> Any:
    """A tool asks a person before it does anything."""

    async def delete(ctx: Context, file: str) -> str:
        """Delete a file."""
        answer = await ctx.wait_for_event(
            HumanResponseEvent,
            waiter_id=f"delete {file}?",
            waiter_event=InputRequiredEvent(prefix=f"Delete {file}?"),
            requirements={"about": file},
        )
        if answer.response != "yes":
            return "The user said no."
        stage.note("delete", file)
        return "deleted"

    agent = stage.agent(tools=[delete])
    asked, answers = [], []
    for file, reply in (("draft.txt", "yes"), ("book.txt", "no")):
        handler = agent.run(f"Delete {file}.")
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                asked.append(event.prefix)
                handler.ctx.send_event(HumanResponseEvent(response=reply, about=file))
        answers.append(str(await handler))
    return {"asked": asked, "answers": answers}


class Weather(BaseModel):
    """What the weather is like."""

    place: str
    degrees: int


@tutorial(
    calls("measure", place="Oslo"),
    "It has 4 degrees in Oslo.",
    Fill("Weather", {"place": "Oslo", "degrees": 4}),
    about_agents=True,
)
async def an_agent_that_gives_an_object(stage: Stage) -> Any:
    """An answer in words, and the same as an object."""

    def measure(place: str) -> str:
        """Measure the temperature."""
        stage.note("measure", place)
        return "4 degrees"

    agent = stage.agent(tools=[measure], output_cls=Weather)
    response = await agent.run("How warm is it in Oslo?")
    return {
        "answer": str(response),
        "object": response.structured_response,
        "weather": response.get_pydantic_model(Weather),
    }
