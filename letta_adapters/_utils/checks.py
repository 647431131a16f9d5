"""Internal: check ids, keys, header values and URLs before they become part of an address.

No error shows a key or another secret value: it names the field only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from letta_adapters.errors import InvalidInputError

AGENT: Final = ("agent-",)
CONVERSATION: Final = ("conv-", "local-conv-")
# Every id that Letta hands out is made of these characters; none is longer than 80.
_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,199}")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KEY: Final = re.compile(r"[!-~]+")
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?|")
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\#]")
# pydantic's SecretStr becomes this in JSON; it comes from a dump and is no key.
_MASK: Final = re.compile(r"\*+")
MASKED: Final = "*" * 10
# By parts of words, so that an unknown header such as "X-Acme-Token" counts as secret too.
_SECRET_NAME: Final = re.compile(
    r"auth|cookie|credential|passw|secret|session|signature|token|(?<![a-z])key|apikey|_pw\b|dsn",
    re.IGNORECASE,
)


def check_id(value: object, what: str = "an id", prefixes: tuple[str, ...] = ()) -> str:
    """Return ``value`` if it can be an id of Letta's, so that it names one thing and nothing else.

    Args:
        value: The id, from a caller, a stored marker or a server.
        what: The words for it in the error (``"a conversation id"``).
        prefixes: The beginnings of which it must have one; empty for any.

    Raises:
        InvalidInputError: It is no text, has other characters than an id has, or begins
            differently.
    """
    if isinstance(value, str) and _ID.fullmatch(value) and value.startswith(prefixes or ""):
        return value
    example = f" ({prefixes[0]}...)" if prefixes else ""
    # An "id" may be a whole document that somebody passed by mistake.
    shown = repr(value) if len(repr(value)) <= 120 else f"{repr(value)[:117]}..."
    raise InvalidInputError(f"{shown} is not {what}{example}.")


def check_path(path: object) -> str:
    """Return ``path`` if a request for it stays below the address it is appended to.

    Raises:
        InvalidInputError: It does not begin with one ``/``, climbs up (``..``, also encoded), or
            has a control character, a space, a backslash or a fragment.
    """
    if not isinstance(path, str) or not path.startswith("/") or path.startswith("//"):
        raise InvalidInputError(f"{path!r} is not a path: it must begin with one '/'.")
    if _CONTROL.search(path):
        raise InvalidInputError(
            f"{path!r} holds a space, a control character, a backslash or '#'.",
            hint="Quote what stands in the path, and give a query with params=.",
        )
    # A proxy or the server may decode a segment, and decode it once more.
    plain = path.partition("?")[0]
    for _ in range(3):
        plain = unquote(plain)
    if {".", ".."} & set(re.split(r"[/\\]", plain)) or _CONTROL.search(plain.replace(" ", "")):
        raise InvalidInputError(f"{path!r} leaves the place it begins at.")
    return path


def check_method(method: object) -> str:
    """Return an HTTP method in capitals; raise InvalidInputError if it is none."""
    if not isinstance(method, str) or not re.fullmatch(r"[A-Za-z]{1,20}", method):
        raise InvalidInputError(f"{method!r} is not an HTTP method.")
    return method.upper()


def check_key(key: str, name: str) -> str:
    """Return a key or token without the white space around it.

    Raises:
        InvalidInputError: It cannot stand in a header (white space or a line break inside, a
            character beyond ASCII), or is the mask that a dump shows instead of a key.
    """
    key = key.strip()
    if key and not _KEY.fullmatch(key):
        raise InvalidInputError(
            f"{name} holds a character that no key has: white space, a line break, or one beyond "
            "ASCII.",
            hint="Copy the key again; it is one word.",
        )
    if key and _MASK.fullmatch(key):
        raise InvalidInputError(
            f"{name} is the mask of a key (***), as a dump shows it, not the key.",
            hint="Keys are left out of dumps: set the environment variable, or pass the key anew.",
        )
    return key


def check_headers(headers: Mapping[str, str], what: str = "headers") -> Mapping[str, str]:
    """Return ``headers`` if each can be sent; raise InvalidInputError naming one that cannot.

    A value is never shown.
    """
    seen: set[str] = set()
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise InvalidInputError(f"{what}: {name!r} is not the name of a header.")
        # The spelling makes no difference to a server, which would be sent both.
        if name.lower() in seen:
            raise InvalidInputError(f"{what}: {name!r} is given twice, in two spellings.")
        seen.add(name.lower())
        if not _HEADER_VALUE.fullmatch(value):
            raise InvalidInputError(
                f"{what}[{name!r}] holds a line break, white space at its end, or a character "
                "beyond ASCII."
            )
        # Somebody has loaded a dump: sent as it is, it would only fail at the server.
        if value and _MASK.fullmatch(value):
            raise InvalidInputError(f"{what}[{name!r}] is a mask (***), not a value.")
    return headers


def check_url(url: str, schemes: tuple[str, ...], secret: str) -> str:
    """Return ``url`` if it is an address and nothing else: no key, password or query in it.

    Args:
        url: The address of a server.
        schemes: The schemes of which it must have one.
        secret: The option that takes a key, for the error.

    Raises:
        InvalidInputError: It is no such URL. A secret that it holds is not shown.
    """
    url = url.strip()
    kinds = " or ".join(f"{scheme}://" for scheme in schemes)
    article = "an" if kinds.startswith("h") else "a"
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a broken IPv6 address, a port that is no number
        good = False
    if not good or _CONTROL.search(url.partition("#")[0]):
        raise InvalidInputError(f"must be {article} {kinds} URL")
    # An address stands in errors, in logs and in stored objects, where a password must not.
    if parts.username is not None or parts.password is not None:
        raise InvalidInputError(
            f"must hold no user name and no password: an address is shown in errors and logs; "
            f"give the secret as {secret}"
        )
    if parts.query or parts.fragment:
        raise InvalidInputError(
            f"must hold no query and no fragment: an address is shown in errors and logs; give a "
            f"secret as {secret}"
        )
    return url


def names_secret(name: str) -> bool:
    """Return whether a header or a variable of that name holds a secret, judged by the name."""
    return _SECRET_NAME.search(name) is not None


def is_duration(value: object) -> bool:
    """Return whether ``value`` is a number of seconds that something may take."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # NaN and infinity are floats too, and would make a wait that never ends.
    return math.isfinite(value) and value > 0
