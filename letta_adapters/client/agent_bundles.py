"""Internal: export an agent of Letta Code to a git bundle, and make one of a bundle.

The memory is a git repository on this machine, which the App Server has no command to carry: git is
run here (:mod:`letta_adapters.backends.runtime.repositories`). A bundle is not believed: it was
read without git before (:mod:`letta_adapters.client.bundle_file`), and git checks it again where
nothing else is.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from letta_adapters._utils.checks import check_id
from letta_adapters._utils.files import on_thread, publish
from letta_adapters._utils.tasks import await_all
from letta_adapters.backends.agent_settings import Restrictions
from letta_adapters.backends.runtime.repositories import Quarantine, export_memory, quarantine
from letta_adapters.client.agent_file import MAX_BYTES
from letta_adapters.client.bundle_file import (
    MEMORY,
    SETTINGS,
    SETTINGS_FILE,
    describe_bundle,
    read_restrictions,
    write_settings,
)
from letta_adapters.client.file_parts import AgentFile
from letta_adapters.client.requests import Requests
from letta_adapters.errors import InvalidInputError, LettaError, NotFoundError
from letta_adapters.options import AgentOptions

_log: Final = logging.getLogger("letta_adapters.agents")
_REMOVE_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.1
_CALM_LOOKS: Final = 8
_REFS: Final = (MEMORY, SETTINGS, SETTINGS_FILE)


async def export_bundle(
    caller: Requests, agent_id: str, where: Path, *, overwrite: bool
) -> AgentFile:
    """Export an agent; see :meth:`~letta_adapters.client.resources.AsyncAgents.export_file`."""
    agent = await caller.make("GET", f"/v1/agents/{check_id(agent_id, 'an agent id')}")
    memory = _find_memory(caller, agent_id)
    if not await asyncio.to_thread(memory.is_dir):
        raise NotFoundError(f"The agent {agent_id} has no memory repository.", hint="")
    data = await on_thread(export_memory, memory, write_settings(agent), _REFS, MAX_BYTES)
    shown = await asyncio.to_thread(describe_bundle, data)
    # Whoever keeps a file wants to get the agent back out of it.
    check_refused(shown)
    # By git as well, as an import does: it checks more than is read here.
    await on_thread(_try, data)
    await asyncio.to_thread(publish, where, data, overwrite=overwrite)
    return shown


def _try(bundle: bytes) -> None:
    with quarantine(bundle, MEMORY):
        pass


def check_refused(shown: AgentFile) -> None:
    """Refuse a bundle that holds what is never written.

    Raises:
        InvalidInputError: It does, and all that is wrong with it is named.
    """
    if shown.refused:
        more = f" (and {len(shown.refused) - 3} more)" if len(shown.refused) > 3 else ""
        raise InvalidInputError(
            f"The agent, or an old commit of its memory, has what no import writes: "
            f"{'; '.join(shown.refused[:3])}{more}.",
            hint="AgentFile.refused has them all.",
        )


async def import_bundle(
    caller: Requests, shown: AgentFile, *, name: str | None, model: str | None
) -> list[str]:
    """Make the agent of a bundle that was checked, and return its id."""
    check_refused(shown)
    made = _choose_options(shown, name, model)
    assert shown.bundle is not None
    with ExitStack() as stack:
        # All that may be wrong with the bundle is found before there is an agent.
        held = await on_thread(_enter, stack, shown.bundle)
        agent_id = await _create(caller, made)
        try:
            await on_thread(held.fill, _find_memory(caller, agent_id))
        except BaseException as error:
            # Whatever it was, also a cancellation: no agent stays that lacks its memory.
            await _take_back(caller, agent_id, error)
            raise
    return [agent_id]


def _enter(stack: ExitStack, bundle: bytes) -> Quarantine:
    # The thread itself hands it to the stack: a caller that is cancelled gets nothing to close.
    return stack.enter_context(quarantine(bundle, MEMORY))


def _find_memory(caller: Requests, agent_id: str) -> Path:
    memory = caller.backend.find_memory(agent_id)
    assert memory is not None, "the capability says that it is on this machine"
    return memory


def _choose_options(shown: AgentFile, name: str | None, model: str | None) -> AgentOptions:
    agent = shown.agents[0]
    model = model or agent.model
    if model is None:
        raise InvalidInputError(
            "The file does not say which model its agent uses.", hint="Pass model=."
        )
    given: dict[str, Any] = {
        "name": name or agent.name,
        "description": agent.description,
        "model": model,
        "system_prompt": agent.system,
        "tags": agent.tags,
    }
    return AgentOptions(**given, **_restrict(read_restrictions(shown)))


def _restrict(found: Restrictions) -> dict[str, Any]:
    """Return the options of an agent that keeps these restrictions; none of them loosens."""
    made: dict[str, Any] = {}
    if found.strict:
        made["permission_mode"] = "strict"
    if found.disallowed_tools:
        made["disallowed_tools"] = tuple(sorted(found.disallowed_tools))
    if found.skill_sources is not None:
        made["skill_sources"] = found.skill_sources
    if found.no_system_info:
        made["system_info_reminder"] = False
    return made


async def _create(caller: Requests, options: AgentOptions) -> str:
    """Make the agent; a caller that is cancelled meanwhile leaves none behind."""
    # Waited for in any case: a request that is cut may have made an agent whose id nobody
    # learns.
    task = asyncio.ensure_future(caller.backend.create_agent(options))
    try:
        await await_all([task])
    except asyncio.CancelledError as error:
        if not task.cancelled() and task.exception() is None:
            await _take_back(caller, task.result(), error)
        raise
    return task.result()


async def _take_back(caller: Requests, agent_id: str, error: BaseException) -> None:
    """Delete an agent that was made in vain, with its memory.

    Where it cannot be deleted, ``error`` names it.
    """
    memory = _find_memory(caller, agent_id)
    try:
        task = asyncio.ensure_future(_delete(caller, agent_id, memory))
        await await_all([task])
    finally:
        failed = task.exception()
        if failed is not None:
            _tell(agent_id, failed, error)


def _tell(agent_id: str, failed: BaseException, error: BaseException) -> None:
    why = f"The agent {agent_id} is left, and could not be deleted: {failed}"
    if isinstance(error, LettaError):
        error.hint = why
        error.args = (f"{error.message} {why}",)
    else:  # a cancellation has no place for it
        _log.warning("%s", why)


async def _delete(caller: Requests, agent_id: str, memory: Path) -> None:
    await caller.make_last("DELETE", f"/v1/agents/{agent_id}")
    await on_thread(_remove, memory.parent)


def _remove(folder: Path) -> None:
    """Remove what Letta Code leaves of a deleted agent: the directory of its memory.

    For a moment after an agent was made it still writes hooks and settings there, and would make
    the directory again (letta 0.34.12).
    """
    calm, until = 0, time.monotonic() + _REMOVE_SECONDS
    while calm < _CALM_LOOKS and time.monotonic() < until:
        calm = calm + 1 if not folder.exists() else 0
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_LOOK_SECONDS)
