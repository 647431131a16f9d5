"""Internal: give a chat model its backend, and keep it through copies, dumps and loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.load.serializable import SerializedConstructor, SerializedNotImplemented
from langchain_core.utils import from_env, secret_from_env
from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from letta_adapters.backends.config import spec_from_data, spec_to_data
from letta_adapters.chat import ChatClients
from letta_adapters.chat.runner import ChatRunner
from letta_adapters.errors import InvalidInputError
from letta_adapters.langchain.errors import langchain_errors
from letta_adapters.options import SessionOptions
from letta_adapters.options_base import Accepts, did_you_mean, invalid_options

_KEY: Final = "LETTA_API_KEY"
# The two fields that name a Letta API for short; a stored model has its backend instead.
_SHORT: Final = {"letta_api_key": "api_key", "letta_base_url": "base_url"}


class BackedChatModel(BaseChatModel):
    """Send a chat model's calls to a Letta backend.

    The backend is the one that the fields name at the time of a call, so it follows every copy and
    every assignment. A dump (``dumps``, ``model_dump``, ``pickle``) has the backend without its
    secrets: they come from the environment where it is loaded, or the load fails and names the
    variable.
    """

    backend: Any = None
    """The backend as `LettaClient` takes it: `Rest(...)`, `Local(...)`, `Remote(...)` or a name."""
    client: Any = Field(default=None, exclude=True)
    """A `LettaClient` (or, for asynchronous use on its own loop, an `AsyncLettaClient`)."""
    letta_api_key: Accepts[SecretStr | None, SecretStr | str | None] = Field(
        alias="api_key", default_factory=cast(Any, secret_from_env(_KEY, default=None))
    )
    """Key of the Letta API. Default: `LETTA_API_KEY`."""
    letta_base_url: str | None = Field(
        alias="base_url", default_factory=from_env("LETTA_BASE_URL", default=None)
    )
    """Address of a Letta API. Default: `LETTA_BASE_URL`."""
    max_retries: int = Field(default=2, ge=0)
    """The number of times a call is made again that was surely not accepted.

    Such a call was refused for a rate limit, or the server could not be reached. A call that may
    have been accepted is never sent again.
    """
    session_options: dict[str, Any] = Field(default_factory=dict)
    """Further options of `create_session`: permission_mode, cwd, skill_sources, ..."""

    _made: tuple[tuple[Any, ...], ChatRunner] | None = PrivateAttr(default=None)

    model_config = ConfigDict(
        populate_by_name=True,
        arbitrary_types_allowed=True,
        extra="forbid",
        # The texts below the fields are their descriptions in schemas and forms.
        use_attribute_docstrings=True,
    )

    def __init__(self, **fields: Any) -> None:
        with langchain_errors():
            check_fields(type(self), fields)
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise invalid_options(type(self).__name__, error) from None
            # Settings that cannot work fail here and not at the first call. No I/O.
            self._check()

    @model_validator(mode="before")
    @classmethod
    def _read_backend(cls, data: Any) -> Any:
        """Read a stored backend, and drop environment defaults that would name a second one."""
        if not isinstance(data, Mapping):
            return data
        fields = dict(data)
        if isinstance(fields.get("backend"), Mapping):
            # LangChain's loader passes a key it was given on as a field, so it is moved into the
            # backend.
            key = fields.pop("letta_api_key", None) or fields.pop("api_key", None)
            given = {} if key is None else {_KEY: SecretStr.get_secret_value(_to_secret(key))}
            fields["backend"] = spec_from_data(fields["backend"], given)
        if fields.get("backend") is not None or fields.get("client") is not None:
            # The loader fills these fields from the environment too. Equal to that, they were not
            # chosen by anybody and would clash with the backend that was.
            for name, alias in _SHORT.items():
                factory: Any = cls.model_fields[name].default_factory
                own = factory()
                for key in (name, alias):
                    if fields.get(key, ...) == own:
                        del fields[key]
        return fields

    @property
    def _runner(self) -> ChatRunner:
        """Return the runner for the backend that the fields name now."""
        # Made anew whenever a field differs: LangChain copies models and changes fields of the
        # copies.
        named = self.model_fields_set
        given = (
            self.backend,
            self.client,
            # Values that come from the environment are looked up there by the client, and only if
            # the fields name no backend.
            self.letta_api_key if "letta_api_key" in named else None,
            self.letta_base_url if "letta_base_url" in named else None,
            self.max_retries,
        )
        made = self._made  # once, as pydantic's way to a private attribute is a long one
        if made is None or made[0] != given:
            backend, client, api_key, base_url, retries = given
            clients = ChatClients(
                backend=backend, client=client, api_key=api_key, base_url=base_url
            )
            self._made = made = given, ChatRunner(clients, retries)
        return made[1]

    @property
    def _session(self) -> SessionOptions:
        return SessionOptions(**self.session_options)

    def _check(self) -> None:
        """Raise for fields that do not go together."""
        _ = self._runner, self._session

    # -- copies -----------------------------------------------------------------------------

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy of the model; ``update`` are fields, checked as the constructor's are.

        Args:
            update: Fields and their new values.
            deep: Copy the values of the other fields, too.

        Raises:
            InvalidInputError: A field is unknown, a value bad, or two fields name a backend.
        """
        if not update:
            return super().model_copy(deep=deep)
        checked = type(self)(**dict(update))
        values = {name: getattr(checked, name) for name in checked.model_fields_set}
        with langchain_errors():
            copied = super().model_copy(update=values, deep=deep)
            copied._check()
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # A client is a connection: the copy uses the same one.
        shared = {id(item): item for item in (self.client, self._made) if item is not None}
        return super().__deepcopy__({**(memo or {}), **shared})

    # -- dumps and loads --------------------------------------------------------------------

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Return the variable that the key comes from when the model is loaded again."""
        return {"letta_api_key": _KEY, "api_key": _KEY}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return true: the model can be dumped and loaded. Its key never is dumped."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Return the module that the class is loaded from."""
        return ["letta_adapters", "langchain"]

    def _dump_backend(self) -> dict[str, Any] | None:
        """Return the backend as data; ``None`` if the environment decides."""
        clients = self._runner.clients
        return spec_to_data(clients.spec) if clients.named else None

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """Return the model as ``langchain_core.load.dumps`` writes it."""
        try:
            place = self._dump_backend()
        except InvalidInputError:  # a secret that nothing stands for: it can be traced, not loaded
            return self.to_json_not_implemented()
        made = cast("SerializedConstructor", super().to_json())
        kwargs = {k: v for k, v in made["kwargs"].items() if k not in _ABOUT_THE_PLACE}
        if place is not None:
            kwargs["backend"] = place
            # LangChain's loader knows this form of a secret and asks for its value.
            if any(variable == _KEY for _, variable in place.get("withheld", ())):
                kwargs["letta_api_key"] = {"lc": 1, "type": "secret", "id": [_KEY]}
        made["kwargs"] = kwargs
        return made

    @model_serializer(mode="wrap")
    def _dump_with_backend(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write the backend as data, without secrets, in the place of the fields that name it."""
        values: dict[str, Any] = handler(self)
        if "backend" in values:
            values = {k: v for k, v in values.items() if k not in _ABOUT_THE_PLACE}
            values["backend"] = self._dump_backend()
        return values

    def __getstate__(self) -> dict[Any, Any]:
        clients = self._runner.clients
        state = super().__getstate__()
        place = dict.fromkeys(_SHORT) | {"client": None}
        # The backend keeps its own secrets out of a pickle.
        place["backend"] = clients.spec if clients.named else None
        named = set(state["__pydantic_fields_set__"]) - place.keys() | {"backend"}
        return {
            **state,
            "__dict__": {**state["__dict__"], **place},
            "__pydantic_fields_set__": named,
            "__pydantic_private__": {**(state["__pydantic_private__"] or {}), "_made": None},
        }


_ABOUT_THE_PLACE: Final = frozenset({"backend", "client", *_SHORT, *_SHORT.values()})


def check_fields(cls: type[BaseChatModel], fields: Mapping[str, Any]) -> None:
    """Refuse fields that the model does not have.

    Args:
        cls: The class of the model.
        fields: The fields, by name or alias.

    Raises:
        InvalidInputError: The error names the field, and the one that may be meant.
    """
    known = set(cls.model_fields)
    for about in cls.model_fields.values():
        known |= {name for name in (about.alias, about.validation_alias) if isinstance(name, str)}
    for name in fields:
        if name not in known:
            raise InvalidInputError(
                f"{cls.__name__} has no field {name!r}.", hint=did_you_mean(name, known)
            )


def _to_secret(value: Any) -> SecretStr:
    return value if isinstance(value, SecretStr) else SecretStr(str(value))
