"""The Python SDK for Letta agents.

::

    from letta_adapters import resume_session

    with resume_session("agent-...") as session:
        session.send("What do you remember about me?")
        for message in session.stream():
            print(message)

Names are imported on first use, so that ``import letta_adapters`` costs next to nothing and pulls
in neither httpx nor a framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from letta_adapters._version import __version__

if TYPE_CHECKING:
    from letta_adapters.aio import prompt as aprompt
    from letta_adapters.client import AsyncLettaClient
    from letta_adapters.content import (
        ImageContent,
        TextContent,
        image_from_bytes,
        image_from_file,
        image_from_url,
    )
    from letta_adapters.engine.transcript import Row, Transcript
    from letta_adapters.errors import (
        AuthenticationError,
        ConfigurationError,
        ConflictError,
        ConnectionFailedError,
        ConversationBusyError,
        HistoryMismatchError,
        InvalidInputError,
        LettaError,
        LettaTimeoutError,
        ModelProviderError,
        NotFoundError,
        PendingApprovalError,
        ProtocolError,
        ProviderAuthenticationError,
        ProviderRateLimitError,
        RateLimitError,
        ServerError,
        SessionClosedError,
        StreamTruncatedError,
        TimeoutAfterAcceptanceError,
        TimeoutBeforeAcceptanceError,
        TurnCancelledError,
        TurnFailedError,
        UnsupportedOptionError,
        WrongEventLoopError,
    )
    from letta_adapters.messages import (
        AssistantMessage,
        BootstrapState,
        ErrorMessage,
        InitMessage,
        LoopStatusMessage,
        Message,
        MessagePage,
        PendingToolCall,
        QueueUpdateMessage,
        ReasoningMessage,
        RecoveryResult,
        ResultMessage,
        RetryMessage,
        StreamEvent,
        StreamTextDelta,
        ToolCallMessage,
        ToolResultMessage,
        UnknownMessage,
        Usage,
        extract_stream_text_delta,
    )
    from letta_adapters.options import Local, MemoryBlock, Remote, Rest, Sleeptime
    from letta_adapters.permissions import Allow, Deny, PermissionContext
    from letta_adapters.session import AsyncSession
    from letta_adapters.sync import (
        LettaClient,
        Session,
        create_agent,
        create_session,
        prompt,
        resume_session,
    )
    from letta_adapters.tools import Tool, tool

_HOMES = {
    "client": "AsyncLettaClient",
    "content": "ImageContent TextContent image_from_bytes image_from_file image_from_url",
    "engine.transcript": "Row Transcript",
    "errors": "AuthenticationError ConfigurationError ConflictError ConnectionFailedError "
    "ConversationBusyError HistoryMismatchError InvalidInputError LettaError LettaTimeoutError "
    "ModelProviderError NotFoundError PendingApprovalError ProtocolError "
    "ProviderAuthenticationError ProviderRateLimitError RateLimitError ServerError "
    "SessionClosedError StreamTruncatedError "
    "TimeoutAfterAcceptanceError TimeoutBeforeAcceptanceError TurnCancelledError TurnFailedError "
    "UnsupportedOptionError WrongEventLoopError",
    "messages": "AssistantMessage BootstrapState ErrorMessage InitMessage LoopStatusMessage "
    "Message MessagePage PendingToolCall QueueUpdateMessage ReasoningMessage RecoveryResult "
    "ResultMessage RetryMessage StreamEvent StreamTextDelta ToolCallMessage ToolResultMessage "
    "UnknownMessage Usage extract_stream_text_delta",
    "options": "Local MemoryBlock Remote Rest Sleeptime",
    "permissions": "Allow Deny PermissionContext",
    "session": "AsyncSession",
    "sync": "LettaClient Session create_agent create_session prompt resume_session",
    "tools": "Tool tool",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", "aprompt", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name == "aprompt":
        value = import_module("letta_adapters.aio").prompt
    elif name in _HOME_OF:
        value = getattr(import_module(f"letta_adapters.{_HOME_OF[name]}"), name)
    else:
        raise AttributeError(f"module 'letta_adapters' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
