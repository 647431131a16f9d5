"""The backends an application can choose: :class:`Rest`, :class:`Local` and :class:`Remote`.

``Rest`` is the Letta API, ``Local`` is Letta Code on this machine, and ``Remote`` is Letta Code
that somebody else runs. :func:`spec_to_data` and :func:`spec_from_data` turn one into JSON data and
back, for objects that frameworks store. The data holds no secret: each withheld secret is named
with the environment variable that stands for it, from which it is read when the data is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

from pydantic import Field, SecretStr, field_serializer, field_validator

from letta_adapters._utils.checks import (
    MASKED,
    check_headers,
    check_key,
    check_url,
    names_secret,
)
from letta_adapters.backends.runtime.passed_variables import check_name
from letta_adapters.errors import ConfigurationError, InvalidInputError
from letta_adapters.options_base import NOT_GIVEN, Accepts, Options, check_directory

CLOUD_URL = "https://api.letta.com"

_T = TypeVar("_T")
_Names = TypeVar("_Names", Mapping[str, str], tuple[str, ...])


class Place(Options):
    """Base of ``Rest``, ``Local`` and ``Remote`` that keeps their secrets in this process.

    A pickle, which is how a job reaches a worker process, holds no secret. Where it is loaded, each
    withheld secret is taken from the environment variable that stands for it. If that variable is
    not set, loading fails with an error that names it.
    """

    def _secrets(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the path of each secret that is set, and the variable that replaces it."""
        yield from ()

    def __getstate__(self) -> dict[Any, Any]:
        # The secrets first: one that nothing can stand for makes the pickling fail.
        state, withheld = super().__getstate__(), list(self._secrets())
        # The instance is shared with whoever goes on using it here, so its own values stay.
        values = dict(state["__dict__"])
        for (field, *key), _ in withheld:
            rest = {k: v for k, v in values[field].items() if k not in key} if key else None
            values[field] = rest
        return {**state, "__dict__": values, "withheld": withheld}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        withheld = state.pop("withheld", ())
        super().__setstate__(state)
        for (field, *key), variable in withheld:
            value = os.environ.get(variable, "").strip()
            if not value:
                raise ConfigurationError(
                    f"{type(self).__name__} was made with a secret ({'.'.join([field, *key])}), "
                    f"which does not travel to another process, and {variable} is not set here.",
                    hint=f"Set {variable} where it is loaded.",
                )
            # Without the validators, and although the class is frozen: the value was valid where it
            # was made.
            old = self.__dict__[field]
            self.__dict__[field] = {**old, key[0]: value} if key else SecretStr(value)


def _without_secrets(values: Mapping[str, str]) -> dict[str, str]:
    return {k: MASKED if v and names_secret(k) else v for k, v in values.items()}


