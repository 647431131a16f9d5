"""Internal: the protocols that a backend fulfils, and the values that it takes and gives."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol, TypeAlias

from letta_adapters._utils.checks import AGENT, CONVERSATION, check_id
from letta_adapters.backends.capabilities import Capabilities
from letta_adapters.backends.config import RuntimeStatus
from letta_adapters.engine.stored import StoredPage
from letta_adapters.engine.turn_state import TurnState
from letta_adapters.errors import (
    InvalidInputError,
    LettaError,
    TimeoutAfterAcceptanceError,
    TimeoutBeforeAcceptanceError,
    TurnFailedError,
    UnsupportedOptionError,
)
from letta_adapters.messages import Message, PendingToolCall, ToolCallMessage
from letta_adapters.options import AgentOptions, ReasoningEffort, SessionOptions
from letta_adapters.permissions import denials

# True while the running code is a tool or a callback of a turn, which waits for it to return.
inside_a_turn: ContextVar[bool] = ContextVar("letta_inside_a_turn", default=False)

DEFAULT = "default"
Order = Literal["asc", "desc"]
_Content: TypeAlias = IO[bytes] | bytes | str
# A file to upload: its content, or with its name, its media type and headers of its own, as httpx
# has it.
File: TypeAlias = (
    _Content
    | tuple[str | None, _Content]
    | tuple[str | None, _Content, str | None]
    | tuple[str | None, _Content, str | None, Mapping[str, str]]
)
Files: TypeAlias = Mapping[str, File] | Sequence[tuple[str, File]]
# The number of stored messages on a page, if the caller names none, and the most that it may have.
PAGE_SIZE: Final = 50
MAX_PAGE: Final = 1000

_ITEM: Final = re.compile(r"/v1/(agents|conversations)/([^/]+)/?")
# The commands of Letta Code that change one of them: its kind, and whether it is gone then.
_COMMANDS: Final[Mapping[str, tuple[str, bool]]] = {
    "agent_delete": ("agents", True),
    "agent_update": ("agents", False),
    "conversation_update": ("conversations", False),
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """The place of a turn; ``conversation_id`` may be ``"default"``, the agent's own one."""

    agent_id: str
    conversation_id: str

    @property
    def key(self) -> Conversation:
        """The same for all who mean this conversation, also for those who do not know its agent."""
        # The id of a conversation says which it is, but that of the default one: every agent has
        # one.
        return self if self.conversation_id == DEFAULT else Conversation("", self.conversation_id)

    def as_runtime(self) -> dict[str, str | None]:
        """Return the form in which Letta Code's commands name it; ``null`` stands for no agent."""
        return {"agent_id": self.agent_id or None, "conversation_id": self.conversation_id}


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The page of stored messages that is wanted: see ``session.list_messages``.

    ``count_on`` is false if nobody reads the page's ``has_more``, which may be false then although
    there is more.

    Raises:
        InvalidInputError: There can be no such page.
    """

    limit: int
    before: str | None = None
    after: str | None = None
    order: Order = "desc"
    count_on: bool = True

    def __post_init__(self) -> None:
        if self.order not in ("asc", "desc"):
            raise InvalidInputError(f"order must be 'asc' or 'desc', not {self.order!r}.")
        if not 1 <= self.limit <= MAX_PAGE:
            raise InvalidInputError(f"limit must be between 1 and {MAX_PAGE}, not {self.limit}.")
        if self.before is not None and self.after is not None:
            raise InvalidInputError("Give either before or after, not both.")

    @property
    def cursor(self) -> str | None:
        """The id of the message that the page does not reach, or begins behind."""
        return self.before or self.after

    def ask_for(self, limit: int) -> dict[str, Any]:
        """Return the query as the servers take it, for another number of messages."""
        where = {"before": self.before, "after": self.after}
        return {"order": self.order, "limit": limit, **where}


def refuse_model(backend: str, option: str = "model") -> UnsupportedOptionError:
    """Return the refusal of a model, or an effort, of its own for the default conversation.

    Args:
        backend: The name of the backend.
        option: The option that asks for it.
    """
    return UnsupportedOptionError(
        option,
        backend=backend,
        reason=f"the default conversation always uses its agent's {option}; change it with "
        f"client.agents.update(agent_id, {option}=...), or use create_session({option}=...).",
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that may have been sent before.

    ``otid`` is its id, or ``""``. ``after`` is the run of the newest answer that its sender knows.
    ``seconds`` is the time to wait for its run.
    """

    otid: str
    after: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A conversation that is open, and the properties of its agent that are known.

    ``look_up`` reads those that are not known yet (the model, the tools, and the agent's id, which
    is ``""`` until then); a message can be sent before. ``None`` if there are none.
    """

    conversation: Conversation
    model: str | None = None
    tools: tuple[str, ...] = ()
    look_up: Callable[[], Awaitable[Opened]] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """The conversation to open: ids where they are known, ``new`` for a fresh one.

    ``fields`` are the properties of a fresh conversation (``summary``, ``model_settings``).
    ``lean`` means that the caller does not ask for the agent's model and tools, so that they need
    no look-up.
    """

    agent_id: str | None = None
    conversation_id: str | None = None
    new: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    lean: bool = False

    def __post_init__(self) -> None:
        # Every way to a conversation passes here, whoever named it, so that nothing but an id
        # becomes a part of a path.
        if self.agent_id is not None:
            check_id(self.agent_id, "an agent id", AGENT)
        if self.conversation_id not in (None, DEFAULT):
            check_id(self.conversation_id, "a conversation id", CONVERSATION)


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """The settings that every request of a turn carries.

    ``client_tools`` have name, description and parameters. ``session`` holds the options of the
    session that sends it; the App Server is told of them again after a reconnect, and when two
    sessions of one conversation have different ones. ``model`` is another model for these requests
    alone (the Letta API). ``asks``: whoever reads the turn wants to be asked about every tool, as a
    session with a ``can_use_tool`` does.
    """

    include_partial_messages: bool = False
    client_tools: Sequence[Mapping[str, Any]] = ()
    max_steps: int | None = None
    session: SessionOptions | None = None
    model: str | None = None
    asks: bool = False


@dataclass(frozen=True, slots=True)
class ToolCallResponse:
    """An answer of this client to one pending call.

    ``returned`` is the result of a client-side tool (text, or content parts). ``approve`` lets the
    server run the tool, with ``updated_input`` in place of the model's if given; with
    ``suggestion_ids`` the same call is not asked about again, and ``reason`` is a word with it.
    With neither of the two the call is denied, for ``reason``. ``traceback`` is that of an
    exception which the user's tool or callback raised; it stays on this side.
    """

    tool_call_id: str
    tool_name: str
    returned: str | Sequence[Mapping[str, Any]] | None = None
    is_error: bool = False
    approve: bool = False
    reason: str = ""
    updated_input: Mapping[str, Any] | None = None
    suggestion_ids: Sequence[str] = ()
    traceback: str | None = field(default=None, compare=False, repr=False)

    @classmethod
    def make_unanswered(cls, call: PendingToolCall | ToolCallMessage, why: str) -> ToolCallResponse:
        """Return the answer to a call that nobody decides about any more.

        It is the failed result of a tool and no denial: the Letta API tells a denial to the agent
        as the user's ("User reason: ...").

        Args:
            call: The call.
            why: The reason, as a sentence.
        """
        return cls.make_failed(call, denials.explain_unanswered(why))

    @classmethod
    def make_failed(cls, call: PendingToolCall | ToolCallMessage, text: str) -> ToolCallResponse:
        """Return the answer to a call that was not run, though nobody has refused it.

        Args:
            call: The call.
            text: What the model reads as the result of a tool that failed.
        """
        return cls(call.tool_call_id, call.tool_name, returned=text, is_error=True)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The fate of a message whose turn lost its connection.

    Attributes:
        stored: Whether the conversation holds it; ``None`` if that could not be found out.
        answered: The agent's answer, as far as it came, is stored too.
        aborted: Its turn was about to go on, and was stopped.
    """

    stored: bool | None
    answered: bool = False
    aborted: bool = False

    def explain(self) -> str:
        """Return sentences for the caller: what became of the message, and what to do."""
        if self.stored is None:
            return (
                "Whether the server kept the message could not be found out: look with "
                "list_messages() before you send it again."
            )
        if not self.stored:
            return "The message is not stored in the conversation: it is safe to send it again."
        if self.aborted:
            return (
                "The message is stored; its turn was about to go on and was stopped: do not send "
                "it again."
            )
        if self.answered:
            return (
                "The message is stored, and so is the agent's answer, as far as it came: read it "
                "with list_messages(); do not send the message again."
            )
        return "The message is stored in the conversation: do not send it again."

    def put_into(self, error: LettaError) -> None:
        """Complete the error of a message that nobody knew the fate of.

        Raises:
            TimeoutAfterAcceptanceError: The error says that the time was up before the message was
                accepted, and it was.
        """
        error.accepted = self.stored
        error.hint = self.explain()
        # str() of an exception is made of its arguments alone.
        error.args = (f"{error.message} {error.hint}",)
        if self.stored and isinstance(error, TimeoutBeforeAcceptanceError):
            raise TimeoutAfterAcceptanceError(
                error.message, hint=error.hint, accepted=True
            ) from error


