"""Internal: the base of all options, and checks that several of them share."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from pydantic import BaseModel, ConfigDict, ValidationError

from letta_adapters.errors import InvalidInputError

_M = TypeVar("_M", bound="Options")
_ReadT = TypeVar("_ReadT", covariant=True)
_GivenT = TypeVar("_GivenT", contravariant=True)

_SESSION: Final = "It is an option of a session: create_session(agent_id, {}=...)."
# Options of the TypeScript SDKs (docs/typescript.md) that are not called the same here, in Python's
# spelling, and what is there instead.
_OTHERS: Final[Mapping[str, str]] = {
    "agent_id": "The agent's id comes first: create_session(agent_id, ...).",
    "api_base_url": "It is called 'base_url' here: Rest(base_url=...).",
    "app_server": "Its settings are those of Local(...).",
    "approval_recovery_timeout_ms": "Each request has request_timeout seconds: Rest(...).",
    "block_id": "Existing blocks are given by their ids: create_agent(block_ids=[...]).",
    "can_use_tool": _SESSION.format("can_use_tool"),
    "conversation_id": "Use resume_session(conversation_id=...).",
    "dreaming": "It is called 'sleeptime' here.",
    "env": "The variables are those of the server: Local(env=...).",
    "environment": "Another machine is reached by its address: Remote(url=...).",
    "fetch": "Give the client an HTTP client of your own: LettaClient(http_client=...).",
    "filesystem_confinement": "Use permission_mode='strict' and can_use_tool.",
    "harness_backend": "It is called 'api' here: Local(api=...).",
    "max_approval_recovery_attempts": "It is called 'recovery_attempts' here.",
    "output_format": "It belongs to the turn: session.run_turn(..., output_schema=...).",
    "reasoning_effort": "It is an option of an agent and of a session, not of a single turn: "
    "create_agent(reasoning_effort=...), create_session(...), session.update_model(...).",
    "resources": "Repositories of Letta's cloud are not supported.",
    "sandbox": "Sandboxes of Letta's cloud are not supported; use Remote(url=...).",
    "startup_timeout_ms": "It is called 'start_timeout' here, in seconds.",
    "tools": _SESSION.format("tools"),
    "url": "A server elsewhere is reached by its address: Remote(url=...).",
    "web_socket": "Give the client a function that connects: LettaClient(connector=...).",
}

#: The default of a field whose declared type is :class:`Accepts`.
NOT_GIVEN: Any = None

if TYPE_CHECKING:

    class Accepts(Generic[_ReadT, _GivenT]):
        """A field that is read as the first type and may be given as the second.

        Pydantic turns a key into a ``SecretStr`` and a path's text into a ``Path``. Type checkers
        know such a thing of descriptors only, so for them the field is one.
        """

        @overload
        def __get__(self, instance: None, owner: Any = None) -> Accepts[_ReadT, _GivenT]: ...
        @overload
        def __get__(self, instance: object, owner: Any = None) -> _ReadT: ...
        def __get__(self, instance: object, owner: Any = None) -> Any: ...
        def __set__(self, instance: object, value: _GivenT) -> None: ...

else:

    class Accepts:
        """The first of two types: the one a field is read as."""

        def __class_getitem__(cls, types: tuple[Any, Any]) -> Any:
            return types[0]


class Options(BaseModel):
    """The base of all options, which refuse unknown names and cannot be changed."""

    # The input is hidden in errors because it may hold a key or a password.
    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    def __init__(self, **data: Any) -> None:
        # Whoever uses this package catches its errors, and need not know that pydantic is behind
        # them.
        try:
            super().__init__(**data)
        except ValidationError as error:
            known = list(type(self).model_fields)
            raise invalid_options(type(self).__name__, error, known) from None


def to_snake_case(name: str) -> str:
    """Return a name of TypeScript's as Python, and the Letta API, spell it."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def did_you_mean(name: str, known: Iterable[str] = ()) -> str:
    """Return a sentence that says what an unknown name may mean; ``""`` if nothing is like it.

    Args:
        name: The name that was given.
        known: The names that could have been given instead.
    """
    names = list(known)
    snake = to_snake_case(name)
    if snake != name and snake in names:
        return f"Did you mean {snake!r}?"
    # Times are milliseconds in TypeScript.
    if snake.endswith("_ms") and snake[:-3] in names:
        return f"Did you mean {snake[:-3]!r}, in seconds?"
    if snake in _OTHERS:
        return _OTHERS[snake]
    near = difflib.get_close_matches(snake, names, n=2, cutoff=0.6)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else ""


def invalid_options(
    what: str, error: ValidationError, known: Iterable[str] = ()
) -> InvalidInputError:
    """Return pydantic's error as an error of this package.

    Args:
        what: The name of the options that are wrong, for the message.
        error: The error that pydantic raised.
        known: The names of all options, to suggest one for a misspelt name.
    """
    problems = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"])
        text = "is not an option" if item["type"] == "extra_forbidden" else item["msg"]
        if item["type"] == "extra_forbidden" and len(item["loc"]) > 1:
            text = f"{text}. {did_you_mean(str(item['loc'][-1]))}".rstrip()
        # An option inside this one has put its own words around the message already.
        text = re.sub(r"^Value error, (Invalid \w+: )?", "", text).rstrip(".")
        problems.append(f"{where}: {text}" if where else text)
    # Only a name that is unknown at the top level can be compared with the names at the top level.
    unknown = [
        str(item["loc"][-1])
        for item in error.errors(include_url=False, include_input=False)
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1
    ]
    hint = did_you_mean(unknown[0], known) if unknown else ""
    return InvalidInputError(f"Invalid {what}: {'; '.join(problems)}.", hint=hint)


def build(cls: type[_M], **kwargs: Any) -> _M:
    """Make options of ``cls``; arguments that are ``None`` count as not given."""
    return cls(**{k: v for k, v in kwargs.items() if v is not None})


def check_directory(value: Path | None) -> Path | None:
    """Return the path unchanged if it can be a directory.

    Raises:
        ValueError: The path is ``~name`` and there is no such user, or it holds a null byte.
    """
    try:
        if value is not None:
            value.expanduser()
            os.fsencode(value)
    except (RuntimeError, UnicodeEncodeError) as error:
        raise ValueError(f"cannot be a directory ({error})") from None
    if value is not None and "\0" in str(value):
        raise ValueError("cannot be a directory (it holds a null byte)")
    return value


def check_sequence(value: Any) -> Any:
    """Refuse one string where several are meant: ``"abc"`` would count as three letters."""
    if isinstance(value, str):
        raise ValueError("must be a list of strings, not one string")
    return value
