"""Extend a recording: play the requests it contains, send the others to the server and add them.

Internal: not part of the public API.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import httpx

from letta_adapters.testing.cassette import Cassette
from letta_adapters.testing.recording.player import CassetteTransport
from letta_adapters.testing.recording.recorder import RecordingTransport
from letta_adapters.testing.sanitizer.patterns import ID_TOKEN
from letta_adapters.testing.sanitizer.sanitize import BASE_URL


@dataclass
class ExtendingTransport(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """An httpx transport that asks ``player`` first, and the server for what is not recorded.

    ``recorder`` sends and records these requests; ``base_url`` is the server's address. The server
    does not know the ids in the recording, so a request that names one of them cannot be sent: it
    raises a :class:`CassetteMissError` that says so.
    """

    player: CassetteTransport
    recorder: RecordingTransport
    base_url: str
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def has_more(self) -> bool:
        """Return whether anything was asked that the recording did not contain."""
        return bool(self.recorder.cassette.interactions)

    @property
    def cassette(self) -> Cassette:
        """Return the interactions recorded before, followed by those recorded now."""
        return Cassette([*self.player.cassette, *self.recorder.cassette])

    def sibling(self) -> ExtendingTransport:
        """Return a transport for another client; see :meth:`RecordingTransport.sibling`."""
        # Connections belong to one client each; the player has none, so all share it.
        return ExtendingTransport(self.player, self.recorder.sibling(), self.base_url)

    def release(self) -> None:
        """Close connections that are still open; see :meth:`RecordingTransport.release`."""
        self.recorder.release()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer from the recording, or by asking the server."""
        request.read()
        recorded = self._recorded(request)
        if self._holds(recorded):
            return self.player.handle_request(recorded)
        return self.recorder.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer from the recording, or by asking the server."""
        await request.aread()
        recorded = self._recorded(request)
        if self._holds(recorded):
            return await self.player.handle_async_request(recorded)
        return await self.recorder.handle_async_request(request)

    def close(self) -> None:
        """Close the real connections; the recording stays."""
        self.recorder.close()

    async def aclose(self) -> None:
        """Close the real connections; the recording stays."""
        await self.recorder.aclose()

    def _recorded(self, request: httpx.Request) -> httpx.Request:
        """Return the request as it would have been sent to the recording's server."""
        url, base = str(request.url), self.base_url.rstrip("/")
        # Recordings name the sanitizer's address instead of the server's.
        if url.startswith(base):
            url = BASE_URL + url[len(base) :]
        return httpx.Request(
            request.method,
            url,
            content=request.content,
            headers=request.headers,
            extensions=request.extensions,
        )

    def _holds(self, request: httpx.Request) -> bool:
        if self.player.holds(request):
            return True
        # A recorded id in a request that is not recorded: the server would answer with a confusing
        # 404.
        said = f"{request.url} {request.content.decode('utf-8', 'replace')}"
        known = sorted({token for token in ID_TOKEN.findall(said) if self.player.made(token)})
        if known:
            raise self.player.missed(
                f"{request.method} {request.url.path} is not recorded, and cannot be asked now: "
                f"{', '.join(known)} is of the recording, the server does not know it. Record the "
                "test anew (--letta-record=rewrite)"
            )
        return False
