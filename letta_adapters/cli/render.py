"""Internal: print for the commands: with colour and progress on a terminal, else plain text."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from letta_adapters.cli.flow import Flow
from letta_adapters.engine.deltas import extract_stream_text_delta
from letta_adapters.errors import LettaError
from letta_adapters.messages import (
    AssistantMessage,
    Message,
    ReasoningMessage,
    ResultMessage,
    RetryMessage,
    StreamEvent,
    ToolCallMessage,
    ToolProgressMessage,
    ToolResultMessage,
)

if TYPE_CHECKING:
    from rich.status import Status

    from letta_adapters.sync.client import Session

_LINE = 200  # characters of a tool call or result that are shown
_CONTROLS = {code: "�" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
# Characters that show a text in another order than it is written in. They could hide a command.
_REORDERING = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "�")
# Hints are written for Python; these are the same options on the command line.
_SPOKEN = (
    (", or pass Rest(api_key=...)", ""),
    ("pass Rest(api_key=...), ", ""),
    (", or pass Remote(auth_token=...)", ""),
    ("pass Remote(url='ws://host:port')", "pass --base-url ws://host:port"),
    ("Local(data_dir=...)", "--data-dir"),
    ("Check base_url", "Check the URL"),
    ("that base_url points", "that --base-url points"),
    ("pass model='provider/name'", "pass --model provider/name"),
)


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that writes escape codes to terminals only.

    With NO_COLOR it shows no colours even there; a dumb terminal gets no escape codes at all.
    """
    file = sys.stderr if stderr else sys.stdout
    terminal = file.isatty() and os.environ.get("TERM") != "dumb"
    return Console(
        stderr=stderr,
        force_terminal=terminal,
        no_color=bool(os.environ.get("NO_COLOR")),
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not terminal,  # a pipe gets the lines as they are
    )


def clean(text: str) -> str:
    """Return ``text`` without control characters: a model's text must not steer the terminal."""
    return text.replace("\r\n", "\n").translate(_CONTROLS)


def unmask(text: str) -> str:
    """Return ``text`` in the order in which it is written, as a terminal should show it.

    Characters that would show it in another order are replaced.
    """
    return clean(text).translate(_REORDERING)


def one_line(text: str) -> str:
    """Return ``text`` on one line, cut if it is too long."""
    line = " ".join(unmask(text).split())
    return line if len(line) <= _LINE else line[: _LINE - 3] + "..."


def call_text(name: str, tool_input: Mapping[str, Any], raw: str = "") -> str:
    """Return a tool call as it would be written in Python."""
    given = ", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in tool_input.items())
    # Arguments that are not valid JSON are shown as they came.
    unread = "" if raw.strip() == "{}" else raw
    return one_line(f"{name}({given or unread})")


def show_error(console: Console, error: BaseException) -> None:
    """Print an error's message and the hint what to do."""
    message = error.message if isinstance(error, LettaError) else str(error)
    console.print(Text(f"error: {unmask(message)}", style="bold red"))
    if isinstance(error, LettaError) and error.hint:
        show_hint(console, error.hint)


def show_hint(console: Console, hint: str, *, indent: int = 0) -> None:
    """Print a hint in terms of the command line."""
    # Errors give their hints in Python, which the user of a command line does not write.
    for python, spoken in _SPOKEN:
        hint = hint.replace(python, spoken)
    console.print(Text(" " * indent + unmask(hint), style="default"))


@contextmanager
def progress(console: Console, text: str, *, plain: bool = False) -> Iterator[None]:
    """Show a spinner while the block runs; without a terminal a line if ``plain``, else nothing."""
    if console.is_terminal:
        with console.status(text):
            yield
    else:
        if plain:
            console.print(f"{text} ...")
        yield


def end_leftovers(session: Session, console: Console) -> None:
    """End tool calls that an abandoned turn left waiting: they block the conversation."""
    ended = session.recover_pending_approvals().denied
    if ended:
        names = ", ".join(call.tool_name for call in ended)
        console.print(f"Not run, left waiting by an earlier turn: {clean(names)}.")


def format_usage(result: ResultMessage) -> str:
    """Return the cost of a turn, in tokens and seconds."""
    usage = result.usage
    tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"
    return f"({tokens}, {result.duration_ms / 1000:.1f} s)"