class Rest(Place):
    """The Letta API over HTTP: Letta Cloud, or a server of one's own.

    ::

        LettaClient(Rest(base_url="https://letta.example.org", api_key="..."))

    Args:
        base_url: The address of the API. Default: ``LETTA_BASE_URL``, else Letta Cloud.
        api_key: Sent as a bearer token. Default: ``LETTA_API_KEY``; ``""`` means none.
        project: Letta Cloud project (the ``X-Project-Id`` header).
        headers: Sent with every request (``{"user_id": "user-..."}`` on a server of one's own).
            Each takes the place of what would be sent under this name, in whatever spelling:
            ``Authorization`` that of ``api_key``. A header of an injected ``http_client`` counts
            where no option names it, and before ``LETTA_API_KEY``.
        connect_timeout: Seconds to reach the server.
        request_timeout: Seconds a read or a management call may take.
        idle_timeout: Seconds of silence in a stream. The server pings every 20 s, so this must be
            longer than that.
        turn_timeout: Seconds a whole turn may take; ``None`` is no limit.
        background: Run turns as background runs, whose stream can be resumed after the connection
            was lost. Needs Redis on the server. ``None``: on Letta Cloud only.
        settle_timeout: Seconds to find out, after a lost connection, what became of the turn.
        max_connections: Connections in use at once, at least 2; ``None`` is no limit. One is kept
            from the turns, so that they can be aborted. What finds none free waits: a turn for
            ``idle_timeout`` seconds, another request for ``request_timeout`` seconds.
        max_keepalive_connections: Connections that are kept open while nobody uses them; ``None``
            is as many as were in use during the last ``keepalive_expiry`` seconds.
        keepalive_expiry: Seconds that an unused one is kept; then it is closed. ``None`` is no
            limit. Servers close them too, often after 5 seconds.
    """

    base_url: str | None = None
    api_key: Accepts[SecretStr | None, SecretStr | str | None] = NOT_GIVEN
    project: str | None = None
    headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    connect_timeout: float = Field(default=10.0, gt=0)
    request_timeout: float = Field(default=60.0, gt=0)
    idle_timeout: float = Field(default=90.0, gt=0)
    turn_timeout: float | None = Field(default=None, gt=0)
    background: bool | None = None
    settle_timeout: float = Field(default=15.0, ge=0)
    max_connections: int | None = Field(default=None, ge=2)
    max_keepalive_connections: int | None = Field(default=None, ge=0)
    keepalive_expiry: float | None = Field(default=5.0, ge=0)

    @field_validator("base_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = check_url(value, ("http", "https"), "api_key= or in headers=")
        # With or without the version: the paths of requests begin with "/v1" themselves.
        return url.rstrip("/").removesuffix("/v1")

    @field_validator("api_key")
    @classmethod
    def _one_word(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(check_key(value.get_secret_value(), "it"))

    @field_validator("project")
    @classmethod
    def _project(cls, value: str | None) -> str | None:
        # It travels as a header, and so must be possible as one.
        check_headers({"X-Project-Id": value or ""}, "sent")
        return value

    @field_validator("headers")
    @classmethod
    def _sendable(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return check_headers(value, "sent")

    @field_serializer("headers", when_used="json")
    def _without_secrets(self, value: Mapping[str, str]) -> dict[str, str]:
        return _without_secrets(value)

    def _secrets(self) -> Iterator[tuple[tuple[str, ...], str]]:
        # An empty key says that no key is wanted; that is no secret.
        if self.api_key is not None and self.api_key.get_secret_value():
            yield ("api_key",), "LETTA_API_KEY"
        for name in self.headers:
            # Without the header requests would be made as somebody else, or be refused.
            if names_secret(name):
                raise InvalidInputError(
                    f"Rest holds the header {name!r}, whose value does not travel to another "
                    "process, and no environment variable stands for it.",
                    hint="Use api_key= (LETTA_API_KEY), or make the backend where it is used.",
                )


class Local(Place):
    """Letta Code on this machine, started and stopped by this package (the default backend).

    It needs ``pip install "letta-adapters[local]"`` and the ``git`` command::

        with LettaClient(Local(data_dir="state")) as client:
            ...

    Args:
        data_dir: A home of its own for all state, settings and transcripts. Default: the user's
            normal Letta state, so that agents made here appear in the ``letta`` command.
        api: Run agents that live on this Letta API instead of this machine.
        openai_compatible: ``{"base_url": ..., "api_key": ...}`` of a model server; its models are
            then ``lmstudio/<id>``. Models of the big providers need only their key in the
            environment.
        env: More environment variables for the runtime and all that it starts, the agent's shell
            included. The runtime gets no others than those listed in docs/environment.md.
        inherit_env: Names of variables of this process to pass on as well; those that are not set
            are left out.
        max_memory_mb: Limit of the runtime's heap, in MiB. The runtime keeps about 0.13 MiB of
            every conversation until it ends.
        recycle_at: The share of that heap which conversations may fill before the runtime is
            exchanged for a new one, between turns.
        start_timeout: Seconds the runtime may take to start.
        keep_running: Seconds the runtime stays when the last process that uses it has left, so
            that the next one need not start it. With 0 nothing is left running.
        request_timeout: Seconds a management call may take.
        turn_timeout: Seconds a whole turn may take; ``None`` is no limit.
    """

    data_dir: Accepts[Path | None, str | os.PathLike[str] | None] = NOT_GIVEN
    api: Rest | None = None
    openai_compatible: Mapping[str, str] | None = Field(default=None, repr=False)
    env: Mapping[str, str] = Field(default_factory=dict, repr=False)
    inherit_env: Accepts[tuple[str, ...], Sequence[str]] = Field(default=cast(Any, ()))
    max_memory_mb: int = Field(default=1024, ge=128)
    start_timeout: float = Field(default=30.0, gt=0)
    recycle_at: float = Field(default=0.75, gt=0, le=1)
    keep_running: float = Field(default=0.0, ge=0, le=86_400)
    request_timeout: float = Field(default=60.0, gt=0)
    turn_timeout: float | None = Field(default=None, gt=0)

    @field_validator("env", "inherit_env")
    @classmethod
    def _may_be_given(cls, value: _Names) -> _Names:
        for name in value:
            check_name(name)
        if isinstance(value, Mapping):
            for name, text in value.items():
                # The operating system cannot pass one on, and would say so only when the runtime is
                # started.
                if "\0" in text:
                    raise ValueError(f"the value of {name} has a NUL character in it")
        return value

    @field_validator("inherit_env", mode="before")
    @classmethod
    def _not_one_text(cls, value: object) -> object:
        if isinstance(value, str):  # a tuple of its letters otherwise
            raise ValueError("must be a list of names, such as ['SSH_AUTH_SOCK']")
        return value

    @field_validator("data_dir")
    @classmethod
    def _directory(cls, value: Path | None) -> Path | None:
        return check_directory(value)

    @field_validator("openai_compatible")
    @classmethod
    def _has_an_address(cls, value: Mapping[str, str] | None) -> Mapping[str, str] | None:
        if value is not None and (
            not value.get("base_url") or value.keys() - {"base_url", "api_key"}
        ):
            raise ValueError("needs 'base_url', may have 'api_key', and nothing else")
        if value is not None:
            check_url(value["base_url"], ("http", "https"), "openai_compatible['api_key']")
            check_key(value.get("api_key", ""), "api_key")
        return value

    @field_serializer("env", "openai_compatible", when_used="json")
    def _without_secrets(self, value: Mapping[str, str] | None) -> dict[str, str] | None:
        return None if value is None else _without_secrets(value)

    def _secrets(self) -> Iterator[tuple[tuple[str, ...], str]]:
        for name in self.env:
            if names_secret(name):
                yield ("env", name), name
        if (self.openai_compatible or {}).get("api_key"):
            # The runtime's own variable for the key of a model server.
            yield ("openai_compatible", "api_key"), "LMSTUDIO_API_KEY"


class Remote(Place):
    """A Letta Code App Server that somebody else runs (``letta server --listen``).

    ::

        LettaClient(Remote(url="ws://host:4500", auth_token="..."))

    Args:
        url: ``ws://host:port`` or ``wss://...``. Default: ``LETTA_APP_SERVER_URL``.
        auth_token: The server's token. Default: ``LETTA_APP_SERVER_TOKEN``.
        connect_timeout: Seconds to reach the server.
        request_timeout: Seconds a management call may take.
        turn_timeout: Seconds a whole turn may take; ``None`` is no limit.
        settle_timeout: Seconds to find out, after a lost connection, what became of the turn.
    """

    url: str | None = None
    auth_token: Accepts[SecretStr | None, SecretStr | str | None] = NOT_GIVEN
    connect_timeout: float = Field(default=10.0, gt=0)
    request_timeout: float = Field(default=60.0, gt=0)
    turn_timeout: float | None = Field(default=None, gt=0)
    settle_timeout: float = Field(default=15.0, ge=0)

    @field_validator("url")
    @classmethod
    def _ws_url(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value, ("ws", "wss"), "auth_token=")

    @field_validator("auth_token")
    @classmethod
    def _one_word(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(check_key(value.get_secret_value(), "it"))

    def _secrets(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if self.auth_token is not None and self.auth_token.get_secret_value():
            yield ("auth_token",), "LETTA_APP_SERVER_TOKEN"


def api_address(rest: Rest) -> tuple[str, str]:
    """Return the address of a Letta API and its key, from the options or from the environment.

    The key is ``""`` if there is none.

    Raises:
        InvalidInputError: ``LETTA_BASE_URL`` or ``LETTA_API_KEY`` holds something that it cannot
            be.
    """
    url = rest.base_url or _variable("LETTA_BASE_URL", lambda text: Rest(base_url=text).base_url)
    # An empty key that was given wins over the environment: it says that no key is wanted.
    if rest.api_key is not None:
        return url or CLOUD_URL, rest.api_key.get_secret_value()
    key = _variable("LETTA_API_KEY", lambda text: check_key(text, "It"))
    return url or CLOUD_URL, key or ""


def app_server_address(remote: Remote) -> tuple[str, str]:
    """Return the URL of an App Server and its token (``""`` if there is none).

    Raises:
        ConfigurationError: No server is named, neither by an option nor in the environment.
        InvalidInputError: A variable holds something that it cannot be.
    """
    url = remote.url or _variable("LETTA_APP_SERVER_URL", lambda text: Remote(url=text).url)
    if not url:
        raise ConfigurationError(
            "No App Server is named.",
            hint="Set LETTA_APP_SERVER_URL, or pass Remote(url='ws://host:port').",
        )
    if remote.auth_token is not None:
        return url, remote.auth_token.get_secret_value()
    return url, _variable("LETTA_APP_SERVER_TOKEN", lambda text: check_key(text, "It")) or ""


def _variable(name: str, check: Callable[[str], _T]) -> _T | None:
    """Return the result of ``check`` for an environment variable; ``None`` if it is not set."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        return check(text)
    except InvalidInputError as error:
        # The check knows nothing of the variable, which is what the user has to change.
        raise InvalidInputError(
            f"The environment variable {name} is of no use. {error.message}", hint=error.hint
        ) from None


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """The state of the embedded runtime, which all processes of one state directory share.

    Args:
        pid: The id of its process.
        version: The version of Letta Code.
        started_at: The time it was started (UTC).
        clients: The number of processes that use it.
        heap_mb: The size of its heap without garbage, in MiB. If it is asked for often, the value
            may be a moment old.
        heap_limit_mb: ``Local(max_memory_mb=...)`` of the process that started it.
        recycle_at_mb: The size of the heap at which it is exchanged for a new runtime, between
            turns.
        recycling: True while that exchange is under way.
        memory_mb: All memory of the process, in MiB.
    """

    pid: int
    version: str
    started_at: datetime
    clients: int
    heap_mb: float
    heap_limit_mb: float
    recycle_at_mb: float
    recycling: bool
    memory_mb: float


BackendSpec = Rest | Local | Remote | Literal["cloud", "local", "remote"]

_KINDS: Final[Mapping[str, type[Rest | Local | Remote]]] = {
    "rest": Rest,
    "local": Local,
    "remote": Remote,
}
_KIND: Final = "kind"
_WITHHELD: Final = "withheld"


def spec_to_data(spec: Rest | Local | Remote) -> dict[str, Any]:
    """Return a backend's configuration as JSON data: all that was set except its secrets.

    Raises:
        InvalidInputError: It holds a secret that no environment variable stands for.
    """
    kind = next(name for name, cls in _KINDS.items() if isinstance(spec, cls))
    # Only what was set, so that a later version's defaults apply where it is loaded.
    values: dict[str, Any] = spec.model_dump(mode="json", exclude_unset=True)
    withheld: list[list[Any]] = []
    for (field, *keys), variable in spec._secrets():
        withheld.append([[field, *keys], variable])
        if keys:
            values[field].pop(keys[0], None)
        else:
            values.pop(field, None)
    # A backend inside a backend withholds its own secrets.
    if isinstance(spec, Local) and spec.api is not None:
        values["api"] = spec_to_data(spec.api)
    return {_KIND: kind, **values, **({_WITHHELD: withheld} if withheld else {})}


def spec_from_data(
    data: Mapping[str, Any], secrets: Mapping[str, str] | None = None
) -> Rest | Local | Remote:
    """Return the configuration that :func:`spec_to_data` made this data from.

    Args:
        data: The data.
        secrets: Values by the name of their environment variable, which win over it.

    Raises:
        ConfigurationError: A secret was withheld and its variable, which is named, is not set.
        InvalidInputError: The data is not that of a backend.
    """
    values = dict(data)
    cls = _KINDS.get(str(values.pop(_KIND, "")))
    if cls is None:
        raise InvalidInputError(
            f"A backend's data needs {_KIND!r}: {', '.join(_KINDS)}.",
            hint="Pass Rest(...), Local(...) or Remote(...).",
        )
    withheld = values.pop(_WITHHELD, ())
    if isinstance(values.get("api"), Mapping):
        values["api"] = spec_from_data(values["api"], secrets)
    for (field, *keys), variable in withheld:
        # A framework may carry secrets beside the data; they are more specific than the
        # environment.
        value = (secrets or {}).get(variable) or os.environ.get(variable, "").strip()
        if not value:
            raise ConfigurationError(
                f"This {cls.__name__} backend was stored without its secret "
                f"({'.'.join([field, *keys])}), and {variable} is not set here.",
                hint=f"Set {variable} where it is loaded.",
            )
        values[field] = {**values.get(field, {}), keys[0]: value} if keys else value
    return cls(**values)
