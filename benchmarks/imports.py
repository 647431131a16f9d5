"""Measure import times, each in a fresh interpreter (whose own start-up is not counted).

Names are imported when they are used, so an import alone says little: the second table goes on to a
first answer of one token, from a server on loopback.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from textwrap import dedent

from benchmarks import crowd_server
from benchmarks.report import show, spread, versions

STATEMENTS = (
    "import letta_adapters",
    "import pydantic",
    "from pydantic import BaseModel",
    "import httpx",
    "from letta_adapters import LettaClient",
    "from letta_adapters import AsyncLettaClient",
    "from letta_client import Letta",
)
_BASELINE = "import pydantic"
_AGENT = f"agent-{crowd_server.AT_ONCE}"
_CONVERSATION = f"conv-{crowd_server.AT_ONCE}-1"
# The code up to the first answer. `url` is the server's; what is not installed is left out.
ANSWERS = {
    "raw httpx": """
        import httpx
        body = {"messages": [{"type": "message", "role": "user", "content": "Hi"}],
                "streaming": True}
        httpx.post(f"{url}/v1/conversations/CONVERSATION/messages", json=body).text
    """,
    "letta-client": """
        from letta_client import Letta
        messages = [{"role": "user", "content": "Hi"}]
        list(Letta(base_url=url, api_key="none").conversations.messages.create(
            "CONVERSATION", messages=messages, streaming=True))
    """,
    "LettaClient": """
        from letta_adapters import LettaClient, Rest
        client = LettaClient(Rest(base_url=url, api_key=""))
        client.resume_session(agent_id="AGENT", conversation_id="CONVERSATION").run_turn("Hi")
    """,
    "letta-adapters prompt (CLI)": """
        from letta_adapters.cli import main
        main(["prompt", "--backend", "cloud", "--base-url", url, "--agent", "AGENT",
              "--conversation", "CONVERSATION", "--quiet", "Hi"])
    """,
    "ChatLetta": """
        from letta_adapters.langchain import ChatLetta
        ChatLetta(agent_id="AGENT", conversation_id="CONVERSATION", base_url=url).invoke("Hi")
    """,
    "ChatOpenAI": """
        from langchain_openai import ChatOpenAI
        ChatOpenAI(model="MODEL", base_url=f"{url}/v1", api_key="none").invoke("Hi")
    """,
    "LettaLLM": """
        from letta_adapters.llama_index import LettaLLM
        LettaLLM(agent_id="AGENT", conversation_id="CONVERSATION", base_url=url).complete("Hi")
    """,
}
_NEEDS = {
    "letta-client": "letta_client",
    "ChatLetta": "langchain_core",
    "ChatOpenAI": "langchain_openai",
    "LettaLLM": "llama_index.core",
}
_ROUNDS = 15
_CODE = """
import json, sys, time
before = len(sys.modules)
wall, cpu = time.perf_counter(), time.process_time()
CODE
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps([wall * 1000, cpu * 1000, len(sys.modules) - before]))
"""


def run(*, quick: bool = False) -> bool:
    """Measure and print."""
    rounds = 3 if quick else _ROUNDS
    print(f"\nImports: {versions('pydantic', 'httpx', 'letta-client')}, {rounds} rounds")
    _show("median [quartiles]", {statement: statement for statement in STATEMENTS}, rounds)
    with crowd_server.running() as url:
        codes = {
            name: f"url = {url!r}\n" + _fill(code)
            for name, code in ANSWERS.items()
            if name not in _NEEDS or _installed(_NEEDS[name])
        }
        _show("to a first answer, import included", {_BASELINE: _BASELINE, **codes}, rounds)
    return True


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _fill(code: str) -> str:
    names = {"AGENT": _AGENT, "CONVERSATION": _CONVERSATION, "MODEL": crowd_server.AT_ONCE}
    for name, value in names.items():
        code = code.replace(name, value)
    return dedent(code)


def _show(title: str, codes: Mapping[str, str], rounds: int) -> None:
    """Run each piece of code in fresh interpreters, and print what it costs."""
    found: dict[str, list[list[float]]] = {name: [] for name in codes}
    for number in range(rounds + 1):
        for name, code in codes.items():
            sample = _sample(code)
            if number:  # the first round fills the caches of the file system
                found[name].append(sample)
    baseline = [cpu for _, cpu, _ in found[_BASELINE]]
    rows = []
    for name, samples in found.items():
        walls, cpus, modules = zip(*samples, strict=True)
        ratios = [cpu / base for cpu, base in zip(cpus, baseline, strict=True)]
        count = f"{median(modules):.0f}"
        rows.append((name, spread(cpus), spread(walls), spread(ratios, 2), count))
    show(title, ("", "CPU ms", "wall ms", f"x {_BASELINE}", "modules"), rows)


def _sample(code: str) -> list[float]:
    command = [sys.executable, "-W", "ignore", "-c", _CODE.replace("CODE", code)]
    here = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=here, stdout=subprocess.PIPE, check=True, text=True)
    # The command line prints its answer before.
    sample: list[float] = json.loads(done.stdout.splitlines()[-1])
    return sample
