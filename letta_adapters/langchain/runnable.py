"""Define ``LettaRunnable``: a Letta agent, tools and approvals included, as one step of a chain."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
)
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, RootModel
from typing_extensions import Unpack

from letta_adapters._utils.signatures import show_keywords
from letta_adapters.backends.capabilities import check_ask_timeout, of_kind
from letta_adapters.chat.request import AskingAgents, make_digest
from letta_adapters.errors import InvalidInputError
from letta_adapters.langchain._compat import find_task, in_graph
from letta_adapters.langchain.agent_loop import (
    AgentLoop,
    LoopRunner,
    format_output,
)
from letta_adapters.langchain.chat_model import ChatLetta
from letta_adapters.langchain.errors import langchain_errors
from letta_adapters.langchain.fields import AskingFields, RunnableFields
from letta_adapters.langchain.questions import LoopSettings
from letta_adapters.langchain.runs import Repetitions, runs
from letta_adapters.langchain.tools import as_base_tools
from letta_adapters.langchain.turn_stream import (
    AsyncTurnStream,
    EventLoopRunner,
    TurnStream,
)
from letta_adapters.options import SessionOptions

OutputKind = Literal["messages", "message", "text"]
_KINDS = ("messages", "message", "text")


class _Messages(BaseModel):
    """Hold the messages that an agent is given or adds."""

    messages: list[Any]


class _Input(RootModel[str | list[Any] | _Messages]):
    """Text, messages, or ``{"messages": [...]}``."""


class LettaRunnable(Runnable[Any, Any]):
    """Run a Letta agent's whole turn: its own tools, yours, and approvals.

    ```python
    from letta_adapters.langchain import LettaRunnable

    agent = LettaRunnable(agent_id="agent-...", tools=[get_weather])
    agent.invoke("How is the weather in Paris?")["messages"][-1].text
    ```

    Input: text, messages, or ``{"messages": [...]}``. Output: ``{"messages": [the new ones]}``, or
    the last message, or its text (``output=``). As with :class:`ChatLetta`, the history tells which
    conversation goes on.

    A tool of the agent's own that asks for permission is decided by ``can_use_tool(name, input,
    context)``; inside a LangGraph graph, without that callback, it becomes an ``interrupt()``,
    resumed with ``Command(resume=True)``, ``False``, or a dict with ``behavior``; anywhere else it
    is not run, and the agent reads that nobody was asked.

    Args:
        tools: LangChain tools or typed functions; they run here, as child runs.
        can_use_tool: Asked before any tool runs. An agent of the Letta API with a tool that the
            server runs without asking is refused before anything is sent
            (:class:`~letta_adapters.UnsupportedOptionError`). With ``Deny(interrupt=True)`` the run
            ends with a :class:`~letta_adapters.TurnCancelledError` before any tool runs. With
            ``Postpone()`` it ends with a :class:`~letta_adapters.TurnDetachedError`, and its calls
            wait on the server (Letta API only).
            It is asked again about calls that an earlier turn has left open, with
            ``context.recovered``.
        output: ``"messages"``, ``"message"`` or ``"text"``.
        max_rounds: The number of answers the agent may give before the run fails.
        name: The run's name in traces, and the ``name`` of the agent's messages.
        model: A :class:`ChatLetta` to use, instead of its arguments.
        options: Fields of :class:`ChatLetta` (``agent_id``, ``backend``, ``thread_id``, ...), and
            ``ask_timeout``, the seconds that ``can_use_tool`` has for each question (default: no
            limit), together with ``ask_timeout_answer``, the answer when that time is up:
            ``Allow()``, ``Deny("...")`` or, on the Letta API, ``Postpone()``.

    Raises:
        InvalidInputError: An argument has no meaning, or something in ``tools`` is no tool.
    """

    @show_keywords(AskingFields)
    def __init__(
        self,
        *,
        tools: Sequence[BaseTool | Callable[..., Any]] = (),
        can_use_tool: Callable[..., Any] | None = None,
        output: OutputKind = "messages",
        max_rounds: int = 25,
        name: str | None = None,
        model: ChatLetta | None = None,
        **options: Unpack[RunnableFields],
    ) -> None:
        fields: dict[str, Any] = {**options}
        ask_timeout = fields.pop("ask_timeout", None)
        ask_timeout_answer = fields.pop("ask_timeout_answer", None)
        with langchain_errors():
            _check(output, max_rounds, model, fields)
            # Made in this block, so that a bad field of the model is an error of LangChain's too.
            self.model = model if model is not None else ChatLetta(**fields)
            self.tools = as_base_tools(tools)
            asking = _check_asking(
                self.model._runner.clients.backend_name,
                can_use_tool=can_use_tool,
                ask_timeout=ask_timeout,
                ask_timeout_answer=ask_timeout_answer,
            )
        self.can_use_tool = asking.can_use_tool
        self.patience = asking.patience
        self._asks = AskingAgents()
        self._repetitions = Repetitions()
        self.output = output
        self.max_rounds = max_rounds
        self.name = name or "LettaRunnable"
        # The name on the agent's messages: only one that the application chose.
        self.speaker = name

    # -- what goes in and out ---------------------------------------------------------------

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """Return the schema of text, messages, or ``{"messages": [...]}``."""
        return _Input

    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """Return the schema of the output that ``output=`` chooses."""
        if self.output == "text":
            return RootModel[str]
        return _Messages if self.output == "messages" else AIMessage

    # -- runs -------------------------------------------------------------------------------

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the agent's turn to its end and return its output.

        Args:
            input: Text, messages, or ``{"messages": [...]}``.
            config: The run's configuration.
            kwargs: Settings for this run's calls of the model (``model``, ``timeout``, ...).

        Raises:
            LettaError: The turn failed; the error is LangChain's too.
        """
        return self._call_with_config(self._invoke, input, ensure_config(config), **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the agent's turn to its end and return its output; see :meth:`invoke`."""
        return await self._acall_with_config(self._ainvoke, input, ensure_config(config), **kwargs)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Yield messages as they are complete; with ``output="text"``, text as it comes."""
        yield from self._transform_stream_with_config(
            iter([input]), partial(self._stream_run, LoopRunner), ensure_config(config), **kwargs
        )

    def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Yield messages as they are complete; with ``output="text"``, text as it comes."""
        return self._astream_items(LoopRunner, input, config, kwargs)

    async def _astream_items(
        self,
        runner: type[LoopRunner],
        input: Any,
        config: RunnableConfig | None,
        kwargs: dict[str, Any],
    ) -> AsyncGenerator[Any, None]:
        """Yield what the runner gives of a turn, as one of LangChain's streaming runs."""

        # LangChain's helper takes a stream of inputs; here there is one.
        async def once() -> AsyncIterator[Any]:
            yield input

        run: Any = self._atransform_stream_with_config(
            once(), partial(self._astream_run, runner), ensure_config(config), **kwargs
        )
        # Closed when the consumer leaves early, which stops the agent at once.
        async with aclosing(run):
            async for item in run:
                yield item

    @contextmanager
    def _open_loop(
        self, input: Any, config: RunnableConfig, kwargs: dict[str, Any]
    ) -> Iterator[AgentLoop]:
        """Give the loop of a run with this input; errors leave the block as LangChain's."""
        with langchain_errors():
            messages = as_messages(input)
            task = find_task(config) if messages[-1].id is None and in_graph(config) else None
            if not task:
                yield self._make_loop(messages, config, kwargs)
                return
            attempt = runs.find(getattr(config.get("callbacks"), "parent_run_id", None)).attempt
            equal = (attempt, task, len(messages), make_digest(messages[-1].content))
            # Without its attempt nothing tells a call that is repeated from a second one.
            number = 0 if attempt is None else self._repetitions.take(equal)
            try:
                named = _name_last(messages, task, number)
                yield self._make_loop(named, config, kwargs)
            except BaseException:
                if attempt is not None:
                    self._repetitions.give_back(equal, number)
                raise

    def _make_loop(
        self, messages: list[BaseMessage], config: RunnableConfig, kwargs: dict[str, Any]
    ) -> AgentLoop:
        """Return the loop of a run with these messages."""
        backend = self.model._runner.clients.backend_name
        settings = LoopSettings(
            model=self.bound(),
            tools=self.tools,
            can_use_tool=self.can_use_tool,
            patience=self.patience,
            max_rounds=self.max_rounds,
            speaker=self.speaker,
            backend=backend,
            calls_wait=of_kind(backend).durable_pending_calls,
            asks=self._asks,
        )
        return AgentLoop(settings, messages, config, kwargs)

    def _invoke(
        self,
        input: Any,
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Any:
        with self._open_loop(input, config, kwargs) as loop:
            for _ in LoopRunner(loop, run_manager).run():
                pass
            return format_output(loop.new, self.output)

    async def _ainvoke(
        self,
        input: Any,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Any:
        with self._open_loop(input, config, kwargs) as loop:
            async for _ in LoopRunner(loop, run_manager).arun():
                pass
            return format_output(loop.new, self.output)

    def _stream_run(
        self,
        runner: type[LoopRunner],
        inputs: Iterator[Any],
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Yield what a turn gives while it runs, as one of LangChain's streaming runs.

        Args:
            runner: Decides what is given: chunks and messages, or events.
            inputs: The input, which LangChain passes on as a stream.
            run_manager: LangChain's manager of the run.
            config: The run's configuration.
            kwargs: Settings for this run's calls of the model.
        """
        for input in inputs:
            with self._open_loop(input, config, kwargs) as loop:
                out = runner.formatter(self.output)
                for item in runner(loop, run_manager).run():
                    yield from out.format(item)
                yield from out.finish(loop.new)

    async def _astream_run(
        self,
        runner: type[LoopRunner],
        inputs: AsyncIterator[Any],
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """Yield the same asynchronously."""
        async for input in inputs:
            with self._open_loop(input, config, kwargs) as loop:
                out = runner.formatter(self.output)
                # Left early, the block stops the agent at once.
                async with aclosing(runner(loop, run_manager).arun()) as run:
                    async for item in run:
                        for made in out.format(item):
                            yield made
                for made in out.finish(loop.new):
                    yield made

    # -- events of the v3 protocol ----------------------------------------------------------

    # LangChain's overload for v1 and v2 is not repeated: a synchronous run has never had them.
    def stream_events(  # type: ignore[override]
        self, input: Any, config: RunnableConfig | None = None, *, version: str, **kwargs: Any
    ) -> TurnStream:
        """Stream the turn as events of LangChain's v3 protocol (``version="v3"``).

        ```python
        with agent.stream_events("Hello!", version="v3") as turn:
            for answer in turn.messages:
                for token in answer.text:
                    print(token, end="")
        ```

        Args:
            input: Text, messages, or ``{"messages": [...]}``.
            config: The run's configuration.
            version: ``"v3"``.
            kwargs: Settings for this run's calls of the model.

        Raises:
            NotImplementedError: Another version is asked for; a synchronous run has only this one.
        """
        if version != "v3":
            raise NotImplementedError('stream_events has only version="v3"; see astream_events.')
        items = self._transform_stream_with_config(
            iter([input]),
            partial(self._stream_run, EventLoopRunner),
            ensure_config(config),
            **kwargs,
        )
        return TurnStream(items)

    def astream_events(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        version: str = "v2",
        **kwargs: Any,
    ) -> Any:
        """Stream every run inside (v2: ``async for``), or the events of LangChain's v3 protocol.

        Args:
            input: Text, messages, or ``{"messages": [...]}``.
            config: The run's configuration.
            version: ``"v1"``, ``"v2"`` or ``"v3"``.
            kwargs: As LangChain takes them for v1 and v2; settings of the model's calls for v3.

        Returns:
            For ``version="v3"`` an awaitable that gives an :class:`AsyncTurnStream`.
        """
        if version != "v3":
            of_runnable: Any = super().astream_events  # its overloads want a literal version
            return of_runnable(input, config, version=version, **kwargs)
        return self._aturn_stream(input, config, kwargs)

    async def _aturn_stream(
        self, input: Any, config: RunnableConfig | None, kwargs: dict[str, Any]
    ) -> AsyncTurnStream:
        """Return the stream of a turn's events."""
        return AsyncTurnStream(self._astream_items(EventLoopRunner, input, config, kwargs))

    # -- as a tool of another agent ---------------------------------------------------------

    def as_tool(
        self,
        args_schema: type[BaseModel] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, type] | None = None,
    ) -> BaseTool:
        """Return a tool with one argument, ``question``, which gives the agent's last answer.

        ```python
        researcher = LettaRunnable(agent_id="agent-...", name="researcher")
        create_agent(model, tools=[researcher.as_tool(description="Ask for facts.")])
        ```

        Args:
            args_schema: Another schema, whose arguments are then the run's input as they are.
            name: The tool's name. Default: the run's.
            description: The text by which a model decides to use it.
            arg_types: See ``args_schema``.
        """
        if args_schema is not None or arg_types is not None:
            return super().as_tool(
                args_schema, name=name, description=description, arg_types=arg_types
            )

        # LangChain reads the tool's arguments off this signature; `config` is no argument of the
        # tool.
        def ask(question: str, config: RunnableConfig) -> str:
            return _read_text(self.invoke(question, config))

        async def aask(question: str, config: RunnableConfig) -> str:
            return _read_text(await self.ainvoke(question, config))

        return StructuredTool.from_function(
            ask,
            aask,
            name=name or self.name,
            description=description or f"Ask the agent {self.name} a question.",
        )

    # -- what the loop asks of the model ----------------------------------------------------

    def bound(self) -> Any:
        """Return the model with the tools it may call."""
        return self.model.bind_tools(self.tools) if self.tools else self.model


def _read_text(output: Any) -> str:
    """Return the text of a run's last message, whatever kind of output it is."""
    if isinstance(output, str):
        return output
    last = output["messages"][-1] if isinstance(output, dict) else output
    return str(last.text)


def _check_asking(backend: str, **given: Any) -> SessionOptions:
    """Return the callback and its time limit, checked as those of a session are.

    Raises:
        InvalidInputError: A value is wrong, or only one of two that go together is given.
        UnsupportedOptionError: The backend keeps no call that could be answered later.
    """
    asking = SessionOptions(**given)
    check_ask_timeout(asking.ask_timeout_answer, backend)
    return asking


def _check(output: str, max_rounds: int, model: object, fields: dict[str, Any]) -> None:
    """Refuse arguments that have no meaning.

    Raises:
        InvalidInputError: An argument has a bad value, or belongs to the model that is given too.
    """
    if output not in _KINDS:
        raise InvalidInputError(f"output must be one of {', '.join(_KINDS)}, not {output!r}.")
    if model is not None and not isinstance(model, ChatLetta):
        raise InvalidInputError(
            f"model must be a ChatLetta, not {model!r}.",
            hint="A model's handle is model_name=, an agent's id agent_id=.",
        )
    # Which of the two would win, the model or a field, could only be guessed.
    if model is not None and fields:
        raise InvalidInputError(
            f"model= is a whole ChatLetta; {sorted(fields)[0]!r} belongs to it."
        )
    if max_rounds < 1:
        raise InvalidInputError("max_rounds must be at least 1.")


def as_messages(input: Any) -> list[BaseMessage]:
    """Return the messages in an input.

    Args:
        input: Text, a message, messages, a prompt value, or a dict with ``messages``.

    Raises:
        InvalidInputError: The input is none of these.
    """
    given = input.get("messages") if isinstance(input, dict) else input
    if isinstance(given, str):
        given = [HumanMessage(given)]
    elif isinstance(given, BaseMessage):
        given = [given]
    elif isinstance(given, PromptValue):
        given = given.to_messages()
    if not isinstance(given, Sequence) or not given:
        raise InvalidInputError(
            f"LettaRunnable cannot take {type(input).__name__}.",
            hint='Give text, messages, or {"messages": [...]}.',
        )
    return convert_to_messages(given)


def _name_last(messages: list[BaseMessage], task: str, number: int) -> list[BaseMessage]:
    """Return the messages with an id on the last one, by which it is known again.

    When it is resumed, the node runs again from its start: an id made from its task lets the same
    message be the same, so that it is not sent twice.

    Args:
        messages: The messages.
        task: The task of the graph.
        number: Tells the equal calls of one attempt at the task apart.
    """
    name = f"{task}:{len(messages)}" + (f":{number}" if number else "")
    return [*messages[:-1], messages[-1].model_copy(update={"id": name})]
