"""Define ``ChatLetta``, a LangChain chat model whose brain is a Letta agent."""

from __future__ import annotations

import json
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from letta_adapters.chat.constraints import ConstrainedRequest, from_tool_choice
from letta_adapters.chat.conversations import describe_model
from letta_adapters.chat.request import read_session
from letta_adapters.chat.response import Answer
from letta_adapters.langchain.chunks import PROVIDER, ChunkMaker, build_message
from letta_adapters.langchain.configuration import BackedChatModel
from letta_adapters.langchain.errors import langchain_errors
from letta_adapters.langchain.events import EventMaker
from letta_adapters.langchain.messages import to_wire_tools
from letta_adapters.langchain.requests import (
    RequestDefaults,
    build_request,
    merge_config,
    read_stop,
)
from letta_adapters.langchain.runs import (
    astream_unwatched,
    begin_unwatched,
    stream_unwatched,
    unwatched,
    watch_again,
)
from letta_adapters.langchain.structured_output import build_structured_chain
from letta_adapters.options import ReasoningEffort, SessionOptions

if TYPE_CHECKING:
    from langchain_core.language_models import ModelProfile

    from letta_adapters.client.client import AsyncLettaClient

# The abilities that every agent has, whatever its model.
_PROFILE: Final[Mapping[str, Any]] = {
    "image_inputs": True,
    "tool_calling": True,
    "tool_choice": True,
    "structured_output": False,  # of a provider; ours goes through a tool
    "reasoning_output": True,
    "text_inputs": True,
    "text_outputs": True,
    "pdf_inputs": False,
    "audio_inputs": False,
    "video_inputs": False,
}


