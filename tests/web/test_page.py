"""The page of ``examples/web_chat.py`` in a real browser: what a person sees, and clicks on."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType

import pytest
import uvicorn

from letta_adapters.testing.fakes import FakeLetta
from letta_adapters.testing.scripted_model import Reply, ToolUse
from tests.web._chromium import CHROMIUM, Tab, open_tab
from tests.web._examples import load_example
from tests.web.conftest import Hold

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
# Name a folder to have the pictures of the documentation made anew.
PICTURES = os.environ.get("PICTURES")
ROWS = "[...document.querySelectorAll('#log > div')].map((row) => row.textContent)"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_example("web_chat", monkeypatch)


class Chat:
    """The example, served over a Letta in memory; each of ``tabs`` has its page open."""

    def __init__(self, letta: FakeLetta, url: str, chromium: str, stack: AsyncExitStack) -> None:
        self.letta = letta
        self._url = url
        self._chromium = chromium
        self._stack = stack
        self.tabs: list[Tab] = []

    async def tab(self) -> Tab:
        tab = await self._stack.enter_async_context(open_tab(self._chromium))
        self.tabs.append(tab)
        await tab.open(self._url)
        await tab.until("!document.getElementById('send').disabled")
        return tab


@pytest.fixture
async def chat(
    chromium: str, example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Chat]:
    letta = FakeLetta()
    monkeypatch.setattr(example, "AsyncLettaClient", lambda _: letta.async_client())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(example.make_app(None), log_level="warning"))
        serving = asyncio.ensure_future(server.serve([listening]))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/?key={example.KEY}"
        try:
            async with AsyncExitStack() as stack:
                made = Chat(letta, url, chromium, stack)
                yield made
                # Whatever a test did: the page's own code has not failed.
                assert [problem for tab in made.tabs for problem in tab.problems] == []
        finally:
            server.should_exit = True
            await serving


async def say(tab: Tab, text: str) -> None:
    """Write a message and send it, as a person does."""
    await tab.run(f"document.getElementById('text').value = {json.dumps(text)}")
    await tab.run("document.getElementById('form').requestSubmit()")


async def see(tab: Tab, *rows: str) -> None:
    """Wait until the page shows these lines, and nothing else."""
    wanted = json.dumps(list(rows))
    try:
        await asyncio.wait_for(
            tab.until(f"JSON.stringify({ROWS}) === JSON.stringify({wanted})"), 40
        )
    except asyncio.TimeoutError:
        assert await tab.run(ROWS) == list(rows)


async def click(tab: Tab, label: str) -> None:
    find = f"[...document.querySelectorAll('button')].find((b) => b.textContent === '{label}')"
    await tab.until(f"({find}) && !({find}).disabled")
    await tab.run(f"{find}.click()")


async def test_an_answer_is_shown_while_it_is_written_and_once_after_a_reload(
    chat: Chat, hold: Hold
) -> None:
    words = [f"word{n}" for n in range(40)]
    chat.letta.script("First.", " ".join(words))
    tab = await chat.tab()
    await say(tab, "one")
    await see(tab, "one", "First.")
    go = hold(20)
    await say(tab, "two")
    growing = f"{ROWS}[3] && {ROWS}[3].startsWith('word0 word1') && !{ROWS}[3].includes('word39')"
    await tab.until(growing)
    await tab.reload()
    await tab.until(growing)
    other = await chat.tab()
    await other.until(growing)
    go.set()
    for page in (tab, other):
        await see(page, "one", "First.", "two", " ".join(words))
    await tab.reload()
    await see(tab, "one", "First.", "two", " ".join(words))
    assert chat.letta.said == ["one", "two"]


@pytest.mark.parametrize(("label", "answer"), [("Allow", "allow"), ("Deny", "deny")])
async def test_a_tool_waits_for_a_button_which_both_tabs_have(
    chat: Chat, label: str, answer: str
) -> None:
    use = ToolUse("read_thermometer", {"place": "Vienna"}, id="call_1")
    chat.letta.script(Reply("I look.", tool_calls=[use]), "Read.")
    tab, other = await chat.tab(), await chat.tab()
    await say(tab, "How warm is it?")
    await tab.until(f"{ROWS}.some((row) => row.startsWith('May read_thermometer run'))")
    if PICTURES:
        await tab.picture(Path(PICTURES) / "web_chat.png")
    # Also after a reload; and the other tab answers.
    await tab.reload()
    await tab.until(f"{ROWS}.some((row) => row.startsWith('May read_thermometer run'))")
    await click(other, label)
    for page in (tab, other):
        await page.until(f"{ROWS}.at(-1) === 'Read.'")
        rows = await page.run(ROWS)
        assert [row for row in rows if row.startswith("Answer")] == [f"Answer: {answer}"]
        assert await page.run("document.querySelectorAll('#log button').length") == 0
        assert ("16 degrees in Vienna" in str(rows)) == (label == "Allow")


async def test_stop_ends_the_answer(chat: Chat) -> None:
    chat.letta.script(Reply("word " * 400, token_delay=0.05))
    tab = await chat.tab()
    await say(tab, "Go on.")
    await tab.until(f"{ROWS}[1] && {ROWS}[1].startsWith('word word')")
    await click(tab, "Stop")
    await tab.until(f"{ROWS}.length === 3")
    assert len((await tab.run(ROWS))[1]) < 1000


async def test_what_an_agent_or_a_person_writes_is_text_and_never_runs(chat: Chat) -> None:
    hostile = (
        "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
        "<svg onload=\"document.title='owned'\"> &lt;b&gt; javascript:alert(1)"
    )
    use = ToolUse("read_thermometer", {"place": hostile}, id="call_1")
    chat.letta.script(Reply(hostile, tool_calls=[use]), hostile)
    tab = await chat.tab()
    await say(tab, hostile)
    await click(tab, "Allow")
    await tab.until(f"{ROWS}.length >= 5")
    await tab.reload()
    await tab.until(f"{ROWS}.length >= 4")
    assert await tab.run("document.title") != "owned"
    assert await tab.run("document.querySelectorAll('#log img, #log script, #log svg').length") == 0
    rows = await tab.run(ROWS)
    assert rows[0] == rows[1] == rows[-1] == hostile


async def test_a_request_that_is_refused_says_so_on_the_page(chat: Chat) -> None:
    tab = await chat.tab()
    await say(tab, "x" * 20_000)
    await tab.until(f"{ROWS}.some((row) => row.includes('longer than'))")
    # And what was written is still there.
    assert await tab.until("document.getElementById('text').value.length") == 20_000
    # The browser notes each answer of that kind by itself.
    tab.problems[:] = [p for p in tab.problems if "400 (Bad Request)" not in p]
    assert chat.letta.said == []
