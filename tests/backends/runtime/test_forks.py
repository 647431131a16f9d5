"""A client of the embedded runtime in processes that were forked: a pool's, and their children."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from letta_adapters.testing.scripted_model import ScriptedModel
from tests.backends.runtime.conftest import ROOT

_POOL = """
import json, multiprocessing, os, sys
from letta_adapters import LettaClient, Local

spec = Local(data_dir=sys.argv[1], openai_compatible={"base_url": sys.argv[2]})
client = LettaClient(spec)
agent = client.create_agent(model="lmstudio/scripted", system_prompt="Test.")


def ask(number):
    result = client.prompt(f"question {number}", agent)
    return os.getpid(), result.success, client.runtime_status().pid


def ask_in_a_child(number):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ask(number)[1] else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


assert ask("before")[1]
with multiprocessing.get_context("fork").Pool(2) as pool:
    asked = pool.map(ask, range(6), chunksize=1)
    children = pool.map(ask_in_a_child, range(2), chunksize=1)
asked.append(ask("after"))
client.close()
print(json.dumps([asked, children]))
"""


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here"
)
def test_a_pool_whose_processes_were_forked_after_the_first_question(
    home: Path, model: ScriptedModel
) -> None:
    command = [sys.executable, "-W", "ignore", "-c", _POOL, str(home), model.base_url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    asked, children = json.loads(done.stdout)
    assert len({pid for pid, _, _ in asked}) >= 2
    assert all(success for _, success, _ in asked)
    assert len({runtime for _, _, runtime in asked}) == 1, "all use one runtime"
    assert children == [0, 0]
