"""Put many prompts through an agent with Ray Data: in parallel, resumable, nothing asked twice.

    python examples/ray_job.py                      (twelve prompts, on this machine)
    python examples/ray_job.py PROMPTS RESULTS      (a file of JSON lines with `id` and `text`)

Start it again after a crash: rows whose answers are in RESULTS are left out, and a row that was
asked but not written finds its answer in the agent's conversation, as its id is the id of its
message. Keys come from the environment of the machines that run the actors. Needs ``ray[data]``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
from _agent import backend
from langchain_core.messages import HumanMessage

from letta_adapters import LettaClient, Local
from letta_adapters.langchain import ChatLetta
from letta_adapters.testing.scripted_model import ModelRequest, Reply

AT_ONCE = 4  # prompts that one actor has under way
ACTORS = 2


class Ask:
    """One actor: a client that lives as long as it does, and a batch of prompts at a time.

    Args:
        agent_id: Who is asked.
        where: The arguments of :class:`Local`; ``None``: what the actor's environment names.
    """

    def __init__(self, agent_id: str, where: dict[str, Any] | None) -> None:
        self.client = LettaClient(Local(**where) if where else None)
        self.agent_id = agent_id

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        model = ChatLetta(agent_id=self.agent_id, client=self.client)
        rows = list(zip(batch["id"], batch["text"], strict=True))
        prompts = [[HumanMessage(str(text), id=str(id_))] for id_, text in rows]
        # Each in a conversation that is called after the row, so that a second run finds it.
        configs = [{"configurable": {"thread_id": str(id_)}} for id_, _ in rows]
        answers = model.batch(prompts, configs, return_exceptions=True)
        batch["answer"] = [None if isinstance(a, Exception) else a.text for a in answers]
        batch["error"] = [str(a) if isinstance(a, Exception) else None for a in answers]
        return batch


def read_done(results: Path) -> set[str]:
    """Return the ids of the rows that have an answer."""
    lines = [line for file in results.rglob("*.json") for line in file.read_text().splitlines()]
    return {str(row["id"]) for row in map(json.loads, lines) if row["answer"] is not None}


def run(prompts: list[dict[str, str]], results: Path, agent_id: str, where: Any) -> None:
    """Answer what is not answered yet and write it, block by block as it is done."""
    done = read_done(results)
    todo = [row for row in prompts if row["id"] not in done]
    print(f"{len(prompts)} prompts, {len(done)} answered before, {len(todo)} to go.")
    if not todo:
        return
    answered = ray.data.from_items(todo, override_num_blocks=max(1, len(todo) // AT_ONCE))
    answered = answered.map_batches(
        Ask,
        fn_constructor_args=(agent_id, where),
        batch_size=AT_ONCE,
        compute=ray.data.ActorPoolStrategy(size=ACTORS),
        num_cpus=0.25,  # an actor waits for the agent most of the time
    )
    answered.write_json(str(results))


def stand_in(_request: ModelRequest, asked: str) -> Reply:
    with Path(os.environ["EXAMPLE_LOG"]).open("a") as log:
        log.write(asked + "\n")
    return Reply(f"The answer to {asked!r}.")


def main() -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        os.environ["EXAMPLE_LOG"] = str(home / "asked.log")
        prompts = [{"id": f"row-{n}", "text": f"question {n}"} for n in range(12)]
        results = home / "results"
        if len(sys.argv) == 3:
            lines = Path(sys.argv[1]).read_text().splitlines()
            prompts, results = [json.loads(line) for line in lines], Path(sys.argv[2])
        results.mkdir(exist_ok=True)
        ray.init(log_to_driver=False, include_dashboard=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        with backend(stand_in, home / "letta") as spec, LettaClient(spec) as client:
            tags = ["letta-adapters-example:ray"]
            found = client.agents.list(tags=tags, limit=1)
            agent_id = found[0]["id"] if found else client.create_agent(name="ray", tags=tags)
            where = None
            if spec is not None:
                where = {"data_dir": spec.data_dir, "openai_compatible": spec.openai_compatible}
            run(prompts, results, agent_id, where)
            print("started again:")
            run(prompts, results, agent_id, where)
            ray.shutdown()
        log = Path(os.environ["EXAMPLE_LOG"])
        if log.exists():
            print(f"The model was asked {len(log.read_text().splitlines())} times.")


if __name__ == "__main__":
    main()