class DeniedRounds:
    """Count the steps in a row of which every call was denied; a model may insist without end.

    Args:
        limit: The greatest number of such steps; the next one ends the turn.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._run_id: str | None = None

    def see(self, run_id: str | None, *, denied: bool) -> None:
        """Count the answer to a step's calls, which share a run and may be asked about one by one.

        Args:
            run_id: The run of the calls, where it is known.
            denied: True if all of them were denied.

        Raises:
            TurnFailedError: There were too many; its code is ``denied_rounds``.
        """
        if not denied:
            self._count = 0
            self._run_id = None
            return
        # Calls that are asked about one by one share a run, which counts as one step.
        if run_id is None or run_id != self._run_id:
            self._count += 1
            self._run_id = run_id
        if self._count > self._limit:
            raise TurnFailedError(
                f"The agent went on calling tools that were denied, {self._limit} steps in a row.",
                code="denied_rounds",
                hint="Tell the agent in the denial's message what to do instead, or raise "
                "max_denied_rounds.",
            )


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an agent or a conversation; ``gone`` means that it was deleted or archived."""

    agent_id: str = ""
    conversation_id: str = ""
    gone: bool = False

    def concerns(self, agent_id: str, conversation_id: str) -> bool:
        """Return whether the change is about this conversation, or its agent."""
        if self.agent_id:
            return self.agent_id == agent_id
        return self.conversation_id == conversation_id


