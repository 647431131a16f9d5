"""The content of a message: text and images.

Wire shapes: Letta API, as observed on 0.16.8; Letta Code's App Server takes the same base64 parts.
Everything is checked here, before any I/O, because the API does not check: a bad image would be
stored in the conversation and fail at the model, in this turn and in every later one.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import unquote_to_bytes, urlsplit

from letta_adapters.errors import InvalidInputError

#: The largest image, in bytes before base64.
MAX_IMAGE_BYTES = 20 * 1024 * 1024

ImageDetail: TypeAlias = Literal["low", "high", "auto"]
_DETAILS = get_args(ImageDetail)
_KINDS = "a PNG, JPEG, GIF or WebP image"
_OPENAI_IMAGES = frozenset({"image_url", "input_image"})


@dataclass(frozen=True)
class TextContent:
    """A piece of text."""

    type: Literal["text"] = field(default="text", kw_only=True, repr=False)
    text: str

    def to_wire(self) -> dict[str, Any]:
        """Return ``{"type": "text", "text": ...}``.

        Raises:
            InvalidInputError: The text is empty.
        """
        return {"type": "text", "text": _check_text(self.text)}


@dataclass(frozen=True, repr=False)
class ImageContent:
    """An image: base64 ``data`` with its ``media_type``, or an http(s) ``url``, but not both.

    It is more easily made with :func:`image_from_file`, :func:`image_from_bytes` or
    :func:`image_from_url`. ``media_type`` is filled in from the bytes when left out. ``detail``
    (``low``, ``high``, ``auto``) exists for ``data`` only: the API has no such field for a URL,
    which the *server* fetches.

    Raises:
        InvalidInputError: The model could not see it.
    """

    type: Literal["image"] = field(default="image", kw_only=True, repr=False)
    data: str | None = None
    media_type: str | None = None
    url: str | None = None
    detail: ImageDetail | None = None

    def __post_init__(self) -> None:
        if self.detail is not None and self.detail not in _DETAILS:
            raise InvalidInputError(
                f"Unknown image detail {self.detail!r}.", hint=f"Use one of {', '.join(_DETAILS)}."
            )
        # Both would be ambiguous, and neither shows anything.
        if (self.data is None) == (self.url is None):
            raise InvalidInputError(
                "An image needs exactly one of data and url.",
                hint="Use image_from_file(), image_from_bytes() or image_from_url().",
            )
        if self.data is None:
            self._check_url()
            return
        # Decoded and encoded anew, so that white space inside does not reach the server.
        raw = _decode_base64(self.data)
        object.__setattr__(self, "media_type", _check_media_type(raw, self.media_type))
        object.__setattr__(self, "data", base64.b64encode(raw).decode("ascii"))

    def _check_url(self) -> None:
        if self.detail is not None or self.media_type is not None:
            raise InvalidInputError(
                "An image URL takes neither detail nor media_type: the server fetches it.",
                hint="Download it and use image_from_bytes(), or leave them out.",
            )
        _check_url(self.url)

    def __repr__(self) -> str:
        detail = "" if self.detail is None else f", detail={self.detail!r}"
        if self.data is not None:
            size = len(self.data) * 3 // 4 - self.data[-2:].count("=")
            return f"ImageContent(media_type={self.media_type!r}, <{size} bytes>{detail})"
        # A repr ends up in logs: no megabytes of base64, and no key.
        shown, query, _ = str(self.url).partition("?")  # signed URLs carry keys in the query
        return f"ImageContent(url={shown + ('?...' if query else '')!r})"

    def to_wire(self) -> dict[str, Any]:
        """Return ``{"type": "image", "source": {...}}``."""
        if self.data is None:
            return {"type": "image", "source": {"type": "url", "url": self.url}}
        source = {"type": "base64", "media_type": self.media_type, "data": self.data}
        if self.detail is not None:
            source["detail"] = self.detail
        return {"type": "image", "source": source}


ContentPart: TypeAlias = str | TextContent | ImageContent | Mapping[str, Any]
MessageContent: TypeAlias = ContentPart | Sequence[ContentPart]


def image_from_bytes(
    data: bytes, *, media_type: str | None = None, detail: ImageDetail | None = None
) -> ImageContent:
    """Make an image from the bytes of its file.

    ::

        session.send(["What is on this picture?", image_from_bytes(response.content)])

    Args:
        data: A PNG, JPEG, GIF or WebP file, at most ``MAX_IMAGE_BYTES`` long.
        media_type: Found in the bytes if left out; a declared one must agree with them.
        detail: ``"low"``, ``"high"`` or ``"auto"``: how closely the model looks.

    Raises:
        InvalidInputError: It is no such image, or too large.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InvalidInputError(
            f"image_from_bytes() got {type(data).__name__}, not bytes.",
            hint="Use image_from_file(path) for a file, image_from_url(url) for a URL.",
        )
    raw = bytes(data)
    _check_size(len(raw))
    return ImageContent(
        data=base64.b64encode(raw).decode("ascii"), media_type=media_type, detail=detail
    )


