"""A recording that goes on: what it holds is played, what it does not hold is asked and added."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import httpx

from letta_adapters.testing._patterns import ID_TOKEN
from letta_adapters.testing.cassette import Cassette
from letta_adapters.testing.recorder import RecordingTransport
from letta_adapters.testing.replay import CassetteTransport
from letta_adapters.testing.sanitize import BASE_URL


@dataclass
class ExtendingTransport(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Ask ``player`` first, and the server through ``recorder`` for what it does not hold.

    Ids of the recording are not the server's: a request that names one cannot be asked, and is a
    :class:`CassetteMissError` that says so. ``base_url`` is the server's.
    """

    player: CassetteTransport
    recorder: RecordingTransport
    base_url: str
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def has_more(self) -> bool:
        """Whether anything was asked that the recording did not hold."""
        return bool(self.recorder.cassette.interactions)

    @property
    def cassette(self) -> Cassette:
        """What was recorded before, and then what was now."""
        return Cassette([*self.player.cassette, *self.recorder.cassette])

    def sibling(self) -> ExtendingTransport:
        """See :meth:`RecordingTransport.sibling`."""
        return ExtendingTransport(self.player, self.recorder.sibling(), self.base_url)

    def release(self) -> None:
        """See :meth:`RecordingTransport.release`."""
        self.recorder.release()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer from the recording, or the server."""
        request.read()
        recorded = self._recorded(request)
        if self._holds(recorded):
            return self.player.handle_request(recorded)
        return self.recorder.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer from the recording, or the server."""
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
        """The request as it would have been sent to the recording's server."""
        url, base = str(request.url), self.base_url.rstrip("/")
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
        said = f"{request.url} {request.content.decode('utf-8', 'replace')}"
        known = sorted({token for token in ID_TOKEN.findall(said) if self.player.made(token)})
        if known:
            raise self.player.missed(
                f"{request.method} {request.url.path} is not recorded, and cannot be asked now: "
                f"{', '.join(known)} is of the recording, the server does not know it. Record the "
                "test anew (--letta-record=rewrite)"
            )
        return False
