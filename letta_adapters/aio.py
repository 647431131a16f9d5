"""``prompt``, ``create_agent``, ``create_session`` and ``resume_session`` for async code.

::

    from letta_adapters import aio

    async with aio.resume_session("agent-...") as session:
        print((await session.run_turn("Hello!")).result)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from letta_adapters.backends.base import Target
from letta_adapters.backends.config import BackendSpec
from letta_adapters.client.client import (
    AsyncLettaClient,
    check_given,
    make_session,
    new_target,
    resume_target,
)
from letta_adapters.client.session import AsyncSession
from letta_adapters.messages import ResultMessage

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from letta_adapters.client.structured import StructuredResult
    from letta_adapters.options import AgentKwargs, SessionKwargs

T = TypeVar("T")

__all__ = ["create_agent", "create_session", "prompt", "resume_session"]


@overload
async def prompt(
    message: Any,
    agent_id: str | None = None,
    *,
    client: AsyncLettaClient | None = None,
    backend: BackendSpec | None = None,
    output_schema: None = None,
    output_repairs: None = None,
    **options: Unpack[SessionKwargs],
) -> ResultMessage: ...
@overload
async def prompt(
    message: Any,
    agent_id: str | None = None,
    *,
    client: AsyncLettaClient | None = None,
    backend: BackendSpec | None = None,
    output_schema: type[T],
    output_repairs: int | None = None,
    **options: Unpack[SessionKwargs],
) -> StructuredResult[T]: ...
@overload
async def prompt(
    message: Any,
    agent_id: str | None = None,
    *,
    client: AsyncLettaClient | None = None,
    backend: BackendSpec | None = None,
    output_schema: Mapping[str, Any],
    output_repairs: int | None = None,
    **options: Unpack[SessionKwargs],
) -> StructuredResult[Any]: ...
async def prompt(
    message: Any,
    agent_id: str | None = None,
    *,
    client: AsyncLettaClient | None = None,
    backend: BackendSpec | None = None,
    output_schema: Any = None,
    output_repairs: int | None = None,
    **options: Unpack[SessionKwargs],
) -> ResultMessage:
    """Ask once, in a fresh conversation, and return the turn's result.

    Args:
        message: Text, an image, or a sequence of both.
        agent_id: The agent to ask. ``None`` means the default agent.
        client: Use this client; else one is made from ``backend`` and closed again.
        backend: ``Rest(...)``, ``"cloud"``, ...; ``None`` asks the environment.
        output_schema: The data that the answer is to be; ``result.output`` is the object.
        output_repairs: How often an answer that does not fit goes back to the agent.
        **options: See :class:`~letta_adapters.options.SessionOptions`.

    Raises:
        LettaError: The message was refused. A turn that failed later is returned with
            ``success=False``.
    """
    async with create_session(agent_id, client=client, backend=backend, **options) as session:
        return await session.run_turn(
            message, output_schema=output_schema, output_repairs=output_repairs
        )


async def create_agent(
    *,
    client: AsyncLettaClient | None = None,
    backend: BackendSpec | None = None,
    **options: Unpack[AgentKwargs],
) -> str:
    """Create an agent and return its id.

    Args:
        client: Use this client; else one is made from ``backend`` and closed again.
        backend: ``Rest(...)``, ``"cloud"``, ...; ``None`` asks the environment.
        **options: See :class:`~letta_adapters.options.AgentOptions`.
    """
    if client is not None:
        return await check_given(client, backend).create_agent(**options)
    async with AsyncLettaClient(backend) as own:
        return await own.create_agent(**options)


def create_session(
    agent_id: str | None = None,
    *,
    client: AsyncLettaClient | None = None,
    backend: BackendSpec | None = None,
    **options: Unpack[SessionKwargs],
) -> AsyncSession:
    """Make a session in a fresh conversation; it opens on ``async with`` or on first use.

    Args:
        agent_id: The agent to talk to. ``None`` means the default agent.
        client: Use this client; else one is made from ``backend`` and closed with the session.
        backend: ``Rest(...)``, ``"cloud"``, ...; ``None`` asks the environment.
        **options: See :class:`~letta_adapters.options.SessionOptions`.
    """
    return _session(new_target(agent_id), client, backend, options)


def resume_session(
    id: str | None = None,
    *,
    agent_id: str | None = None,
    conversation_id: str | None = None,
    client: AsyncLettaClient | None = None,
    backend: BackendSpec | None = None,
    **options: Unpack[SessionKwargs],
) -> AsyncSession:
    """Make a session that continues a conversation; it opens on ``async with`` or on first use.

    Args:
        id: An agent id, which means its default conversation, or a conversation id.
        agent_id: The agent's id, where ``id`` is not given.
        conversation_id: The conversation's id. With both ids there is no look-up.
        client: Use this client; else one is made from ``backend`` and closed with the session.
        backend: ``Rest(...)``, ``"cloud"``, ...; ``None`` asks the environment.
        **options: See :class:`~letta_adapters.options.SessionOptions`.
    """
    return _session(resume_target(id, agent_id, conversation_id), client, backend, options)


def _session(
    target: Target,
    client: AsyncLettaClient | None,
    backend: BackendSpec | None,
    options: Mapping[str, Any],
) -> AsyncSession:
    if client is not None:
        return make_session(check_given(client, backend), target, options)
    # Nobody else knows this client, so the session closes it.
    return make_session(AsyncLettaClient(backend), target, options, owns_client=True)