def image_from_base64(
    data: str, *, media_type: str | None = None, detail: ImageDetail | None = None
) -> ImageContent:
    """Make an image from base64, as browsers and other chat APIs hand it over.

    ::

        session.send(["What is on this picture?", image_from_base64(upload["data"])])

    Args:
        data: The base64 of a PNG, JPEG, GIF or WebP file of at most ``MAX_IMAGE_BYTES``; white
            space in it does not matter.
        media_type: Found in the bytes if left out; a declared one must agree with them.
        detail: ``"low"``, ``"high"`` or ``"auto"``: how closely the model looks.

    Raises:
        InvalidInputError: It is no base64, no such image, or too large.
    """
    if not isinstance(data, str):
        raise InvalidInputError(
            f"image_from_base64() got {type(data).__name__}, not a string.",
            hint="Use image_from_bytes(data) for bytes.",
        )
    if data[:5].lower() == "data:":
        raise InvalidInputError(
            "image_from_base64() got a data: URL, not base64 alone.",
            hint="Use image_from_url(url), which takes data: URLs.",
        )
    return ImageContent(data=data, media_type=media_type, detail=detail)


def image_from_file(
    path: str | os.PathLike[str],
    *,
    media_type: str | None = None,
    detail: ImageDetail | None = None,
) -> ImageContent:
    """Make an image from a file, which is read now; the suffix of its name does not matter.

    ::

        session.send(["What is on this picture?", image_from_file("cat.png")])

    Args:
        path: The file: PNG, JPEG, GIF or WebP, at most ``MAX_IMAGE_BYTES`` long.
        media_type: Found in the bytes if left out; a declared one must agree with them.
        detail: ``"low"``, ``"high"`` or ``"auto"``: how closely the model looks.

    Raises:
        InvalidInputError: The file is missing, cannot be read, or is no image.
    """
    name = str(path)
    try:
        file = Path(path).expanduser()
        name = file.name or name
        if not file.is_file():
            raise InvalidInputError(
                f"There is no image file {name!r}.",
                hint="Check the path: a relative one starts at the working directory.",
            )
        # By its size on the disk first: a huge file must not be read into memory to be refused.
        _check_size(file.stat().st_size, name)
        raw = file.read_bytes()
    except (OSError, ValueError, TypeError, RuntimeError) as exc:  # the last: ~nobody
        if isinstance(exc, InvalidInputError):
            raise
        raise InvalidInputError(
            f"The image file {name!r} cannot be read: {getattr(exc, 'strerror', None) or exc}.",
            hint="Check its permissions.",
        ) from exc
    try:
        return image_from_bytes(raw, media_type=media_type, detail=detail)
    except InvalidInputError as exc:
        # The same reason, but with the name of the file, which the bytes do not know.
        raise InvalidInputError(f"{name!r}: {exc.message}", hint=exc.hint) from exc


