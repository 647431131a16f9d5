"""Internal: implement ``letta-adapters demo``: two turns with a persistent agent, on this machine.

The runtime, the agent and its history on disk, the streaming and the tool call are real. So is the
model if the environment has the key of one; else a scripted stand-in on loopback plays it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from letta_adapters.backends.app_server.options import check_model
from letta_adapters.backends.config import Local
from letta_adapters.backends.runtime.find import find_installation
from letta_adapters.cli import demo_frameworks
from letta_adapters.cli.exits import FAILED, OK
from letta_adapters.cli.render import (
    Renderer,
    clean,
    end_leftovers,
    format_usage,
    make_console,
    progress,
    show_error,
)
from letta_adapters.cli.state import user_folder
from letta_adapters.errors import ConfigurationError
from letta_adapters.messages import ResultMessage
from letta_adapters.sync.client import LettaClient, Session
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ScriptedModel, ToolUse

if TYPE_CHECKING:
    from rich.console import Console

PACKAGE: Final = "letta-adapters"
_LOOK: Final = "Look it up with your tool."
FIRST: Final = f"My name is Ada. Which version of {PACKAGE} is installed here? {_LOOK}"
AGAIN: Final = f"Hello again! Which version of {PACKAGE} is installed here now? {_LOOK}"
SECOND: Final = "What is my name, and which version did you find?"
_PACE: Final = 0.03  # seconds between two words of the stand-in: about the speed of a real model

# The variable that shows that a real model can be used → its provider in Letta Code, and a model of
# it that is fast and cheap. Without such a model (or if it is gone), the first that Letta Code
# lists of that provider is used.
_PROVIDERS: Final = {
    "ANTHROPIC_API_KEY": ("anthropic", "claude-haiku-4-5"),
    "OPENAI_API_KEY": ("openai", "gpt-5-mini"),
    "GEMINI_API_KEY": ("google", "gemini-2.5-flash"),
    "OPENROUTER_API_KEY": ("openrouter", "anthropic/claude-haiku-4.5"),
    "GROQ_API_KEY": ("groq", "openai/gpt-oss-120b"),
    "MISTRAL_API_KEY": ("mistral", "mistral-small-latest"),
    "DEEPSEEK_API_KEY": ("deepseek", "deepseek-flash"),
    "XAI_API_KEY": ("xai", ""),
    "ZAI_API_KEY": ("zai", ""),
    "LMSTUDIO_BASE_URL": ("lmstudio", ""),
}


@dataclass(frozen=True)
class Model:
    """The model to use, and the reason for it."""

    handle: str
    real: bool
    why: str

    def __str__(self) -> str:
        if self.real:
            return f"{self.handle}, a real model ({self.why})"
        return f"a scripted stand-in, not a real model ({self.why})"


def installed_version(package: str) -> str:
    """Return the version of a Python package that is installed on this computer.

    Args:
        package: Its name on PyPI.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    console, errors = make_console(), make_console(stderr=True)
    data_dir = (args.data_dir or user_folder("data") / "demo").expanduser().absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    version = find_installation().version
    with ExitStack() as stack:
        started = time.monotonic()
        with progress(console, "Starting the embedded Letta runtime", plain=True):
            client, model = _connect(stack, args, data_dir)
        took = time.monotonic() - started
        _fact(console, "Runtime", f"Letta Code {version}, ready in {took:.1f} s")
        _fact(console, "Model", str(model))
        _fact(console, "State", str(data_dir))
        with progress(console, "Looking for the agent"):
            agent_id, made = _find_or_create(client, model)
        _fact(
            console, "Agent", f"{agent_id}, {'made now' if made else 'found from an earlier run'}"
        )
        with client.resume_session(
            agent_id=agent_id,
            include_partial_messages=True,
            tools=[installed_version],
            cwd=data_dir,  # a real model has no business in the user's directory
        ) as session:
            end_leftovers(session, errors)
            # A second run greets the agent again, to show that it remembers the first one.
            known = bool(session.list_messages(limit=1).raw)
            for text in (AGAIN if known else FIRST, SECOND):
                result = _turn(console, session, text)
                if result.success and model.real:
                    console.print(Text(format_usage(result), style="dim"))
                elif not result.success:
                    show_error(errors, result.to_error())
                    if model.real:
                        errors.print("Without a real model: letta-adapters demo --scripted")
                    return FAILED
        demo_frameworks.show(console, client, agent_id)
    console.print("\nRun it again: it will find this agent, which still knows the name.")
    return OK


def _fact(console: Console, name: str, text: str) -> None:
    console.print(Text(f"{name:9}", style="bold").append(clean(text), style="not bold"))


def _turn(console: Console, session: Session, text: str) -> ResultMessage:
    console.print(Text(f"\n> {text}", style="bold"))
    return Renderer(console).run_turn(session, text)


def _find_or_create(client: LettaClient, model: Model) -> tuple[str, bool]:
    """Return the agent of an earlier run, else a new one, and whether it is new.

    The stand-in has an agent of its own: its answers do not belong into the history of a real
    model's.
    """
    tag = f"letta-adapters:demo:{'real' if model.real else 'scripted'}"
    for agent in client.agents.list(tags=[tag], limit=1):
        # Another key may be set than in the earlier run.
        if agent.get("model") != model.handle:
            client.agents.update(agent["id"], model=model.handle)
        return str(agent["id"]), False
    made = client.create_agent(
        name="demo",
        model=model.handle,
        persona="I am the demo of letta-adapters. I answer in one or two short sentences.",
        human="I know nothing about the user yet.",
        tags=[tag],
    )
    return made, True


