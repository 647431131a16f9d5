"""Internal: the backend and the session that the options of a command mean."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from letta_adapters.backends.config import Local, Remote, Rest
from letta_adapters.cli.parser import KEEP_RUNNING
from letta_adapters.client.client import resolve_backend
from letta_adapters.content import ImageContent, image_from_file, image_from_url
from letta_adapters.errors import InvalidInputError
from letta_adapters.options_base import build

if TYPE_CHECKING:
    from letta_adapters.sync.client import LettaClient, Session


def make_backend(args: argparse.Namespace) -> Rest | Local | Remote:
    """Return the backend that the options and the environment mean.

    Raises:
        InvalidInputError: An option is wrong, or does not fit that backend.
    """
    url: str | None = args.base_url
    if url and not _is_address(url):
        raise InvalidInputError(f"{url!r} is not a URL.")
    name: str | None = args.backend
    # The address tells an App Server, which speaks WebSocket, from the Letta API.
    if name is None and url:
        name = "remote" if url.startswith(("ws://", "wss://")) else "cloud"
    if name is None and args.data_dir:
        name = "local"
    keep = KEEP_RUNNING if args.keep_running is None else args.keep_running
    if name == "local":
        return build(Local, data_dir=args.data_dir, keep_running=keep)
    if name == "remote":
        return build(Remote, url=url)
    if name == "cloud":
        return build(Rest, base_url=url)
    # No option names a backend, so the environment decides, as it does for a client in Python.
    meant = resolve_backend(None)
    if isinstance(meant, Local):
        return build(Local, keep_running=keep)
    if args.keep_running is not None:
        raise InvalidInputError("--keep-running is for the runtime on this machine.")
    return meant


def _is_address(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def open_session(client: LettaClient, args: argparse.Namespace, **options: Any) -> Session:
    """Return the session that ``--agent``, ``--conversation`` and so on mean; no I/O happens."""
    given = {
        "model": args.model,
        "reasoning_effort": args.reasoning_effort,
        "permission_mode": args.permission_mode,
        "allowed_tools": args.tools,
        "turn_timeout": args.timeout,
    }
    # What was not given must not count as set: it would hide the agent's own setting.
    options |= {name: value for name, value in given.items() if value}
    if args.conversation:
        return client.resume_session(
            agent_id=args.agent, conversation_id=args.conversation, **options
        )
    return client.create_session(args.agent, **options)


def load_image(given: str) -> ImageContent:
    """Return the picture of ``--image``.

    Raises:
        InvalidInputError: There is no such file, or it is no picture.
    """
    if given.startswith(("http://", "https://", "data:")):
        return image_from_url(given)
    return image_from_file(given)
