"""Can a conversation's model see images? Asked where Letta Code asks, as it does not tell.

It replaces an image that a model cannot see by a line of text, and no frame says so. Of the models
of ``Local(openai_compatible=...)`` it decides by ``GET <server>/api/v0/models`` (LM Studio's: type
``vlm``, or the capability ``vision``); a server without that route has no model with vision
(``letta`` 0.34.12, ``parseLmStudioModels``). Of other models nothing can be known here.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from letta_adapters.backends.app_server import opening
from letta_adapters.backends.app_server.connection import Connection
from letta_adapters.backends.base import DEFAULT, Conversation
from letta_adapters.errors import UnsupportedImageError

# As long as Letta Code waits for it.
_SECONDS: Final = 2.0
_MAX_BYTES: Final = 2**24
_PREFIX: Final = "lmstudio/"


class Vision:
    """Knows the model server of an embedded runtime.

    Args:
        server: Its base URL and key (either may be ``""``); ``None``: nothing is known.
    """

    def __init__(self, server: Callable[[], tuple[str, str]] | None) -> None:
        self._server = server

    async def check(self, connection: Connection, conversation: Conversation) -> None:
        """Refuse an image for a model that is known not to see it.

        Raises:
            UnsupportedImageError: nothing was sent.
        """
        url, key = ("", "") if self._server is None else self._server()
        if not url:
            return
        model = await _model(connection, conversation)
        if not model.startswith(_PREFIX):
            return
        if await asyncio.to_thread(sees, url, key, model[len(_PREFIX) :]) is False:
            raise UnsupportedImageError(
                f"The model {model} cannot see images: nothing was sent.",
                hint="Use a model with vision (LM Studio's type 'vlm'), or say it in words.",
                accepted=False,
            )


async def _model(connection: Connection, conversation: Conversation) -> str:
    """Its model now; ``""`` if the server does not say."""
    answer: dict[str, Any] = {}
    if conversation.conversation_id != DEFAULT:
        frame = {"type": "conversation_retrieve", "conversation_id": conversation.conversation_id}
        answer.update(await connection.request(frame))
    if opening.model_of(answer) is None and conversation.agent_id:
        frame = {"type": "agent_retrieve", "agent_id": conversation.agent_id}
        answer.update(await connection.request(frame))
    return opening.model_of(answer) or ""


def sees(base_url: str, key: str, model: str) -> bool | None:
    """Return whether a model server says that a model sees images; ``None`` if it does not say.

    Args:
        base_url: With or without ``/v1``.
        key: Sent as a bearer token, unless it is empty. No redirect is followed with it.
        model: Its id on that server.
    """
    root = base_url.rstrip("/").removesuffix("/v1")
    try:
        found = _models(f"{root}/api/v0/models", key)
        if found:
            record = found.get(model)
            return None if record is None else _has_vision(record)
        # No such route, or nothing in it: every model of the plain list is one for text.
        return False if model in _models(f"{root}/v1/models", key) else None
    except (OSError, http.client.HTTPException, ValueError):
        return None


def _has_vision(record: Mapping[str, Any]) -> bool:
    capabilities = record.get("capabilities")
    listed = capabilities if isinstance(capabilities, list) else []
    return record.get("type") == "vlm" or "vision" in listed


def _models(url: str, key: str) -> dict[str, Mapping[str, Any]]:
    """What a list holds, by id; empty if there is no such route. Raises OSError, ValueError."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        headers = {"Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        connection.request("GET", parts.path, headers=headers)
        response = connection.getresponse()
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
