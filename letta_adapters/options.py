"""The options of agents and sessions, validated before any I/O.

:class:`AgentOptions` and :class:`SessionOptions` hold them; those of backends are in
:mod:`letta_adapters.backends.config`. The ``*Kwargs`` TypedDicts spell the same options as keyword
arguments. A mistake raises :class:`~letta_adapters.errors.InvalidInputError` naming the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self, TypedDict

from letta_adapters.errors import InvalidInputError
from letta_adapters.options_base import Options, check_directory, check_sequence
from letta_adapters.permissions import (
    Allow,
    Deny,
    Postpone,
    check_callback,
    normalise_decision,
)
from letta_adapters.tools.mcp.config import parse_servers

# Two vocabularies in one table: the keys are the names of the TypeScript SDK 0.1.14 and of today's
# Letta Code, the values are what the App Server understands.
PERMISSION_MODES: Mapping[str, str] = {
    "default": "standard",
    "standard": "standard",
    "acceptEdits": "acceptEdits",
    "plan": "plan",
    "strict": "strict",
    "bypassPermissions": "unrestricted",
    "unrestricted": "unrestricted",
}


# -- system prompts -----------------------------------------------------------------------------

# Names of system prompts that others know. ``systemPrompt`` of ``@letta-ai/letta-code-sdk`` 0.1.14
# takes those of the SDK, and ``--system`` of ``letta`` 0.34 those of the command. Neither the App
# Server nor the Letta API has names for prompts: they would store the name itself as the prompt.
_OF_THE_SDK: Final = ("letta-claude", "letta-codex", "letta-gemini", "claude", "codex", "gemini")
_OF_THE_COMMAND: Final = ("source-claude", "source-codex", "source-gemini")
_NAMES: Final = frozenset({*_OF_THE_SDK, *_OF_THE_COMMAND})
# Letta's own prompt, which an agent gets when none is given.
_OWN: Final = frozenset({"default", "letta"})


def read_prompt(value: Any) -> Any:
    """Return the prompt that ``system_prompt`` means for a new agent; ``None`` for Letta's own.

    Raises:
        ValueError: It is a preset that has no text here, or the TypeScript SDK's object.
    """
    if isinstance(value, str) and value.strip() in _OWN:
        return None
    return literal_prompt(value)


def literal_prompt(value: Any) -> Any:
    """Return the prompt as it is, where no preset can stand for one.

    Raises:
        ValueError: It is the name of a preset, or the TypeScript SDK's object.
    """
    if isinstance(value, Mapping):
        raise ValueError(
            "a preset is no object here: leave system_prompt out for Letta's own prompt, and write "
            "what is to be added to it as append_system_prompt"
        )
    if isinstance(value, str) and value.strip() in _NAMES | _OWN:
        raise ValueError(
            f"{value.strip()!r} is the name of a preset, whose text only the letta command has. "
            "Leave system_prompt out for Letta's own prompt, or write the prompt's text"
        )
    return value


# -- agents -------------------------------------------------------------------------------------


class MemoryBlock(Options):
    """One block of the agent's core memory.

    ``limit`` is its greatest length in characters. The agent cannot change a ``read_only`` block::

        create_agent(memory=[MemoryBlock(label="project", value="We build a boat.")])
    """

    label: str = Field(min_length=1)
    value: str = ""
    description: str | None = None
    limit: int | None = Field(default=None, gt=0)
    read_only: bool | None = None


class Sleeptime(Options):
    """A rule for when the agent reflects on its memory in the background (Letta Code).

    ``step_count`` is the number of steps between two reflections, for the trigger
    ``"step-count"``::

        create_session(agent_id, sleeptime=Sleeptime(trigger="off"))
    """

    trigger: Literal["off", "step-count", "compaction-event"] = "step-count"
    behavior: Literal["reminder", "auto-launch"] | None = None
    step_count: int | None = Field(default=None, gt=0)


PermissionMode = Literal[
    "default", "standard", "acceptEdits", "plan", "strict", "bypassPermissions", "unrestricted"
]
SkillSource = Literal["bundled", "global", "agent", "project"]
MemfsStartup = Literal["blocking", "background", "skip"]
Personality = Literal["memo", "blank", "tutorial", "linus", "kawaii"]
Toolset = Literal["auto", "letta", "default", "codex", "none"]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class AgentKwargs(TypedDict, total=False):
    """Keyword arguments of ``create_agent``; see :class:`AgentOptions`."""

    name: str
    description: str
    model: str
    reasoning_effort: ReasoningEffort
    embedding: str
    persona: str
    human: str
    memory: Sequence[MemoryBlock | Mapping[str, Any]]
    block_ids: Sequence[str]
    system_prompt: str
    append_system_prompt: str
    personality: Personality
    secrets: Mapping[str, str]
    tags: Sequence[str]
    base_tools: bool
    tool_ids: Sequence[str]
    hidden: bool
    memfs: bool
    skill_sources: Sequence[SkillSource]
    system_info_reminder: bool
    sleeptime: Sleeptime | Mapping[str, Any]
    cwd: str | Path
    permission_mode: PermissionMode
    allowed_tools: Sequence[str]
    disallowed_tools: Sequence[str]


class AgentOptions(Options):
    """The options of ``create_agent``.

    The options from ``append_system_prompt`` to ``secrets`` in this list exist in Letta Code only.
    ``permission_mode``, ``allowed_tools``, ``disallowed_tools``, ``skill_sources``,
    ``system_info_reminder`` and ``cwd`` are defaults for sessions that do not set them. Those that
    restrict the agent travel with it, the others are kept on this machine (see
    ``docs/options.md``).

    Args:
        name: The agent's name.
        description: A text for people.
        model: The handle of its model, such as ``"anthropic/claude-sonnet-4-5"``.
        reasoning_effort: The effort that the model puts into its thoughts; without it the model's
            own. A model that takes none is refused.
        embedding: The handle of its embedding model (Letta API only).
        persona: The value of a memory block with the label ``persona``.
        human: The value of a memory block with the label ``human``.
        memory: More memory blocks.
        block_ids: Existing (shared) memory blocks to attach (Letta API only).
        system_prompt: A text. The names ``"default"`` and ``"letta"`` mean Letta's own prompt,
            which is also used without this option.
        tags: Tags to find the agent by.
        base_tools: ``False`` makes an agent without Letta's memory and search tools.
        tool_ids: Tools of the server to attach (Letta API only).
        hidden: Leave the agent out of listings.
        append_system_prompt: A text that is added to the prompt.
        personality: The name of one of Letta's own prompts.
        memfs: Keep the agent's memory in a git repository of files.
        skill_sources: The places skills are taken from; an empty list disables all skills.
        system_info_reminder: Tell the agent about the machine and the directory it runs in.
        sleeptime: A rule for reflection in the background.
        cwd: The working directory of its tools.
        permission_mode: The mode that decides which tool calls are allowed without a question.
        allowed_tools: The tools that are allowed without a question.
        disallowed_tools: The tools that are never allowed.
        secrets: Values for the agent's shell commands, which the model never sees.
    """

    name: str | None = Field(default=None, min_length=1)
    description: str | None = None
    model: str | None = Field(default=None, min_length=1)
    reasoning_effort: ReasoningEffort | None = None
    embedding: str | None = Field(default=None, min_length=1)
    persona: str | None = None
    human: str | None = None
    memory: tuple[MemoryBlock, ...] = ()
    block_ids: tuple[str, ...] = ()
    system_prompt: str | None = None
    append_system_prompt: str | None = Field(default=None, min_length=1)
    personality: Personality | None = None
    secrets: Mapping[str, str] | None = Field(default=None, repr=False)
    tags: tuple[str, ...] = ()
    base_tools: bool | None = None
    tool_ids: tuple[str, ...] = ()
    hidden: bool | None = None
    memfs: bool | None = None
    skill_sources: tuple[SkillSource, ...] | None = None
    system_info_reminder: bool | None = None
    sleeptime: Sleeptime | None = None
    cwd: Path | None = None
    permission_mode: PermissionMode | None = None
    allowed_tools: tuple[str, ...] | None = None
    disallowed_tools: tuple[str, ...] | None = None

    @field_validator("cwd")
    @classmethod
    def _directory(cls, value: Path | None) -> Path | None:
        return check_directory(value)

    @field_validator("system_prompt", mode="before")
    @classmethod
    def _no_preset(cls, value: Any) -> Any:
        return read_prompt(value)

    @field_validator(
        "tags",
        "block_ids",
        "tool_ids",
        "skill_sources",
        "allowed_tools",
        "disallowed_tools",
        mode="before",
    )
    @classmethod
    def _not_a_string(cls, value: Any) -> Any:
        return check_sequence(value)

    def blocks(self) -> list[MemoryBlock]:
        """Return all memory blocks, ``persona`` and ``human`` first.

        Raises:
            InvalidInputError: Two of them have the same label.
        """
        given = {"persona": self.persona, "human": self.human}
        short = [MemoryBlock(label=k, value=v) for k, v in given.items() if v is not None]
        # An agent knows its blocks by their labels alone.
        labels = [block.label for block in [*short, *self.memory]]
        if len(labels) != len(set(labels)):
            raise InvalidInputError(f"Two memory blocks have the same label: {', '.join(labels)}.")
        return [*short, *self.memory]


# -- sessions -----------------------------------------------------------------------------------


class SessionKwargs(TypedDict, total=False):
    """Keyword arguments of ``create_session`` / ``resume_session``; see :class:`SessionOptions`."""

    include_partial_messages: bool
    include_status_messages: bool
    tools: Sequence[Any]
    mcp_servers: Mapping[str, Any]
    can_use_tool: Callable[..., Any]
    ask_timeout: float
    ask_timeout_answer: Allow | Deny | Postpone | bool
    model: str
    reasoning_effort: ReasoningEffort
    max_steps: int
    max_denied_rounds: int
    turn_timeout: float
    recovery_attempts: int
    permission_mode: PermissionMode
    toolset: Toolset
    offered_tools: Sequence[str]
    allowed_tools: Sequence[str]
    disallowed_tools: Sequence[str]
    cwd: str | Path
    skill_sources: Sequence[SkillSource]
    system_info_reminder: bool
    sleeptime: Sleeptime | Mapping[str, Any]
    memfs: bool
    memfs_startup: MemfsStartup
    agent_free: bool
    stateless: bool
    system_prompt: str


class SessionOptions(Options):
    """The options of a session.

    Args:
        include_partial_messages: Also yield token-level ``StreamEvent`` fragments.
        include_status_messages: Also yield ``QueueUpdateMessage`` and ``LoopStatusMessage``.
        tools: Client-side tools: typed functions, :class:`~letta_adapters.tools.Tool` objects,
            or tools of a framework. They run in this process.
        mcp_servers: Servers by name, hosted by this process (``pip install letta-adapters[mcp]``):
            ``{"command", "args", "env", "cwd"}``, or ``{"type": "http" | "sse", "url",
            "headers"}``; see :mod:`letta_adapters.tools.mcp`.
        can_use_tool: ``(name, input, context) -> Allow | Deny | bool``, sync or async, asked before
            a tool runs.
        ask_timeout: Seconds that ``can_use_tool`` has for each question. There is no limit unless
            it is given, together with ``ask_timeout_answer``.
        ask_timeout_answer: The answer that is given when that time is up: ``Deny("...")``,
            ``Allow()``, or ``Postpone()`` (Letta API only).
        model: The model of the conversation, where it differs from the agent's.
        reasoning_effort: The effort of that model in this conversation, where it differs from the
            agent's. A single turn has none of its own.
        max_steps: The greatest number of model calls in one turn.
        max_denied_rounds: The number of steps in a row that may consist of denied tool calls only,
            before the turn ends as failed (``denied_rounds``); a model may insist without end.
        turn_timeout: Seconds a turn may take; overrides the backend's limit.
        recovery_attempts: The number of times ``run_turn`` clears an abandoned approval that blocks
            it.
        permission_mode: The mode that decides which tool calls are allowed without a question
            (Letta Code only).
        toolset: The set of Letta Code's own tools that the agent is offered (Letta Code only).
        offered_tools: The tools that the model is offered, and no others, whatever the ``toolset``:
            names of Letta Code's tools and of those in ``tools``; an empty list for none (Letta
            Code only). It allows nothing: see ``allowed_tools``.
        allowed_tools: The tools that are allowed without a question (Letta Code only).
        disallowed_tools: The tools that are never allowed (Letta Code only).
        cwd: The working directory of the agent's tools (Letta Code only).
        skill_sources: The places skills are taken from; an empty list disables all skills (Letta
            Code only).
        system_info_reminder: Tell the agent about the machine and the directory it runs in (Letta
            Code only).
        sleeptime: A rule for reflection in the background (Letta Code only).
        memfs: Keep the agent's memory in a git repository of files (Letta Code only).
        memfs_startup: Wait for that repository at the start, prepare it meanwhile, or skip it
            (Letta Code only).
        agent_free: A conversation without an agent: the model sees ``system_prompt`` and the
            messages, and nothing else (Letta Code only).
        stateless: The agent answers from its memory and changes none of it: it is offered the
            ``tools`` given here and none of Letta Code's, and does not reflect on the conversation
            (Letta Code on this machine). The conversation itself goes on as always.
        system_prompt: The prompt of a conversation without an agent.
    """

    include_partial_messages: bool = False
    include_status_messages: bool = False
    tools: tuple[Any, ...] = ()
    mcp_servers: Mapping[str, Any] = Field(default_factory=dict)
    can_use_tool: Callable[..., Any] | None = None
    ask_timeout: float | None = Field(default=None, gt=0)
    ask_timeout_answer: Allow | Deny | Postpone | None = None
    model: str | None = Field(default=None, min_length=1)
    reasoning_effort: ReasoningEffort | None = None
    max_steps: int | None = Field(default=None, gt=0)
    max_denied_rounds: int = Field(default=20, ge=0)
    turn_timeout: float | None = Field(default=None, gt=0)
    recovery_attempts: int = Field(default=1, ge=0)
    permission_mode: PermissionMode | None = None
    toolset: Toolset | None = None
    offered_tools: tuple[str, ...] | None = None
    allowed_tools: tuple[str, ...] | None = None
    disallowed_tools: tuple[str, ...] | None = None
    cwd: Path | None = None
    skill_sources: tuple[SkillSource, ...] | None = None
    system_info_reminder: bool | None = None
    sleeptime: Sleeptime | None = None
    memfs: bool | None = None
    memfs_startup: MemfsStartup | None = None
    agent_free: bool | None = None
    stateless: bool | None = None
    system_prompt: str | None = None

    @field_validator("cwd")
    @classmethod
    def _directory(cls, value: Path | None) -> Path | None:
        return check_directory(value)

    @field_validator("system_prompt", mode="before")
    @classmethod
    def _no_preset(cls, value: Any) -> Any:
        return literal_prompt(value)

    @field_validator("agent_free", "stateless")
    @classmethod
    def _not_asked_for(cls, value: bool | None) -> bool | None:
        return value or None

    @model_validator(mode="after")
    def _prompt_of_no_agent(self) -> Self:
        if self.system_prompt is not None and not self.agent_free:
            raise ValueError("system_prompt: an agent has its own; it needs agent_free=True")
        if self.offered_tools is not None and self.agent_free:
            raise ValueError(
                "offered_tools: with agent_free=True there are the session's own alone"
            )
        return self

    @model_validator(mode="after")
    def _nothing_that_remembers(self) -> Self:
        # Each of these brings back tools or a memory that a stateless turn must not touch.
        conflicts = (
            "agent_free", "toolset", "offered_tools", "allowed_tools", "cwd", "sleeptime", "memfs"
        )  # fmt: skip
        given = [name for name in conflicts if getattr(self, name) is not None]
        if self.stateless and given:
            raise ValueError(f"stateless: it does not go together with {', '.join(given)}")
        return self

    @field_validator("can_use_tool")
    @classmethod
    def _callable_with_the_question(cls, value: Callable[..., Any] | None) -> Any:
        return None if value is None else check_callback(value)

    @field_validator("ask_timeout_answer", mode="before")
    @classmethod
    def _decision(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, Postpone) else normalise_decision(value)

    @model_validator(mode="after")
    def _answer_in_time(self) -> Self:
        # Neither answer is a safe guess: one runs the tool, the other speaks for the user.
        if (self.ask_timeout is None) != (self.ask_timeout_answer is None):
            raise ValueError("ask_timeout: it goes together with ask_timeout_answer, the answer")
        if self.ask_timeout is not None and self.can_use_tool is None:
            raise ValueError("ask_timeout: it needs can_use_tool, which is asked")
        return self

    @property
    def patience(self) -> tuple[float, Allow | Deny | Postpone] | None:
        """The seconds that ``can_use_tool`` has, and the answer that is given then."""
        if self.ask_timeout is None or self.ask_timeout_answer is None:
            return None
        return self.ask_timeout, self.ask_timeout_answer

    @field_validator("mcp_servers", mode="before")
    @classmethod
    def _mcp_servers(cls, value: Any) -> Any:
        return parse_servers(value)

    @field_validator(
        "offered_tools", "allowed_tools", "disallowed_tools", "skill_sources", mode="before"
    )
    @classmethod
    def _not_a_string(cls, value: Any) -> Any:
        return check_sequence(value)
