"""Play the messenger of ``messaging_bot.py``: a scene with two people, or lines that are typed."""

from __future__ import annotations

import asyncio
import base64
import itertools
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Typed:
    """Messages are typed, one a line: ``who: text``, or ``group/who: text`` in a group."""

    def __init__(self) -> None:
        self._count = itertools.count()

    async def receive(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what is typed until the input ends."""
        while line := await asyncio.to_thread(sys.stdin.readline):
            who, _, text = line.strip().partition(": ")
            group, _, sender = who.rpartition("/")
            if text:
                yield {
                    "id": f"typed-{next(self._count)}",
                    "chat": group or sender,
                    "sender": sender,
                    "text": text,
                    "group": bool(group),
                }

    async def send(self, chat: str, text: str) -> None:
        """Print an answer."""
        print(f"  [{chat}] bot: {text}")


class Scene:
    """Two people write; each waits for the answer to what they wrote before.

    Args:
        picture: The path of a picture that ada sends.
    """

    def __init__(self, picture: Path) -> None:
        self.crash = asyncio.Event()
        self._answers: asyncio.Queue[str] = asyncio.Queue()
        self._lines = iter(self._write(str(picture)))

    def _write(self, picture: str) -> list[dict[str, Any]]:
        ada = {"chat": "ada", "sender": "ada"}
        bob = {"chat": "garden", "sender": "bob", "group": True}
        return [
            {**ada, "id": "1", "text": "Hello"},
            {**ada, "id": "2", "text": "What is on this?", "images": (picture,)},
            {**bob, "id": "3", "text": "Are roses hard to keep?", "silent": True},
            {**bob, "id": "4", "text": "@bot What did I ask?"},
            {**ada, "id": "5", "text": "Delete my shopping note."},
            {**ada, "id": "6", "text": "yes"},
            {**ada, "id": "7", "text": "This one and", "silent": True},
            {**ada, "id": "8", "text": "this one wait in line", "also": 1},
            {**ada, "id": "9", "text": "a long answer, please", "crash": True},
        ]

    async def receive(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the scene's lines; the messenger ends with its last one."""
        for line in self._lines:
            silent, also = line.pop("silent", False), line.pop("also", 0)
            crash = line.pop("crash", False)
            print(f"[{line['chat']}] {line['sender']}: {line['text']}")
            yield line
            if crash:
                await asyncio.sleep(0.5)
                self.crash.set()
                await asyncio.Event().wait()
            for _ in range(0 if silent else 1 + also):
                await self._answers.get()

    async def send(self, chat: str, text: str) -> None:
        """Print an answer, and let the person who waited for it go on."""
        print(f"  [{chat}] bot: {text}")
        self._answers.put_nowait(text)
