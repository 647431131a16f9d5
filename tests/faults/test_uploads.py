"""Files that are uploaded arrive whole and once, or are refused before anything is sent."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from letta_adapters import (
    AsyncLettaClient,
    ConnectionFailedError,
    InvalidInputError,
    Local,
    ProtocolError,
    Remote,
    Rest,
    ServerError,
    UnsupportedOptionError,
)

OK = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}'


class Receiver:
    """Takes requests whole and gives each the next answer; ``None`` hangs up in the middle."""

    url = ""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        self.heads: list[str] = []
        self.bodies: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head.decode())
                answer = self.answers.pop(0) if self.answers else OK
                if answer is None:
                    break
                self.bodies.append(await self._body(head.decode().lower(), reader))
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _body(self, head: str, reader: asyncio.StreamReader) -> bytes:
        if "content-length: " in head:
            return await reader.readexactly(int(head.split("content-length: ")[1].split("\r")[0]))
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return body

    def parts(self, number: int = -1) -> dict[str, tuple[str | None, bytes]]:
        """The parts of a form: file name and content, by field."""
        kind = self.heads[number].lower().split("content-type: ")[1].split("\r")[0]
        found = BytesParser().parsebytes(
            b"Content-Type: " + kind.encode() + b"\r\n\r\n" + self.bodies[number]
        )
        whole = found.get_payload()
        assert isinstance(whole, list)
        made = {}
        for part in whole:
            assert not isinstance(part, str)
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            name = part.get_param("name", header="content-disposition")
            made[str(name)] = (part.get_filename(), content)
        return made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


def rest(receiver: Any) -> Rest:
    return Rest(base_url=receiver.url, api_key="", request_timeout=20)


async def test_files_and_fields_arrive_as_a_form(
    receiver: Receiver, face: Any, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x" * 300_000)
    async with face(rest(receiver)) as client:
        with (tmp_path / "notes.txt").open("rb") as file:
            answer = await client.request(
                "POST",
                "/v1/folders/a/upload",
                body={"name": "é", "count": 3, "keep": False, "left_out": None},
                files=[("file", file), ("more", ("b.json", b"{}", "application/json"))],
            )
    assert answer == {"ok": True}
    assert receiver.parts() == {
        "name": (None, "é".encode()),
        "count": (None, b"3"),
        "keep": (None, b"false"),
        "file": ("notes.txt", b"x" * 300_000),
        "more": ("b.json", b"{}"),
    }


class Pipe(io.RawIOBase):
    """A file that can be read once, and says on which thread it was."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.threads: set[int] = set()

    def read(self, size: int = -1) -> bytes:
        self.threads.add(threading.get_ident())
        return self.pieces.pop(0) if self.pieces else b""

    def seekable(self) -> bool:
        return False


async def test_a_pipe_is_streamed_and_not_read_on_the_event_loop(receiver: Receiver) -> None:
    pipe = Pipe(b"one ", b"two")
    async with AsyncLettaClient(rest(receiver)) as client:
        await client.request("POST", "/v1/x", files={"file": ("p", pipe)})
    assert receiver.parts()["file"] == ("p", b"one two")
    assert threading.get_ident() not in pipe.threads


@pytest.mark.parametrize("injected", [False, True])
async def test_an_upload_is_never_sent_again(receiver: Receiver, injected: bool) -> None:
    receiver.answers = [None]
    own = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=3)) if injected else None
    async with AsyncLettaClient(rest(receiver), http_client=own) as client:
        with pytest.raises(ConnectionFailedError):
            await client.request("POST", "/v1/x", files={"file": b"x" * 5_000_000})
        receiver.answers = [b"HTTP/1.1 307 Moved\r\nlocation: /v1/x/\r\ncontent-length: 0\r\n\r\n"]
        with pytest.raises(ProtocolError, match="/v1/x/; its files are not read again"):
            await client.request("POST", "/v1/x", files={"file": io.BytesIO(b"abc")})
        receiver.answers = [
            b"HTTP/1.1 503 Busy\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        ]
        with pytest.raises(ServerError):
            await client.request("POST", "/v1/x", files={"file": b"abc"})
    assert len(receiver.heads) == 3
    if own is not None:
        await own.aclose()


async def test_a_file_that_breaks_while_it_is_read_is_no_failed_connection(
    receiver: Receiver, face: Any
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("stale handle")

    async with face(rest(receiver)) as client:
        with pytest.raises(InvalidInputError, match="stale handle"):
            await client.request("POST", "/v1/x", files={"file": ("b", Broken(b"abc"))})
        assert await client.request("POST", "/v1/x", files={"file": b"abc"}) == {"ok": True}


class Closed(io.BytesIO):
    closed = True


@pytest.mark.parametrize(
    ("method", "files", "body", "says"),
    [
        ("GET", {"file": b""}, None, "GET uploads no files"),
        ("POST", {}, None, "names no file"),
        ("POST", b"abc", None, "mapping or a sequence of pairs"),
        ("POST", [b"abc"], None, "mapping or a sequence of pairs"),
        ("POST", {"file": 3}, None, "must be bytes"),
        ("POST", {"file": Path("a")}, None, "open\\(path, 'rb'\\)"),
        ("POST", {"file": ("a", None)}, None, "must be bytes"),
        ("POST", {"file": io.StringIO("abc")}, None, "cannot be uploaded"),
        ("POST", {"file": io.TextIOWrapper(io.BytesIO(b""), "utf-8")}, None, "as text"),
        ("POST", {"file": Closed()}, None, "is closed"),
        ("POST", {"file": b""}, {"a": {"b": 1}}, r"body\['a'\] is dict"),
    ],
)
async def test_what_cannot_be_uploaded_is_refused_before_anything_is_sent(
    receiver: Receiver, method: str, files: Any, body: Any, says: str
) -> None:
    async with AsyncLettaClient(rest(receiver)) as client:
        with pytest.raises(InvalidInputError, match=says):
            await client.request(method, "/v1/x", files=files, body=body)
    assert not receiver.heads


@pytest.mark.parametrize("backend", [Local(), Remote(url="ws://127.0.0.1:9")])
@pytest.mark.parametrize("method", ["POST", "COMMAND"])
async def test_letta_code_refuses_files_by_name(backend: Any, method: str, face: Any) -> None:
    async with face(backend) as client:
        with pytest.raises(UnsupportedOptionError, match="files"):
            await client.request(method, "/v1/folders/a", files={"file": b"abc"})
