"""Internal: turn agent and session options into the settings that the App Server is told.

Nothing here does I/O.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from letta_adapters.backends.app_server import frames
from letta_adapters.backends.capabilities import check_ask_timeout
from letta_adapters.errors import InvalidInputError, UnsupportedOptionError
from letta_adapters.options import AgentOptions, SessionOptions, Sleeptime

_DEFAULT_STEPS: Final = 25
_SHOWN: Final = 5
# The tools of all toolsets of letta 0.34.12.
_BUILT_IN: Final = (
    "Agent", "ApplyPatch", "Bash", "Edit", "EnterWorktree", "ExitWorktree", "Memory", "Monitor",
    "Read", "SendAgentMessage", "SetWorkingDirectory", "Skill", "Task", "TaskCreate", "TaskGet",
    "TaskList", "TaskStop", "TaskUpdate", "UpdatePlan", "ViewImage", "Wake", "WatchPR", "Workflow",
    "Write", "exec_command", "write_stdin",
)  # fmt: skip
# The two names of one tool: as it is registered, and as the model sees it.
_SAME_TOOL: Final = frozenset({"Agent", "Task"})
# Selects none of the server's own tools; client-side ones stay.
NO_TOOLS: Final[dict[str, Any]] = {"client_toolset": {"base": "none"}}
_PROTOCOL: Final = "its protocol has no setting for it."


def no_memory_in_git(option: str, backend: str) -> UnsupportedOptionError:
    """Return the refusal of an option that needs an agent's memory in a git repository."""
    return UnsupportedOptionError(
        option,
        backend=backend,
        supported_by=("rest",) if option != "memfs" else (),
        reason="a Letta API server of your own keeps an agent's memory in blocks, not in git; "
        "agents.retrieve() shows them.",
    )


def refuse(options: AgentOptions | SessionOptions, backend: str, *, on_api: bool = False) -> None:
    """Refuse options that no App Server has (``letta`` 0.34.12), or none over a Letta API."""
    if on_api and getattr(options, "stateless", None):
        raise UnsupportedOptionError(
            "stateless",
            backend=backend,
            reason="an agent's tools on the Letta API, which may change its memory, cannot be left "
            "out for a session.",
        )
    if on_api and getattr(options, "offered_tools", None) is not None:
        raise UnsupportedOptionError(
            "offered_tools",
            backend=backend,
            reason="an agent's tools on the Letta API cannot be left out for a session.",
        )
    unsupported = {
        "system_info_reminder": options.system_info_reminder is False and backend != "local",
        "memfs_startup": getattr(options, "memfs_startup", None) not in (None, "blocking"),
        "max_steps": getattr(options, "max_steps", None) is not None,
        "base_tools": getattr(options, "base_tools", None) is False,
        "memfs": isinstance(options, SessionOptions) and options.memfs is False,
    }
    where = {
        "system_info_reminder": ("local",),
        "max_steps": ("rest",),
        "base_tools": ("rest",),
    }
    for option, given in unsupported.items():
        if given:
            raise UnsupportedOptionError(
                option,
                backend=backend,
                supported_by=where.get(option, ()),
                reason="an agent's memory is set up when it is created."
                if option == "memfs"
                else _PROTOCOL,
            )
    if isinstance(options, SessionOptions):
        check_ask_timeout(options.ask_timeout_answer, backend)
    if options.sleeptime is not None and options.sleeptime.behavior == "reminder":
        raise UnsupportedOptionError(
            "sleeptime.behavior",
            backend=backend,
            reason="this version of Letta Code reflects by itself ('auto-launch').",
        )
    frames.mode(options.permission_mode, backend)
    for name in ("allowed_tools", "disallowed_tools"):
        plain_names(name, getattr(options, name), backend)