class Renderer:
    """A printer of the messages of turns as they come.

    It leaves out ``ErrorMessage``: the error is shown with the result.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._status: Status | None = None
        self._flow: Flow | None = None
        self._writing: tuple[str, str | None] | None = None
        self._streamed: set[tuple[str, str | None]] = set()
        self._mid_line = False
        self._retried = ""

    def run_turn(self, session: Session, content: Any) -> ResultMessage:
        """Send a message, show the turn as it comes, and return its result."""
        self.wait()
        try:
            session.send(content)
            for message in session.stream():
                self.show(message)
                if isinstance(message, ResultMessage):
                    return message
        finally:
            # Also when it is interrupted: the terminal must not keep a spinner.
            self.settle()
        raise AssertionError("a turn always ends with a result")

    def wait(self, text: str = "Thinking") -> None:
        """Show a spinner (on a terminal) until something is printed."""
        self.settle()
        if self.console.is_terminal:
            self._status = self.console.status(Text(text))
            self._status.start()

    def settle(self) -> None:
        """End an unfinished text and the spinner, so that other output may follow."""
        status, self._status = self._status, None
        if status is not None:
            status.stop()
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.end()
        if self._mid_line:
            self._put("\n")
        self._mid_line = False
        self._writing = None

    def show(self, message: Message) -> None:
        """Show one message."""
        if isinstance(message, StreamEvent):
            delta = extract_stream_text_delta(message)
            if delta is not None:
                # The complete message follows its fragments, and must not be shown again.
                self._streamed.add((delta.kind, message.otid))
                self._write((delta.kind, message.otid), delta.text)
        elif isinstance(message, AssistantMessage | ReasoningMessage):
            self._whole(message)
        elif isinstance(message, ToolCallMessage):
            call = call_text(message.tool_name, message.tool_input, message.raw_arguments)
            self._line(f"* {call}", "cyan")
            self.wait(f"Running {one_line(message.tool_name)}")
        elif isinstance(message, ToolProgressMessage):
            self._progress(message)
        elif isinstance(message, ToolResultMessage):
            text = one_line(message.content) or "(nothing)"
            self._line(f"  -> {text}", "red" if message.is_error else "dim")
            self.wait()
        elif isinstance(message, RetryMessage):
            self._retry(one_line(message.reason))
        elif isinstance(message, ResultMessage):
            self.settle()
            self._streamed.clear()
            self._retried = ""

    def _progress(self, message: ToolProgressMessage) -> None:
        """Show a tool's report in the spinner's line, and nowhere else."""
        # Into a pipe nothing is written that the next report makes void.
        if self._status is None:
            return
        amount = ""
        if message.progress is not None:
            amount = f" {message.progress:g}"
            amount += "" if message.total is None else f" of {message.total:g}"
        told = f": {message.content}" if message.content else ""
        text = one_line(f"Running {message.tool_name}{amount}{told}")
        self._status.update(Text(text, no_wrap=True, overflow="ellipsis"))

    def _whole(self, message: AssistantMessage | ReasoningMessage) -> None:
        """Show a complete message, unless its fragments were shown."""
        key = (message.type, message.otid)
        if key not in self._streamed:
            hidden = isinstance(message, ReasoningMessage) and message.redacted
            self._write(key, "(hidden by the provider)" if hidden else message.content)
        self.settle()

    def _retry(self, reason: str) -> None:
        # A model that is overloaded is asked many times for the same reason.
        if reason != self._retried:
            self._line(f"The model is asked again: {reason}", "yellow")
        self._retried = reason
        self.wait("Asking the model again")

    def _write(self, key: tuple[str, str | None], text: str) -> None:
        # Another message begins, so the one before ends its line.
        if key != self._writing:
            self.settle()
            self._writing = key
            self._begin(thought=key[0] == "reasoning")
        # Only a terminal shows characters in another order, so a pipe keeps them.
        if self._flow is not None:
            self._flow.add(unmask(text))
        elif text:
            self._put(clean(text))
            self._mid_line = not text.endswith("\n")

    def _begin(self, *, thought: bool) -> None:
        if self.console.is_terminal:
            style = "dim italic" if thought else ""
            self._flow = Flow(self.console, markdown=not thought, style=style)
        if thought and self._flow is not None:
            self._flow.add("thinking: ")
        elif thought:
            self._put("thinking: ")
            self._mid_line = True

    def _put(self, text: str) -> None:
        """Write into a pipe, or to a dumb terminal."""
        # Not by rich, which expands tabs: that would change a text that goes into a file.
        self.console.file.write(text)
        self.console.file.flush()

    def _line(self, text: str, style: str) -> None:
        self.settle()
        self.console.print(Text(text, style=style))
