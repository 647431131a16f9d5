"""The Python SDK for Letta agents.

::

    from letta_adapters import resume_session

    with resume_session("agent-...") as session:
        session.send("What do you remember about me?")
        for message in session.stream():
            print(message)

Words used throughout:

* *agent*: a model with a memory of its own, which lives on a server and is known by its id.
* *backend*: the place where agents live (:class:`Rest`, :class:`Local` or :class:`Remote`).
* *conversation*: one history of messages with an agent. Each agent has a default one.
* *session*: an open conversation, as this package's object for it.
* *turn*: one message and all that the agent does until its answer is complete.
* *step*: one call of the model; a turn has several if the agent calls tools.
* *run*: the server's record of one request; a turn has several if tools run in this process.
* *otid*: the id that the sender gives to a message, by which it is found again.
* *client-side tool*: a function that the agent calls and that runs in this process.
* *approval*: the permission for one tool call; until it is given, the call is *pending*.
* *marker*: a note on an answer in a framework's history, which tells where it was given.

Names are imported on first use, so that ``import letta_adapters`` costs next to nothing and pulls
in neither httpx nor a framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from letta_adapters._version import __version__

if TYPE_CHECKING:
    from letta_adapters.aio import prompt as aprompt
    from letta_adapters.backends.config import Local as Local
    from letta_adapters.backends.config import Remote as Remote
    from letta_adapters.backends.config import Rest as Rest
    from letta_adapters.backends.config import RuntimeStatus as RuntimeStatus
    from letta_adapters.backends.connector import Connector as Connector
    from letta_adapters.client.agent_file import inspect_agent_file as inspect_agent_file
    from letta_adapters.client.client import AsyncLettaClient as AsyncLettaClient
    from letta_adapters.client.file_parts import AgentFile as AgentFile
    from letta_adapters.client.records import MemoryCommit as MemoryCommit
    from letta_adapters.client.records import MemoryItem as MemoryItem
    from letta_adapters.client.records import Passage as Passage
    from letta_adapters.client.records import Run as Run
    from letta_adapters.client.records import RunStep as RunStep
    from letta_adapters.client.records import ServerTool as ServerTool
    from letta_adapters.client.session import AsyncSession as AsyncSession
    from letta_adapters.client.structured import StructuredResult as StructuredResult
    from letta_adapters.content import ImageContent as ImageContent
    from letta_adapters.content import TextContent as TextContent
    from letta_adapters.content import image_from_base64 as image_from_base64
    from letta_adapters.content import image_from_bytes as image_from_bytes
    from letta_adapters.content import image_from_file as image_from_file
    from letta_adapters.content import image_from_url as image_from_url
    from letta_adapters.engine.deltas import StreamTextDelta as StreamTextDelta
    from letta_adapters.engine.deltas import extract_stream_text_delta as extract_stream_text_delta
    from letta_adapters.engine.transcript import Row as Row
    from letta_adapters.engine.transcript import Transcript as Transcript
    from letta_adapters.errors import AuthenticationError as AuthenticationError
    from letta_adapters.errors import ConfigurationError as ConfigurationError
    from letta_adapters.errors import ConflictError as ConflictError
    from letta_adapters.errors import ConnectionFailedError as ConnectionFailedError
    from letta_adapters.errors import ConversationBusyError as ConversationBusyError
    from letta_adapters.errors import HistoryMismatchError as HistoryMismatchError
    from letta_adapters.errors import InvalidInputError as InvalidInputError
    from letta_adapters.errors import LettaError as LettaError
    from letta_adapters.errors import LettaTimeoutError as LettaTimeoutError
    from letta_adapters.errors import ModelProviderError as ModelProviderError
    from letta_adapters.errors import NotFoundError as NotFoundError
    from letta_adapters.errors import PendingApprovalError as PendingApprovalError
    from letta_adapters.errors import ProtocolError as ProtocolError
    from letta_adapters.errors import ProviderAuthenticationError as ProviderAuthenticationError
    from letta_adapters.errors import ProviderRateLimitError as ProviderRateLimitError
    from letta_adapters.errors import RateLimitError as RateLimitError
    from letta_adapters.errors import ServerError as ServerError
    from letta_adapters.errors import SessionClosedError as SessionClosedError
    from letta_adapters.errors import StreamTruncatedError as StreamTruncatedError
    from letta_adapters.errors import StructuredOutputError as StructuredOutputError
    from letta_adapters.errors import TimeoutAfterAcceptanceError as TimeoutAfterAcceptanceError
    from letta_adapters.errors import TimeoutBeforeAcceptanceError as TimeoutBeforeAcceptanceError
    from letta_adapters.errors import TurnCancelledError as TurnCancelledError
    from letta_adapters.errors import TurnDetachedError as TurnDetachedError
    from letta_adapters.errors import TurnFailedError as TurnFailedError
    from letta_adapters.errors import UnsupportedOptionError as UnsupportedOptionError
    from letta_adapters.errors import WaitsForItselfError as WaitsForItselfError
    from letta_adapters.errors import WrongEventLoopError as WrongEventLoopError
    from letta_adapters.errors import WrongToolCallsError as WrongToolCallsError
    from letta_adapters.messages import AssistantMessage as AssistantMessage
    from letta_adapters.messages import BootstrapState as BootstrapState
    from letta_adapters.messages import ErrorMessage as ErrorMessage
    from letta_adapters.messages import InitMessage as InitMessage
    from letta_adapters.messages import LoopStatusMessage as LoopStatusMessage
    from letta_adapters.messages import Message as Message
    from letta_adapters.messages import MessagePage as MessagePage
    from letta_adapters.messages import PendingToolCall as PendingToolCall
    from letta_adapters.messages import QueueUpdateMessage as QueueUpdateMessage
    from letta_adapters.messages import ReasoningMessage as ReasoningMessage
    from letta_adapters.messages import RecoveredCall as RecoveredCall
    from letta_adapters.messages import RecoveryResult as RecoveryResult
    from letta_adapters.messages import ResultMessage as ResultMessage
    from letta_adapters.messages import RetryMessage as RetryMessage
    from letta_adapters.messages import StreamEvent as StreamEvent
    from letta_adapters.messages import SystemMessage as SystemMessage
    from letta_adapters.messages import ToolCallMessage as ToolCallMessage
    from letta_adapters.messages import ToolProgressMessage as ToolProgressMessage
    from letta_adapters.messages import ToolResultMessage as ToolResultMessage
    from letta_adapters.messages import UnknownMessage as UnknownMessage
    from letta_adapters.messages import Usage as Usage
    from letta_adapters.messages import UserMessage as UserMessage
    from letta_adapters.messages import message_from_dict as message_from_dict
    from letta_adapters.options import MemoryBlock as MemoryBlock
    from letta_adapters.options import Sleeptime as Sleeptime
    from letta_adapters.permissions import Allow as Allow
    from letta_adapters.permissions import Deny as Deny
    from letta_adapters.permissions import PermissionContext as PermissionContext
    from letta_adapters.permissions import Postpone as Postpone
    from letta_adapters.sync.client import LettaClient as LettaClient
    from letta_adapters.sync.client import Session as Session
    from letta_adapters.sync.client import create_agent as create_agent
    from letta_adapters.sync.client import create_session as create_session
    from letta_adapters.sync.client import prompt as prompt
    from letta_adapters.sync.client import resume_session as resume_session
    from letta_adapters.tools.client_side import Tool as Tool
    from letta_adapters.tools.client_side import tool as tool
    from letta_adapters.tools.context import ToolContext as ToolContext

_HOMES = {
    "client.client": "AsyncLettaClient",
    "client.agent_file": "inspect_agent_file",
    "client.file_parts": "AgentFile",
    "content": "ImageContent TextContent image_from_base64 image_from_bytes image_from_file "
    "image_from_url",
    "engine.deltas": "StreamTextDelta extract_stream_text_delta",
    "engine.transcript": "Row Transcript",
    "errors": "AuthenticationError ConfigurationError ConflictError ConnectionFailedError "
    "ConversationBusyError HistoryMismatchError InvalidInputError LettaError LettaTimeoutError "
    "ModelProviderError NotFoundError PendingApprovalError ProtocolError "
    "ProviderAuthenticationError ProviderRateLimitError RateLimitError ServerError "
    "SessionClosedError StreamTruncatedError StructuredOutputError "
    "TimeoutAfterAcceptanceError TimeoutBeforeAcceptanceError TurnCancelledError "
    "TurnDetachedError TurnFailedError UnsupportedOptionError WaitsForItselfError "
    "WrongEventLoopError WrongToolCallsError",
    "messages": "AssistantMessage BootstrapState ErrorMessage InitMessage LoopStatusMessage "
    "Message MessagePage PendingToolCall QueueUpdateMessage ReasoningMessage RecoveredCall "
    "RecoveryResult ResultMessage RetryMessage StreamEvent SystemMessage "
    "ToolCallMessage ToolProgressMessage ToolResultMessage UnknownMessage Usage UserMessage "
    "message_from_dict",
    "options": "MemoryBlock Sleeptime",
    "backends.config": "Local Remote Rest RuntimeStatus",
    "backends.connector": "Connector",
    "permissions": "Allow Deny PermissionContext Postpone",
    "client.records": "MemoryCommit MemoryItem Passage Run RunStep ServerTool",
    "client.session": "AsyncSession",
    "client.structured": "StructuredResult",
    "sync.client": "LettaClient Session create_agent create_session prompt resume_session",
    "tools.client_side": "Tool tool",
    "tools.context": "ToolContext",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AgentFile",
    "Allow",
    "AssistantMessage",
    "AsyncLettaClient",
    "AsyncSession",
    "AuthenticationError",
    "BootstrapState",
    "ConfigurationError",
    "ConflictError",
    "ConnectionFailedError",
    "Connector",
    "ConversationBusyError",
    "Deny",
    "ErrorMessage",
    "HistoryMismatchError",
    "ImageContent",
    "InitMessage",
    "InvalidInputError",
    "LettaClient",
    "LettaError",
    "LettaTimeoutError",
    "Local",
    "LoopStatusMessage",
    "MemoryBlock",
    "MemoryCommit",
    "MemoryItem",
    "Message",
    "MessagePage",
    "ModelProviderError",
    "NotFoundError",
    "Passage",
    "PendingApprovalError",
    "PendingToolCall",
    "PermissionContext",
    "Postpone",
    "ProtocolError",
    "ProviderAuthenticationError",
    "ProviderRateLimitError",
    "QueueUpdateMessage",
    "RateLimitError",
    "ReasoningMessage",
    "RecoveredCall",
    "RecoveryResult",
    "Remote",
    "Rest",
    "ResultMessage",
    "RetryMessage",
    "Row",
    "Run",
    "RunStep",
    "RuntimeStatus",
    "ServerError",
    "ServerTool",
    "Session",
    "SessionClosedError",
    "Sleeptime",
    "StreamEvent",
    "StreamTextDelta",
    "StreamTruncatedError",
    "StructuredOutputError",
    "StructuredResult",
    "SystemMessage",
    "TextContent",
    "TimeoutAfterAcceptanceError",
    "TimeoutBeforeAcceptanceError",
    "Tool",
    "ToolCallMessage",
    "ToolContext",
    "ToolProgressMessage",
    "ToolResultMessage",
    "Transcript",
    "TurnCancelledError",
    "TurnDetachedError",
    "TurnFailedError",
    "UnknownMessage",
    "UnsupportedOptionError",
    "Usage",
    "UserMessage",
    "WaitsForItselfError",
    "WrongEventLoopError",
    "WrongToolCallsError",
    "__version__",
    "aprompt",
    "create_agent",
    "create_session",
    "extract_stream_text_delta",
    "image_from_base64",
    "image_from_bytes",
    "image_from_file",
    "image_from_url",
    "inspect_agent_file",
    "message_from_dict",
    "prompt",
    "resume_session",
    "tool",
]


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