def plain_names(option: str, given: Iterable[str] | None, backend: str) -> frozenset[str]:
    """Return names of tools; patterns are refused, as a half understood one is false safety."""
    names = frozenset(given or ())
    for name in sorted(names):
        if "(" in name or "*" in name:
            raise UnsupportedOptionError(
                option,
                backend=backend,
                reason=f"{name!r} is a pattern. Give names of tools, and decide about their input "
                "in can_use_tool.",
            )
    return names


def runtime_settings(
    options: SessionOptions,
    cwd: Path | None,
    skill_sources: Sequence[str] | None,
    backend: str,
    *,
    asks: bool = False,
) -> dict[str, Any]:
    """Return the settings of a session for ``runtime_start``, and those that stay here.

    The server is told to ask about every tool (``strict``), and the answers are found on this side.
    Only with ``unrestricted`` is nobody asked. The session's own choice is ``permission_mode``.

    Args:
        options: The session's options.
        cwd: The working directory that counts for this session.
        skill_sources: The sources of skills that count for this session.
        backend: The name of the backend, for errors.
        asks: True if somebody wants to be asked about every tool, whatever the mode.
    """
    mode = frames.mode(options.permission_mode, backend)
    # Only where nobody wants to be asked may the server decide by itself.
    free = mode == "unrestricted" and not asks and options.can_use_tool is None
    return {
        "mode": mode if free else "strict",
        "permission_mode": mode,
        "skill_sources": None if skill_sources is None else list(skill_sources),
        "cwd": None if cwd is None else str(cwd.expanduser().absolute()),
        "system_info_reminder": options.system_info_reminder,
    }


def reflection_settings(sleeptime: Sleeptime) -> dict[str, Any]:
    """Return the settings of reflection; the server wants a step count even if none counts."""
    return {"trigger": sleeptime.trigger, "step_count": sleeptime.step_count or _DEFAULT_STEPS}


def tool_selection(
    loaded: Iterable[str], client_tools: Iterable[str], options: SessionOptions
) -> dict[str, Any]:
    """Return the selection of tools that the model is shown: those offered, or all others.

    The protocol takes a list of allowed tools, and names the existing ones only after a
    conversation's first turn. A tool that is in neither list is hidden, which is the safe side.
    The server drops names it does not know (``letta`` 0.34.12), so they are refused here.

    Args:
        loaded: The server's tools in this conversation, as far as it named them.
        client_tools: The session's own tools.
        options: The session's options, with those of its agent.

    Raises:
        InvalidInputError: A tool is to be offered that there is not.
    """
    disallowed = frozenset(options.disallowed_tools or ())
    known = {*_BUILT_IN, *loaded, *client_tools}
    if options.offered_tools is None and not disallowed:
        return {}
    offered = known if options.offered_tools is None else set(options.offered_tools)
    for name in sorted(offered - known):
        near = difflib.get_close_matches(name, sorted(known), n=3)
        raise InvalidInputError(
            f"offered_tools: there is no tool {name!r}, neither in this session nor in Letta Code.",
            hint=f"Did you mean {', '.join(map(repr, near))}?" if near else "",
        )
    # Under either name it is the same tool.
    hidden = disallowed | _SAME_TOOL if disallowed & _SAME_TOOL else disallowed
    return {"client_tool_allowlist": sorted(offered - hidden)}


def check_model(handle: str, known: Sequence[str], what: str) -> None:
    """Refuse a model the server does not have, naming those that are spelled alike."""
    if not known or handle in known:
        return
    near = difflib.get_close_matches(handle, known, n=3, cutoff=0.4)
    tail = handle.rpartition("/")[2].lower()
    # People often know a model by the end of its handle, without the provider's part.
    near += [name for name in known if tail and tail in name.lower() and name not in near][:3]
    if near:
        hint = f"Did you mean {', '.join(map(repr, near))}?"
    else:
        rest = ", ..." if len(known) > _SHOWN else ""
        hint = f"It has {', '.join(map(repr, known[:_SHOWN]))}{rest}."
    raise InvalidInputError(f"{what} {handle!r} is not available on this server.", hint=hint)
