"""Internal: the settings that an agent's sessions inherit, kept with the agent or on this machine.

A setting that *restricts* is kept with the agent, so that whoever opens it, from wherever, gets it:
as tags (Letta Code keeps them across a restart, and drops ``metadata``), or in the agent's
``metadata`` (a Letta API shows that, and not the tags). A setting that *loosens*, or that means a
machine's own directories, is kept on the machine where it was given (:class:`MachineSettings`):
whoever can edit or import an agent gains nothing on the machines of others. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from pydantic import field_validator

from letta_adapters.errors import InvalidInputError
from letta_adapters.options import (
    PERMISSION_MODES,
    AgentOptions,
    PermissionMode,
    SessionOptions,
    SkillSource,
)
from letta_adapters.options_base import Options

#: Every tag of ours begins like this; ``agents.update(tags=...)`` keeps them.
OWN_TAGS: Final = "letta-adapters:"
#: The tags that restrict begin like this, and are not shown among the user's own.
ONLY_TAGS: Final = "letta-adapters:only:"
METADATA_KEY: Final = "letta_adapters"
#: Options of ``create_agent`` that its sessions inherit.
SETTINGS: Final[tuple[str, ...]] = (
    "permission_mode",
    "allowed_tools",
    "disallowed_tools",
    "skill_sources",
    "system_info_reminder",
    "cwd",
)
# The sources of skills if none are given (letta 0.34.12).
_ALL_SOURCES: Final[tuple[SkillSource, ...]] = get_args(SkillSource)
_STRICT: Final = "strict"
_NO_SYSTEM_INFO: Final = "no-system-info"
_NO_TOOL: Final = "no-tool:"
_SKILLS: Final = "skills:"
_NO_SKILLS: Final = "none"
_LOOSE: Final = ("acceptEdits", "unrestricted")


@dataclass(frozen=True, slots=True)
class Restrictions:
    """The settings that travel with an agent; ``skill_sources`` ``None`` allows any source."""

    strict: bool = False
    disallowed_tools: frozenset[str] = frozenset()
    skill_sources: tuple[SkillSource, ...] | None = None
    no_system_info: bool = False

    def words(self) -> tuple[str, ...]:
        """Return the written form, which :meth:`of_words` reads."""
        words = [_STRICT] if self.strict else []
        words += [_NO_TOOL + name for name in sorted(self.disallowed_tools)]
        if self.skill_sources is not None:
            words.append(_SKILLS + (",".join(self.skill_sources) or _NO_SKILLS))
        return (*words, _NO_SYSTEM_INFO) if self.no_system_info else tuple(words)

    @classmethod
    def of_words(cls, words: Iterable[object]) -> Restrictions:
        """Read the written form.

        A word that is not understood (of a later version, misspelt, made up) means ``strict``, as
        it was meant to restrict.
        """
        strict = no_system_info = False
        hidden: set[str] = set()
        sources: tuple[SkillSource, ...] | None = None
        for word in words:
            text = word if isinstance(word, str) else ""
            name = text.removeprefix(_NO_TOOL)
            if text == _NO_SYSTEM_INFO:
                no_system_info = True
            elif text.startswith(_NO_TOOL) and is_tool_name(name):
                hidden.add(name)
            elif text.startswith(_SKILLS):
                # Two words of one kind can only restrict further: both were meant.
                named = text.removeprefix(_SKILLS).split(",")
                so_far = _ALL_SOURCES if sources is None else sources
                sources = tuple(source for source in so_far if source in named)
            else:
                strict = True
        return cls(strict, frozenset(hidden), sources, no_system_info)

    @classmethod
    def of_agent(cls, agent: Mapping[str, Any]) -> Restrictions:
        """Read an agent's tags and metadata, taken together."""
        tags = agent.get("tags")
        words: list[object] = [
            tag.removeprefix(ONLY_TAGS)
            for tag in (tags if isinstance(tags, list) else ())
            if isinstance(tag, str) and tag.startswith(ONLY_TAGS)
        ]
        metadata = agent.get("metadata")
        if isinstance(metadata, Mapping) and METADATA_KEY in metadata:
            ours = metadata[METADATA_KEY]
            only = ours.get("only", ()) if isinstance(ours, Mapping) else None
            # Damaged data restricts: an empty word means `strict`.
            words += only if isinstance(only, list | tuple) else [None]
        return cls.of_words(words)