def find_change(method: str, path: str, body: Mapping[str, Any] | None) -> Change | None:
    """Return the change that a successful request made; ``None`` if nothing cached has changed.

    Args:
        method: The HTTP method.
        path: The path of the request.
        body: The body of the request.
    """
    found = _ITEM.fullmatch(path.partition("?")[0])
    if found is None or method not in ("PATCH", "DELETE"):
        return None
    return _make_change(found[1], found[2], body or {}, gone=method == "DELETE")


def find_command_change(name: str, fields: Mapping[str, Any]) -> Change | None:
    """Return the change that a successful command made; ``None`` if nothing cached has changed.

    Args:
        name: The name of the command.
        fields: Its fields.
    """
    kind, gone = _COMMANDS.get(name, ("", False))
    field = "agent_id" if kind == "agents" else "conversation_id"
    # A command has its own fields, and the change itself one level deeper.
    body = fields.get("body")
    given = body if isinstance(body, Mapping) else {}
    return _make_change(kind, str(fields.get(field) or ""), given, gone=gone) if kind else None


def _make_change(kind: str, id_: str, fields: Mapping[str, Any], *, gone: bool) -> Change:
    if kind == "agents":
        return Change(agent_id=id_, gone=gone)
    return Change(conversation_id=id_, gone=gone or fields.get("archived") is True)


@dataclass(frozen=True, slots=True)
class LiveState:
    """A server's own description of a conversation.

    ``device`` has the mode, the directory, the tools and the open questions; ``queue`` the messages
    that wait there; ``loop`` the state of the agent's loop.
    """

    device: Mapping[str, Any]
    queue: tuple[Mapping[str, Any], ...]
    loop: str


