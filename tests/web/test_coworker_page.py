"""The page of ``examples/coworker.py`` in a real browser, over the real runtime and a folder."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import pytest
import uvicorn

from letta_adapters.testing.local import LocalLetta
from tests._wheel import needs_wheel
from tests.web._chromium import CHROMIUM, Tab, open_tab
from tests.web._examples import load_example

pytestmark = [
    needs_wheel,
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
LOG = "document.getElementById('log').innerText"
# Name a folder to have the pictures of the documentation made anew.
PICTURES = os.environ.get("PICTURES")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_example("coworker", monkeypatch)


@pytest.fixture
def folder(example: ModuleType, tmp_path: Path) -> Path:
    folder = (tmp_path / "folder").resolve()
    folder.mkdir()
    for name, text in example.FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
async def tab(chromium: str, example: ModuleType, folder: Path) -> AsyncIterator[Tab]:
    from examples._agent import asked

    with LocalLetta(respond=lambda request: example.stand_in(request, asked(request))) as letta:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            app = example.make_app(letta.spec, folder)
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
            serving = asyncio.ensure_future(server.serve([listening]))
            try:
                async with open_tab(chromium) as tab:
                    await tab.do(
                        "Emulation.setDeviceMetricsOverride",
                        width=900,
                        height=640,
                        deviceScaleFactor=1,
                        mobile=False,
                    )
                    port = listening.getsockname()[1]
                    await tab.open(f"http://127.0.0.1:{port}/?key={example.KEY}")
                    await tab.until("document.getElementById('state').textContent === 'ready'")
                    yield tab
                    assert tab.problems == []
            finally:
                server.should_exit = True
                await serving


async def sees(tab: Tab, text: str) -> None:
    """Wait until the page shows a text."""
    await asyncio.wait_for(tab.until(f"{LOG}.includes({json.dumps(text)})"), 30)


async def click(tab: Tab, label: str) -> None:
    find = f"[...document.querySelectorAll('button')].find((b) => b.textContent === '{label}')"
    await tab.until(find + " !== undefined")
    await tab.run(f"{find}.click()")


async def test_a_change_is_seen_edited_and_allowed_and_a_command_denied(
    tab: Tab, folder: Path
) -> None:
    await tab.run("document.getElementById('text').value = 'Please tidy up my notes.'")
    await tab.run("document.getElementById('form').requestSubmit()")
    await sees(tab, "May I change notes.txt?")
    await sees(tab, "- buy milk")
    assert (folder / "notes.txt").read_text().count("milk") == 2
    # A page that is reloaded shows everything once, the question among it.
    await tab.reload()
    await sees(tab, "- buy milk")
    assert await tab.run(f"{LOG}.split('Please tidy up').length") == 2
    assert await tab.run(f"{LOG}.split('May I change').length") == 2
    if PICTURES:
        await tab.picture(Path(PICTURES) / "coworker.png")
    await click(tab, "Edit")
    await tab.run("document.querySelector('textarea').value = 'buy <b>oat</b> milk'")
    await click(tab, "Allow as edited")
    await sees(tab, "rm old.txt")
    assert (folder / "notes.txt").read_text() == "buy <b>oat</b> milk\nwater the plants\n"
    await click(tab, "Deny")
    await sees(tab, "I tidied your notes, and kept old.txt.")
    assert (folder / "old.txt").exists()
    assert await tab.run("document.getElementById('files').innerText") == "notes.txt\nold.txt"


async def test_a_long_answer_is_stopped(tab: Tab) -> None:
    await tab.run("document.getElementById('text').value = 'Talk to me'")
    await tab.run("document.getElementById('form').requestSubmit()")
    await sees(tab, "I am here. I am here.")
    assert await tab.run("document.getElementById('state').textContent") == "working"
    await tab.run("document.getElementById('stop').click()")
    await asyncio.wait_for(
        tab.until("document.getElementById('state').textContent === 'ready'"), 30
    )
    assert "You said" not in await tab.run(LOG)
