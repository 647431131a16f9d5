"""Where a tutorial is played: a model told what to say, and behind which LLM it is.

A tutorial is a function of a :class:`Stage`. It takes its LLM and its agents from there and returns
what its reader would look at. It is played once with LlamaIndex' own ``OpenAILike``, once with
``LettaLLM``, and, where it is about an agent, once with ``LettaAgent``; each time the same model
says the same.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock

from letta_adapters.llama_index import LettaAgent, LettaLLM
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ScriptedModel, ToolUse

# Its endpoint is on this machine: no certificate is looked at, and none need be read.
_PLAIN: Final[dict[str, Any]] = {
    "limits": httpx.Limits(max_keepalive_connections=0),
    "verify": False,
    "trust_env": False,
}


@dataclass(frozen=True)
class Fill:
    """The model gives an object of a class: in the form that it was asked for it.

    ``OpenAILike`` offers it a function of the class' name; ``LettaLLM`` asks for JSON.
    """

    cls: str
    data: dict[str, Any]
    when: str | None = None


Line = str | Reply | Fill


def calls(name: str, _id: str | None = None, /, **arguments: Any) -> Reply:
    """Return a reply that calls one tool."""
    return Reply(tool_calls=[ToolUse(name, arguments, id=_id)])


@dataclass
class Stage:
    """What a tutorial may use.

    Attributes:
        llm: Makes the LLM; takes what every LLM takes.
        agent: Makes an agent; takes what ``FunctionAgent`` takes, but for the LLM.
        ran: What tools of the tutorial were run, in order.
    """

    llm: Callable[..., Any]
    agent: Callable[..., Any]
    ran: list[Any] = field(default_factory=list)

    @staticmethod
    def run(work: Coroutine[Any, Any, Any]) -> Any:
        """Run asynchronous code from a tutorial that is synchronous."""
        return asyncio.run(work)

    def note(self, *what: Any) -> None:
        """Note that a tool was run."""
        self.ran.append(what)


@dataclass(frozen=True)
class Tutorial:
    """``play``: the tutorial. ``lines``: what the model says. ``about_agents``: any agent may play
    it. ``parallel``: what is asked at the same time has no order. ``recorded``: it is played on a
    recording of the Letta API too."""

    play: Callable[[Stage], Any]
    lines: tuple[Line, ...]
    about_agents: bool = False
    parallel: bool = False
    recorded: bool = False

    @property
    def name(self) -> str:
        """Return its name."""
        return self.play.__name__

    @property
    def objects(self) -> set[str]:
        """Return the names of the functions that stand for objects."""
        return {line.cls for line in self.lines if isinstance(line, Fill)}


def tutorial(*lines: Line, **about: Any) -> Callable[[Callable[[Stage], Any]], Tutorial]:
    """Make a tutorial of a function; ``lines`` is what the model says in it, in order."""
    return lambda play: Tutorial(play, lines, **about)


def script(lines: Sequence[Line], *, by_function: bool) -> list[Reply]:
    """Return the replies of a model that is asked for objects by a function, or by words."""
    return [_reply(line, by_function) for line in lines]


def _reply(line: Line, by_function: bool) -> Reply:
    if isinstance(line, str):
        return Reply(line)
    if isinstance(line, Reply):
        return line
    if by_function:
        return Reply(tool_calls=[ToolUse(line.cls, line.data)], when=line.when)
    return Reply(json.dumps(line.data), when=line.when)


def perform(tutorial: Tutorial, stage: Stage) -> dict[str, Any]:
    """Play it; return what its reader sees, and which of its tools ran."""
    result = tutorial.play(stage)
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    ran = sorted(stage.ran, key=repr) if tutorial.parallel else stage.ran
    return {"result": plain(result), "ran": plain(ran)}


def plain(value: Any) -> Any:
    """Return a value as data that can be compared: messages by role, text and tool calls."""
    if isinstance(value, ChatMessage):
        return _message(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return {type(value).__name__: plain(value.model_dump())}
    return value


def _message(message: ChatMessage) -> list[Any]:
    called = [
        [block.tool_name, _arguments(block.tool_kwargs)]
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]
    return [message.role.value, message.content or "", *([called] if called else [])]


def _arguments(given: Any) -> Any:
    return json.loads(given) if isinstance(given, str) else dict(given)


# -- the control -------------------------------------------------------------------------------


def control(tutorial: Tutorial, model: ScriptedModel) -> dict[str, Any]:
    """Play a tutorial with LlamaIndex' own LLM and its own agent."""
    from llama_index.llms.openai_like import OpenAILike

    model.clear()
    model.script(*script(tutorial.lines, by_function=True))

    def llm(**fields: Any) -> OpenAILike:
        return OpenAILike(
            model="scripted",
            api_base=model.base_url,
            api_key="none",
            is_chat_model=True,
            is_function_calling_model=True,
            context_window=128_000,
            max_retries=0,
            # It has no way to be closed: what it does not keep need not be.
            http_client=httpx.Client(**_PLAIN),
            async_http_client=httpx.AsyncClient(**_PLAIN),
            **fields,
        )

    def agent(**fields: Any) -> FunctionAgent:
        return FunctionAgent(llm=llm(), **fields)

    return perform(tutorial, Stage(llm, agent))


# -- ours --------------------------------------------------------------------------------------


def with_llm(client: Any, new_agent: Callable[[str], str]) -> Stage:
    """Return a stage with ``LettaLLM``, and ``FunctionAgent``s over it."""
    agent_id = new_agent("tutorial")

    def llm(**fields: Any) -> LettaLLM:
        return LettaLLM(agent_id=agent_id, client=client, **fields)

    return Stage(llm, lambda **fields: FunctionAgent(llm=llm(), **fields))


def with_agent(client: Any, new_agent: Callable[[str], str]) -> Stage:
    """Return a stage with ``LettaAgent``s: each name is another agent on the server."""
    stage = with_llm(client, new_agent)

    def agent(**fields: Any) -> LettaAgent:
        agent_id = new_agent(str(fields.get("name", "agent")))
        return LettaAgent(agent_id=agent_id, client=client, **fields)

    stage.agent = agent
    return stage


# -- what the model was shown ------------------------------------------------------------------


def missing(
    theirs: Iterable[ModelRequest], ours: Iterable[ModelRequest], objects: Collection[str] = ()
) -> list[str]:
    """Return what the control's model was shown and ours was not, call by call.

    ``objects``: functions that stand for objects, which ours is asked for in words.
    """
    made = []
    for at, (there, here) in enumerate(zip(theirs, ours, strict=True)):
        shown = _all_text(here)
        for message in there.messages:
            text = _spaced(_text(message))
            if text not in shown:
                made.append(f"call {at}, {message['role']}: {text}")
        offered = _tools(there) - _tools(here) - set(objects)
        made += [f"call {at}, tool: {name}" for name in sorted(offered)]
    return made


def _all_text(request: ModelRequest) -> str:
    return _spaced("\n".join(_text(message) for message in request.messages))


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _tools(request: ModelRequest) -> set[str]:
    return {str(tool["function"]["name"]) for tool in request.tools}


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return str(content or "")
