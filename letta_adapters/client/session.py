"""A session, which is an open conversation with an agent.

All control flow is here, in its asynchronous form; the synchronous session only forwards to it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from letta_adapters._utils.checks import is_duration
from letta_adapters._utils.shown import show_object
from letta_adapters._utils.tasks import Once, running_task
from letta_adapters.backends.base import (
    PAGE_SIZE,
    Conversation,
    DeniedRounds,
    Opened,
    Order,
    PageQuery,
    Target,
    TurnSettings,
)
from letta_adapters.backends.capabilities import check_supported
from letta_adapters.client.approvals import AsyncApprovals
from letta_adapters.client.facts import Facts, make_init
from letta_adapters.client.message_stream import MessageStream, read_text
from letta_adapters.client.record import Told
from letta_adapters.client.tool_calls import ToolCallHandler
from letta_adapters.client.turn import Turn
from letta_adapters.client.turn_options import MakeInit, TurnOptions
from letta_adapters.client.turn_slots import Outbox, OutgoingMessage, TurnSlots, withdraw
from letta_adapters.content import to_wire
from letta_adapters.engine.stored import make_page
from letta_adapters.errors import (
    InvalidInputError,
    LettaError,
    ServerError,
    SessionClosedError,
)
from letta_adapters.messages import (
    BootstrapState,
    InitMessage,
    MessagePage,
)
from letta_adapters.options import PermissionMode, ReasoningEffort, SessionOptions, Toolset
from letta_adapters.tools.client_side import Tool, as_runnable_tools

if TYPE_CHECKING:
    from letta_adapters.tools.mcp.host import McpHost

_CLOSED = "The session was closed."
_TAKEN_OUT = "The message was taken out of the queue."


class AsyncSession(AsyncApprovals):
    """A conversation with a Letta agent.

    ``create_session`` and ``resume_session`` make it without any I/O. It opens on ``async with`` or
    on first use, and its ids are ``None`` until then. A closed session cannot be opened again::

        async with client.resume_session("agent-...") as session:
            await session.send("What do you remember about me?")
            async for message in session.stream():
                print(message)
    """

    def __init__(
        self,
        slots: TurnSlots,
        target: Target,
        options: SessionOptions,
        *,
        mcp_hosts: set[McpHost],
        on_close: Callable[[], Awaitable[None]] | None = None,
        off_loop: bool = False,
    ) -> None:
        self._slots = slots
        self._target = target
        self._options = options
        self._mcp_hosts = mcp_hosts
        self._on_close = on_close
        self._off_loop = off_loop
        self._tools: dict[str, Tool] = {
            tool.name: tool for tool in as_runnable_tools(options.tools)
        }
        self._mcp: McpHost | None = None
        self._facts: Facts | None = None
        self._opening = asyncio.Lock()
        self._session_id: str | None = None
        self._outbox = Outbox()
        # The number of messages on their way that the server has not accepted yet.
        self._sending = 0
        self._init_pending = True
        self._closed, self._closing = False, Once()

    # -- identity ---------------------------------------------------------------------------

    @property
    def agent_id(self) -> str | None:
        """The agent's id; ``None`` until the session is open.

        Over the Letta API the agent of a conversation that was named by its id alone is looked up
        beside the first turn: the id is known with the init message, or after :meth:`initialize`.
        """
        return self._facts.agent_id if self._facts else None

    @property
    def conversation_id(self) -> str | None:
        """The conversation's id (``"default"`` for the agent's own one); ``None`` until open."""
        return self._facts.known.conversation.conversation_id if self._facts else None

    @property
    def session_id(self) -> str | None:
        """The id of this session object; ``None`` until the session is open."""
        return self._session_id

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._facts else "not open yet"
        return show_object(
            self,
            state,
            backend=self._slots.backend.name,
            agent_id=self.agent_id or self._target.agent_id,
            conversation_id=self.conversation_id or self._target.conversation_id,
        )

    @property
    def mcp_problems(self) -> Mapping[str, LettaError]:
        """The servers of ``mcp_servers`` that are not connected, each with the reason."""
        return {} if self._mcp is None else dict(self._mcp.errors)

    async def initialize(self) -> InitMessage:
        """Open the session now, if it is not open, and return the first message of its stream.

        Raises:
            LettaError: The agent was not found, the key was refused, the server cannot be reached,
                an option is not supported, ...
        """
        opened = await self._open()
        return self._make_init()(opened)

    # A turn keeps what this returns, and must not keep its session.
    def _make_init(self) -> MakeInit:
        return partial(
            make_init, str(self._session_id), self._slots.backend.name, tuple(self._tools)
        )

    async def _open(self) -> Opened:
        """Open the session, and return all facts of its conversation."""
        return await (await self._reach()).complete()

    async def _reach(self) -> Facts:
        """Open the session as far as a message needs it, and return the facts known then."""
        self._check_usable()
        # Two tasks may use a new session at once; it must not open two conversations.
        async with self._opening:
            self._check_usable()  # it may have been closed meanwhile
            if self._facts is None:
                opened = await self._slots.works.run(self, self._find())
                self._facts = Facts(opened, self._slots.works.start)
                self._session_id = f"session-{uuid.uuid4()}"
        return self._facts

    async def _find(self) -> Opened:
        await self._start_mcp()
        return await self._slots.backend.open(self._target, self._options)

    async def _start_mcp(self) -> None:
        """Connect to the MCP servers; the session's own tools win over theirs of the same name."""
        if not self._options.mcp_servers or self._mcp is not None:
            return
        from letta_adapters.tools.mcp.host import McpHost

        self._mcp = McpHost()
        # The client closes what a session forgets, so it learns of the servers before they start.
        self._mcp_hosts.add(self._mcp)  # closing it again does no harm
        try:
            tools = await self._mcp.start(self._options.mcp_servers)
        except BaseException:
            self._mcp = None
            raise
        self._tools = {tool.name: tool for tool in tools} | self._tools

    def _check_usable(self) -> None:
        if self._closed:
            raise SessionClosedError("This session is closed.")
        self._slots.check_usable()

    # -- turns ------------------------------------------------------------------------------

    async def send(self, message: Any, *, otid: str | None = None) -> None:
        """Send a message and return once the server has accepted it; then read :meth:`stream`.

        Turns of one conversation run one after the other. A message waits in line while an earlier
        message of this session, or one that the same task has sent in this conversation, is not
        answered to its end. Then ``send`` returns at once, the message goes out when it is its
        turn, and a refusal by the server becomes the error of its stream. :meth:`queued` shows the
        messages that wait. If another task's turn in another session is in the way, ``send`` itself
        waits.

        Args:
            message: Text, an image, or a sequence of text and image parts.
            otid: The message's id for the server, which the stored message keeps; made up if not
                given. With Redis a Letta API answers a second message of the same id, in whatever
                conversation, with its answer to the first.

        Raises:
            InvalidInputError: The message or the ``otid`` is wrong. This is found before any I/O.
            ConversationBusyError: 100 messages of this session wait already.
            LettaError: The server refused the message, or could not be reached (``accepted`` says
                whether the message may have arrived).
        """
        await self._send(message, otid, running_task())

    async def _send(self, message: Any, otid: str | None, owner: object) -> None:
        facts, outgoing = await self._prepare(message, otid)
        place = facts.known.conversation
        ahead = self._slots.turns.get(place.key)
        # To wait here for a turn that this very caller has to read would never end, so its message
        # waits in line instead. Behind a stranger's turn waiting is safe.
        own = ahead is not None and ahead.left_behind(owner) and not ahead.given_up(None)
        # A send that is under way has no turn yet that `busy` could see.
        if self._outbox.busy or self._sending or own:
            self._slots.check_outside(place)
            self._outbox.check_room()
            self._stand_in_line(facts, outgoing, owner)
        else:
            await self._start(self._begin(facts, outgoing, owner))

    async def _prepare(
        self, message: Any, otid: str | None, timeout: float | None = None
    ) -> tuple[Facts, OutgoingMessage]:
        self._check_usable()
        content = to_wire(message)
        if otid is not None and not otid.strip():
            raise InvalidInputError("otid must not be empty.")
        if timeout is not None and not is_duration(timeout):
            raise InvalidInputError(f"timeout must be seconds greater than 0, not {timeout!r}.")
        name = otid or str(uuid.uuid4())
        return await self._reach(), OutgoingMessage(name, content, timeout=timeout)

    async def _start(self, beginning: Coroutine[Any, Any, Turn]) -> Turn:
        self._sending += 1
        try:
            turn = await self._slots.works.run(self, beginning, _undo)
        finally:
            self._sending -= 1
        if self._closed:  # just now: close() did not see the turn yet
            await turn.stop(_CLOSED)
            self._check_usable()
        self._init_pending = False
        # Weak: the unread turn of a session that nobody holds any more counts as given up.
        turn.keeper = ref(self)
        self._outbox.add(turn)
        return turn

    # The message's turn exists at once, so that a stream can be read from it; a task of its own
    # sends the message when the conversation is free.
    def _stand_in_line(self, facts: Facts, message: OutgoingMessage, owner: object) -> None:
        # Which stream is the first shows only as messages go out: see `_first_init`.
        options = replace(self._make_turn_options(facts), init=None)
        place = facts.known.conversation
        waiting = self._slots.backend.turn(place, options.settings)
        turn = Turn(waiting, place, options, owner=owner, release=None)
        turn.keeper = ref(self)
        self._slots.line_up(self, turn, message, self._turn_settings, self._first_init)
        self._outbox.add(turn)

    def _first_init(self) -> MakeInit | None:
        """Return what makes the first message of the first stream; ``None`` for later streams."""
        if not self._init_pending:
            return None
        self._init_pending = False
        return self._make_init()

    async def _begin(self, facts: Facts, message: OutgoingMessage, owner: object) -> Turn:
        async with self._slots.reserve(facts.known.conversation, owner) as slot:
            # The wait for the conversation may have been long: the session may be closed by now.
            self._check_usable()
            facts.look_up()  # beside the message, which goes out first
            return await slot.start(message, self._make_turn_options(facts, message.timeout))

    def _make_turn_options(self, facts: Facts, timeout: float | None = None) -> TurnOptions:
        return TurnOptions(
            self._turn_settings(),
            self._make_handler(facts.known.conversation),
            facts,
            self._make_init() if self._init_pending else None,
            timeout or self._options.turn_timeout or self._slots.backend.turn_timeout,
            told=Told(lambda: facts.known),
        )

    def _turn_settings(self) -> TurnSettings:
        return TurnSettings(
            include_partial_messages=self._options.include_partial_messages,
            client_tools=[
                {"name": t.name, "description": t.description, "parameters": t.parameters}
                for t in self._tools.values()
            ],
            max_steps=self._options.max_steps,
            session=self._options,
        )

    def _make_handler(self, conversation: Conversation) -> ToolCallHandler:
        backend, chosen = self._slots.backend, self._options
        return ToolCallHandler(
            self._tools,
            chosen.can_use_tool,
            backend.name,
            conversation,
            self._off_loop,
            DeniedRounds(chosen.max_denied_rounds),
            backend.capabilities.durable_pending_calls,
            chosen.patience,
        )

    def stream(self) -> MessageStream:
        """Return the messages of the oldest turn that no stream was asked for yet.

        The stream ends with the turn's ``ResultMessage``. Each call is for one message that was
        sent, oldest first. Messages that this task has sent come before those of other tasks. An
        earlier stream that this task has not read to its end is given up when the next one is read.

        Raises:
            InvalidInputError: Nothing was sent, or every message sent has its stream already.
        """
        self._check_usable()
        return self._stream(running_task())

    def _stream(self, owner: object) -> MessageStream:
        turn = self._outbox.next(owner)
        if turn is None:
            raise InvalidInputError("There is no turn to stream: call send() first.")
        return turn.stream(owner)

    def text_stream(self) -> AsyncGenerator[str, None]:
        """Return the answer's text alone, of the turn that :meth:`stream` would return.

        With ``include_partial_messages=True`` it comes as it is written, else message by message.
        Thoughts, tool calls and their results are left out. Where the agent's runtime repeats a
        model call, the text begins anew; :meth:`stream` tells so (``RetryMessage``)::

            await session.send("Hello!")
            async for text in session.text_stream():
                print(text, end="", flush=True)

        Raises:
            InvalidInputError: Nothing was sent, or every message sent has its stream already.
            LettaError: The turn failed; raised where its text ends.
        """
        return read_text(self.stream())

    @property
    def closed(self) -> bool:
        """True once the session was closed, which is final."""
        return self._closed

    @property
    def unsent(self) -> tuple[Mapping[str, Any], ...]:
        """The messages that waited in line and will never be sent, as :meth:`queued` showed them.

        They are here because the session or the client was closed, or because they were refused and
        nobody has read that in their stream.
        """
        return self._outbox.unsent

    async def abort(self) -> None:
        """Stop the agent's current turn, whose stream then ends with a ``cancelled`` result.

        It is no error if no turn runs. Messages that wait in line go on: see ``remove_queued``.
        """
        where = await self._here()
        turn = self._outbox.current
        if turn is not None:
            await turn.abort()
        else:
            # A run that somebody else has started in this conversation is to be stopped as well.
            await self._slots.backend.abort(where)

    # -- state ------------------------------------------------------------------------------

    async def list_messages(
        self,
        before: str | None = None,
        after: str | None = None,
        order: Order = "desc",
        limit: int = PAGE_SIZE,
    ) -> MessagePage:
        """Return a page of stored messages, newest first; this works while a stream is running too.

        Args:
            before: Return messages older than the one with this id (``page.next_before``).
            after: Return messages newer than the one with this id (``page.next_after``).
            order: ``"desc"`` (newest first) or ``"asc"``.
            limit: The number of stored messages on a page, 1 to 1000.
        """
        query = PageQuery(limit, before, after, order)
        opened = await self._open()
        return make_page(await self._slots.backend.list_messages(opened.conversation, query))

    async def bootstrap_state(self, limit: int = PAGE_SIZE) -> BootstrapState:
        """Return ids, model, tools, the newest messages and the calls that wait for an answer."""
        opened = await self._open()
        page, pending = await asyncio.gather(
            self.list_messages(limit=limit),
            self._slots.backend.pending_calls(opened.conversation),
        )
        init = self._make_init()(opened)
        return BootstrapState(
            init.agent_id, init.conversation_id, init.model, init.tools, page, pending
        )

    # -- model, toolset and queue -----------------------------------------------------------

    # All but `update_model`, `queued` and `remove_queued` exist in Letta Code only; the Letta API
    # refuses them by name.

    async def _place(self) -> Conversation:
        return (await self._open()).conversation

    async def _here(self) -> Conversation:
        """Return the conversation, and do not wait for its facts where a message has found it."""
        facts = await self._reach()
        found = self._sending or self._outbox.turns
        return (facts.known if found else await facts.complete()).conversation

    async def update_model(
        self, model: str | None = None, *, reasoning_effort: ReasoningEffort | None = None
    ) -> None:
        """Use another model or effort in this conversation from the next turn on (not in others).

        Args:
            model: The model's handle; ``None`` leaves the model as it is.
            reasoning_effort: The model's effort; ``None`` leaves it as it is.

        Raises:
            InvalidInputError: The server has no such model; the error names those spelled alike. Or
                it does not know the effort, or there is nothing to change.
            UnsupportedOptionError: The agent's default conversation always uses its agent's model
                and effort. Or the model takes no effort.
        """
        if model is None and reasoning_effort is None:
            raise InvalidInputError("Give model=, reasoning_effort=, or both.")
        if model is not None and (not isinstance(model, str) or not model):
            raise InvalidInputError(f"A model handle is needed, not {model!r}.")
        # Made for its check of the effort alone.
        SessionOptions(reasoning_effort=reasoning_effort)
        facts = await self._reach()
        opened = await facts.complete()
        await self._slots.backend.set_model(opened.conversation, model, reasoning_effort)
        facts.known = replace(facts.known, model=model or facts.known.model)

    async def update_toolset(self, toolset: Toolset) -> None:
        """Use another set of Letta Code's own tools from the next turn on; ``"none"`` for none."""
        await self._change({"toolset": toolset})

    async def change_device_state(
        self,
        *,
        permission_mode: PermissionMode | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        """Change the permission mode or the working directory at once, also in a running turn.

        Raises:
            InvalidInputError: Nothing is to be changed, or ``cwd`` is not a directory.
        """
        given = {"permission_mode": permission_mode, "cwd": cwd}
        changes = {name: value for name, value in given.items() if value is not None}
        if not changes:
            raise InvalidInputError("Give permission_mode=, cwd=, or both.")
        await self._change(changes)

    async def _change(self, changes: Mapping[str, Any]) -> None:
        # The whole set of options is checked again: a change may not go together with the others.
        known = {name: getattr(self._options, name) for name in self._options.model_fields_set}
        changed = SessionOptions(**{**known, **changes})
        check_supported(changed, self._slots.backend.name)
        await self._slots.backend.change_state(await self._place(), changed)
        self._options = changed

    async def device_status(self) -> dict[str, Any]:
        """Return the server's own description of this conversation's state.

        It has ``current_permission_mode``, ``current_working_directory``, ``current_loaded_tools``,
        ``pending_control_requests`` and more, in Letta Code's words.
        """
        return dict((await self._slots.backend.live(await self._place())).device)

    async def queued(self) -> tuple[Mapping[str, Any], ...]:
        """Return the messages that wait behind a running turn, with ``id`` and ``content``.

        First come those of other clients, which wait at the server (Letta Code), then those of this
        client.
        """
        where = await self._here()
        ours = tuple(t.item for t in self._slots.queue if t.conversation.key == where.key)
        if not self._slots.backend.capabilities.shared_queue:
            return ours
        return (*(await self._slots.backend.live(where)).queue, *ours)

    async def remove_queued(self, item_id: str) -> bool:
        """Take a message out of the queue; return ``False`` if it is not in it (any more).

        A message of this session that was taken out has no stream.
        """
        where = await self._here()
        # Messages of this client wait here and the server does not know them, so they come first.
        for turn in tuple(self._slots.queue):
            if turn.conversation.key == where.key and turn.item["id"] == item_id:
                # The server may have it already: it can no longer be taken back.
                if turn.on_its_way:
                    return False
                # At once: before `stop` begins, the conversation may be free and the message sent.
                turn.withdraw(_TAKEN_OUT)
                await turn.stop(_TAKEN_OUT)
                self._outbox.remove(turn)
                return True
        if not self._slots.backend.capabilities.shared_queue:
            return False
        try:
            await self._command("remove_queue_item", item_id=item_id)
        except ServerError:
            # The server refuses an id that is not (or no longer) in its queue, which is no failure.
            return False
        return True

    async def resume_queue(self) -> int:
        """Let the messages go on that an abort has put on hold, and return their number."""
        return int((await self._command("resume_queue")).get("resumed") or 0)

    async def _command(self, name: str, **fields: Any) -> dict[str, Any]:
        where = await self._place()
        self._slots.check_usable()  # the client may have been closed meanwhile
        return await self._slots.backend.command(name, runtime=where.as_runtime(), **fields)

    # -- the end -----------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop the turn that is running and close for good. It can be called more than once.

        Messages that still wait are not sent: a warning is logged, and :attr:`unsent` holds them.
        It is carried out to its end, also when the caller is cancelled.
        """
        self._closed = True
        caller = running_task()
        await self._closing.run(lambda: self._close(caller))

    async def _close(self, caller: asyncio.Task[Any] | None) -> None:
        try:
            turns = self._outbox.turns
            # First those that wait: stopping the running turn frees the conversation, and one of
            # them would begin.
            await withdraw(turns, "session")
            await self._slots.works.end((self, self._facts), caller)
            for turn in turns:
                await turn.stop(_CLOSED)
        finally:
            try:
                if self._mcp is not None:
                    await self._mcp.aclose()
                    self._mcp_hosts.discard(self._mcp)
            finally:
                if self._on_close is not None:
                    await self._on_close()

    async def __aenter__(self) -> AsyncSession:
        try:
            await self._reach()
        except BaseException:
            # A session that failed to open may have connected MCP servers, or own its client.
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _undo(turn: Turn) -> None:
    """Stop a turn whose sender was cancelled just as it was accepted."""
    await turn.stop("The message was given up as it was accepted.")
