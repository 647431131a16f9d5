"""Internal: show what a tool is about to do, exactly, and read a person's decision on it."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from letta_adapters.cli.render import one_line
from letta_adapters.permissions import Allow, Deny

_HELP: Final = (
    "y: run it, once\n"
    "a: run it, and do not ask about this very call again in this session\n"
    "n: do not run it; n WHY tells the agent why\n"
    "{edit}"
    "Ctrl-C: do not run it, and stop the turn"
)
_EDIT_HELP: Final = "e: change what it is told before it runs; it is shown again\n"
# Characters that count as printable, and are not seen.
_UNSEEN: Final = frozenset(
    map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0))
) | frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
# Texts for people in the input of a tool, which change nothing about what it does.
_FOR_PEOPLE: Final = frozenset({"description"})


class Asks(Protocol):
    """Whoever can be asked."""

    def read_answer(self, question: str, given: str = "") -> str: ...

    def forget_typed(self) -> None: ...


@dataclass(frozen=True)
class Call:
    """A tool call that waits for a decision; ``does`` is its effect in words, if known."""

    name: str
    tool_input: Mapping[str, Any]
    does: str = ""
    can_change: bool = False

    def key(self) -> str:
        """Return a text that is the same for the same tool told to do the same."""
        told = {k: v for k, v in self.tool_input.items() if k not in _FOR_PEOPLE}
        return json.dumps([self.name, told], sort_keys=True, default=repr)


@dataclass(frozen=True)
class Later:
    """No decision: the person has left the question open."""


Decision: TypeAlias = "Allow | Deny | Later"


class Approver:
    """A person who is asked about tool calls, and the calls that are not to be asked about again.

    Args:
        console: Where the question is shown.
        person: Whoever answers it.
    """

    def __init__(self, console: Console, person: Asks) -> None:
        self._console = console
        self._person = person
        self._always: set[str] = set()

    def knows(self, call: Call) -> bool:
        """Return whether this very call was allowed for the whole session."""
        return call.key() in self._always

    def decide(self, call: Call) -> Decision:
        """Show the call and return the decision on it."""
        changed = call
        self._show(changed)
        # A key that was pressed while the answer ran must not approve anything.
        self._person.forget_typed()
        while True:
            try:
                answer = self._person.read_answer(_question(call)).strip()
                if call.can_change and answer.lower() in ("e", "edit"):
                    changed = self._change(changed)
                    continue
            except KeyboardInterrupt:
                return Deny("The user stopped the turn.", interrupt=True)
            except EOFError:
                return Later()
            decision = self._read(answer, changed, is_new=changed is not call)
            if decision is not None:
                return decision

    def _read(self, answer: str, call: Call, *, is_new: bool) -> Decision | None:
        word, _, why = answer.partition(" ")
        word = word.lower()
        if word in ("n", "no"):
            return Deny(why.strip())
        # More words than one would be an answer to something else.
        if not why and word in ("y", "yes", "a", "always"):
            if word.startswith("a"):
                # As it was shown last: what the agent wrote, if it was changed, is asked about
                # again.
                self._always.add(call.key())
            return Allow(dict(call.tool_input)) if is_new else Allow()
        self._console.print(Text(_HELP.format(edit=_EDIT_HELP if call.can_change else "")))
        return None

    def _change(self, call: Call) -> Call:
        """Return the call as the person wants it, and show it as it would run."""
        text = call.tool_input.get("command")
        if isinstance(text, str):
            told = {**call.tool_input, "command": self._person.read_answer("command: ", text)}
        else:
            told = self._change_all(call.tool_input)
        changed = Call(call.name, told, call.does, can_change=True)
        self._show(changed)
        return changed

    def _change_all(self, told: Mapping[str, Any]) -> dict[str, Any]:
        text = json.dumps(dict(told), ensure_ascii=False, default=repr)
        while True:
            text = self._person.read_answer("as JSON: ", text)
            try:
                found = json.loads(text)
            except ValueError as error:
                self._console.print(Text(f"That is no JSON: {error}"))
                continue
            if isinstance(found, dict):
                return found
            self._console.print(Text('It must be an object: {"name": value, ...}'))

    def _show(self, call: Call) -> None:
        """Show the whole input: nobody can approve a text that is cut off."""
        title = f"{one_line(call.name)} asks for approval"
        title += f" (it {call.does})" if call.does else ""
        rows = [_row(key, value) for key, value in call.tool_input.items()] or [Text("(no input)")]
        if self._console.is_terminal:
            self._console.print(
                Panel(Group(*rows), title=Text(title), title_align="left", border_style="yellow")
            )
        else:
            self._console.print(f"{title}:")
            for row in rows:
                self._console.print(row)


def _question(call: Call) -> str:
    edit = ", [e]dit" if call.can_change else ""
    return f"Allow it? [y]es, [n]o or n WHY, [a]lways this very call{edit}: "


def _row(key: str, value: Any) -> Text:
    """Return one argument; a value of several lines stands below its name, set off by a bar."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    row = exact(key.replace("\n", "\\n"))
    if "\n" not in text:
        return row.append(": ").append_text(exact(text))
    row.append(":")
    # Else a line of the value could pass for another argument.
    for line in text.split("\n"):
        row.append("\n  | ").append_text(exact(line))
    return row


def exact(text: str) -> Text:
    """Return a text in which each character that would not be seen is written as its number.

    Those steer the terminal, show a text in another order than it runs in, or take no space.
    """
    shown = Text()
    for char in text:
        if char == "\t" or (char.isprintable() and char not in _UNSEEN):
            shown.append(char)
        else:
            shown.append(_number(char), style="reverse")
    return shown


def _number(char: str) -> str:
    code = ord(char)
    name = unicodedata.name(char, "")
    written = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return f"<{written} {name.lower()}>" if name else f"<{written}>"
