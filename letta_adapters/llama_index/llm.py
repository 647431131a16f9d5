"""``LettaLLM``: a Letta agent as a LlamaIndex LLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr, SecretStr
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import BaseTool
from llama_index.core.types import PydanticProgramMode

from letta_adapters.calls import Call, Caller
from letta_adapters.calls.answer import Reader
from letta_adapters.calls.calling import Calling
from letta_adapters.calls.demands import choose
from letta_adapters.calls.running import Runner
from letta_adapters.engine.assembler import parse_arguments
from letta_adapters.errors import InvalidInputError
from letta_adapters.llama_index.convert import to_entries, to_wire_tools
from letta_adapters.llama_index.observe import Observation
from letta_adapters.llama_index.responses import ResponseMaker, as_completion, response_of
from letta_adapters.llama_index.spans import own_span
from letta_adapters.options import SessionOptions

ChatGen = Generator[ChatResponse, None, None]
AsyncChatGen = AsyncGenerator[ChatResponse, None]
_OWN = frozenset(
    {
        "tools", "tool_choice", "parallel", "final", "model", "conversation_id", "timeout",
        "max_steps", "stop", "formatted", "temperature", "max_tokens",
    }
)  # fmt: skip
_SETTINGS = ("temperature", "max_tokens")


class LettaLLM(FunctionCallingLLM):
    """A Letta agent as an LLM, for query engines, synthesizers, chat engines and workflows.

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
        agent_id: The agent. Default: the backend's default agent.
        conversation_id: Always this conversation.
        model: Another model than the agent's.
        backend, client: What ``LettaClient`` takes; or a client to use.
        api_key, base_url: A Letta API. Default: ``LETTA_API_KEY``, ``LETTA_BASE_URL``.
        timeout: Seconds a call may take.
        max_retries: How often a call is made again that was surely not accepted.
        max_steps: Limit of model calls in one turn (the Letta API only).
        temperature, max_tokens: Settings of the model, for the conversations this LLM uses (the
            Letta API only; Letta Code takes them from the agent).
        context_window, num_output: In tokens, for LlamaIndex' prompt helpers.
        agent_free: A plain model without agent and memory (Letta Code only).
        on_mismatch: What to do when the history is not the one the conversation has.
        session_options: Further options of ``create_session``.
    """

    agent_id: str | None = None
    conversation_id: str | None = None
    model: str | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True)
    base_url: str | None = None
    timeout: float | None = Field(default=None, gt=0)
    max_retries: int = Field(default=2, ge=0)
    max_steps: int | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, gt=0)
    context_window: int = Field(default=128_000, gt=0)
    num_output: int = Field(default=4096, gt=0)
    agent_free: bool = False
    on_mismatch: Literal["fork", "continue", "error"] = "fork"
    session_options: dict[str, Any] = Field(default_factory=dict)
    pydantic_program_mode: PydanticProgramMode = PydanticProgramMode.LLM

    _runner: Runner = PrivateAttr()
    _session: SessionOptions = PrivateAttr()
    _metadata: LLMMetadata = PrivateAttr()

    def __init__(self, *, backend: Any = None, client: Any = None, **fields: Any) -> None:
        super().__init__(**fields)
        caller = Caller(
            backend=backend, client=client, api_key=self.api_key, base_url=self.base_url
        )
        self._runner = Runner(caller, self.max_retries)
        self._session = SessionOptions(**self.session_options)
        self._metadata = LLMMetadata(
            context_window=self.context_window,
            num_output=self.num_output,
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=self.model or self.agent_id or "letta",
            system_role=MessageRole.SYSTEM,
        )

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialized."""
        return "letta_llm"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex wants to know of a model; no I/O."""
        return self._metadata

    # -- calls ------------------------------------------------------------------------------

    def _calling(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Calling:
        unknown = sorted(k for k in kwargs if k not in _OWN and kwargs[k] is not None)
        if unknown:
            raise InvalidInputError(
                f"LettaLLM does nothing with {unknown[0]!r}.",
                hint="Neither the Letta API nor Letta Code has such a setting per call.",
            )
        tools, demand = choose(
            kwargs.get("tools") or [],
            kwargs.get("tool_choice"),
            parallel=kwargs.get("parallel"),
            final=bool(kwargs.get("final")),
        )
        conversation_id = kwargs.get("conversation_id") or self.conversation_id
        call = Call(
            entries=to_entries(messages),
            tools=tools,
            agent_id=self.agent_id,
            conversation_id=conversation_id,
            ephemeral=conversation_id is None,
            agent_free=self.agent_free,
            model=kwargs.get("model") or self.model,
            max_steps=kwargs.get("max_steps") or self.max_steps,
            settings=self._settings(kwargs),
            timeout=kwargs.get("timeout") or self.timeout,
            on_mismatch=self.on_mismatch,
            note=demand.note,
            standing=demand.standing,
            session=self._session,
        )
        return Calling(call, demand, kwargs.get("stop"))

    async def _acalling(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Calling:
        """Return the call of an asynchronous chat."""
        return self._calling(messages, kwargs)

    def _settings(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model settings of a call: its own, or else this LLM's."""
        given = {name: kwargs.get(name) for name in _SETTINGS}
        own = {name: getattr(self, name) for name in _SETTINGS}
        chosen = {name: own[name] if given[name] is None else given[name] for name in _SETTINGS}
        return {name: value for name, value in chosen.items() if value is not None}

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """One answer to a history."""
        calling = self._calling(messages, kwargs)
        seen = Observation(self, messages, kwargs)
        return seen.call(lambda: response_of(self._runner.answer(calling), calling.call))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """One answer to a history."""
        calling = await self._acalling(messages, kwargs)
        seen = Observation(self, messages, kwargs)
        try:
            response = response_of(await self._runner.aanswer(calling), calling.call)
        except BaseException as error:
            seen.fail(error)
            raise
        seen.end(response)
        return response

    @own_span
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatGen:
        """One answer, token by token."""
        calling = self._calling(messages, kwargs)
        seen = Observation(self, messages, kwargs, self.stream_chat)
        return seen.stream(self._runner.run(calling, _maker(calling)))

    @own_span
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncChatGen:
        """One answer, token by token."""
        calling = await self._acalling(messages, kwargs)
        seen = Observation(self, messages, kwargs, self.astream_chat)
        return seen.astream(self._runner.arun(calling, _maker(calling)))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """One answer to a prompt."""
        calling = self._calling(_prompt(prompt), kwargs)
        seen = Observation(self, prompt, kwargs)
        return seen.call(
            lambda: as_completion(response_of(self._runner.answer(calling), calling.call))
        )

    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """One answer to a prompt."""
        calling = self._calling(_prompt(prompt), kwargs)
        seen = Observation(self, prompt, kwargs)
        try:
            response = as_completion(response_of(await self._runner.aanswer(calling), calling.call))
        except BaseException as error:
            seen.fail(error)
            raise
        seen.end(response)
        return response

    @own_span
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        """One answer to a prompt, token by token."""
        calling = self._calling(_prompt(prompt), kwargs)
        seen = Observation(self, prompt, kwargs, self.stream_complete)
        responses = self._runner.run(calling, _maker(calling))
        return seen.stream(_completions(responses))

    @own_span
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        """One answer to a prompt, token by token."""
        calling = self._calling(_prompt(prompt), kwargs)
        seen = Observation(self, prompt, kwargs, self.astream_complete)
        responses = self._runner.arun(calling, _maker(calling))
        return seen.astream(_acompletions(responses))

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
        messages = list(chat_history or [])
        if isinstance(user_msg, str):
            messages.append(ChatMessage(role=MessageRole.USER, content=user_msg))
        elif user_msg is not None:
            messages.append(user_msg)
        given = {"tool_choice": "any"} if tool_required and tools else {}
        return {
            "messages": messages,
            "tools": to_wire_tools(tools),
            "parallel": allow_parallel_tool_calls,
            **given,
            **kwargs,
        }

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,
        **kwargs: Any,
    ) -> list[ToolSelection]:
        """The calls that wait for the caller.

        Raises:
            ValueError: there is none, unless ``error_on_no_tool_call=False``.
        """
        calls = [b for b in response.message.blocks if isinstance(b, ToolCallBlock)]
        if not calls and error_on_no_tool_call:
            raise ValueError(f"Expected at least one tool call, but got {len(calls)} tool calls.")
        return [
            ToolSelection(
                tool_id=call.tool_call_id or "",
                tool_name=call.tool_name,
                tool_kwargs=parse_arguments(call.tool_kwargs)
                if isinstance(call.tool_kwargs, str)
                else call.tool_kwargs,
            )
            for call in calls
        ]

    def predict_and_call(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> Any:
        """Let the agent choose tools, and run them; their results do not go back to it."""
        return super().predict_and_call(tools, *args, **{"final": True, **kwargs})

    async def apredict_and_call(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> Any:
        """Let the agent choose tools, and run them; their results do not go back to it."""
        return await super().apredict_and_call(tools, *args, **{"final": True, **kwargs})


def _maker(calling: Calling) -> Callable[[Reader], ResponseMaker]:
    return partial(ResponseMaker, ephemeral=calling.call.ephemeral)


def _prompt(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=prompt)]


def _completions(responses: ChatGen) -> Generator[CompletionResponse, None, None]:
    try:
        for response in responses:
            yield as_completion(response)
    finally:
        responses.close()


async def _acompletions(responses: AsyncChatGen) -> AsyncGenerator[CompletionResponse, None]:
    try:
        async for response in responses:
            yield as_completion(response)
    finally:
        await responses.aclose()
