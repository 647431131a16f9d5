"""Where agents live: on a Letta API, in Letta Code on this machine, or in somebody's App Server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from letta_adapters.options import Options

CLOUD_URL = "https://api.letta.com"


class Rest(Options):
    """The Letta API over HTTP: Letta Cloud, or a server of one's own.

    Args:
        base_url: Where the API is. Default: ``LETTA_BASE_URL``, else Letta Cloud.
        api_key: Sent as a bearer token. Default: ``LETTA_API_KEY``; ``""`` means none.
        project: Letta Cloud project (the ``X-Project-Id`` header).
        headers: Sent with every request (``{"user_id": "user-..."}`` on a server of one's own).
        connect_timeout: Seconds to reach the server.
        request_timeout: Seconds a read or a management call may take.
        idle_timeout: Seconds of silence in a stream. The server pings every 20 s, so this must be
            longer than that.
        turn_timeout: Seconds a whole turn may take; ``None`` is no limit.
        background: Run turns as background runs, whose stream can be resumed after the connection
            was lost. Needs Redis on the server. ``None``: on Letta Cloud only.
        settle_timeout: Seconds to find out, after a lost connection, what became of the turn.
    """

    base_url: str | None = None
    api_key: SecretStr | None = None
    project: str | None = None
    headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    connect_timeout: float = Field(default=10.0, gt=0)
    request_timeout: float = Field(default=60.0, gt=0)
    idle_timeout: float = Field(default=90.0, gt=0)
    turn_timeout: float | None = Field(default=None, gt=0)
    background: bool | None = None
    settle_timeout: float = Field(default=15.0, ge=0)

    @field_validator("base_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        value = value.strip().rstrip("/")
        if not value.startswith(("http://", "https://")) or len(value) < 9:
            raise ValueError("must be an http:// or https:// URL")
        return value.removesuffix("/v1")


class Local(Options):
    """Letta Code on this machine, started and stopped by this package (the embedded default).

    Needs ``pip install "letta-adapters[local]"`` and the ``git`` command.

    Args:
        data_dir: A home of its own for all state, settings and transcripts. Default: the user's
            normal Letta state, so that agents made here appear in the ``letta`` command.
        api: Run agents that live on this Letta API instead of this machine.
        openai_compatible: ``{"base_url": ..., "api_key": ...}`` of a model server; its models are
            then ``lmstudio/<id>``. Models of the big providers need only their key in the
            environment.
        env: More environment variables for the runtime.
        max_memory_mb: Limit of the runtime's heap, in MiB.
        start_timeout: Seconds until it must serve.
        request_timeout: Seconds a management call may take.
        turn_timeout: Seconds a whole turn may take; ``None`` is no limit.
    """

    data_dir: Path | None = None
    api: Rest | None = None
    openai_compatible: Mapping[str, str] | None = Field(default=None, repr=False)
    env: Mapping[str, str] = Field(default_factory=dict, repr=False)
    max_memory_mb: int = Field(default=1024, ge=128)
    start_timeout: float = Field(default=30.0, gt=0)
    request_timeout: float = Field(default=60.0, gt=0)
    turn_timeout: float | None = Field(default=None, gt=0)

    @field_validator("openai_compatible")
    @classmethod
    def _has_an_address(cls, value: Mapping[str, str] | None) -> Mapping[str, str] | None:
        if value is not None and (
            not value.get("base_url") or value.keys() - {"base_url", "api_key"}
        ):
            raise ValueError("needs 'base_url', may have 'api_key', and nothing else")
        return value


class Remote(Options):
    """A Letta Code App Server someone else runs (``letta server --listen``).

    Args:
        url: ``ws://host:port`` or ``wss://...``. Default: ``LETTA_APP_SERVER_URL``.
        auth_token: Default: ``LETTA_APP_SERVER_TOKEN``.
        connect_timeout: Seconds to reach it.
        request_timeout: Seconds a management call may take.
        turn_timeout: Seconds a whole turn may take; ``None`` is no limit.
        settle_timeout: Seconds to find out, after a lost connection, what became of the turn.
    """

    url: str | None = None
    auth_token: SecretStr | None = None
    connect_timeout: float = Field(default=10.0, gt=0)
    request_timeout: float = Field(default=60.0, gt=0)
    turn_timeout: float | None = Field(default=None, gt=0)
    settle_timeout: float = Field(default=15.0, ge=0)

    @field_validator("url")
    @classmethod
    def _ws_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            good = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
        except ValueError:  # a broken IPv6 address, a port that is no number
            good = False
        if not good:
            raise ValueError("must be a ws:// or wss:// URL")
        return value


BackendSpec = Rest | Local | Remote | Literal["cloud", "local", "remote"]