def image_from_url(url: str, *, detail: ImageDetail | None = None) -> ImageContent:
    """Make an image from an http(s) URL, which the *server* fetches, or a base64 ``data:`` URL.

    A ``data:`` URL becomes a base64 part, which every backend takes. Letta Code cannot fetch
    images; this process fetches them when the message is sent (:mod:`letta_adapters.images`, from
    public addresses only)::

        session.send(["What is on this picture?", image_from_url("https://example.org/cat.png")])

    Args:
        url: The URL.
        detail: ``"low"``, ``"high"`` or ``"auto"``; for ``data:`` URLs only.

    Raises:
        InvalidInputError: It is no such URL, or holds no image.
    """
    if isinstance(url, str) and url[:5].lower() == "data:":
        media_type, raw = _decode_data_url(url)
        return image_from_bytes(raw, media_type=media_type, detail=detail)
    return ImageContent(url=url, detail=detail)


def to_wire(message: MessageContent) -> str | list[dict[str, Any]]:
    """Return a message as the API takes it: a string as it is, anything else as a list of parts.

    Args:
        message: A string, one part, or a list of parts. A part is a string, :class:`TextContent`,
            :class:`ImageContent`, or a dict in the wire's own shape.

    Raises:
        InvalidInputError: The content is empty or unknown.
    """
    if isinstance(message, str):
        return _check_text(message)
    if isinstance(message, (TextContent, ImageContent, Mapping)):
        return [_part(message)]
    if isinstance(message, (list, tuple)):
        if not message:
            raise InvalidInputError("The message is an empty list.", hint="Give it some text.")
        return [_part(item) for item in message]
    raise InvalidInputError(
        f"A message cannot be {type(message).__name__}.", hint=_hint_for(message)
    )


