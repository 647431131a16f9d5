"""Run a messaging bot: one agent that remembers everybody, and a conversation for each chat.

    python examples/messaging_bot.py           (a scene with ada and bob, who are played)
    python examples/messaging_bot.py --type    (you type: `ada: Hello`, `garden/bob: @bot Hello`)

A chat's messages are answered in their order while other chats go on. In a group the bot hears all
and answers who mentions it. What needs an approval is asked in the chat, of the one who wanted it.
What had arrived is answered after a restart, too, and nothing is answered twice. To put it on a
messenger, write a :class:`Transport` for that.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from _agent import backend, heard
from _bot_scene import PICTURE, Scene, Typed

from letta_adapters import (
    AsyncLettaClient,
    AsyncSession,
    Deny,
    LettaError,
    PermissionContext,
    image_from_file,
)
from letta_adapters.testing.scripted_model import ModelRequest, Reply, ToolUse

NAME = "@bot"
AGAIN = "My connection broke. Please give me your last answer again, as a whole."


@dataclass(frozen=True)
class Incoming:
    """A message that somebody wrote.

    Attributes:
        id: The messenger's own id of it, which names it for ever.
        chat: Where it was written.
        sender: Who wrote it.
        text: The text.
        images: Paths of pictures.
        group: More than two are in the chat.
    """

    id: str
    chat: str
    sender: str
    text: str
    images: tuple[str, ...] = ()
    group: bool = False


class Transport(Protocol):
    """The messenger."""

    def receive(self) -> AsyncIterator[dict[str, Any]]:
        """Yield messages, each as the arguments of :class:`Incoming`."""

    async def send(self, chat: str, text: str) -> None:
        """Write into a chat."""


class Journal:
    """What has arrived and is not answered yet, and each chat's conversation, in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        stored = json.loads(path.read_text()) if path.exists() else {}
        self.conversations: dict[str, str] = stored.get("conversations", {})
        self.waiting: dict[str, dict[str, Any]] = stored.get("waiting", {})

    def save(self) -> None:
        """Write it as a whole: a crash leaves the old file or the new one."""
        temporary = self._path.with_suffix(".new")
        content = {"conversations": self.conversations, "waiting": self.waiting}
        temporary.write_text(json.dumps(content))
        temporary.replace(self._path)


@dataclass
class Chat:
    """A chat that has something to answer: its queue, and the question that is open in it."""

    queue: asyncio.Queue[Incoming] = field(default_factory=asyncio.Queue)
    overheard: list[str] = field(default_factory=list)
    question: asyncio.Future[bool] | None = None
    asked: str = ""  # who may answer the question
    task: asyncio.Task[None] | None = None