class ChatLetta(BackedChatModel):
    """Use a Letta agent as a chat model.

    Pass the whole history as to any chat model; only what the agent has not seen is sent. The agent
    keeps its memory over all conversations. The history itself tells which conversation a call goes
    to (each answer carries a marker in ``response_metadata["letta"]``), or ``conversation_id``, or
    ``thread_id`` (also from ``config["configurable"]``); without any of them each call is a fresh
    conversation. Inside a LangGraph graph each node that keeps a history has a conversation of its
    own in the thread.

    ```python
    from letta_adapters.langchain import ChatLetta

    model = ChatLetta(agent_id="agent-...")
    first = model.invoke("My name is Ada.")
    ```

    With no backend named and no ``LETTA_*`` variable set, the agent runs on this machine.
    """

    agent_id: str | None = None
    """The agent. Default: the backend's default agent."""
    conversation_id: str | None = None
    """Always this conversation, whatever the history says."""
    thread_id: str | None = None
    """A name for a conversation, used where the history names none."""
    scope: Literal["thread", "node", "fresh"] | None = None
    """The conversation for a call inside a LangGraph graph with a thread.

    It is the one of the whole `"thread"`, the one of its `"node"`, or a `"fresh"` one. Default: the
    place in the graph decides.
    """
    model: str | None = Field(default=None, validation_alias="model_name")
    """Another model than the agent's, for the calls of this object."""
    reasoning_effort: ReasoningEffort | None = None
    """The effort of the model in the conversations used here; a single call has none of its own."""
    timeout: float | None = Field(default=None, gt=0)
    """The seconds that a call may take."""
    streaming: bool = False
    """Let `invoke` stream too, for handlers that want tokens."""
    temperature: float | None = None
    """Set for the conversations that are created (the Letta API only)."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Set for the conversations that are created (the Letta API only)."""
    stop: list[str] | None = Field(default=None, validation_alias="stop_sequences")
    """Texts that end the answer. The agent's turn goes on to its end all the same."""
    max_steps: int | None = Field(default=None, gt=0)
    """Limit of model calls in one turn (the Letta API only)."""
    agent_free: bool = False
    """A plain model without agent and memory (Letta Code only)."""
    on_mismatch: Literal["fork", "continue", "error"] = "fork"
    """Decides about a history that is not the one the conversation has.

    `"fork"` tells it in a fresh conversation, `"continue"` sends what is new in it all the same,
    `"error"` raises `HistoryMismatchError`.
    """
    cache: Any = False
    """Off by default: the agent knows nothing of an answer that comes from a cache."""

    @field_validator("agent_id", "conversation_id", "thread_id", "model")
    @classmethod
    def _refuse_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            # An unset variable often arrives as "": the default agent must not answer in its place.
            raise ValueError("is empty: it names nothing (is a variable not set?)")
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _read_stop(cls, value: Any) -> Any:
        return read_stop(value)

    @property
    def _session(self) -> SessionOptions:
        return read_session(self.session_options, self.reasoning_effort)

    # -- what LangChain asks of a model -----------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "letta-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "agent_id": self.agent_id,
            "conversation_id": self.conversation_id,
            "model": self.model,
            "backend": self._runner.clients.backend_name,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        # Prices go by the model's handle, which is known once an answer or `aload_profile` told it.
        # No I/O here.
        known = self._runner.models.get(self.agent_id)
        model = kwargs.get("model") or self.model or known or PROVIDER
        params = LangSmithParams(ls_provider=PROVIDER, ls_model_type="chat", ls_model_name=model)
        temperature = kwargs.get("temperature", self.temperature)
        max_tokens = kwargs.get("max_tokens", self.max_tokens)
        if temperature is not None:
            params["ls_temperature"] = temperature
        if max_tokens is not None:
            params["ls_max_tokens"] = max_tokens
        if stop or self.stop:
            params["ls_stop"] = stop or self.stop
        return params

    def _resolve_model_profile(self) -> Any:
        return dict(_PROFILE)

    @model_validator(mode="after")
    def _complete_profile(self) -> Self:
        """Let a profile that the application gives win, and fill the rest from ours."""
        # LangChain takes a profile that is given as the whole one, and would miss our abilities.
        self.profile = cast("Any", {**_PROFILE, **(self.profile or {})})
        return self

    async def aload_profile(self) -> ModelProfile:
        """Ask the agent for its model and that model's context window, and return the profile.

        `SummarizationMiddleware(trigger=("fraction", ...))` needs the window, and traces and prices
        go by the model's handle. Nothing is asked without this call: `profile` does no I/O.

        ```python
        await model.aload_profile()
        model.profile["max_input_tokens"]
        ```

        Raises:
            LettaError: The agent could not be asked.
        """
        with langchain_errors():
            return self._learn(await self._runner.clients.arun(self._ask_about))

    def load_profile(self) -> ModelProfile:
        """Ask the agent for its model synchronously; see `aload_profile`.

        Raises:
            LettaError: The agent could not be asked.
        """
        with langchain_errors():
            return self._learn(self._runner.clients.run(self._ask_about))

    async def _ask_about(self, client: AsyncLettaClient) -> tuple[str, str | None, int | None]:
        return await describe_model(client, self.agent_id)

    def _learn(self, about: tuple[str, str | None, int | None]) -> ModelProfile:
        """Take the model's handle and context window into the profile."""
        _, handle, window = about
        if handle is not None:
            self._runner.models[self.agent_id] = handle
        # A window that is not known stays as it was: the application may have named one.
        told = {} if window is None else {"max_input_tokens": window}
        self.profile = cast("Any", {**(self.profile or {}), **told})
        return self.profile or {}

    def get_num_tokens(self, text: str) -> int:
        """Return about how many tokens a text has, by LangChain's own approximate counter.

        Only the model behind the agent knows for sure; `custom_get_token_ids` counts its way.

        Args:
            text: The text.
        """
        if self.custom_get_token_ids is not None:
            return super().get_num_tokens(text)
        return count_tokens_approximately([HumanMessage(text)], extra_tokens_per_message=0)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Return about how many tokens messages have (and tools); see `get_num_tokens`.

        Args:
            messages: The messages.
            tools: Tools in any form that `bind_tools` takes.
        """
        if self.custom_get_token_ids is not None:
            return super().get_num_tokens_from_messages(messages, tools)
        wire = to_wire_tools(tools or ())
        # Tools are told to a model as JSON, so they count as such a text.
        extra = count_tokens_approximately([HumanMessage(json.dumps(wire))]) if wire else 0
        return count_tokens_approximately(messages) + extra

    # -- calls ------------------------------------------------------------------------------

    def _build_request(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
        run_manager: Any,
    ) -> ConstrainedRequest:
        """Return the call of these messages; the call's stop texts win over the model's."""
        watch_again()
        words = self.stop if stop is None else read_stop(stop)
        return build_request(self._defaults, messages, words, kwargs, run_manager)

    @property
    def _defaults(self) -> RequestDefaults:
        """Return what all calls have in common, by the fields as they are now."""
        return RequestDefaults(
            agent_id=self.agent_id,
            conversation_id=self.conversation_id,
            thread_id=self.thread_id,
            scope=self.scope,
            model=self.model,
            timeout=self.timeout,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            max_steps=self.max_steps,
            agent_free=self.agent_free,
            on_mismatch=self.on_mismatch,
            session=self._session,
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            constrained = self._build_request(messages, stop, kwargs, run_manager)
            return _to_result(self._runner.answer(constrained))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            constrained = self._build_request(messages, stop, kwargs, run_manager)
            return _to_result(await self._runner.aanswer(constrained))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with langchain_errors():
            # `yield from` passes on that the consumer leaves, which stops the agent.
            yield from self._runner.run(
                self._build_request(messages, stop, kwargs, run_manager), ChunkMaker
            )

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with langchain_errors():
            constrained = self._build_request(messages, stop, kwargs, run_manager)
            # A consumer that leaves early stops the agent at once, not when garbage is collected.
            async with aclosing(self._runner.arun(constrained, ChunkMaker)) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _stream_chat_model_events(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Yield the events of LangChain's v3 protocol, made without chunks in between."""
        with langchain_errors():
            yield from self._runner.run(
                self._build_request(messages, stop, kwargs, run_manager), EventMaker
            )

    async def _astream_chat_model_events(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """Yield the same events asynchronously."""
        with langchain_errors():
            constrained = self._build_request(messages, stop, kwargs, run_manager)
            async with aclosing(self._runner.arun(constrained, EventMaker)) as events:
                async for event in events:
                    yield event

    # -- the run's configuration ------------------------------------------------------------

    # These methods are overridden because the place of a call is known here for the last time:
    # below, LangChain no longer passes ``config["configurable"]`` on.

    def _merge(
        self, config: RunnableConfig | None, kwargs: dict[str, Any]
    ) -> tuple[RunnableConfig | None, dict[str, Any]]:
        return merge_config(config, kwargs, self.scope, self.callbacks)

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Return one answer.

        Args:
            input: The whole history, as a text, messages or a prompt value.
            config: The run's configuration (`configurable={"thread_id": ...}`, callbacks, ...).
            kwargs: Settings for this call in place of the fields (`model`, `timeout`, `thread_id`,
                ...).

        Raises:
            LettaError: The call failed; the error is LangChain's too, see
                `letta_adapters.langchain.errors`.
        """
        config, kwargs = self._merge(config, kwargs)
        with unwatched():
            return super().invoke(input, config, **kwargs)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Return one answer; see `invoke`."""
        config, kwargs = self._merge(config, kwargs)
        with unwatched():
            return await super().ainvoke(input, config, **kwargs)

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """Yield one answer, token by token; see `invoke`."""
        config, kwargs = self._merge(config, kwargs)
        return stream_unwatched(super().stream(input, config, **kwargs))

    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Yield one answer, token by token; see `invoke`."""
        config, kwargs = self._merge(config, kwargs)
        return astream_unwatched(super().astream(input, config, **kwargs))

    def stream_events(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        """Return one answer as events of LangChain's v3 protocol: a `ChatModelStream`."""
        config, kwargs = self._merge(config, kwargs)
        with unwatched():
            return super().stream_events(input, config, **kwargs)

    def astream_events(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        """Return one answer as events: of every run (v2), or of LangChain's v3 protocol."""
        config, kwargs = self._merge(config, kwargs)
        events = super().astream_events(input, config, **kwargs)
        return begin_unwatched(events) if isawaitable(events) else events

    # -- tools and structure ----------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the agent, beside its own; calls of them wait for the caller.

        ```python
        model = ChatLetta(agent_id="agent-...").bind_tools([get_weather])
        model.invoke("How is the weather in Paris?").tool_calls
        ```

        Args:
            tools: Functions, pydantic classes, `BaseTool`s, Runnables as tools, or dicts.
            tool_choice: `"auto"`, `"none"`, `"any"`, a tool's name, or OpenAI's dict.
            strict: Passed on into the schema.
            parallel_tool_calls: `False` asks for one call at a time.
            kwargs: Bound as they are.

        Raises:
            InvalidInputError: Something cannot be a tool, or the choice names none of them.
        """
        with langchain_errors():
            wire = to_wire_tools(tools, strict=strict)
            # Only for its errors: a bad choice fails here, not at the first call.
            from_tool_choice(wire, tool_choice)
        # OpenAI's form of a tool, which LangChain's tracers know.
        bound: dict[str, Any] = {"tools": [{"type": "function", "function": t} for t in wire]}
        given = {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        bound |= {name: value for name, value in given.items() if value is not None}
        return self.bind(**bound, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a chain whose answers are objects of a schema, validated.

        An answer that does not fit is mended once, in the same conversation.

        ```python
        class Person(BaseModel):
            name: str

        model.with_structured_output(Person).invoke("Who are you talking to?")
        ```

        Args:
            schema: A pydantic class, a `TypedDict`, or a JSON schema.
            method: `"function_calling"` through a tool call; `"json_schema"` and `"json_mode"` as
                JSON text.
            include_raw: Give `{"raw": AIMessage, "parsed": ..., "parsing_error": ...}`.
            strict: Passed on into the schema.
            kwargs: Bound as they are.

        Raises:
            InvalidInputError: The schema or the method cannot be used.
        """
        with langchain_errors():
            return build_structured_chain(
                self, schema, method, include_raw=include_raw, strict=strict, **kwargs
            )


def _to_result(answer: Answer) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=build_message(answer))])