class BackendTurn(Protocol):
    """One turn, from its message to its end."""

    # False if nobody will look at the result, which then need not be found out.
    wanted: bool

    @property
    def state(self) -> TurnState:
        """The facts known of the turn so far."""

    @property
    def connected(self) -> bool:
        """True while the server can still be told anything about it."""

    async def start(
        self,
        content: Any,
        otid: str,
        *,
        answers: Sequence[ToolCallResponse] = (),
        history: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Send the message and return once it was accepted.

        Where conversations keep their pending calls (``durable_pending_calls``), and only there,
        ``answers`` to the calls that wait can go with it, and ``history`` to store before it.

        Args:
            content: The message in the form of the wire. ``None`` if there is nothing to say
                besides the answers.
            otid: The message's id.
            answers: Answers to the calls that wait in the conversation.
            history: Messages of any role.

        Raises:
            LettaError: The server refused the message.
        """

    def batches(self) -> AsyncIterator[list[Message]]:
        """Yield messages as they come, until calls are pending or the turn is over.

        At the end either ``state.pending`` is set, or ``state.failure``, or the turn is complete.
        """

    async def answer(self, answers: Sequence[ToolCallResponse]) -> None:
        """Answer all pending calls together, after which :meth:`batches` goes on.

        Raises:
            LettaError: The server refused the answers.
        """

    async def cancel(self) -> None:
        """Ask the agent to stop; :meth:`batches` then ends by itself."""

    async def stop(self, why: str | None = None, answers: Sequence[ToolCallResponse] = ()) -> None:
        """Make the agent stop, wait (for a bounded time) until it has, release the connection.

        This must not be called while :meth:`batches` waits in another task.

        Args:
            why: The reason for which calls that wait get no answer any more; their results tell it
                as a fact, since nobody has decided about them. ``None`` leaves them as they are
                where conversations keep them (``durable_pending_calls``).
            answers: Decisions that were taken about some of them all the same.
        """

    async def release(self) -> None:
        """Give the connection up at once, even while :meth:`batches` waits (it then fails)."""


class Backend(Protocol):
    """A place where agents live; it never repeats a message that may have been accepted."""

    name: str
    turn_timeout: float | None

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities; of an App Server that is known for sure once it is connected."""

    async def create_agent(self, options: AgentOptions) -> str: ...
    async def update_agent(
        self,
        agent_id: str,
        fields: Mapping[str, Any],
        settings: Mapping[str, Any],
        effort: ReasoningEffort | None = None,
    ) -> dict[str, Any]: ...
    async def agent_settings(self, agent_id: str) -> dict[str, Any]: ...
    async def default_agent(self, model: str | None) -> str: ...
    async def open(self, target: Target, options: SessionOptions) -> Opened: ...
    def turn(self, conversation: Conversation, settings: TurnSettings) -> BackendTurn: ...
    async def list_messages(self, conversation: Conversation, query: PageQuery) -> StoredPage: ...
    async def pending_calls(self, conversation: Conversation) -> tuple[PendingToolCall, ...]: ...
    async def clear(
        self,
        conversation: Conversation,
        calls: Sequence[PendingToolCall],
        why: str,
        answers: Sequence[ToolCallResponse] = (),
    ) -> None:
        """End calls that wait, without a model call and without a decision in anybody's name.

        Args:
            conversation: The conversation.
            calls: All calls that wait in it.
            why: The reason for which nobody answers them, which the agent reads.
            answers: Decisions that were taken about some of them all the same.

        Raises:
            LettaError: The server refused.
        """

    async def abort(self, conversation: Conversation) -> bool: ...
    async def wait_until_idle(self, conversation: Conversation, sent: Sent) -> bool | None:
        """Wait, before a message is sent (again), for a run of it that somebody else began.

        Returns:
            ``None`` if nothing has run since the answer that is known, ``False`` if it is still
            active, and ``True`` if it has ended.
        """

    async def was_cut(self, conversation: Conversation, message_id: str) -> bool:
        """Return whether an answer is known to be only the beginning of one that was cut off.

        Args:
            conversation: The conversation; no turn of it is active.
            message_id: The id by which the conversation lists the answer.
        """

    async def check_asks(self, agent_id: str | None, conversation_id: str | None) -> None:
        """Refuse a callback that would not be asked about every tool.

        Args:
            agent_id: The agent; ``None`` if the conversation's id alone tells it.
            conversation_id: The conversation; ``None`` if it is one of the agent's, whichever.

        Raises:
            UnsupportedOptionError: The server runs a tool of the agent's without asking.
        """

    async def live(self, conversation: Conversation) -> LiveState: ...
    async def set_model(
        self,
        conversation: Conversation,
        model: str | None,
        effort: ReasoningEffort | None = None,
    ) -> None: ...
    async def change_state(self, conversation: Conversation, options: SessionOptions) -> None: ...
    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        files: Files | None = None,
    ) -> Any: ...
    def find_memory(self, agent_id: str) -> Path | None:
        """Return the directory of an agent's memory; ``None`` where agents live elsewhere."""

    async def command(self, name: str, /, **fields: Any) -> dict[str, Any]:
        """Send a command of Letta Code and return its answer.

        Raises:
            InvalidInputError: This is no name of a command, or a field is the client's own.
            UnsupportedOptionError: This is the Letta API, which has no commands.
        """

    def notice(self, change: Change) -> None: ...
    async def runtime_status(self) -> RuntimeStatus: ...
    async def aclose(self) -> None: ...
