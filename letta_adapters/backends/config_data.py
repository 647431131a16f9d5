"""``Rest``, ``Local`` and ``Remote`` as JSON data and back, for objects that frameworks store.

The data holds no secret. Each withheld secret is named with the environment variable that stands
for it, from which it is read when the data is loaded.

Internal: not part of the public API.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from letta_adapters.backends.config import Local, Remote, Rest
from letta_adapters.errors import ConfigurationError, InvalidInputError

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