class Bot:
    """Answers what a messenger brings.

    Args:
        client: The client.
        agent_id: The one agent that answers in all chats.
        transport: The messenger.
        journal: Where to note what a restart needs.
    """

    def __init__(
        self, client: AsyncLettaClient, agent_id: str, transport: Transport, journal: Journal
    ) -> None:
        self.client = client
        self.agent_id = agent_id
        self.transport = transport
        self.journal = journal
        self.chats: dict[str, Chat] = {}
        self.over = False

    async def run(self) -> None:
        """Answer until the messenger ends; first of all what an earlier run left."""
        try:
            for left in list(self.journal.waiting.values()):
                self.queue(Incoming(**{**left, "images": tuple(left["images"])}))
            async for arrived in self.transport.receive():
                self.take(Incoming(**arrived))
            # Nobody can answer a question any more.
            self.over = True
            for chat in self.chats.values():
                if chat.question and not chat.question.done():
                    chat.question.set_result(False)
            await asyncio.gather(*(chat.queue.join() for chat in self.chats.values()))
        finally:
            tasks = [chat.task for chat in self.chats.values() if chat.task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def take(self, message: Incoming) -> None:
        """Note a message, unless it only answers a question or is not meant for the bot."""
        chat = self.chats.setdefault(message.chat, Chat())
        answer = message.text.strip().lower().removeprefix(NAME).strip()
        if chat.question and message.sender == chat.asked and answer in ("yes", "no"):
            if not chat.question.done():
                chat.question.set_result(answer == "yes")
        elif message.group and NAME not in message.text:
            chat.overheard.append(f"{message.sender}: {message.text}")
        elif message.id not in self.journal.waiting:
            self.journal.waiting[message.id] = asdict(message)
            self.journal.save()
            self.queue(message)

    def queue(self, message: Incoming) -> None:
        """Let the chat answer it after what came before."""
        chat = self.chats.setdefault(message.chat, Chat())
        chat.queue.put_nowait(message)
        if chat.task is None:
            chat.task = asyncio.create_task(self.answer_all(message.chat, chat))

    async def answer_all(self, name: str, chat: Chat) -> None:
        """Answer a chat's messages, one after the other."""
        while True:
            message = await chat.queue.get()
            try:
                try:
                    text = await self.answer(message, chat)
                except LettaError as error:
                    text = f"I could not answer: {error}"
                await self.transport.send(name, text)
                del self.journal.waiting[message.id]
                self.journal.save()
            finally:
                chat.queue.task_done()

    async def answer(self, message: Incoming, chat: Chat) -> str:
        """Return the answer to a message."""

        async def ask(name: str, tool_input: Any, _context: PermissionContext) -> bool:
            if self.over:
                return False
            chat.question, chat.asked = asyncio.get_running_loop().create_future(), message.sender
            question = f"{message.sender}, may I run {name} with {tool_input}? Answer yes or no."
            await self.transport.send(message.chat, question)
            try:
                return await chat.question
            finally:
                chat.question = None

        async with await self.open(message.chat, ask) as session:
            if await is_stored(session, message):
                # An earlier run asked, and may have heard a part of the answer: not asked twice.
                result = await session.run_turn(AGAIN)
            else:
                result = await session.run_turn(list(self.content(message, chat)), otid=message.id)
            return result.raise_for_status().result or "(no answer)"

    async def open(self, chat: str, ask: Any) -> AsyncSession:
        """Return a session in the chat's conversation, which is made for the first message."""
        if chat not in self.journal.conversations:
            made = await self.client.conversations.create(self.agent_id, summary=f"Chat {chat}")
            self.journal.conversations[chat] = str(made["id"])
            self.journal.save()
        return self.client.resume_session(
            self.journal.conversations[chat],
            tools=[delete_note],
            can_use_tool=ask,
            ask_timeout=600,
            ask_timeout_answer=Deny("Nobody answered for ten minutes."),
        )

    def content(self, message: Incoming, chat: Chat) -> Iterator[Any]:
        """Yield the parts of what the agent is told."""
        if message.group:
            said = [*chat.overheard, f"{message.sender}: {message.text}"]
            chat.overheard.clear()
            yield "\n".join(said)
        else:
            yield message.text
        for path in message.images:
            yield image_from_file(path)


async def is_stored(session: AsyncSession, message: Incoming) -> bool:
    """Return whether the conversation holds a message already."""
    page = await session.list_messages(limit=50)
    return any(one.type == "user" and one.otid == message.id for one in page.messages)


def delete_note(name: str) -> str:
    """Delete a note for ever.

    Args:
        name: Its name.
    """
    return f"The note {name!r} is gone."


def stand_in(request: ModelRequest, asked: str) -> Reply:
    result = heard(request)
    if result is not None:
        return Reply("Done: it is gone." if "gone" in result else "As you like: I keep it.")
    if asked == AGAIN:
        return Reply("Here is the long answer, as a whole.")
    if "long" in asked:
        return Reply("It is a very long answer " * 5, token_delay=0.3)
    if "Delete" in asked:
        return Reply(tool_calls=[ToolUse("delete_note", {"name": "shopping"})])
    if "image_url" in json.dumps(request.messages[-1]):
        return Reply("I see one red dot.")
    if "roses" in asked and NAME in asked:
        return Reply("bob asked about roses.")
    return Reply(f"You said: {asked}", token_delay=0.05)


async def main() -> None:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        backend(stand_in, Path(home) / "letta") as spec,
    ):
        (picture := Path(home) / "dot.png").write_bytes(PICTURE)
        async with AsyncLettaClient(spec) as client:
            agent_id = await client.create_agent(name="bot", persona="I am everybody's bot.")
            if "--type" in sys.argv:
                await Bot(client, agent_id, Typed(), Journal(Path(home) / "bot.json")).run()
                return
            scene = Scene(picture)
            # The first run is stopped in the middle of an answer; the second one goes on.
            first = Bot(client, agent_id, scene, Journal(Path(home) / "bot.json"))
            running = asyncio.create_task(first.run())
            await scene.crash.wait()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            print("(the bot stops in mid-answer, and starts again)")
            await Bot(client, agent_id, scene, Journal(Path(home) / "bot.json")).run()


if __name__ == "__main__":
    asyncio.run(main())