# -- the model ------------------------------------------------------------------------------------


def _connect(
    stack: ExitStack, args: argparse.Namespace, data_dir: Path
) -> tuple[LettaClient, Model]:
    """Return a client of the runtime, which is started with the model that can be used."""
    keys = [name for name in _PROVIDERS if os.environ.get(name)]
    why = "--scripted" if args.scripted else "no provider's key is in the environment"
    if args.model or (keys and not args.scripted):
        client = stack.enter_context(LettaClient(Local(data_dir=data_dir)))
        model = choose(_handles(client), keys, args.model)
        if model is not None:
            return client, model
        # The runtime of a directory has one set of settings, so this one ends first.
        client.close()
        why = f"{' and '.join(keys)} set, but Letta Code has no model for it"
    pace = _PACE if sys.stdout.isatty() else 0.0
    stand_in = stack.enter_context(ScriptedModel(respond=lambda request: respond(request, pace)))
    where = {"base_url": stand_in.base_url, "api_key": "none"}
    client = stack.enter_context(LettaClient(Local(data_dir=data_dir, openai_compatible=where)))
    client.models.list()  # starts the runtime, as above
    # It is named, and not the first of the list: with a key in the environment, that is a real one.
    return client, Model(f"lmstudio/{stand_in.models[0]}", False, why)


def _handles(client: LettaClient) -> list[str]:
    return list(dict.fromkeys(str(model["handle"]) for model in client.models.list()))


def choose(handles: Sequence[str], keys: Sequence[str], wanted: str | None) -> Model | None:
    """Return the model that was asked for, else one whose key is set and which Letta Code lists.

    Args:
        handles: The models that Letta Code lists.
        keys: The providers' variables that are set.
        wanted: The model that was asked for, if any.

    Raises:
        LettaError: The one that was asked for is not there.
    """
    if wanted:
        if not handles:
            raise ConfigurationError(
                "No model provider is configured.",
                hint=f"Set the key of one: {', '.join(_PROVIDERS)}.",
            )
        check_model(wanted, handles, "Model")
        return Model(wanted, True, "--model")
    for key in keys:
        provider, preferred = _PROVIDERS[key]
        offered = [handle for handle in handles if handle.startswith(f"{provider}/")]
        if offered:
            best = f"{provider}/{preferred}"
            return Model(best if best in offered else offered[0], True, f"{key} is set")
    return None


# -- the stand-in ---------------------------------------------------------------------------------


def respond(request: ModelRequest, pace: float = 0.0) -> Reply:
    """Return the stand-in's answer.

    It knows nothing but the history that it was sent, as a real model.
    """
    said = list(_user_texts(request))
    current = said[-1] if said else ""
    last = request.messages[-1] if request.messages else {}
    if last.get("role") == "tool":
        return Reply(f"{_greeting(said)} {_version(request)}", token_delay=pace)
    if _LOOK in current and _offers(request, installed_version):
        # The history contains the calls of earlier runs as well, so the id must be a new one.
        call = ToolUse(installed_version.__name__, {"package": PACKAGE}, id=f"call_{uuid.uuid4()}")
        thought = "I cannot know that, so I call the tool."
        return Reply(reasoning=thought, tool_calls=[call], token_delay=pace)
    asked_elsewhere = demo_frameworks.stand_in_answer(current)
    if asked_elsewhere is not None:
        return Reply(asked_elsewhere, token_delay=pace)
    thought = "Both must be in what was said so far."
    answer = f"{_name_sentence(said)} {_version(request)}"
    return Reply(answer, reasoning=thought, token_delay=pace)


def _offers(request: ModelRequest, tool: Callable[..., Any]) -> bool:
    return any(t.get("function", {}).get("name") == tool.__name__ for t in request.tools)


def _user_texts(request: ModelRequest) -> Iterator[str]:
    """Yield the user's texts, without the reminders that Letta Code adds."""
    for message in request.messages:
        if message.get("role") == "user":
            text = ModelRequest({"messages": [message]}).last_user_text
            yield re.sub(r"<system-reminder>.*?</system-reminder>", "", text, flags=re.DOTALL)


def _name(said: Sequence[str]) -> str:
    found = re.findall(r"My name is (\w+)", "\n".join(said))
    return found[-1] if found else ""


def _greeting(said: Sequence[str]) -> str:
    if name := _name(said[-1:]):
        return f"Nice to meet you, {name}."
    name = _name(said)
    return f"Welcome back, {name}." if name else "You have not told me your name yet."


def _name_sentence(said: Sequence[str]) -> str:
    name = _name(said)
    return f"Your name is {name}." if name else "You have not told me your name yet."


def _version(request: ModelRequest) -> str:
    """Return a sentence on what the tool said last, from the call and the result in the history."""
    asked = {
        call["id"]: json.loads(call["function"]["arguments"])
        for message in request.messages
        for call in message.get("tool_calls") or ()
        if call["function"]["name"] == installed_version.__name__
    }
    results = [m for m in request.messages if m.get("tool_call_id") in asked]
    if not results:
        return "I have not looked a version up."
    package = asked[results[-1]["tool_call_id"]]["package"]
    text = ModelRequest({"messages": [{**results[-1], "role": "user"}]}).last_user_text
    return f"The tool said that {package} is at version {text.strip()}."
