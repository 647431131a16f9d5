"""Chromium without a screen, by its DevTools protocol: the `websockets` that is there is enough."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
_FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    # Nothing but this machine is reached, whatever a page or the browser itself wants.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@contextmanager
def running_chromium(home: Path) -> Iterator[str]:
    """Run a browser with a profile of its own; yield the address of its protocol."""
    assert CHROMIUM is not None
    # Its sandbox needs a user of its own, or rights that containers do not have.
    sandbox = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, *sandbox, f"--user-data-dir={home}", "about:blank"],
            stdout=log,
            stderr=log,
        )
    try:
        told = home / "DevToolsActivePort"
        until = time.monotonic() + 30
        while not told.exists() or "\n" not in told.read_text():
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < until, (home / "log").read_text()
            time.sleep(0.05)
        port, path = told.read_text().split("\n")[:2]
        yield f"ws://127.0.0.1:{port}{path}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Tab:
    """A page of the browser; ``problems`` are its exceptions, console errors and dialogs."""

    def __init__(self, wire: ClientConnection) -> None:
        self._wire = wire
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.problems: list[str] = []

    async def read(self) -> None:
        """Take what the browser says."""
        async for text in self._wire:
            said = json.loads(text)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
                continue
            about = said["params"]
            if said["method"] == "Runtime.exceptionThrown":
                self.problems.append(str(about["exceptionDetails"]))
            elif said["method"] == "Runtime.consoleAPICalled" and about["type"] == "error":
                self.problems.append(str(about["args"]))
            elif said["method"] == "Log.entryAdded" and about["entry"]["level"] == "error":
                self.problems.append(f"{about['entry']['text']} {about['entry'].get('url')}")
            elif said["method"] == "Page.javascriptDialogOpening":
                self.problems.append(f"dialog: {about['message']}")

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the browser for something."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        answer = self._answers[number]
        await self._wire.send(json.dumps({"id": number, "method": method, "params": params}))
        said = await answer
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def run(self, code: str) -> Any:
        """Return the value of a piece of JavaScript."""
        result = await self.do(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, code: str) -> Any:
        """Return the value of a piece of JavaScript as soon as it is something."""
        while True:
            if value := await self.run(code):
                return value
            await asyncio.sleep(0.02)

    async def open(self, url: str) -> None:
        await self.do("Page.navigate", url=url)
        await self.until(
            f"location.href === {json.dumps(url)} && document.readyState !== 'loading'"
        )

    async def reload(self) -> None:
        await self.run("window.before = true")
        await self.do("Page.reload")
        await self.until("window.before === undefined && document.readyState !== 'loading'")

    async def picture(self, path: Path) -> None:
        """Write a picture of the page (PNG)."""
        data = (await self.do("Page.captureScreenshot"))["data"]
        path.write_bytes(base64.b64decode(data))


@asynccontextmanager
async def open_tab(address: str) -> AsyncIterator[Tab]:
    """Open a tab; close it at the end."""
    async with _connected(address) as browser:
        target = (await browser.do("Target.createTarget", url="about:blank"))["targetId"]
        page = f"{address.rsplit('/devtools/', 1)[0]}/devtools/page/{target}"
        async with _connected(page) as tab:
            for domain in ("Page", "Runtime", "Log"):
                await tab.do(f"{domain}.enable")
            yield tab
        await browser.do("Target.closeTarget", targetId=target)


@asynccontextmanager
async def _connected(address: str) -> AsyncIterator[Tab]:
    async with connect(address, max_size=None, proxy=None) as wire:
        tab = Tab(wire)
        reading = asyncio.ensure_future(tab.read())
        try:
            yield tab
        finally:
            reading.cancel()
            await asyncio.wait({reading})
