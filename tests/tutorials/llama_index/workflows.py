"""Tutorials about workflows of one's own, and agents that are no function-calling agents."""

import contextlib
import io
import re
from typing import Any

from llama_index.core.agent.workflow import CodeActAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.tools import FunctionTool, QueryEngineTool, QueryPlanTool
from llama_index.core.tools.query_plan import QueryPlan
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step
from pydantic import BaseModel, ValidationError

from letta_adapters.testing.scripted_model import Reply
from tests.tutorials.llama_index.engines import index_of
from tests.tutorials.llama_index.stage import Stage, calls, tutorial


class Draft(Event):
    """A first text."""

    text: str


class JokeFlow(Workflow):
    """Tells a joke, and what to think of it."""

    def __init__(self, llm: Any) -> None:
        super().__init__(timeout=30)
        self._llm = llm

    @step
    async def tell(self, ev: StartEvent) -> Draft:
        """Tell one."""
        return Draft(text=str(await self._llm.acomplete(f"Tell a joke about {ev.topic}.")))

    @step
    async def judge(self, ctx: Context, ev: Draft) -> StopEvent:
        """Judge it."""
        text = ""
        async for part in await self._llm.astream_complete(f"Judge this joke: {ev.text}"):
            text += part.delta or ""
        return StopEvent(result={"joke": ev.text, "judged": text})


@tutorial("A fish walks into a bar.", "It needs water.", recorded=True)
async def a_workflow(stage: Stage) -> Any:
    """Two steps, of which the second streams."""
    return await JokeFlow(stage.llm()).run(topic="fish")


class Work(Event):
    """One of several pieces of work."""

    text: str


class Done(Event):
    """One of them is done."""

    text: str


class ParallelFlow(Workflow):
    """Translates words at the same time."""

    def __init__(self, llm: Any) -> None:
        super().__init__(timeout=30)
        self._llm = llm

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Work | None:
        """Send each word to a worker."""
        await ctx.store.set("count", len(ev.words))
        for word in ev.words:
            ctx.send_event(Work(text=word))
        return None

    @step(num_workers=3)
    async def translate(self, ev: Work) -> Done:
        """Translate one."""
        return Done(text=str(await self._llm.acomplete(f"Translate: {ev.text}")))

    @step
    async def collect(self, ctx: Context, ev: Done) -> StopEvent | None:
        """Wait for all of them."""
        count = await ctx.store.get("count")
        done = ctx.collect_events(ev, [Done] * count)
        return None if done is None else StopEvent(result=sorted(one.text for one in done))


@tutorial(
    Reply("ett", when="Translate: one", delay=0.1),
    Reply("två", when="Translate: two", delay=0.1),
    Reply("tre", when="Translate: three"),
    parallel=True,
)
async def parallel_steps(stage: Stage) -> Any:
    """Three workers, and one that waits for them."""
    return await ParallelFlow(stage.llm()).run(words=["one", "two", "three"])


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class Try(Event):
    """An answer, and what is wrong with it."""

    answer: str
    problem: str


class ReflectionFlow(Workflow):
    """Lets the LLM mend its own answer."""

    def __init__(self, llm: Any, stage: Stage) -> None:
        super().__init__(timeout=30)
        self._llm = llm
        self._stage = stage

    @step
    async def extract(self, ctx: Context, ev: StartEvent | Try) -> Draft | StopEvent:
        """Ask, or ask again with what was wrong."""
        if isinstance(ev, StartEvent):
            await ctx.store.set("passage", ev.passage)
        passage = await ctx.store.get("passage")
        prompt = f"Name and age as JSON: {passage}"
        if isinstance(ev, Try):
            prompt += f"\nYou said {ev.answer}, but: {ev.problem}"
        return Draft(text=str(await self._llm.acomplete(prompt)))

    @step
    async def check(self, ev: Draft) -> Try | StopEvent:
        """Look whether it is what was asked for."""
        self._stage.note("check", ev.text)
        try:
            return StopEvent(result=Person.model_validate_json(ev.text))
        except ValidationError as error:
            return Try(answer=ev.text, problem=str(error.errors()[0]["type"]))


@tutorial("Ada, 36", '{"name": "Ada"}', '{"name": "Ada", "age": 36}')
async def a_reflection_loop(stage: Stage) -> Any:
    """An answer is checked until it is right."""
    return await ReflectionFlow(stage.llm(), stage).run(passage="Ada is 36.")


@tutorial(
    'Thought: I need a tool.\nAction: add\nAction Input: {"a": 2, "b": 3}\n',
    'Thought: And once more.\nAction: add\nAction Input: {"a": 5, "b": 4}\n',
    "Thought: I can answer without using any more tools.\nAnswer: It is 9.",
    recorded=True,
)
async def a_react_agent(stage: Stage) -> Any:
    """An agent whose tool calls are text."""

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        stage.note("add", a, b)
        return a + b

    agent = ReActAgent(llm=stage.llm(), tools=[add])
    response = await agent.run("What is 2 + 3 + 4?")
    used = [(call.tool_name, call.tool_kwargs) for call in response.tool_calls]
    return {"answer": str(response), "used": used}


