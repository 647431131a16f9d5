"""Internal: implement ``letta-adapters chat``: a conversation with approvals; Ctrl-C stops.

The terminal belongs to the main thread: it alone prints, asks and gets Ctrl-C. Another thread reads
the turn, and the questions of tools come from a third one; both put everything into one queue.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any, Final

from rich.panel import Panel
from rich.text import Text

from letta_adapters.cli import FAILED, OK, make_backend, open_session
from letta_adapters.cli.render import (
    Renderer,
    clean,
    end_leftovers,
    format_usage,
    make_console,
    one_line,
    progress,
    show_error,
    unmask,
)
from letta_adapters.errors import LettaError
from letta_adapters.messages import InitMessage, Message, ResultMessage, ToolCallMessage
from letta_adapters.permissions import Allow, Deny, PermissionContext
from letta_adapters.permissions.policy import DOES
from letta_adapters.sync.client import LettaClient

# On Windows, waiting without a limit cannot be interrupted.
_TICK: Final = 0.5
# Seconds that a question waits for the message that announces its tool call, which is on its way.
_ORDER_SECONDS: Final = 0.2
_HELP: Final = "/exit or Ctrl-D leaves. Ctrl-C stops an answer, and leaves at the prompt."


def run(args: argparse.Namespace) -> int:
    """Talk until the user leaves."""
    with LettaClient(make_backend(args)) as client:
        chat = Chat(args, client)
        try:
            chat.open()
            return chat.talk()
        finally:
            chat.close()


@dataclass
class _Question:
    """A question whether a tool may run; the thread with the terminal sets the answer."""

    call_id: str
    name: str
    tool_input: Mapping[str, Any]
    does: str
    answer: Future[Allow | Deny] = field(default_factory=Future)


_Event = Message | _Question | Exception


class Chat:
    """A session at the terminal."""

    def __init__(self, args: argparse.Namespace, client: LettaClient) -> None:
        self._args = args
        self._console = make_console()
        self._errors = make_console(stderr=True)
        self._renderer = Renderer(self._console)
        self._interactive = sys.stdin.isatty()
        self._allowed: set[str] = set()
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._init: InitMessage | None = None
        self._shown: set[str] = set()
        self._turns = 0
        self._stopping = False
        self._session = open_session(
            client, args, include_partial_messages=True, can_use_tool=self._may_run
        )

    def open(self) -> None:
        """Connect, and print the agent, conversation and model."""
        with progress(self._errors, "Connecting"):
            init = self._init = self._session.initialize()
        where = f"{init.agent_id} / {init.conversation_id}, {init.model or 'its own model'}"
        self._console.print(Text(clean(where), style="dim"))
        if self._interactive:
            self._console.print(Text(_HELP, style="dim"))

    def close(self) -> None:
        """Stop what runs, and print the command that continues the conversation."""
        self._renderer.settle()
        self._session.close()
        # Without a turn there is nothing to continue.
        if self._init is not None and self._turns:
            given = {
                "--backend": self._args.backend,
                "--base-url": self._args.base_url,
                "--data-dir": self._args.data_dir,
                "--agent": self._init.agent_id,
                "--conversation": self._init.conversation_id,
            }
            options = [str(part) for pair in given.items() if pair[1] for part in pair]
            command = shlex.join(["letta-adapters", "chat", *options])
            self._console.print(Text(f"Go on later: {command}", style="dim"))

    def talk(self) -> int:
        """Run one turn for each line, and return the exit code."""
        code = OK
        for line in self._lines():
            text = line.strip()
            if text in ("/exit", "/quit"):
                break
            if text.startswith("/") and text[1:].isalpha():
                self._console.print(_HELP)
            elif text:
                good = self._say(text)
                # A person has seen the error and goes on; a script needs it in the exit code.
                code = OK if self._interactive or (good and code == OK) else FAILED
        return code

    def _lines(self) -> Iterator[str]:
        if not self._interactive:
            yield from sys.stdin
            return
        with suppress(ImportError):
            import_module("readline")  # line editing and history in input()
        while True:
            try:
                line = input("> ")
            except (EOFError, KeyboardInterrupt) as leaving:
                self._console.print()
                if isinstance(leaving, KeyboardInterrupt):
                    raise
                return
            yield line

    # -- one turn ---------------------------------------------------------------------------

    def _say(self, text: str) -> bool:
        try:
            result = self._turn(text)
        except LettaError as error:
            self._renderer.settle()
            show_error(self._errors, error)
            return False
        if result is None or result.error_code == "cancelled":
            self._console.print(Text("Stopped.", style="yellow"))
        elif not result.success:
            show_error(self._errors, result.to_error())
        else:
            self._console.print(Text(format_usage(result), style="dim"))
        return result is not None and result.success

    def _turn(self, text: str) -> ResultMessage | None:
        """Return the turn's result; ``None`` if Ctrl-C came before the turn had begun."""
        self._events = SimpleQueue()
        try:
            self._renderer.wait()
            if self._args.conversation and not self._turns:
                # Tool calls that an earlier run left waiting block the conversation.
                end_leftovers(self._session, self._errors)
            self._turns += 1
            self._session.send(text)
            job = (self._session.stream(), self._events)
            # A daemon, so that leaving does not wait for a turn that hangs.
            threading.Thread(target=_read, args=job, daemon=True).start()
        except KeyboardInterrupt:
            self._renderer.settle()
            self._session.abort()
            return None
        self._stopping = False
        # Even after Ctrl-C: the turn's end says what became of the message.
        while True:
            event = self._next_or_stop()
            if isinstance(event, ResultMessage):
                return event

    def _next_or_stop(self) -> _Event | None:
        try:
            return self._next()
        except KeyboardInterrupt:
            if self._stopping:
                raise  # a second time: leave without waiting for the end
            self._stopping = True
            self._renderer.wait("Stopping")
            self._session.abort()
            return None

    def _next(self) -> _Event | None:
        """Handle the next event of the turn."""
        try:
            event = self._events.get(timeout=_TICK)
        except Empty:
            return None
        if isinstance(event, Exception):
            raise event
        if isinstance(event, _Question):
            # The question came from another thread, and may have overtaken the message of its call.
            self._announce(event.call_id)
            self._renderer.settle()
            event.answer.set_result(self._decide(event))
            self._renderer.wait()
        else:
            self._show(event)
        return event

    def _show(self, message: Message) -> None:
        if isinstance(message, ToolCallMessage):
            self._shown.add(message.tool_call_id)
        self._renderer.show(message)

    def _announce(self, call_id: str) -> None:
        """Show the messages that came before a question, which took another way."""
        deadline = time.monotonic() + _ORDER_SECONDS
        while call_id not in self._shown and (left := deadline - time.monotonic()) > 0:
            with suppress(Empty):
                event = self._events.get(timeout=left)
                # Put back for whoever waits for it: after one of these the call's message does not
                # come any more.
                if isinstance(event, Exception | ResultMessage | _Question):
                    self._events.put(event)
                    return
                self._show(event)

    # -- approvals --------------------------------------------------------------------------

    def _may_run(
        self, name: str, tool_input: Mapping[str, Any], context: PermissionContext
    ) -> Allow | Deny:
        """Hand the question to the main thread, and wait on this worker thread for the answer."""
        # The policy allows it, or the user did so for the whole session.
        if name in self._allowed or isinstance(context.default, Allow):
            return Allow()
        if not self._interactive:
            return Deny("Nobody is there who could approve it.")
        question = _Question(context.tool_call_id, name, tool_input, DOES[context.kind])
        self._events.put(question)
        return question.answer.result()

    def _decide(self, question: _Question) -> Allow | Deny:
        name = one_line(question.name)
        self._show_question(name, question.tool_input, question.does)
        prompt = f"Allow it? [y]es, [n]o, [a]lways {name} in this session: "
        # A key that was pressed while the answer ran must not approve anything.
        _forget_typed()
        while True:
            try:
                answer = input(prompt).strip().lower()
            except KeyboardInterrupt:
                self._console.print()
                return Deny("The user stopped the turn.", interrupt=True)
            except EOFError:
                self._console.print()
                return Deny()
            if answer in ("a", "always"):
                self._allowed.add(question.name)
            if answer in ("y", "yes", "a", "always"):
                return Allow()
            if answer in ("n", "no"):
                return Deny()

    def _show_question(self, name: str, tool_input: Mapping[str, Any], does: str) -> None:
        """Show the whole input: nobody can approve a text that is cut off."""
        rows = [
            f"{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
            for key, value in tool_input.items()
        ]
        body = Text(unmask("\n".join(rows)) or "(no input)")
        title = f"{name} asks for approval (it {does})"
        if self._console.is_terminal:
            panel = Panel(body, title=Text(title), title_align="left", border_style="yellow")
            self._console.print(panel, soft_wrap=False)
        else:
            self._console.print(f"{title}:")
            self._console.print(body)


def _read(stream: Generator[Message, None, None], events: SimpleQueue[_Event]) -> None:
    """Put every message of the turn into the queue; this runs on a thread of its own."""
    try:
        for message in stream:
            events.put(message)
    except Exception as error:
        events.put(error)


def _forget_typed() -> None:
    """Discard keys typed before the question was shown: they do not answer it."""
    if sys.platform != "win32":
        import termios

        with suppress(termios.error, OSError):
            termios.tcflush(sys.stdin, termios.TCIFLUSH)
