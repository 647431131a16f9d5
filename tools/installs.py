"""Install built distributions into clean environments, one for each Python that is here.

    python -m build --outdir dist && for f in packages/*/; do python -m build --outdir dist $f; done
    python -m tools.installs dist/*.whl

The wheel of this package comes alone first, then the thin ones (``packages/``) beside another
distribution of their namespace. In both states the names are imported and an agent in memory is
asked, by the installed files: the working directory is not on the path. ``uv`` installs, from its
cache, so that the second run takes seconds.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

VERSIONS: Final = ("3.10", "3.11", "3.12", "3.13")
# Another distribution in the namespace of a thin one: both must be found.
BESIDE: Final = "llama-index-llms-openai-like"
ALONE: Final = """
import sys
import letta_adapters
heavy = {"httpx", "websockets", "pydantic", "langchain_core", "llama_index"} & set(sys.modules)
assert not heavy, heavy
for name in letta_adapters.__all__:
    getattr(letta_adapters, name)
from letta_adapters.testing import FakeLetta
with FakeLetta("Hello Ada.").client() as client, client.create_session() as session:
    assert session.run_turn("I am Ada.").result == "Hello Ada."
print(letta_adapters.__version__, "with", len(letta_adapters.__all__), "names")
"""
THIN: Final = """
from langchain_letta import ChatLetta
from llama_index.agent.letta import LettaAgent
from llama_index.core.llms import LLM
from llama_index.llms.letta import LettaLLM
from llama_index.llms.openai_like import OpenAILike
import letta_adapters.langchain
import letta_adapters.llama_index
from letta_adapters.testing import FakeLetta
assert ChatLetta is letta_adapters.langchain.ChatLetta
ours = letta_adapters.llama_index
assert (LettaAgent, LettaLLM) == (ours.LettaAgent, ours.LettaLLM)
assert issubclass(LettaLLM, LLM) and issubclass(OpenAILike, LLM)
with FakeLetta("Hello Ada.", "Hello Bob.").client() as client:
    assert ChatLetta(client=client).invoke("I am Ada.").text == "Hello Ada."
    assert LettaLLM(client=client).complete("I am Bob.").text == "Hello Bob."
print("langchain_letta, llama_index.llms.letta and llama_index.agent.letta")
"""


def find_pythons(versions: Iterable[str] = VERSIONS) -> dict[str, str]:
    """Return the interpreters of these versions that make environments, by version."""
    found = {}
    for version in versions:
        pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        here = [sys.executable] if sys.version_info[:2] == _numbers(version) else []
        for candidate in (*here, f"python{version}", *map(str, pyenv)):
            if (path := shutil.which(candidate)) and _is(path, version):
                found[version] = path
                break
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _is(python: str, version: str) -> bool:
    """Return whether it runs: a name on the path may lead to an interpreter that is not there."""
    code = f"import venv, sys; sys.exit(sys.version_info[:2] != {_numbers(version)!r})"
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def split_wheels(wheels: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the wheel of this package, and those of the thin distributions."""
    given = [str(Path(wheel).resolve()) for wheel in wheels]
    own = [wheel for wheel in given if Path(wheel).name.startswith("letta_adapters-")]
    return own, [wheel for wheel in given if wheel not in own]


def check(python: str, own: list[str], thin: list[str]) -> str:
    """Return what was seen in a clean environment of one interpreter.

    Raises:
        subprocess.CalledProcessError: Something could not be installed, imported or run.
    """
    with tempfile.TemporaryDirectory(prefix="letta-adapters-install-") as folder:
        place = Path(folder) / "venv"
        inside = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        _run(*_UV, "venv", "--quiet", "--python", python, str(place))
        install = (*_UV, "pip", "install", "--quiet", "--python", str(inside))
        _run(*install, *own)
        seen = [_run(str(inside), "-I", "-c", ALONE, cwd=folder)]
        if thin:
            _run(*install, *own, *thin, BESIDE)
            seen.append(_run(str(inside), "-I", "-c", THIN, cwd=folder))
        return "; ".join(text.strip() for text in seen)


_UV: Final = (sys.executable, "-m", "uv")


def _run(*command: str, cwd: str | None = None) -> str:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def check_all(pythons: Mapping[str, str], wheels: Iterable[str]) -> bool:
    """Check all interpreters, two at a time, and print a line of each; return whether all fit."""
    own, thin = split_wheels(wheels)
    if len(own) != 1:
        print(f"one wheel of letta_adapters is needed, not {len(own)}")
        return False

    def run(version: str) -> bool:
        try:
            said, good = check(pythons[version], own, thin), True
        except subprocess.CalledProcessError as error:
            said, good = f"{error}\n{error.stdout}{error.stderr}", False
        print(f"Python {version}: {said}", flush=True)
        return good

    with ThreadPoolExecutor(2) as pool:
        return all(list(pool.map(run, pythons)))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.installs", description=__doc__)
    parser.add_argument("wheels", nargs="+", help="the built wheels")
    args = parser.parse_args()
    began, pythons = time.monotonic(), find_pythons()
    good = check_all(pythons, args.wheels)
    missing = [version for version in VERSIONS if version not in pythons]
    print(f"{len(pythons)} Pythons in {time.monotonic() - began:.0f} s", end="")
    print(f"; not here: {', '.join(missing)}" if missing else "")
    return 0 if good and pythons else 1


if __name__ == "__main__":
    sys.exit(main())