def _hint_for(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "Use image_from_bytes(data)."
    if isinstance(value, os.PathLike):
        return "Use image_from_file(path)."
    return "Use a string, TextContent, ImageContent, or a list of them."


def _part(item: object) -> dict[str, Any]:
    if isinstance(item, str):
        return TextContent(item).to_wire()
    if isinstance(item, (TextContent, ImageContent)):
        return item.to_wire()
    if not isinstance(item, Mapping):
        raise InvalidInputError(
            f"A part of a message cannot be {type(item).__name__}.", hint=_hint_for(item)
        )
    kind = item.get("type")
    if kind == "text":
        # Fields that a newer API knows and this version does not are passed on.
        return {**item, "text": _check_text(item.get("text"))}
    if kind == "image":
        return _image_part(item)
    # Copied from OpenAI's API it looks right, so the error says what to write instead.
    if isinstance(kind, str) and kind in _OPENAI_IMAGES:
        raise InvalidInputError(
            f"{kind!r} is OpenAI's image part; the Letta API refuses it.",
            hint="Use image_from_url(url), which takes http(s) and data: URLs.",
        )
    raise InvalidInputError(
        f"Unknown content part of type {kind!r}.",
        hint='Use {"type": "text", "text": ...} or an ImageContent.',
    )


def _image_part(item: Mapping[Any, Any]) -> dict[str, Any]:
    source = item.get("source")
    kind = source.get("type") if isinstance(source, Mapping) else None
    if not isinstance(source, Mapping) or kind not in ("base64", "url"):
        raise InvalidInputError(
            "An image part needs a 'source' of type 'base64' or 'url'.",
            hint="Use image_from_file(), image_from_bytes() or image_from_url().",
        )
    detail = source.get("detail")
    # A dict gets the same checks as an object of ours: both become the same wire part.
    if kind == "url":
        return image_from_url(source.get("url", ""), detail=detail).to_wire()
    return ImageContent(
        data=source.get("data", ""), media_type=source.get("media_type"), detail=detail
    ).to_wire()


def _check_text(text: object) -> str:
    if not isinstance(text, str):
        raise InvalidInputError(f"The text of a message is {type(text).__name__}, not a string.")
    if not text.strip():
        raise InvalidInputError(
            "The message's text is empty.", hint="Models refuse empty messages: write something."
        )
    return sendable_text(text, "The text")


def sendable_text(text: str, where: str) -> str:
    """Return the text if UTF-8 can hold it.

    Args:
        text: The text.
        where: The name of the text for an error.

    Raises:
        InvalidInputError: It holds half of a character (a lone surrogate).
    """
    # Most text is, and then there is nothing to look for.
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise InvalidInputError(
            f"{where} is not valid Unicode at position {exc.start} (a lone surrogate).",
            hint='Clean it: text.encode("utf-8", "replace").decode().',
        ) from exc
    return text


def _check_size(size: int, name: str = "") -> None:
    if size > MAX_IMAGE_BYTES:
        what = f"The image {name!r}" if name else "The image"
        raise InvalidInputError(
            f"{what} is too large: {size / 2**20:.1f} MB of {MAX_IMAGE_BYTES / 2**20:.0f} MB.",
            hint="Scale it down; models see no more than about 2000 pixels a side.",
        )


def _sniff(raw: bytes) -> str | None:
    # By the first bytes, as browsers do: names and declared types are often wrong, and the model's
    # provider goes by the bytes.
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if raw.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if raw.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "image/webp"
    return None


def _check_media_type(raw: bytes, declared: str | None) -> str:
    found = _sniff(raw)
    if found is None:
        what = "No bytes: this" if not raw else "This"
        raise InvalidInputError(f"{what} is not {_KINDS}.", hint="Convert it to PNG or JPEG.")
    if declared is None:
        return found
    if not isinstance(declared, str) or not declared.lower().startswith("image/"):
        raise InvalidInputError(f"{declared!r} is not an image media type.", hint=f"Use {found!r}.")
    if declared.lower().replace("image/jpg", "image/jpeg") != found:
        raise InvalidInputError(
            f"The media type says {declared}, the bytes are {found}.",
            hint="Leave media_type out: it is found in the bytes.",
        )
    return found


def _decode_base64(data: object) -> bytes:
    if not isinstance(data, str):
        raise InvalidInputError(
            f"Image data is {type(data).__name__}, not a base64 string.",
            hint="Use image_from_bytes(data).",
        )
    compact = "".join(data.split())
    # Before decoding, which takes as much memory again; the padding may be two bytes too many.
    _check_size(len(compact) * 3 // 4 - 2)
    try:
        raw = base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInputError(
            "The image's data is not valid base64.", hint="Use image_from_bytes(data)."
        ) from exc
    _check_size(len(raw))
    return raw


def _decode_data_url(url: str) -> tuple[str | None, bytes]:
    header, comma, payload = url[5:].partition(",")
    if not comma:
        raise InvalidInputError(
            "The data: URL has no comma.", hint="Its form is data:image/png;base64,...."
        )
    media_type, *options = header.split(";")
    _check_size(len(payload) * 3 // 4 - 2)
    raw = unquote_to_bytes(payload)
    # Without that option the payload is percent-encoded, and is decoded by now.
    if options and options[-1].strip().lower() == "base64":
        raw = _decode_base64(raw.decode("ascii", "replace"))
    return media_type.strip() or None, raw


def _check_url(url: object) -> None:
    if not isinstance(url, str):
        raise InvalidInputError(f"The image URL is {type(url).__name__}, not a string.")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as exc:
        raise InvalidInputError("The image URL is malformed.", hint="Check it.") from exc
    if parts.scheme not in ("http", "https"):
        raise InvalidInputError(
            f"An image URL cannot have the scheme {parts.scheme!r}.",
            hint="Use http(s) or data:, or image_from_file(path) for a file.",
        )
    # A URL with white space is read in different ways by different programs.
    if not host or any(ch.isspace() or not ch.isprintable() for ch in url):
        raise InvalidInputError(
            "The image URL is malformed.", hint="It needs a host and no spaces."
        )
