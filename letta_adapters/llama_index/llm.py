"""Define ``LettaLLM``: a Letta agent as a LlamaIndex LLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any, Literal, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    field_serializer,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import BaseTool
from llama_index.core.types import Model, PydanticProgramMode
from typing_extensions import Self

from letta_adapters.chat import ChatRequest
from letta_adapters.chat.constraints import ConstrainedRequest, from_tool_choice
from letta_adapters.chat.request import read_session, refuse_per_call
from letta_adapters.chat.runner import ChatRunner
from letta_adapters.llama_index.configuration import (
    WHERE,
    dump_backend,
    make_clients,
    refuse_unknown,
)
from letta_adapters.llama_index.instrumentation import CallInstrumentation, manages_own_span
from letta_adapters.llama_index.messages import to_entries, to_selection, to_wire_tools
from letta_adapters.llama_index.responses import (
    as_completion,
    to_acompletions,
    to_completions,
)
from letta_adapters.llama_index.structured_output import (
    Shape,
    add_shape,
    aend_with_valid,
    build_checked_response,
    choose_makers,
    end_with_valid,
    find_output_class,
    forbid_broken_calls,
)
from letta_adapters.options import ReasoningEffort, SessionOptions

ChatGen = Generator[ChatResponse, None, None]
AsyncChatGen = AsyncGenerator[ChatResponse, None]
# The keyword arguments of a call that have an effect; any other one is refused.
_OWN = frozenset(
    {
        "tools", "tool_choice", "parallel", "final", "model", "conversation_id", "timeout",
        "max_steps", "stop", "formatted", "temperature", "max_tokens", "shape",
    }
)  # fmt: skip
_SETTINGS = ("temperature", "max_tokens")


class LettaLLM(FunctionCallingLLM):
    """Use a Letta agent as an LLM, for query engines, synthesizers, chat engines and workflows.

    Each call is a fresh conversation of the agent (its memory is shared, its context is not) that
    is removed afterwards where the backend can, so concurrent calls do not see each other. With
    ``conversation_id`` all calls go to that one conversation, one after the other.

    Example:
        ```python
        from letta_adapters.llama_index import LettaLLM

        llm = LettaLLM(agent_id="agent-...")
        print(llm.complete("What do you remember about me?"))
        ```

    With no backend named and no ``LETTA_*`` variable set, the agent runs on this machine.

    Args:
        client: A client to use, instead of ``backend``.
        fields: The fields below, by name.

    Raises:
        InvalidInputError: A field is unknown, or two arguments name a backend.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    agent_id: str | None = None
    """The agent. Default: the backend's default agent."""
    conversation_id: str | None = None
    """Always this conversation."""
    model: str | None = None
    """Another model than the agent's."""
    reasoning_effort: ReasoningEffort | None = None
    """The effort of the model in the conversations used here; a single call has none of its own."""
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """Key of a Letta API. Default: ``LETTA_API_KEY``."""
    base_url: str | None = None
    """Address of a Letta API. Default: ``LETTA_BASE_URL``."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds a call may take."""
    max_retries: int = Field(default=2, ge=0)
    """The number of times a call is made again that was surely not accepted."""
    max_steps: int | None = Field(default=None, gt=0)
    """Limit of model calls in one turn (the Letta API only)."""
    temperature: float | None = Field(default=None, ge=0)
    """A setting of the model, for the conversations used here (the Letta API only)."""
    max_tokens: int | None = Field(default=None, gt=0)
    """A setting of the model, for the conversations used here (the Letta API only)."""
    context_window: int = Field(default=128_000, gt=0)
    """In tokens, for LlamaIndex' prompt helpers."""
    num_output: int = Field(default=4096, gt=0)
    """In tokens, for LlamaIndex' prompt helpers."""
    agent_free: bool = False
    """A plain model without agent and memory (Letta Code only)."""
    on_mismatch: Literal["fork", "continue", "error"] = "fork"
    """Decides about a history that is not the one the conversation has.

    ``"fork"`` tells it in a fresh conversation, ``"continue"`` sends what is new all the same,
    ``"error"`` raises ``HistoryMismatchError``.
    """
    session_options: dict[str, Any] = Field(default_factory=dict)
    """Further options of ``create_session``."""
    pydantic_program_mode: PydanticProgramMode = PydanticProgramMode.LLM
    """The way LlamaIndex makes structured output of this LLM."""

    backend: Any = Field(default=None, repr=False)
    """The backend as ``LettaClient`` takes it: an object or a name."""

    _runner: ChatRunner = PrivateAttr()
    _where: dict[str, Any] = PrivateAttr(default_factory=dict)
    _session: SessionOptions = PrivateAttr()
    _metadata: LLMMetadata = PrivateAttr()

    def __init__(self, *, backend: Any = None, client: Any = None, **fields: Any) -> None:
        refuse_unknown(type(self), fields, type(self).model_fields.keys() - {"backend"})
        super().__init__(**fields)
        clients = make_clients(backend, client, self.api_key, self.base_url)
        self._where = {"backend": backend, "client": client}
        self._runner = ChatRunner(clients, self.max_retries)
        # What the arguments came to, so that a dump or a copy names the same backend.
        self.backend = clients.spec
        self._session = read_session(self.session_options, self.reasoning_effort)
        # Made once: LlamaIndex reads it with every prompt.
        self._metadata = LLMMetadata(
            context_window=self.context_window,
            num_output=self.num_output,
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=self.model or "letta",
            system_role=MessageRole.SYSTEM,
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which it is serialized."""
        return "letta_llm"

    @property
    def metadata(self) -> LLMMetadata:
        """Return LlamaIndex' facts about a model.

        There is no I/O: the model's name is the agent's model once an answer told it.
        """
        handle = self._runner.models.get(self.agent_id)
        # A model that was chosen for all calls is the one that answers.
        if self.model or not handle:
            return self._metadata
        return self._metadata.model_copy(update={"model_name": handle})

    # -- copies and dumps -------------------------------------------------------------------

    @field_serializer("backend")
    def _backend_as_data(self, backend: Any) -> dict[str, Any]:
        """Write the backend as data, without secrets."""
        return dump_backend(self._runner.clients)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with these fields instead of its own; it uses the same backend.

        Args:
            update: Fields, and arguments of the constructor, with their new values.
            deep: Has no effect: connections are shared.

        Raises:
            InvalidInputError: A value cannot be that of its field.
        """
        given = dict(update or {})
        named = WHERE & given.keys()
        kept = {name: getattr(self, name) for name in self.model_fields_set - {"backend"}}
        # A new backend replaces all that named the old one, its key included.
        if named & {"backend", "client"}:
            kept = {name: value for name, value in kept.items() if name not in WHERE}
        where = {} if named else self._where
        return type(self)(**{**where, **kept, **given})

    def __deepcopy__(self, memo: Any = None) -> Self:
        """Return a copy; connections that are open belong to both."""
        return self.model_copy()

    def __reduce__(self) -> Any:
        """Pickle the data of :meth:`to_dict`, which holds no key."""
        return type(self).from_dict, (self.to_dict(),)

    # -- calls ------------------------------------------------------------------------------

    def _build_request(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]
    ) -> ConstrainedRequest:
        """Return the call of these messages, with the constraints on its answer.

        Raises:
            InvalidInputError: An argument has no effect, or content cannot be sent.
        """
        # Silently dropped, a setting would seem to work.
        unknown = sorted(k for k in kwargs if k not in _OWN and kwargs[k] is not None)
        if unknown:
            hint = (
                "Of a model's settings it takes temperature and max_tokens; the others are the "
                "agent's own (agents.update(agent_id, model_settings=...))."
            )
            raise refuse_per_call("LettaLLM", unknown[0], hint)
        tools, constraints = from_tool_choice(
            kwargs.get("tools") or [],
            kwargs.get("tool_choice"),
            parallel=kwargs.get("parallel"),
            final=bool(kwargs.get("final")),
        )
        if kwargs.get("shape") is not None:
            constraints = add_shape(constraints, kwargs["shape"], tools)
        # Nobody answers these calls, so a broken one is mended before it is given out.
        elif constraints.final:
            constraints = forbid_broken_calls(constraints)
        conversation_id = kwargs.get("conversation_id") or self.conversation_id
        call = ChatRequest(
            entries=to_entries(messages),
            tools=tools,
            agent_id=self.agent_id,
            conversation_id=conversation_id,
            # LlamaIndex' calls are independent of each other, as those of any LLM are.
            ephemeral=conversation_id is None,
            agent_free=self.agent_free,
            model=kwargs.get("model") or self.model,
            max_steps=kwargs.get("max_steps") or self.max_steps,
            settings=self._choose_settings(kwargs),
            timeout=kwargs.get("timeout") or self.timeout,
            on_mismatch=self.on_mismatch,
            note=constraints.note,
            standing=constraints.standing,
            session=self._session,
        )
        return ConstrainedRequest(call, constraints, kwargs.get("stop"))

    async def _abuild_request(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]
    ) -> ConstrainedRequest:
        """Return the call of an asynchronous chat."""
        return self._build_request(messages, kwargs)

    def _choose_settings(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model settings of a call: its own, or else this LLM's."""
        # A setting of 0 counts; `None` means that there is none.
        given = {name: kwargs.get(name) for name in _SETTINGS}
        own = {name: getattr(self, name) for name in _SETTINGS}
        chosen = {name: own[name] if given[name] is None else given[name] for name in _SETTINGS}
        return {name: value for name, value in chosen.items() if value is not None}

    def _respond(self, constrained: ConstrainedRequest, kwargs: Mapping[str, Any]) -> ChatResponse:
        """Make a call that is not streamed, and return its whole answer."""
        return build_checked_response(
            constrained, self._runner.answer(constrained), kwargs.get("shape")
        )

    async def _arespond(
        self, constrained: ConstrainedRequest, kwargs: Mapping[str, Any]
    ) -> ChatResponse:
        """Make the same call asynchronously."""
        return build_checked_response(
            constrained, await self._runner.aanswer(constrained), kwargs.get("shape")
        )

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return one answer to a history.

        Args:
            messages: The whole history; only what is new is sent.
            kwargs: Settings for this call (``model``, ``timeout``, ``conversation_id``, ``stop``,
                ...).

        Raises:
            LettaError: The call failed.
        """
        constrained = self._build_request(messages, kwargs)
        seen = CallInstrumentation(self, messages, kwargs)
        return seen.call(lambda: self._respond(constrained, kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return one answer to a history; see :meth:`chat`."""
        constrained = await self._abuild_request(messages, kwargs)
        seen = CallInstrumentation(self, messages, kwargs)
        return await seen.acall(self._arespond(constrained, kwargs))

    @manages_own_span
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatGen:
        """Return one answer, token by token; see :meth:`chat`."""
        constrained = self._build_request(messages, kwargs)
        seen = CallInstrumentation(self, messages, kwargs, self.stream_chat)
        constrained = constrained.take(seen.follow(constrained.request))
        return seen.stream(
            self._runner.run(constrained, *choose_makers(constrained, kwargs.get("shape")))
        )

    @manages_own_span
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncChatGen:
        """Return one answer, token by token; see :meth:`chat`."""
        constrained = await self._abuild_request(messages, kwargs)
        seen = CallInstrumentation(self, messages, kwargs, self.astream_chat)
        constrained = constrained.take(seen.follow(constrained.request))
        return seen.astream(
            self._runner.arun(constrained, *choose_makers(constrained, kwargs.get("shape")))
        )

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return one answer to a prompt.

        Args:
            prompt: The text.
            formatted: Has no effect: a chat model formats nothing.
            kwargs: Settings for this call, as for :meth:`chat`.

        Raises:
            LettaError: The call failed.
        """
        constrained = self._build_request(_to_messages(prompt), kwargs)
        seen = CallInstrumentation(self, prompt, kwargs)
        return seen.call(lambda: as_completion(self._respond(constrained, kwargs)))

    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Return one answer to a prompt; see :meth:`complete`."""
        constrained = self._build_request(_to_messages(prompt), kwargs)
        seen = CallInstrumentation(self, prompt, kwargs)

        # The completion, and not the chat's response, is what the call ends with.
        async def respond() -> CompletionResponse:
            return as_completion(await self._arespond(constrained, kwargs))

        return await seen.acall(respond())

    @manages_own_span
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        """Return one answer to a prompt, token by token; see :meth:`complete`."""
        constrained = self._build_request(_to_messages(prompt), kwargs)
        seen = CallInstrumentation(self, prompt, kwargs, self.stream_complete)
        constrained = constrained.take(seen.follow(constrained.request))
        responses = self._runner.run(constrained, *choose_makers(constrained, kwargs.get("shape")))
        return seen.stream(to_completions(responses))

    @manages_own_span
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        """Return one answer to a prompt, token by token; see :meth:`complete`."""
        constrained = self._build_request(_to_messages(prompt), kwargs)
        seen = CallInstrumentation(self, prompt, kwargs, self.astream_complete)
        constrained = constrained.take(seen.follow(constrained.request))
        responses = self._runner.arun(constrained, *choose_makers(constrained, kwargs.get("shape")))
        return seen.astream(to_acompletions(responses))

    # -- tools ------------------------------------------------------------------------------

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments of a chat that offers tools."""
        messages = list(chat_history or [])
        if isinstance(user_msg, str):
            messages.append(ChatMessage(role=MessageRole.USER, content=user_msg))
        elif user_msg is not None:
            messages.append(user_msg)
        # LlamaIndex' program asks for an object by offering one tool that stands for it.
        shape = find_output_class(tools)
        given: dict[str, Any] = {} if shape is None else {"shape": Shape(shape)}
        if tools and (tool_required or shape is not None):
            # The agent has to call one of the tools: for an object that is the answer itself.
            given["tool_choice"] = "any"
        return {
            "messages": messages,
            "tools": to_wire_tools(tools),
            "parallel": allow_parallel_tool_calls,
            **{k: v for k, v in kwargs.items() if v is not None or k not in given},
            **given,
        }

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,
        **kwargs: Any,
    ) -> list[ToolSelection]:
        """Return the calls that wait for the caller.

        A call whose arguments are no JSON object must not be run with a tool's defaults: in its
        selection the name is that of no tool and tells the fault, and there are no arguments.

        Args:
            response: The answer.
            error_on_no_tool_call: Raise if there is no call.
            kwargs: Have no effect.

        Raises:
            ValueError: There is no call, unless ``error_on_no_tool_call=False``.
        """
        calls = [b for b in response.message.blocks if isinstance(b, ToolCallBlock)]
        if not calls and error_on_no_tool_call:
            raise ValueError(f"Expected at least one tool call, but got {len(calls)} tool calls.")
        return [to_selection(call) for call in calls]

    # -- structured output ------------------------------------------------------------------

    @manages_own_span
    def structured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> Model:
        """Return an object of the class; one bad answer is mended in the same conversation.

        Example:
            ```python
            class Person(BaseModel):
                name: str

            llm.structured_predict(Person, PromptTemplate("Who are you talking to?"))
            ```

        Args:
            output_cls: A pydantic class.
            prompt: A prompt template.
            llm_kwargs: Settings for the call, as for :meth:`chat`.
            prompt_args: Values for the template.

        Raises:
            StructuredOutputError: The second answer is no such object either.
        """
        asked = self._ask_for_object(output_cls, llm_kwargs)
        made = super().structured_predict(output_cls, prompt, llm_kwargs=asked, **prompt_args)
        return cast("Model", made)

    @manages_own_span
    async def astructured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> Model:
        """Return an object of the class; see :meth:`structured_predict`."""
        asked = self._ask_for_object(output_cls, llm_kwargs)
        made = await super().astructured_predict(
            output_cls, prompt, llm_kwargs=asked, **prompt_args
        )
        return cast("Model", made)

    @manages_own_span
    def stream_structured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> Any:
        """Return a stream of the object while it grows; its last one is valid.

        An answer that is mended begins anew.

        Args:
            output_cls: A pydantic class.
            prompt: A prompt template.
            llm_kwargs: Settings for the call, as for :meth:`chat`.
            prompt_args: Values for the template.

        Raises:
            StructuredOutputError: The second answer is no such object either.
        """
        asked = self._ask_for_object(output_cls, llm_kwargs)
        objects = super().stream_structured_predict(
            output_cls, prompt, llm_kwargs=asked, **prompt_args
        )
        return end_with_valid(objects, asked.get("shape"))

    @manages_own_span
    async def astream_structured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> Any:
        """Return a stream of the object; see :meth:`stream_structured_predict`."""
        asked = self._ask_for_object(output_cls, llm_kwargs)
        objects = await super().astream_structured_predict(
            output_cls, prompt, llm_kwargs=asked, **prompt_args
        )
        return aend_with_valid(objects, asked.get("shape"))

    def _ask_for_object(self, output_cls: type[Any], llm_kwargs: Any) -> dict[str, Any]:
        """Add to a call the object that its answer has to be.

        A program that works through a tool has told it already.
        """
        # Only in this mode the answer is JSON text; in the others a tool's arguments are the
        # object.
        by_text = self.pydantic_program_mode == PydanticProgramMode.LLM
        return {**(llm_kwargs or {}), **({"shape": Shape(output_cls)} if by_text else {})}

    # -- calling tools ----------------------------------------------------------------------

    def predict_and_call(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> Any:
        """Let the agent choose tools, and run them; their results do not go back to it.

        Args:
            tools: The tools.
            args: As LlamaIndex takes them.
            kwargs: As LlamaIndex takes them (``user_msg``, ``chat_history``, ...).

        Raises:
            TurnFailedError: The arguments of a call are no JSON object, also after it was to be
                mended.
        """
        # No result goes back to the agent, so the turn must not wait for one.
        return super().predict_and_call(tools, *args, **{"final": True, **kwargs})

    async def apredict_and_call(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> Any:
        """Let the agent choose tools, and run them; see :meth:`predict_and_call`."""
        return await super().apredict_and_call(tools, *args, **{"final": True, **kwargs})


def _to_messages(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=prompt)]
