"""Internal: check whether a conversation's model can see images, which Letta Code does not tell.

It replaces an image that a model cannot see by a line of text; no frame, no list of models and no
stored message says so (``letta`` 0.34.12). For models of ``Local(openai_compatible=...)`` it
decides by ``GET <server>/api/v0/models`` (LM Studio's: type ``vlm``, or the capability ``vision``);
a server without that route has no model with vision (``parseLmStudioModels``). For any other model
of the embedded runtime an event tells in the turn itself which images were left out
(``runtime/vision.cjs``). For an App Server elsewhere, and for models of a Letta API, nothing can be
known here.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from letta_adapters._utils.files import on_thread
from letta_adapters.backends.app_server import conversations
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.base import DEFAULT, Conversation
from letta_adapters.errors import UnsupportedImageError

# Letta Code waits for that server as long.
_SECONDS: Final = 2.0
_MAX_BYTES: Final = 2**24
_PREFIX: Final = "lmstudio/"

log = logging.getLogger("letta_adapters.app_server")


class Vision:
    """The knowledge of an embedded runtime's model server.

    Args:
        server: Returns its base URL and key (either may be ``""``); ``None`` if nothing is known.
        told: A file that is there if the runtime tells a turn which images it leaves out.
    """

    def __init__(
        self, server: Callable[[], tuple[str, str]] | None, *, told: Path | None = None
    ) -> None:
        self._server = server
        self._told = told
        self._warned = False

    async def check(self, connection: Connection, conversation: Conversation) -> None:
        """Refuse an image for a model that is known not to see it.

        Where that is not known, and an image that is left out would not be told either, this is
        logged (WARNING, once).

        Raises:
            UnsupportedImageError: The model cannot see it; nothing was sent.
        """
        seen = await self._sees(connection, conversation)
        if seen is None and not self._warned and not await self._tells():
            self._warned = True
            log.warning(
                "It cannot be known whether the model sees images: Letta Code leaves them out for "
                "one without vision, and this server does not tell. Use a model with vision."
            )

    async def _tells(self) -> bool:
        return self._told is not None and await on_thread(self._told.exists)

    async def _sees(self, connection: Connection, conversation: Conversation) -> bool | None:
        url, key = ("", "") if self._server is None else await on_thread(self._server)
        model = await _model(connection, conversation) if url else ""
        if not model.startswith(_PREFIX):
            return None
        # In a thread, because Python's own HTTP client blocks.
        seen = await asyncio.to_thread(sees, url, key, model[len(_PREFIX) :])
        if seen is False:
            raise UnsupportedImageError(
                f"The model {model} cannot see images: nothing was sent.",
                hint="Use a model with vision (LM Studio's type 'vlm'), or say it in words.",
                accepted=False,
            )
        return seen


async def _model(connection: Connection, conversation: Conversation) -> str:
    """Return the conversation's model now; ``""`` if the server does not name it."""
    answer: dict[str, Any] = {}
    if conversation.conversation_id != DEFAULT:
        frame = {"type": "conversation_retrieve", "conversation_id": conversation.conversation_id}
        answer.update(await connection.request(frame))
    # A conversation without a model of its own uses its agent's.
    if conversations.read_model(answer) is None and conversation.agent_id:
        frame = {"type": "agent_retrieve", "agent_id": conversation.agent_id}
        answer.update(await connection.request(frame))
    return conversations.read_model(answer) or ""


def sees(base_url: str, key: str, model: str) -> bool | None:
    """Return whether a model server says that a model sees images; ``None`` if it does not say.

    Args:
        base_url: The address, with or without ``/v1``.
        key: Sent as a bearer token, unless it is empty. No redirect is followed with it.
        model: The model's id on that server.
    """
    root = base_url.rstrip("/").removesuffix("/v1")
    try:
        # The list by which Letta Code decides, so that both come to the same answer.
        found = _models(f"{root}/api/v0/models", key)
        if found:
            record = found.get(model)
            return None if record is None else _has_vision(record)
        # No such route, or nothing in it: then every model of the plain list is one for text.
        return False if model in _models(f"{root}/v1/models", key) else None
    except (OSError, http.client.HTTPException, ValueError):
        return None


def _has_vision(record: Mapping[str, Any]) -> bool:
    capabilities = record.get("capabilities")
    listed = capabilities if isinstance(capabilities, list) else []
    return record.get("type") == "vlm" or "vision" in listed


def _models(url: str, key: str) -> dict[str, Mapping[str, Any]]:
    """Return the content of a list, by id; empty if there is no such route.

    Raises:
        OSError: The server cannot be reached, or answers with an error.
        ValueError: The answer is no JSON.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        headers = {"Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        connection.request("GET", parts.path, headers=headers)
        response = connection.getresponse()
        # Within bounds: something else may listen at that address.
        body = response.read(_MAX_BYTES)
    finally:
        connection.close()
    if response.status == http.client.NOT_FOUND:
        return {}
    if response.status != http.client.OK:
        raise OSError(f"HTTP {response.status}")
    answer = json.loads(body)
    records = answer.get("data") if isinstance(answer, dict) else None
    listed = [one for one in records if isinstance(one, dict)] if isinstance(records, list) else []
    return {str(one["id"]): one for one in listed if one.get("id")}
