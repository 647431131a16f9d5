"""Message content: what goes on the wire and what is refused before any I/O."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from letta_adapters import content
from letta_adapters.content import (
    ImageContent,
    TextContent,
    image_from_bytes,
    image_from_file,
    image_from_url,
    to_wire,
)
from letta_adapters.errors import InvalidInputError

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 8
JPEG = b"\xff\xd8\xff\xe0rest"
GIF = b"GIF89a....."
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 "


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def refused(call: Any, *args: Any, **kwargs: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        call(*args, **kwargs)
    return caught.value


PNG_PART = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": b64(PNG)},
}
URL_PART = {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}}


# --- messages ---------------------------------------------------------------


def test_a_string_stays_a_string() -> None:
    assert to_wire("  Hello\n") == "  Hello\n"


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (TextContent("Hi"), [{"type": "text", "text": "Hi"}]),
        (image_from_bytes(PNG), [PNG_PART]),
        (["Look:", image_from_bytes(PNG)], [{"type": "text", "text": "Look:"}, PNG_PART]),
        (
            (TextContent("Look:"), image_from_url("https://example.com/cat.png")),
            [{"type": "text", "text": "Look:"}, URL_PART],
        ),
        ({"type": "text", "text": "Hi"}, [{"type": "text", "text": "Hi"}]),
        ([PNG_PART, URL_PART], [PNG_PART, URL_PART]),
        (
            [{"type": "image", "source": {"type": "base64", "data": b64(GIF), "detail": "high"}}],
            [
                {
                    "type": "image",
                    "source": {
                        "type": "base64",
                        "media_type": "image/gif",
                        "data": b64(GIF),
                        "detail": "high",
                    },
                }
            ],
        ),
    ],
)
def test_parts(message: Any, wire: list[dict[str, Any]]) -> None:
    assert to_wire(message) == wire


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ([], "empty list"),
        (["Look:", ""], "empty"),
        (TextContent("\t"), "empty"),
        (TextContent(None), "NoneType"),
        ({"type": "text"}, "NoneType"),
        ("bad \ud800 text", "position 4"),
        (None, "NoneType"),
        (3, "int"),
        (iter(["a"]), "iterator"),
        ([None], "NoneType"),
        (PNG, "image_from_bytes"),
        ([PNG], "image_from_bytes"),
        (Path("cat.png"), "image_from_file"),
        ({"type": "video"}, "'video'"),
        ({"text": "no type"}, "None"),
        ({"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}, "image_from_url"),
        ({"type": "input_image", "image_url": "https://x.test/a.png"}, "image_from_url"),
        ({"type": "image", "url": "https://x.test/a.png"}, "'source'"),
        ({"type": "image", "source": {"type": "letta", "file_id": "file-1"}}, "'base64' or 'url'"),
        ({"type": "image", "source": {"type": "base64"}}, "No bytes"),
        ({"type": "image", "source": {"type": "base64", "data": b64(b"%PDF-1.7")}}, "not a PNG"),
        ({"type": "image", "source": {"type": "url"}}, "scheme"),
        (
            {"type": "image", "source": {"type": "url", "url": "https://x.test/", "detail": "low"}},
            "neither detail",
        ),
    ],
)
def test_refused_messages(message: Any, says: str) -> None:
    assert says in str(refused(to_wire, message))


# --- images -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (GIF, "image/gif"),
        (b"GIF87a...", "image/gif"),
        (WEBP, "image/webp"),
    ],
)
def test_media_type_is_found_in_the_bytes(raw: bytes, media_type: str) -> None:
    image = image_from_bytes(raw)
    assert image.media_type == media_type
    assert image == image_from_bytes(bytearray(raw), media_type=media_type)
    assert base64.b64decode(image.to_wire()["source"]["data"]) == raw


def test_detail_is_on_the_wire_only_when_given() -> None:
    assert "detail" not in image_from_bytes(PNG).to_wire()["source"]
    assert image_from_bytes(PNG, detail="low").to_wire()["source"]["detail"] == "low"
    assert "low" in str(refused(image_from_bytes, PNG, detail="tiny"))


def test_jpg_is_jpeg() -> None:
    assert image_from_bytes(JPEG, media_type="image/jpg").media_type == "image/jpeg"


@pytest.mark.parametrize(
    ("raw", "media_type", "says"),
    [
        (b"", None, "No bytes"),
        (b"<svg/>", None, "not a PNG"),
        (b"RIFF\x10\x00\x00\x00WAVE", None, "not a PNG"),
        (PNG, "image/jpeg", "the bytes are image/png"),
        (PNG, "text/plain", "not an image media type"),
        (PNG, 3, "not an image media type"),
        ("cat.png", None, "image_from_file"),
    ],
)
def test_refused_bytes(raw: Any, media_type: Any, says: str) -> None:
    assert says in str(refused(image_from_bytes, raw, media_type=media_type))


def test_an_image_has_one_source() -> None:
    assert "exactly one" in str(refused(ImageContent))
    assert "exactly one" in str(refused(ImageContent, data=b64(PNG), url="https://x.test/"))
    assert "neither" in str(refused(ImageContent, url="https://x.test/", media_type="image/png"))


def test_base64_is_checked_and_normalised() -> None:
    folded = base64.encodebytes(PNG * 20).decode()
    assert "\n" in folded
    assert ImageContent(data=folded).data == b64(PNG * 20)
    for bad in (b64(PNG)[:-1], "not base64!", "ÿ"):
        assert "base64" in str(refused(ImageContent, data=bad))
    assert "image_from_bytes" in str(refused(ImageContent, data=PNG))


def test_too_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert content.MAX_IMAGE_BYTES == 20 * 1024 * 1024
    monkeypatch.setattr(content, "MAX_IMAGE_BYTES", len(PNG))
    image_from_bytes(PNG)
    big = PNG + b"\x00"
    file = tmp_path / "big.png"
    file.write_bytes(big)
    for error in (
        refused(image_from_bytes, big),
        refused(image_from_file, file),
        refused(ImageContent, data=b64(big)),
        refused(ImageContent, data=b64(big * 10)),
        refused(image_from_url, "data:image/png;base64," + b64(big * 10)),
    ):
        assert "too large" in error.message
    assert "'big.png'" in refused(image_from_file, file).message


def test_repr_shows_neither_the_picture_nor_a_signed_query() -> None:
    image = image_from_bytes(PNG, detail="low")
    assert repr(image) == "ImageContent(media_type='image/png', <16 bytes>, detail='low')"
    signed = image_from_url("https://x.test/a.png?sig=SECRET")
    assert repr(signed) == "ImageContent(url='https://x.test/a.png?...')"
    assert (
        repr(image_from_url("https://x.test/a.png")) == "ImageContent(url='https://x.test/a.png')"
    )
    assert b64(PNG) not in repr([image])


def test_parts_are_frozen_values() -> None:
    image = image_from_bytes(PNG)
    assert image == image_from_bytes(PNG)
    assert len({image, image_from_bytes(PNG), TextContent("a")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        image.data = ""
    assert (image.type, TextContent("a").type) == ("image", "text")


# --- files ------------------------------------------------------------------


def test_from_file_goes_by_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "cat.txt"
    file.write_bytes(JPEG)
    assert image_from_file(file) == image_from_bytes(JPEG)
    assert image_from_file(str(file), media_type="image/jpeg", detail="auto").detail == "auto"


def test_from_file_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "cat.png").write_bytes(PNG)
    assert image_from_file("~/cat.png").media_type == "image/png"


def test_a_file_that_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = refused(image_from_file, tmp_path / "nope.png")
    assert missing.message == "There is no image file 'nope.png'."
    assert "Check the path" in missing.hint
    assert str(tmp_path) not in str(missing)
    assert "no image file" in str(refused(image_from_file, tmp_path))
    notes = tmp_path / "notes.png"
    notes.write_text("hello")
    assert refused(image_from_file, notes).message.startswith("'notes.png': This is not a PNG")
    for bad in (b"bytes", 3, "nul\0.png"):
        refused(image_from_file, bad)

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    error = refused(image_from_file, notes)
    assert error.message == "The image file 'notes.png' cannot be read: Permission denied."


# --- URLs -------------------------------------------------------------------


def test_http_urls_are_left_to_the_server() -> None:
    assert to_wire(image_from_url("https://example.com/cat.png")) == [URL_PART]
    assert image_from_url("HTTP://127.0.0.1:8000/a").to_wire()["source"]["type"] == "url"
    assert "detail" in str(refused(image_from_url, "https://example.com/cat.png", detail="low"))


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64," + b64(PNG),
        "DATA:image/png;charset=x;BASE64," + b64(PNG),
        "data:;base64," + b64(PNG),
        "data:image/png;base64," + quote(b64(PNG)),
        "data:image/png," + quote(PNG),
    ],
)
def test_data_urls_become_base64(url: str) -> None:
    assert image_from_url(url) == image_from_bytes(PNG)
    assert to_wire({"type": "image", "source": {"type": "url", "url": url}}) == [PNG_PART]
    assert image_from_url(url, detail="high").detail == "high"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("data:image/png;base64", "comma"),
        ("data:text/plain,hello", "not a PNG"),
        ("data:image/gif;base64," + b64(PNG), "the bytes are image/png"),
        ("data:image/png;base64,%%%", "base64"),
        ("cat.png", "image_from_file"),
        ("file:///tmp/cat.png", "'file'"),
        ("s3://bucket/cat.png", "'s3'"),
        ("https://", "malformed"),
        ("https://exa mple.com/a", "malformed"),
        ("https://x.test/a\u0007", "malformed"),
        ("http://[::1/a", "malformed"),
        ("", "scheme"),
        (None, "exactly one"),
        (3, "int"),
    ],
)
def test_refused_urls(url: Any, says: str) -> None:
    assert says in str(refused(image_from_url, url))


@pytest.mark.parametrize("kind", [[], {}, ["image_url"], 5, None])
def test_a_part_whose_type_is_none_is_refused(kind: object) -> None:
    with pytest.raises(InvalidInputError, match="Unknown content part"):
        to_wire([{"type": kind, "text": "x"}])
