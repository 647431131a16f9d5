"""Answer questions in a Celery pool: several processes, nothing asked twice, restarts included.

    python examples/celery_worker.py                       (broker, worker and questions, at once)
    celery --workdir examples -A celery_worker worker      (a worker of your own)

The broker is Redis: ``CELERY_BROKER_URL``, else a ``redis-server`` that is started for the run. A
question's id is the id of its message. A task that runs again, because its worker was killed or
somebody queued it twice, finds the answer in the agent's conversation instead of asking again.
Needs ``celery[redis]``.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _agent import backend
from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown
from langchain_core.messages import HumanMessage

from letta_adapters import LettaClient, Local
from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.scripted_model import ModelRequest, Reply

BROKER = os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0")
app = Celery("letta", broker=BROKER, backend=BROKER)
app.conf.update(
    # A task whose worker dies is queued again, instead of lost.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # Take one at a time: a turn is long, and what was fetched early waits behind it.
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)
process: dict[str, LettaClient] = {}


@worker_process_init.connect
def open_client(**_: Any) -> None:
    """Open one client for each process of the pool, after the fork."""
    where = os.environ.get("EXAMPLE_BACKEND")
    spec = Local(**json.loads(where)) if where else None  # None: what the environment names
    process["client"] = LettaClient(spec)


@worker_process_shutdown.connect
def close_client(**_: Any) -> None:
    """Close it before the process ends, so that a runtime of this machine ends with the last."""
    process.pop("client").close()


@app.task(name="answer", time_limit=300)
def answer(agent_id: str, question_id: str, text: str) -> str:
    """Return the agent's answer.

    Args:
        agent_id: Who is asked.
        question_id: Names the question for ever: the same id gets the same answer.
        text: The question.
    """
    model = ChatLetta(agent_id=agent_id, client=process["client"], thread_id=question_id)
    return model.invoke([HumanMessage(text, id=question_id)]).text


def stand_in(_request: ModelRequest, asked: str) -> Reply:
    with Path(os.environ["EXAMPLE_LOG"]).open("a") as log:
        log.write(asked + "\n")
    return Reply(f"The answer to {asked!r}.")


@contextmanager
def broker() -> Iterator[str]:
    """Yield the address of a broker, started here if the environment names none."""
    if "CELERY_BROKER_URL" in os.environ:
        yield os.environ["CELERY_BROKER_URL"]
        return
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("Install redis-server, or set CELERY_BROKER_URL to the address of yours.")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    only_here = ["--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    server = subprocess.Popen([program, *only_here], stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def worker(environment: dict[str, str]) -> Iterator[None]:
    """Run a worker with two processes."""
    here = Path(__file__)
    command = [sys.executable, "-m", "celery", "--workdir", str(here.parent), "-A", here.stem]
    command += ["worker", "--concurrency", "2", "--loglevel", "WARNING", "--without-mingle"]
    running = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        yield
    finally:
        running.terminate()  # a warm shutdown: what runs is finished
        running.wait()


def ask(agent_id: str, questions: dict[str, str]) -> None:
    """Queue the questions and print the answers."""
    waiting = [(key, answer.delay(agent_id, key, text)) for key, text in questions.items()]
    for key, result in waiting:
        print(f"  {key}: {result.get(timeout=120)}")


def main() -> None:
    questions = {f"job-1/{n}": f"question {n}" for n in range(4)}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, broker() as address:
        os.environ["EXAMPLE_LOG"] = str(Path(home) / "asked.log")
        app.conf.update(broker_url=address, result_backend=address)
        with backend(stand_in, Path(home) / "letta") as spec, LettaClient(spec) as client:
            agent_id = client.create_agent(name="clerk", persona="I answer questions.")
            environment = {"CELERY_BROKER_URL": address}
            if spec is not None:
                told = {"data_dir": str(spec.data_dir), "openai_compatible": spec.openai_compatible}
                environment["EXAMPLE_BACKEND"] = json.dumps(told)
            with worker(environment):
                ask(agent_id, questions)
                print("the same questions again:")
                ask(agent_id, questions)
            # A result tells the broker when it is deleted, so that must be while there is one.
            gc.collect()
        log = Path(os.environ["EXAMPLE_LOG"])
        if log.exists():
            print(f"The model was asked {len(log.read_text().splitlines())} times.")


if __name__ == "__main__":
    main()
