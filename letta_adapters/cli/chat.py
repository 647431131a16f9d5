"""Internal: implement ``letta-adapters chat``: a conversation with approvals; Ctrl-C stops.

The terminal belongs to the main thread: it alone prints, asks and gets Ctrl-C. Another thread reads
the turn, and the questions of tools come from a third one; both put everything into one queue.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Final

from rich.text import Text

from letta_adapters.backends.config import Local, Remote, Rest
from letta_adapters.cli.approval import Approver, Call, Later
from letta_adapters.cli.exits import FAILED, OK
from letta_adapters.cli.lines import Keyboard
from letta_adapters.cli.memory import MemoryView
from letta_adapters.cli.past import show_past
from letta_adapters.cli.render import (
    Renderer,
    clean,
    end_leftovers,
    format_usage,
    make_console,
    progress,
    show_error,
    unmask,
)
from letta_adapters.cli.state import find_last, keep_last, state_folder
from letta_adapters.cli.target import load_image, make_backend, open_session
from letta_adapters.errors import LettaError
from letta_adapters.messages import InitMessage, Message, ResultMessage, ToolCallMessage
from letta_adapters.permissions import Allow, Deny, PermissionContext, Postpone
from letta_adapters.permissions.policy import DOES
from letta_adapters.sync.client import LettaClient

# On Windows, waiting without a limit cannot be interrupted.
_TICK: Final = 0.5
# Seconds that a question waits for the message that announces its tool call, which is on its way.
_ORDER_SECONDS: Final = 0.2
_COMMANDS: Final = {
    "/help": "what can be typed",
    "/image FILE_OR_URL": "show a picture with the next message",
    "/memory": "what the agent keeps in mind",
    "/memory NAME": "one part of it",
    "/memory edit NAME": "change that part",
    "/exit": "leave (or Ctrl-D)",
}
_WORDS: Final = (*dict.fromkeys(name.split()[0] for name in _COMMANDS), "/quit")
_HELP: Final = "/help for help. Ctrl-C stops an answer, Ctrl-D leaves."
_KEYS: Final = (
    "Alt-Enter begins a new line; a pasted text of several lines is one message. Ctrl-C stops an "
    "answer, twice it leaves. A message that begins with / is sent if a space stands before it."
)


def run(args: argparse.Namespace) -> int:
    """Talk until the user leaves."""
    spec = make_backend(args)
    if args.goes_on:
        find_last(args, spec)
    with LettaClient(spec) as client:
        chat = Chat(args, client, spec)
        try:
            chat.open()
            return chat.talk()
        finally:
            chat.close()


@dataclass
class _Question:
    """A question whether a tool may run; the thread with the terminal sets the answer."""

    call_id: str
    call: Call
    answer: Future[Allow | Deny | Postpone] = field(default_factory=Future)


_Event = Message | _Question | Exception


class _LeaveError(Exception):
    """The person has left, with a question open."""


class Chat:
    """A session at the terminal."""

    def __init__(
        self, args: argparse.Namespace, client: LettaClient, spec: Rest | Local | Remote
    ) -> None:
        self._args = args
        self._client = client
        self._spec = spec
        self._console = make_console()
        self._notes = make_console(stderr=True)
        self._renderer = Renderer(self._console)
        self._keyboard = (
            Keyboard(state_folder(args) / "history", _WORDS) if self.is_watched() else None
        )
        self._approver = Approver(self._console, self._keyboard) if self._keyboard else None
        self._images = [load_image(given) for given in args.image]
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._init: InitMessage | None = None
        self._shown: set[str] = set()
        self._turns = 0
        self._stopping = False
        # Where calls wait for as long as it takes, nobody has to decide in order to leave.
        self._waits = client.backend_name == "rest"
        self._session = open_session(
            client, args, include_partial_messages=True, can_use_tool=self._may_run
        )

    @staticmethod
    def is_watched() -> bool:
        """Return whether a person is there, with a terminal to draw the line on."""
        return sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())

    def open(self) -> None:
        """Connect, and print the agent, conversation and model, and what was said last."""
        with progress(self._notes, "Connecting"):
            init = self._init = self._session.initialize()
        where = f"{init.agent_id} / {init.conversation_id}, {init.model or 'its own model'}"
        self._notes.print(Text(unmask(where), style="dim"), soft_wrap=True)
        if self._keyboard is not None:
            if self._args.conversation:
                show_past(self._session, self._console)
            self._notes.print(Text(_HELP, style="dim"))

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
            # Not wrapped: it is there to be copied.
            self._notes.print(Text(f"Go on later: {clean(command)}", style="dim"), soft_wrap=True)

    def talk(self) -> int:
        """Run one turn for each message, and return the exit code."""
        try:
            code = OK if self._answer_left_open() else FAILED
            for line in self._lines():
                if line.strip() in ("/exit", "/quit"):
                    break
                if line.strip():
                    good = self._take(line)
                    # A person has seen the error and goes on; a script needs it in the exit code.
                    code = OK if self._keyboard or (good and code == OK) else FAILED
        except _LeaveError:
            return OK
        return OK if self._keyboard else code

    def _lines(self) -> Iterator[str]:
        if self._keyboard is None:
            yield from sys.stdin
            return
        while True:
            try:
                line = self._keyboard.read_message()
            except EOFError:
                return
            yield line

    def _take(self, line: str) -> bool:
        """Do what a command says, or send the line; return whether that worked."""
        try:
            if line.startswith("/"):
                return self._command(line.strip())
            images, self._images = self._images, []
            text = line.strip()
            content = [text, *images] if images else text
            return self._say(lambda: self._session.send(content))
        except LettaError as error:
            show_error(self._notes, error)
            return False

    def _command(self, line: str) -> bool:
        word, _, rest = line.partition(" ")
        if word == "/help" and not rest:
            for name, about in _COMMANDS.items():
                self._notes.print(Text(f"{name:20} {about}"))
            self._notes.print(Text(_KEYS))
            return True
        if word == "/image" and rest.strip():
            self._images.append(load_image(rest.strip()))
            return True
        if word == "/memory" and self._init is not None:
            MemoryView(self._client, self._init, self._console, self._keyboard).run(rest.strip())
            return True
        # Nobody who mistypes a command wants to say it to the agent.
        raise LettaError(
            f"There is no command {line.splitlines()[0]}",
            hint=f"There are {', '.join(_COMMANDS)}. To send it as it is, begin with a space.",
        )

    # -- one turn ---------------------------------------------------------------------------

    def _say(self, begin: Callable[[], None]) -> bool:
        """Run the turn that ``begin`` begins; return whether it succeeded."""
        try:
            with self._keyboard.resting() if self._keyboard else nullcontext():
                result = self._turn(begin)
        except LettaError as error:
            self._renderer.settle()
            show_error(self._notes, error)
            return False
        if result is not None and result.error_code == "detached":
            raise _LeaveError
        if result is None or result.error_code == "cancelled":
            self._notes.print(Text("Stopped.", style="yellow"))
        elif not result.success:
            show_error(self._notes, result.to_error())
        else:
            self._notes.print(Text(format_usage(result), style="dim"))
        return result is not None and result.success

    def _turn(self, begin: Callable[[], None]) -> ResultMessage | None:
        """Return the turn's result; ``None`` if Ctrl-C came before the turn had begun."""
        # A new queue: the thread of a turn that was left may still fill the old one.
        self._events = SimpleQueue()
        try:
            self._renderer.wait()
            self._turns += 1
            if self._init is not None:
                keep_last(self._args, self._spec, self._init.agent_id, self._init.conversation_id)
            begin()
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
            event.answer.set_result(self._decide(event.call))
            self._renderer.wait()
        else:
            self._show(event)
        return event

    def _show(self, message: Message) -> None:
        if isinstance(message, ToolCallMessage):
            self._shown.add(message.tool_call_id)
        self._renderer.show(message)

    def _announce(self, call_id: str) -> None:
        """Show the events up to the message of this tool call."""
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
    ) -> Allow | Deny | Postpone:
        """Hand the question to the main thread, and wait on this worker thread for the answer."""
        change = context.client_tool or not self._waits
        call = Call(name, tool_input, DOES[context.kind], can_change=change)
        # The policy allows it.
        if isinstance(context.default, Allow):
            return Allow()
        if self._approver is None:
            return Deny("Nobody is there who could approve it.")
        if self._approver.knows(call):
            return Allow()
        question = _Question(context.tool_call_id, call)
        self._events.put(question)
        return question.answer.result()

    def _decide(self, call: Call) -> Allow | Deny | Postpone:
        assert self._approver is not None, "only who is there is asked"
        decision = self._approver.decide(call)
        if not isinstance(decision, Later):
            return decision
        if not self._waits:
            return Deny("The user has left without an answer.", interrupt=True)
        self._notes.print("It waits for an answer; going on with the conversation asks again.")
        return Postpone()

    def _answer_left_open(self) -> bool:
        """Ask about the calls that an earlier run left waiting: they block the conversation."""
        if not self._args.conversation:
            return True
        if self._approver is None:
            end_leftovers(self._session, self._notes)
            return True
        waiting = self._session.pending_approvals()
        if not waiting:
            return True
        self._notes.print(Text("An earlier run left this waiting for an answer:", style="yellow"))
        decisions: dict[str, Allow | Deny | bool] = {}
        for one in waiting:
            decision = self._approver.decide(Call(one.tool_name, one.tool_input))
            # All are answered together, or none; Ctrl-C is no answer to a turn of another day.
            if isinstance(decision, Later) or (isinstance(decision, Deny) and decision.interrupt):
                raise _LeaveError
            decisions[one.tool_call_id] = decision
        return self._say(lambda: self._session.respond(decisions))


def _read(stream: Generator[Message, None, None], events: SimpleQueue[_Event]) -> None:
    """Put every message of the turn into the queue; this runs on a thread of its own."""
    try:
        for message in stream:
            events.put(message)
    except Exception as error:
        events.put(error)