class MachineSettings(Options):
    """The settings that are kept per machine; ``None`` stands for one that was not given."""

    permission_mode: Literal["acceptEdits", "unrestricted"] | None = None
    allowed_tools: tuple[str, ...] | None = None
    skill_sources: tuple[SkillSource, ...] | None = None
    cwd: Path | None = None

    @field_validator("allowed_tools")
    @classmethod
    def _plain(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not all(map(is_tool_name, value)):
            raise ValueError("names of tools, no patterns")
        return value

    def given(self) -> dict[str, Any]:
        """Return the settings that were given, as JSON data."""
        return self.model_dump(mode="json", exclude_none=True)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The settings of an agent that travel with it, and those of this machine."""

    restrictions: Restrictions = Restrictions()
    machine: MachineSettings = field(default_factory=MachineSettings)

    @property
    def permission_mode(self) -> PermissionMode | None:
        """The agent's permission mode; ``None`` means the default."""
        return "strict" if self.restrictions.strict else self.machine.permission_mode

    @property
    def skill_sources(self) -> tuple[SkillSource, ...] | None:
        """The agent's sources of skills; ``None`` means the default."""
        limit, here = self.restrictions.skill_sources, self.machine.skill_sources
        if limit is None:
            return here
        return tuple(s for s in (_ALL_SOURCES if here is None else here) if s in limit)

    @property
    def allowed_tools(self) -> tuple[str, ...] | None:
        """The tools that need no question, without those that it must not have."""
        given, hidden = self.machine.allowed_tools, self.restrictions.disallowed_tools
        return None if given is None else tuple(name for name in given if name not in hidden)

    def shown(self) -> dict[str, Any]:
        """Return the settings that are set, under the names of the options."""
        found = {
            "permission_mode": self.permission_mode,
            "allowed_tools": self.allowed_tools,
            "disallowed_tools": tuple(sorted(self.restrictions.disallowed_tools)) or None,
            "skill_sources": self.skill_sources,
            "system_info_reminder": False if self.restrictions.no_system_info else None,
            "cwd": self.machine.cwd,
        }
        return {name: value for name, value in found.items() if value is not None}

    def changed(self, changes: Mapping[str, Any]) -> AgentSettings:
        """Return these settings with some of them changed; ``None`` takes a setting back.

        Raises:
            InvalidInputError: An option does not take the value.
        """
        now = AgentOptions(**{k: v for k, v in changes.items() if v is not None})
        said = {name: getattr(now, name) for name in SETTINGS if name in changes}
        restrictions, machine = self.restrictions, self.machine.model_dump()
        # A mode restricts or loosens, so it is kept in one of two places, and is removed from the
        # other.
        mode = PERMISSION_MODES[self.permission_mode or "standard"]
        if "permission_mode" in said:
            mode = PERMISSION_MODES[said["permission_mode"] or "standard"]
        machine["permission_mode"] = mode if mode in _LOOSE else None
        limit, hidden = restrictions.skill_sources, restrictions.disallowed_tools
        if "skill_sources" in said:
            limit = machine["skill_sources"] = said["skill_sources"]
        if "disallowed_tools" in said:
            hidden = frozenset(said["disallowed_tools"] or ())
        quiet = restrictions.no_system_info
        if "system_info_reminder" in said:
            quiet = said["system_info_reminder"] is False
        machine |= {name: said[name] for name in ("allowed_tools", "cwd") if name in said}
        # Kept for processes that run elsewhere, for which a relative path would mean another place.
        if machine["cwd"] is not None:
            machine["cwd"] = machine["cwd"].expanduser().absolute()
        return AgentSettings(
            Restrictions(mode == _STRICT, hidden, limit, quiet), MachineSettings(**machine)
        )


def of_options(options: AgentOptions) -> AgentSettings:
    """Return the settings for sessions that ``create_agent`` was given."""
    given = {name: getattr(options, name) for name in SETTINGS}
    return AgentSettings().changed({k: v for k, v in given.items() if v is not None})


def for_session(settings: AgentSettings, options: SessionOptions) -> SessionOptions:
    """Return the options of a session, with the agent's settings where it does not set its own.

    A session's own options count where they restrict further; tools that either of them disallows
    are disallowed. The *actions* of an agent are restricted for good: a session that asks for more
    is refused, because nobody would notice if one of the two were dropped. Only the information an
    agent gets about this machine is for the session to decide.

    Raises:
        InvalidInputError: The session asks for something that the agent rules out.
    """
    ruled = settings.restrictions
    mode = options.permission_mode
    if ruled.strict and mode is not None and PERMISSION_MODES[mode] != _STRICT:
        raise _refusal("permission_mode", mode, "asks about every tool (permission_mode='strict')")
    # Fewer sources than the agent's are fine; others are not.
    sources, limit = options.skill_sources, ruled.skill_sources
    if sources is not None and limit is not None and not set(sources) <= set(limit):
        allowed = f"skill_sources={list(limit)}"
        raise _refusal("skill_sources", list(sources), f"has no other skills than {allowed}")
    # To allow what the agent must not have is a mistake that should be seen, not dropped.
    for option in ("allowed_tools", "offered_tools"):
        wanted = sorted(set(getattr(options, option) or ()) & ruled.disallowed_tools)
        if wanted:
            raise _refusal(option, wanted, f"must not have the tool {wanted[0]!r}")
    # A tool that either of the two disallows is disallowed.
    hidden = frozenset(options.disallowed_tools or ()) | ruled.disallowed_tools
    own: dict[str, Any] = {
        "permission_mode": settings.permission_mode,
        "skill_sources": settings.skill_sources,
        "system_info_reminder": False if ruled.no_system_info else None,
    }
    if not options.stateless:  # which has no tools of the agent, and a directory of its own
        own |= {"allowed_tools": settings.allowed_tools, "cwd": settings.machine.cwd}
    changes = {
        name: value
        for name, value in own.items()
        if value is not None and getattr(options, name) is None
    }
    if hidden != frozenset(options.disallowed_tools or ()):
        changes["disallowed_tools"] = tuple(sorted(hidden))
    return options.model_copy(update=changes) if changes else options


def _refusal(option: str, given: object, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"{option}={given!r}: this agent {why}.",
        hint=f"Leave {option} out, or change the agent for all its sessions: "
        f"client.agents.update(agent_id, ...).",
        accepted=False,
    )


def is_tool_name(name: str) -> bool:
    """Return whether it can be the name of a tool, and is no pattern."""
    return bool(name) and name.isprintable() and not set(name) & set("(*) ,")


def with_tags(tags: Iterable[str], restrictions: Restrictions) -> list[str]:
    """Return tags with exactly these restrictions among them."""
    kept = [tag for tag in tags if not tag.startswith(ONLY_TAGS)]
    return [*kept, *(ONLY_TAGS + word for word in restrictions.words())]


def with_metadata(metadata: object, restrictions: Restrictions) -> dict[str, Any]:
    """Return metadata with exactly these restrictions in it."""
    made = dict(metadata) if isinstance(metadata, Mapping) else {}
    words = restrictions.words()
    made.pop(METADATA_KEY, None)
    return made | ({METADATA_KEY: {"only": list(words)}} if words else {})


def keep_own(fields: Mapping[str, Any], agent: Mapping[str, Any]) -> dict[str, Any]:
    """Return an update of an agent that keeps this package's own tags and metadata in place."""
    made = dict(fields)
    if made.get("tags") is not None:
        tags = [str(tag) for tag in made["tags"]]
        # The user's list replaces the user's tags only: ours would be lost without a word.
        there = agent.get("tags")
        ours = [t for t in there or () if isinstance(t, str) and t.startswith(OWN_TAGS)]
        made["tags"] = [*tags, *(tag for tag in ours if tag not in tags)]
    old = agent.get("metadata")
    if "metadata" in made and isinstance(old, Mapping) and METADATA_KEY in old:
        made["metadata"] = {**(made["metadata"] or {}), METADATA_KEY: old[METADATA_KEY]}
    return made


def without_own(agent: Mapping[str, Any]) -> dict[str, Any]:
    """Return an agent as its user made it, without the tags and metadata that restrict."""
    made = dict(agent)
    if isinstance(made.get("tags"), list):
        made["tags"] = [
            tag
            for tag in cast("list[Any]", made["tags"])
            if not (isinstance(tag, str) and tag.startswith(ONLY_TAGS))
        ]
    if isinstance(made.get("metadata"), Mapping) and METADATA_KEY in made["metadata"]:
        made["metadata"] = {k: v for k, v in made["metadata"].items() if k != METADATA_KEY}
    return made
