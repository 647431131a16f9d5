"""Let the examples run without a key: a scripted stand-in then plays the model.

The agent, its memory, its tools and the streaming are real in either case.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from letta_adapters import LettaClient, Local
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ScriptedModel

LIVE = (
    "LETTA_API_KEY",
    "LETTA_BASE_URL",
    "LETTA_APP_SERVER_URL",
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "GEMINI_API_KEY",
)
Respond = Callable[[ModelRequest, str], Reply]


@contextmanager
def connected(respond: Respond, data_dir: Path | None = None) -> Iterator[LettaClient]:
    """Yield a client of :func:`backend`."""
    with backend(respond, data_dir) as spec, LettaClient(spec) as client:
        yield client


@contextmanager
def backend(respond: Respond, data_dir: Path | None = None) -> Iterator[Local | None]:
    """Yield a client's backend.

    It is ``None``, the live one, if the environment says how, else the embedded runtime with a
    stand-in. ``respond`` plays the model: it gets the request and the user's last text.
    ``data_dir`` keeps the stand-in's agents for a later run.
    """
    with ExitStack() as stack:
        if any(os.environ.get(name) for name in LIVE):
            yield None
            return
        print("(No key in the environment: a scripted stand-in plays the model.)")
        home = data_dir or Path(stack.enter_context(_directory()))

        def play(request: ModelRequest) -> Reply:
            return respond(request, asked(request))

        model = stack.enter_context(ScriptedModel(respond=play, vision=True))
        where = {"base_url": model.base_url}
        yield Local(data_dir=home, openai_compatible=where)


def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


def is_letta_code(client: LettaClient) -> bool:
    """Return whether the agent works on a computer, with a directory and tools of its own."""
    return client.backend_name != "rest"


def find_or_create(client: LettaClient, name: str, persona: str) -> str:
    """Return the agent of that name from an earlier run, or a new one."""
    tag = f"letta-adapters-example:{name}"
    for agent in client.agents.list(tags=[tag], limit=1):
        return str(agent["id"])
    model = os.environ.get("LETTA_MODEL")
    given = {"model": model} if model else {}
    return client.create_agent(
        name=name, persona=persona, human="I know nothing about the user yet.", tags=[tag], **given
    )


def asked(request: ModelRequest) -> str:
    """Return the user's last text, without the reminders that Letta adds to it."""
    text = re.sub(r"<system-reminder>.*?</system-reminder>", "", request.last_user_text, flags=re.S)
    return text.strip()


def heard(request: ModelRequest) -> str | None:
    """Return a tool's result, if the model is given one now."""
    last = request.messages[-1] if request.messages else {}
    if last.get("role") != "tool":
        return None
    return ModelRequest({"messages": [{**last, "role": "user"}]}).last_user_text


def offered(request: ModelRequest) -> set[str]:
    """Return the names of the tools that the model may call."""
    return {tool["function"]["name"] for tool in request.tools}


def agrees(question: str) -> bool:
    """Ask the person at the terminal; where there is none, nobody agrees."""
    try:
        return input(question).strip().lower().startswith("y")
    except EOFError:
        print("(Nobody can be asked here, so it is no. Run it with --yes to agree.)")
        return False
