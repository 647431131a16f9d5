"""Internal: show the last messages of a conversation that goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from letta_adapters.cli.flow import as_markdown
from letta_adapters.cli.render import unmask
from letta_adapters.messages import AssistantMessage, UserMessage

if TYPE_CHECKING:
    from rich.console import Console

    from letta_adapters.sync.client import Session

_SHOWN: Final = 6  # messages
_LOOKED_AT: Final = 40  # stored ones: tool calls and thoughts stand between
_LINES: Final = 20  # of one message


def show_past(session: Session, console: Console) -> None:
    """Print what was said last, without thoughts and tool calls."""
    page = session.list_messages(limit=_LOOKED_AT)
    said = [m for m in page.messages if isinstance(m, UserMessage | AssistantMessage)]
    last = [m for m in said if m.content.strip()][:_SHOWN]
    if not last:
        return
    if page.has_more or len(said) > len(last):
        console.print(Text("...", style="dim"))
    for message in reversed(last):
        text = _cut(unmask(message.content.strip()))
        if isinstance(message, UserMessage):
            console.print(Text(f"> {text}", style="bold"))
        elif console.is_terminal:
            console.print(as_markdown(text))
        else:
            console.print(Text(text))


def _cut(text: str) -> str:
    lines = text.split("\n")
    return text if len(lines) <= _LINES else "\n".join([*lines[:_LINES], "..."])
