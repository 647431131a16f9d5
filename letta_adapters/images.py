"""Images from the internet, fetched by this process for a model that cannot fetch them itself.

Letta Code drops an image that is given by its URL without a word (``letta`` 0.34.12). The bytes
are fetched here, within limits: http and https only, no more than ``MAX_IMAGE_BYTES``, a time limit
over all, and, as the URL may come from anywhere, public addresses only. Every redirect is checked
again, and the connection goes to the very address that was checked (a name that changes its address
in between gains nothing). Nothing of this process's is sent along: no key, no cookie, no proxy.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import ipaddress
import socket
import ssl
import time
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from letta_adapters.content import MAX_IMAGE_BYTES, ImageContent, image_from_bytes, image_from_url
from letta_adapters.errors import InvalidInputError

SECONDS: Final = 20.0
# The text that Letta Code puts in the place of an image that the model cannot see.
OMITTED: Final = "image omitted: model does not support images"
_REDIRECTS: Final = 3
_CHUNK: Final = 65536
_PORTS: Final = {"http": 80, "https": 443}
# IPv6 addresses that lead to the IPv4 one in their last four bytes (by a gateway, RFC 6052).
_TRANSLATED: Final = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96")))
# Those of a gateway's own network (RFC 8215), which older versions of Python take for public ones.
_TRANSLATED_HERE: Final = ipaddress.IPv6Network("64:ff9b:1::/48")


def fetch_image(url: str, *, allow_private: bool = False, seconds: float = SECONDS) -> ImageContent:
    """Fetch an image and return it with its bytes.

    Args:
        url: An http(s) URL, or a ``data:`` URL, which is only decoded.
        allow_private: Also fetch from this machine and private networks. Only for URLs of your own.
        seconds: The time limit for all of it.

    Raises:
        InvalidInputError: It cannot be fetched, or is no image; the text never holds the URL's
            query.
    """
    given = image_from_url(url)
    if given.url is None:
        return given
    until = time.monotonic() + seconds
    for _ in range(_REDIRECTS + 1):
        found = _get(url, allow_private, until)
        if isinstance(found, bytes):
            return image_from_bytes(found)
        try:
            url = urljoin(url, found)
        except ValueError as error:  # a broken IPv6 address
            raise _explain_failure(url, "it redirects to no address") from error
        image_from_url(url)  # http(s) again, and well-formed
    raise _explain_failure(url, f"it redirects more than {_REDIRECTS} times")


def has_images(content: Any) -> bool:
    """Return whether a message (in wire parts) shows an image."""
    return isinstance(content, list) and any(part.get("type") == "image" for part in content)


async def with_bytes(content: Any) -> Any:
    """Return a message (in wire parts) with the bytes of all images, fetched where they are URLs.

    Raises:
        InvalidInputError: An image cannot be fetched; see :func:`fetch_image`.
    """
    if not has_images(content):
        return content
    return await asyncio.gather(*(_with_bytes(part) for part in content))


async def _with_bytes(part: dict[str, Any]) -> dict[str, Any]:
    source = part.get("source")
    if part.get("type") != "image" or not isinstance(source, dict) or source.get("type") != "url":
        return part
    # In a thread, because Python's own HTTP client blocks.
    return (await asyncio.to_thread(fetch_image, str(source.get("url")))).to_wire()


def _explain_failure(url: str, why: str) -> InvalidInputError:
    # Without the query, which may hold a key, as signed URLs do.
    parts = urlsplit(url)
    return InvalidInputError(
        f"The image at {parts.scheme}://{parts.hostname}{parts.path} cannot be fetched: {why}.",
        hint="Fetch it yourself and use image_from_bytes(data).",
        accepted=False,
    )


def _get(url: str, allow_private: bool, until: float) -> bytes | str:
    """Return the body, or the address that it redirects to."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or parts.username is not None:
        raise _explain_failure(url, "only http and https without a password are fetched")
    try:
        port = parts.port or _PORTS[parts.scheme]
        connection = _connect(url, port, allow_private, until)
        try:
            path = parts.path or "/"
            connection.request(
                "GET",
                f"{path}?{parts.query}" if parts.query else path,
                headers={"Accept": "image/*", "User-Agent": "letta-adapters"},
            )
            with connection.getresponse() as response:
                return _read(url, response, until)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise _explain_failure(url, f"{type(error).__name__}: {error}".rstrip(". ")) from error


def _connect(url: str, port: int, allow_private: bool, until: float) -> http.client.HTTPConnection:
    """Connect to an address that was checked."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    # Only the first address is used: a name with a public and a private one gets no second try.
    for *_, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        if not allow_private and not _is_public(address):
            raise _explain_failure(url, f"{address} is not a public address")
        # To the checked number, not to the name: that might lead elsewhere when it is looked up
        # again.
        raw = socket.create_connection((str(where[0]), port), timeout=_left(url, until))
        connection = http.client.HTTPConnection(host, port)
        sock = raw
        if parts.scheme == "https":
            context = ssl.create_default_context()
            try:
                raw.settimeout(_left(url, until))
                sock = context.wrap_socket(raw, server_hostname=host)
            except (OSError, InvalidInputError):
                raw.close()
                raise
        timed: Any = _TimedSocket(sock, url, until)
        connection.sock = timed
        return connection
    raise _explain_failure(url, "its host has no address")


class _TimedSocket:
    """A socket as an HTTP connection uses it, with one time limit over all that it does.

    A socket's own limit is one for each read: a server that sends a byte now and then, of its
    headers too, would hold this up for as long as it likes.
    """

    def __init__(self, sock: socket.socket, url: str, until: float) -> None:
        self._sock, self._url, self._until = sock, url, until

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._url, self._until))
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, self._url, self._until))

    def close(self) -> None:
        self._sock.close()


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, url: str, until: float) -> None:
        self._sock, self._url, self._until = sock, url, until
        # Python's own reader, which keeps the socket open until it is closed itself.
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._url, self._until))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # An IPv4 address may be written inside an IPv6 one; its own range is the one that counts.
    inside = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if address in _TRANSLATED_HERE:
        return False
    if inside is None and any(address in net for net in _TRANSLATED):
        inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return _is_public(inside) if inside else address.is_global and not address.is_multicast


def _left(url: str, until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise _explain_failure(url, "it takes too long")
    return left


def _read(url: str, response: http.client.HTTPResponse, until: float) -> bytes | str:
    if response.status in (301, 302, 303, 307, 308) and response.headers.get("Location"):
        return str(response.headers["Location"])
    if response.status != 200:
        raise _explain_failure(url, f"the server answered {response.status}")
    kind = response.headers.get_content_type()
    # An error page with status 200 is no image; some stores declare images as plain bytes.
    if not kind.startswith("image/") and kind != "application/octet-stream":
        raise _explain_failure(url, f"it is {kind}, not an image")
    body = b""
    while True:
        chunk = response.read1(_CHUNK)
        if not chunk:
            # Half of a picture has the first bytes of a whole one.
            if response.length:
                raise _explain_failure(url, "the connection was lost in the middle of it")
            return body
        _left(url, until)
        body += chunk
        if len(body) > MAX_IMAGE_BYTES:
            raise _explain_failure(url, f"it is larger than {MAX_IMAGE_BYTES // 2**20} MB")
