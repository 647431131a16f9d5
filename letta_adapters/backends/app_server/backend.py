"""Internal: a Letta Code App Server as a :class:`~letta_adapters.backends.base.Backend`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from letta_adapters._utils.bounded import Bounded
from letta_adapters._utils.files import hold_lock, on_thread
from letta_adapters.backends import agent_settings, default_agent
from letta_adapters.backends.app_server import (
    agents,
    conversations,
    efforts,
    frames,
    management,
    recovery,
)
from letta_adapters.backends.app_server import options as told
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.app_server.frames import Frame
from letta_adapters.backends.app_server.inherited import Inherited, MachineFiles
from letta_adapters.backends.app_server.judging import Judge, Prepared
from letta_adapters.backends.app_server.link import Link, count_use
from letta_adapters.backends.app_server.questions import Permits, Strays
from letta_adapters.backends.app_server.recovery import ConversationStatus
from letta_adapters.backends.app_server.server import Host, Setup
from letta_adapters.backends.app_server.switches import Reflecting, Stateless, SystemInfo
from letta_adapters.backends.app_server.turn import AppServerTurn
from letta_adapters.backends.app_server.vision import Vision
from letta_adapters.backends.base import (
    DEFAULT,
    Change,
    Conversation,
    Delivery,
    Files,
    LiveState,
    Opened,
    PageQuery,
    Sent,
    Target,
    ToolCallResponse,
    TurnSettings,
    refuse_model,
)
from letta_adapters.backends.capabilities import Capabilities, check_supported, of_letta_code
from letta_adapters.backends.config import RuntimeStatus
from letta_adapters.engine.stored import StoredPage
from letta_adapters.errors import (
    InvalidInputError,
    LettaError,
    LettaTimeoutError,
    UnsupportedOptionError,
)
from letta_adapters.messages import PendingToolCall
from letta_adapters.options import AgentOptions, ReasoningEffort, SessionOptions, Sleeptime

_FIRST_USE_SECONDS: Final = 60.0
# Seconds a change of mode or directory may take; the server checks that the directory exists.
_CHANGE_SECONDS: Final = 5.0
# The seconds between looks for an answer that is over, and written a moment later.
_WRITTEN_SECONDS: Final = (0.1, 0.3, 0.6)


class AppServerBackend:
    """Agents that live in Letta Code.

    Args:
        setup: The facts of the server.
        host: The one who runs it, or knows where it listens.
        system_info: Decides about reminders, where that is possible.
        reflecting: Decides which agents reflect, where that is possible.
        vision: Knows which models see images, where that is possible.
    """

    def __init__(
        self,
        setup: Setup,
        host: Host,
        *,
        system_info: SystemInfo | None = None,
        reflecting: Reflecting | None = None,
        vision: Vision | None = None,
    ) -> None:
        self.name = setup.name
        self._setup = setup
        self._status = host.status
        self._strays = Strays(setup.name == "local", host.status)
        self._connections = 0
        self.vision = vision or Vision(None)
        self.state = setup.state
        self._system_info = system_info or SystemInfo(None)
        self._reflecting = reflecting or Reflecting(None)
        self._stateless = Stateless(self._reflecting)
        self._on_api = setup.on_api
        self.turn_timeout = setup.timeouts.turn
        self.settle_timeout = setup.timeouts.settle
        self._link = Link(host, setup.timeouts, made=self._connected)
        host.on_retire(self._link.retire)
        self.traffic = self._link.traffic
        self.connection = self._link.connection
        self._prepared: Bounded[Conversation, Prepared] = Bounded(in_use=self._has_turn)
        self._live: Bounded[Conversation, ConversationStatus] = Bounded(in_use=self._has_turn)
        self._judge = Judge(
            Permits(setup.machine), self._prepared, self._live, ours=setup.name == "local"
        )
        self.allowed = self._judge.allowed
        self.ran_unasked = self._judge.ran_unasked
        self._first_use = asyncio.Lock()
        ours = setup.own_directory
        files = None if ours is None else MachineFiles(ours)
        self._inherited = Inherited(files, self._system_info)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the server, which depend on where its agents live."""
        return of_letta_code(on_api=self._on_api, here=self.state is not None)

    # -- connection -------------------------------------------------------------------------

    def _connected(self, connection: Connection) -> None:
        self._connections += 1
        connection.observe = self._observe
        connection.ours = self.name == "local"
        connection.state = self.state
        connection.memory_in_git = self._setup.memory_in_git
        self._on_api = connection.on_api
        # What a server was told over a connection ends with it.
        self._prepared.clear()
        self._live.clear()
        self._inherited.clear()

    def _has_turn(self, conversation: Conversation) -> bool:
        connection = self._link.current
        return connection is not None and connection.serves(conversation)

    def _observe(self, conversation: Conversation, frame: Frame, stray: bool) -> None:
        self._live.setdefault(conversation, ConversationStatus()).see(frame)
        if stray:
            self.stray(conversation, frame)

    def stray(self, conversation: Conversation, frame: Frame) -> None:
        """Take a question that no turn of ours answers."""
        live = self._live.get(conversation) or ConversationStatus()
        self._strays.see(self._link.current, conversation, frame, live.messages)

    def sent(self, client_message_id: str) -> None:
        """Note a message that a turn of ours sends."""
        self._strays.sent(client_message_id)

    # -- conversations ----------------------------------------------------------------------

    @count_use
    async def create_agent(self, options: AgentOptions) -> str:
        """Create an agent and return its id; its prompt is Letta's own unless one is given.

        ``permission_mode``, ``allowed_tools``, ``disallowed_tools``, ``skill_sources``,
        ``system_info_reminder`` and ``cwd`` become defaults for sessions with this agent that set
        nothing else: see :mod:`letta_adapters.backends.agent_settings`.
        """
        check_supported(options, self.name)
        told.refuse(options, self.name)
        await on_thread(self._check_cwd, options.cwd)
        self._reflecting.check(options.sleeptime, options.permission_mode)
        settings = agent_settings.of_options(options)
        await self._inherited.check_writable(settings)
        connection = await self.connection()
        tags = tuple(agent_settings.with_tags(options.tags, settings.restrictions))
        tagged = options if connection.on_api else options.model_copy(update={"tags": tags})
        if options.reasoning_effort is not None:
            chosen = await agents.choose_model(connection, options.model)
            efforts.refuse_none(connection, chosen, self.name)
        agent_id = await agents.create_agent(connection, tagged, self.name)
        try:
            if options.reasoning_effort is not None:
                effort = options.reasoning_effort
                await efforts.set_for_agent(connection, agent_id, effort, self.name)
            if settings != agent_settings.AgentSettings():
                await self._inherited.store(connection, agent_id, settings)
            if options.sleeptime is not None:
                await self._reflect(connection, Conversation(agent_id, DEFAULT), options.sleeptime)
        except BaseException:
            await agents.delete(connection, agent_id)
            raise
        return agent_id

    async def _reflect(
        self, connection: Connection, conversation: Conversation, sleeptime: Sleeptime
    ) -> None:
        await on_thread(self._reflecting.choose, conversation.agent_id, sleeptime)
        if not await on_thread(lambda: self._reflecting.decides):
            await agents.set_sleeptime(connection, conversation, sleeptime)

    @count_use
    async def update_agent(
        self,
        agent_id: str,
        fields: Mapping[str, Any],
        settings: Mapping[str, Any],
        effort: ReasoningEffort | None = None,
    ) -> dict[str, Any]:
        """Change an agent's fields and the settings that its sessions inherit; return it."""
        changes = AgentOptions(**{k: v for k, v in settings.items() if v is not None})
        told.refuse(changes, self.name)
        await on_thread(self._check_cwd, changes.cwd)
        connection = await self.connection()
        if effort is None:
            return await self._inherited.update(connection, agent_id, fields, settings)
        model = fields.get("model")
        await efforts.refuse_for_agent(connection, agent_id, model, effort, self.name)
        if fields or settings:
            await self._inherited.update(connection, agent_id, fields, settings)
        return await efforts.set_for_agent(connection, agent_id, effort, self.name)

    @count_use
    async def agent_settings(self, agent_id: str) -> dict[str, Any]:
        """Return the settings that the agent's sessions inherit, under the options' names."""
        return (await self._inherited.of(await self.connection(), agent_id, fresh=True)).shown()

    @count_use
    async def default_agent(self, model: str | None) -> str:
        """Return the agent used when none is named: found by its tag, made once."""
        await self.connection()  # it tells where the agents live
        place = default_agent.Agents(self, model)
        ours = self._setup.own_directory
        if self.name == "local" and ours is not None:
            lock = partial(hold_lock, ours / "default-agent.lock", _FIRST_USE_SECONDS)
            return await default_agent.find(place, lock, shared=True)
        return await default_agent.find(place, lambda: self._first_use, shared=False)

    @count_use
    async def open(self, target: Target, options: SessionOptions) -> Opened:
        """Find or create the conversation, with the session's settings."""
        told.refuse(options, self.name, on_api=self._on_api)
        await on_thread(self._check_cwd, options.cwd)
        connection = await self.connection()
        if options.model:
            await agents.require_model(connection, options.model)
        for option in ("model", "reasoning_effort"):
            on_default = not target.new and target.conversation_id in (None, DEFAULT)
            if on_default and getattr(options, option) is not None:
                raise refuse_model(self.name, option)
        where = await conversations.name_runtime(connection, target, options, self.default_agent)
        agent_id = str(where.get("agent_id") or "")
        options = await self._inherited.session(connection, agent_id, options, fresh=True)
        self._reflecting.check(options.sleeptime, options.permission_mode)
        effort = options.reasoning_effort
        if effort is not None and target.new:  # before there is a conversation
            await efforts.refuse_for_agent(connection, agent_id, options.model, effort, self.name)
        settings = await on_thread(self._settings, agent_id, options)
        answer = await self._start(connection, where, settings, (), options)
        conversation = conversations.read_conversation(answer)
        if options.model and not target.new:
            await self._use_model(connection, conversation, options.model, keep=effort is None)
        if effort is not None:
            await efforts.set_for_conversation(connection, conversation, effort, self.name)
        await conversations.use_toolset(connection, conversation, options)
        if options.sleeptime is not None:
            await self._reflect(connection, conversation, options.sleeptime)
        model = options.model or conversations.read_model(answer)
        if model and not options.model:
            await agents.require_model(connection, model, "The agent's model")
        tools = () if options.stateless else self._loaded(conversation, options)
        return Opened(conversation, model, tools)

    def _check_cwd(self, cwd: Path | None) -> None:
        # The server silently replaces a directory that does not exist.
        if cwd is not None and self.name == "local" and not cwd.expanduser().is_dir():
            raise InvalidInputError(f"cwd={str(cwd)!r} is not a directory.")

    async def _start(
        self,
        connection: Connection,
        where: Mapping[str, Any],
        settings: Mapping[str, Any],
        tools: Sequence[Mapping[str, Any]],
        options: SessionOptions,
    ) -> Frame:
        groups = [{"tools": frames.external_tools(tools)}] if tools else []
        # The last two are decided on this side; what is None is not sent.
        about = {"external_tools": groups, "system_info_reminder": None, "permission_mode": None}
        answer = await connection.request(frames.runtime_start({**settings, **where, **about}))
        conversation = conversations.read_conversation(answer)
        await on_thread(self._system_info.choose, conversation, settings["system_info_reminder"])
        used = self._live.setdefault(conversation, ConversationStatus()).directory
        asked = settings.get("cwd")
        if asked and used and not await on_thread(conversations.same_directory, asked, used):
            raise conversations.no_directory(asked, used)
        await self._stateless.keep(connection, conversation, asked)
        # Last, so that a start which failed on the way is made again.
        self._prepared[conversation] = Prepared(settings, list(tools), options)
        return answer

    def _settings(
        self, agent_id: str, options: SessionOptions, *, asks: bool = False
    ) -> dict[str, Any]:
        cwd = self._stateless.directory if options.stateless else options.cwd
        self._check_cwd(cwd)
        if cwd is None and self.name == "local":
            # Our own server starts in a directory of its own, where nobody wants to work.
            cwd = conversations.working_directory()
        sources = options.skill_sources if agent_id or options.skill_sources else ()
        return told.runtime_settings(options, cwd, sources, self.name, asks=asks)

    def _loaded(self, conversation: Conversation, options: SessionOptions) -> tuple[str, ...]:
        device = self._live.setdefault(conversation, ConversationStatus()).device
        loaded = device.get("current_loaded_tools")
        hidden = frozenset(options.disallowed_tools or ())
        names = map(str, loaded) if isinstance(loaded, list) else ()
        return tuple(name for name in names if name not in hidden)

    async def prepare(self, conversation: Conversation, settings: TurnSettings) -> Connection:
        """Return a connection on which the server knows this session's settings and tools."""
        options = settings.session or SessionOptions()
        told.refuse(options, self.name, on_api=self._on_api)
        connection = await self.connection()
        options = await self._inherited.session(connection, conversation.agent_id, options)
        agent_id, asks = conversation.agent_id, settings.asks
        wanted = await on_thread(self._settings, agent_id, options, asks=asks)
        prepared = self._prepared.get(conversation)
        tools = list(settings.client_tools)
        if prepared is None or prepared.settings != wanted:
            where = frames.encode_runtime(conversation)
            answer = await self._start(connection, where, wanted, tools, options)
            await conversations.use_toolset(connection, conversation, options)
            if prepared is None and self._connections > 1:
                await agents.find_model(connection, conversations.read_model(answer))
            return connection
        prepared.options = options
        if prepared.tools != tools:
            await connection.request(frames.tools_update(conversation, tools))
            prepared.tools = tools
        return connection

    async def _known(self, conversation: Conversation) -> Connection:
        """Return a connection that gets this conversation's frames."""
        connection = await self.connection()
        if conversation not in self._prepared:
            await self.prepare(conversation, TurnSettings())
        return connection

    def turn(self, conversation: Conversation, settings: TurnSettings) -> AppServerTurn:
        """Return a turn that is not started yet."""
        names = [str(tool["name"]) for tool in settings.client_tools]

        # Called once the turn is prepared, when the agent's own settings are known.
        def select() -> dict[str, Any]:
            options = self._prepared[conversation].options
            if not conversation.agent_id or options.stateless:
                return told.NO_TOOLS
            return told.tool_selection(self._loaded(conversation, SessionOptions()), names, options)

        judge = partial(self._judge.verdict, conversation, settings)
        return AppServerTurn(self, conversation, settings, judge=judge, select=select)

    def shared(self, conversation: Conversation, client_message_id: str) -> bool:
        """Return whether the message is said in one turn with somebody else's."""
        return self._live.setdefault(conversation, ConversationStatus()).shared(client_message_id)

    @count_use
    async def unqueue(self, conversation: Conversation, client_message_id: str) -> bool:
        """Take a message that waits out of the queue; ``True`` if its turn has begun instead."""
        connection = await self._up_to_date(conversation)
        live = self._live.setdefault(conversation, ConversationStatus())
        return not await recovery.unqueue(connection, conversation, client_message_id, live)

    @count_use
    async def settle(
        self, conversation: Conversation, client_message_id: str, seconds: float
    ) -> Delivery:
        """Find out what became of a message whose answer was lost; leave nothing running."""
        try:
            connection = await self._known(conversation)
            live = self._live.setdefault(conversation, ConversationStatus())
            return await recovery.settle(connection, conversation, client_message_id, live, seconds)
        except LettaError:
            return Delivery(None)

    # -- state ------------------------------------------------------------------------------

    async def _up_to_date(self, conversation: Conversation) -> Connection:
        """Return once all that the server said of the conversation so far is here.

        It tells its subscribers of a change when it makes it, and its frames keep their order, so
        its answer to a request comes after that.
        """
        connection = await self._known(conversation)
        await connection.request({"type": "app_server_info"})
        return connection

    @count_use
    async def list_messages(self, conversation: Conversation, query: PageQuery) -> StoredPage:
        """Return one page of stored messages."""
        link = await self.connection()
        return await conversations.fetch_page(link, conversation, query)

    @count_use
    async def pending_calls(self, conversation: Conversation) -> tuple[PendingToolCall, ...]:
        """Return the tool calls that wait for an answer."""
        await self._up_to_date(conversation)
        questions = [q.get("request") or {} for q in self._live[conversation].questions]
        return tuple(
            PendingToolCall(
                str(q.get("tool_call_id") or ""),
                str(q.get("tool_name") or ""),
                frames.encode(q.get("input") or {}),
            )
            for q in questions
        )

    @count_use
    async def clear(
        self,
        conversation: Conversation,
        calls: Sequence[PendingToolCall],
        why: str,
        answers: Sequence[ToolCallResponse] = (),
    ) -> None:
        """Clear pending calls without a model call: the turn that waits for them is aborted."""
        connection = await self._known(conversation)
        live = self._live.setdefault(conversation, ConversationStatus())
        await recovery.quiet_down(connection, conversation, live, 0.0)

    @count_use
    async def abort(self, conversation: Conversation) -> bool:
        """Cancel the active turn; return ``False`` if there was none."""
        return await recovery.abort(await self._known(conversation), conversation)

    @count_use
    async def wait_until_idle(self, conversation: Conversation, sent: Sent) -> bool | None:
        """Wait for this message's turn alone; see :meth:`Backend.wait_until_idle`."""
        await self._up_to_date(conversation)
        return await self._live.setdefault(conversation, ConversationStatus()).is_over(
            sent.otid, sent.seconds
        )

    async def check_asks(self, agent_id: str | None, conversation_id: str | None) -> None:
        """Do nothing: an App Server asks about every tool that it is told to ask about."""

    async def was_cut(self, conversation: Conversation, message_id: str) -> bool:
        """Return whether a runtime on this machine has not written the answer to its file.

        Other servers do not tell.
        """
        state, (agent_id, id_) = self.state, (conversation.agent_id, conversation.conversation_id)
        for seconds in _WRITTEN_SECONDS:
            if state is None or not await asyncio.to_thread(state.lacks, agent_id, id_, message_id):
                return False
            await asyncio.sleep(seconds)
        return True

    @count_use
    async def live(self, conversation: Conversation) -> LiveState:
        """Return the server's own account of the conversation now."""
        await self._up_to_date(conversation)
        live = self._live.setdefault(conversation, ConversationStatus())
        device = dict(live.device)
        if "current_permission_mode" in device:
            # The server is told to ask about everything; the session's own choice is what counts.
            public = self._prepared[conversation].settings["permission_mode"]
            device["current_permission_mode"] = public
        return LiveState(device, tuple(live.queue), live.loop)

    @count_use
    async def set_model(
        self,
        conversation: Conversation,
        model: str | None,
        effort: ReasoningEffort | None = None,
    ) -> None:
        """Give a conversation a model of its own, an effort, or both."""
        connection = await self.connection()
        if model is not None:
            await agents.require_model(connection, model)
        if effort is not None and conversation.conversation_id == DEFAULT:
            raise refuse_model(self.name, "reasoning_effort")
        if model is not None:
            if effort is not None:
                efforts.refuse_none(connection, model, self.name)
            await self._use_model(connection, conversation, model, keep=effort is None)
        if effort is not None:
            await efforts.set_for_conversation(connection, conversation, effort, self.name)

    async def _use_model(
        self, connection: Connection, conversation: Conversation, model: str, *, keep: bool
    ) -> None:
        """Switch the model; ``keep``: the conversation's own effort, which would be lost by it."""
        kept = None
        if keep and conversation.conversation_id != DEFAULT:
            kept = await efforts.own_effort(connection, conversation)
        await connection.request(conversations.model_update(conversation, model))
        if kept is not None:
            with suppress(UnsupportedOptionError):  # nobody has asked for it here
                await efforts.set_for_conversation(connection, conversation, kept, self.name)

    @count_use
    async def change_state(self, conversation: Conversation, options: SessionOptions) -> None:
        """Use these options from now on, in a running turn too."""
        told.refuse(options, self.name, on_api=self._on_api)
        await on_thread(self._check_cwd, options.cwd)
        connection = await self._known(conversation)
        options = await self._inherited.session(
            connection, conversation.agent_id, options, fresh=True
        )
        settings = await on_thread(self._settings, conversation.agent_id, options)
        prepared = self._prepared[conversation]
        used = self._live.setdefault(conversation, ConversationStatus()).directory
        news = await on_thread(conversations.drop_unchanged, settings, prepared.settings, used)
        await connection.send(frames.device_state(conversation, news))
        await self._taken(conversation, settings)
        await conversations.use_toolset(connection, conversation, options)
        prepared.settings, prepared.options = settings, options

    async def _taken(self, conversation: Conversation, settings: Mapping[str, Any]) -> None:
        """Wait until the server reports these settings, as it does not answer a change."""
        live = self._live.setdefault(conversation, ConversationStatus())
        asked = settings.get("cwd")
        real = await on_thread(Path(asked).resolve) if asked else None

        def used() -> bool:
            return not asked or live.directory == asked or Path(live.directory) == real

        if await live.reaches(lambda: live.mode == settings["mode"] and used(), _CHANGE_SECONDS):
            return
        if not used():
            raise conversations.no_directory(str(asked), live.directory)
        raise LettaTimeoutError("The server did not change the conversation's permission mode.")

    @count_use
    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        files: Files | None = None,
    ) -> Any:
        """Make a management call: see :mod:`letta_adapters.backends.app_server.management`."""
        if files is not None:
            raise UnsupportedOptionError(
                "files",
                backend=self.name,
                supported_by=("rest",),
                reason="the App Server takes JSON, no uploads.",
            )
        connection = await self.connection()
        return await management.perform(
            connection, self.name, method, path, params or {}, body or {}
        )

    def find_memory(self, agent_id: str) -> Path | None:
        """Return the directory of an agent's memory, if it is on this machine."""
        return None if self.state is None else self.state.find_memory(agent_id)

    @count_use
    async def command(self, name: str, /, **fields: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        return await management.command(await self.connection(), self.name, name, fields)

    def notice(self, change: Change) -> None:
        """Forget all that is remembered of an agent or a conversation that has changed."""
        if change.agent_id:
            self._inherited.forget(change.agent_id, deleted=change.gone)
        if not change.gone:
            return

        def concerned(where: Conversation) -> bool:
            return change.concerns(where.agent_id, where.conversation_id)

        for where in filter(concerned, (*self._prepared, *self._live)):
            self._system_info.forget(where)
        self._prepared.drop(concerned)
        self._live.drop(concerned)

    @count_use
    async def runtime_status(self) -> RuntimeStatus:
        """Return the embedded runtime's status; it is started if it does not run."""
        if self._status is None:
            raise UnsupportedOptionError(
                "runtime_status", backend=self.name, supported_by=("local",)
            )
        await self.connection()
        return await self._status()

    async def aclose(self) -> None:
        """Close the connection, then shut down all that the backend was given for that."""
        # Whatever fails on the way: a share in the runtime that is kept keeps it running.
        try:
            await self._link.aclose(self._strays.done)
        finally:
            try:
                await on_thread(self._stateless.close)
            finally:
                await self._link.shut_down()