@tutorial(
    "I sum them up.\n<execute>\ntotal = add(*range(1, 5))\nprint(total)\n</execute>",
    "<execute>\nprint(total * 2)\n</execute>",
    "The double of the sum is 20.",
    recorded=True,
)
async def a_code_act_agent(stage: Stage) -> Any:
    """An agent that writes programs, which the application runs."""

    def add(*numbers: int) -> int:
        """Add numbers."""
        stage.note("add", *numbers)
        return sum(numbers)

    known: dict[str, Any] = {"add": add}

    async def execute(code: str) -> str:
        """Run a program."""
        stage.note("execute", code)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, known)
        return printed.getvalue()

    agent = CodeActAgent(code_execute_fn=execute, llm=stage.llm(), tools=[add])
    return str(await agent.run("What is the double of 1 + 2 + 3 + 4?"))


@tutorial(
    "<execute>\nprint(sum(range(11)))\n</execute>",
    "<execute>\nprint(55 * 2)\n</execute>",
    "Twice the sum is 110.",
    recorded=True,
)
async def code_act_from_scratch(stage: Stage) -> Any:
    """The same by a loop of one's own, which notes what a program printed as the assistant's."""
    llm = stage.llm()
    history = [
        ChatMessage(role="system", content="Write programs between <execute> and </execute>."),
        ChatMessage(role="user", content="What is twice the sum of 1 to 10?"),
    ]
    while True:
        response = await llm.achat(history)
        history.append(response.message)
        found = re.search(r"<execute>(.*)</execute>", str(response.message.content), re.DOTALL)
        if found is None:
            return history
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(found[1], {})
        stage.note("execute", found[1])
        output = f"The program printed: {printed.getvalue()}"
        history.append(ChatMessage(role="assistant", content=output))


@tutorial(
    calls("library", input="bees"),
    "They dance.",
    "Bees dance to show the way.",
    about_agents=True,
    recorded=True,
)
async def agentic_rag(stage: Stage) -> Any:
    """An agent that asks an index."""
    engine = index_of("Bees dance.").as_query_engine(llm=stage.llm())
    tool = QueryEngineTool.from_defaults(engine, name="library", description="Knows insects.")
    agent = stage.agent(tools=[tool], system_prompt="You ask the library.")
    response = await agent.run("What do bees do?")
    return {
        "answer": str(response),
        "used": [str(call.tool_output) for call in response.tool_calls],
    }


PLAN = [
    {"id": 1, "query_str": "What was sold in May?", "tool_name": "may", "dependencies": []},
    {"id": 2, "query_str": "What was sold in June?", "tool_name": "june", "dependencies": []},
    {"id": 3, "query_str": "Compare both.", "tool_name": "june", "dependencies": [1, 2]},
]


@tutorial(
    calls("carry_out", nodes=PLAN),
    "Ten.",
    "Twelve.",
    "Two more in June.",
    "Two more, says June.",
    "Two more were sold in June.",
    about_agents=True,
)
async def query_planning(stage: Stage) -> Any:
    """An agent plans queries that depend on each other."""
    llm = stage.llm()
    tools = [
        QueryEngineTool.from_defaults(
            index_of(text).as_query_engine(llm=llm), name=name, description=f"Sales of {name}."
        )
        for name, text in (("may", "May: 10 sold."), ("june", "June: 12 sold."))
    ]
    planner = QueryPlanTool.from_defaults(
        query_engine_tools=tools, response_synthesizer=get_response_synthesizer(llm=llm)
    )

    def carry_out(nodes: list[Any]) -> str:
        """Carry a plan of queries out."""
        stage.note("carry_out", len(nodes))
        return str(planner(nodes=nodes))

    # The planner is no tool that an agent of today can call: its arguments have no names.
    tool = FunctionTool.from_defaults(carry_out, fn_schema=QueryPlan)
    agent = stage.agent(tools=[tool])
    return str(await agent.run("How did the sales change from May to June?"))


@tutorial(
    calls("ask_about", city="Rome", question="How old is it?"),
    calls("rome_facts", input="How old is it?"),
    "It was founded in 753 BC.",
    "Rome is from 753 BC.",
    calls("ask_about", city="Oslo", question="How old is it?"),
    calls("oslo_facts", input="How old is it?"),
    "It was founded in 1040.",
    "Oslo is from 1040.",
    "Rome is older.",
    about_agents=True,
    recorded=True,
)
async def agents_for_documents(stage: Stage) -> Any:
    """An agent for each document, and one that asks them."""
    facts = {"Rome": "Rome: 753 BC.", "Oslo": "Oslo: 1040."}
    experts = {}
    for city, fact in facts.items():
        engine = index_of(fact).as_query_engine(llm=stage.llm())
        tool = QueryEngineTool.from_defaults(
            engine, name=f"{city.lower()}_facts", description=f"Knows {city}."
        )
        prompt = f"You are the expert for {city}."
        experts[city] = stage.agent(name=city.lower(), tools=[tool], system_prompt=prompt)

    async def ask_about(city: str, question: str) -> str:
        """Ask the expert for a city."""
        stage.note("ask_about", city, question)
        return str(await experts[city].run(question))

    top = stage.agent(name="top", tools=[ask_about], system_prompt="You ask experts.")
    return str(await top.run("Which is older, Rome or Oslo?"))
