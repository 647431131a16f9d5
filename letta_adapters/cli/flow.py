"""Internal: show a text on a terminal while it grows, as Markdown or plain, wrapped at words.

What is complete (a paragraph, a list, a block of code) is printed for good. The last block is drawn
again and again below it, until it is complete, too.
"""

from __future__ import annotations

from typing import ClassVar, Final

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Heading, Markdown
from rich.segment import Segment
from rich.text import Text

_DRAWN_PER_SECOND: Final = 15
_MARGIN: Final = 2  # lines of the screen that are left free, so that nothing scrolls away


class Flow:
    """One message of the agent's; ``style`` is that of a plain text, Markdown has its own."""

    def __init__(self, console: Console, *, markdown: bool, style: str = "") -> None:
        self._console = console
        self._markdown = markdown
        self._style = style
        self._pending = ""
        self._printed = False
        self._live = Live(
            console=console,
            get_renderable=lambda: _Lines(self._draw(self._pending), console.height - _MARGIN),
            refresh_per_second=_DRAWN_PER_SECOND,
            transient=True,
        )

    def add(self, text: str) -> None:
        """Show more of the text."""
        self._pending += text
        # An empty text would be drawn as an empty line.
        if self._pending.strip():
            self._live.start()
        # Only a whole line decides what a block is: `1` may become the item of a list.
        if "\n" in text:
            whole = self._pending[: self._pending.rindex("\n") + 1]
            cut = self._complete(whole)
            self._print(self._pending[:cut])
            self._pending = self._pending[cut:]

    def end(self) -> None:
        """Print what is left."""
        rest, self._pending = self._pending, ""
        self._live.stop()
        self._print(rest)

    def _complete(self, text: str) -> int:
        """Return the number of characters that further text does not change any more."""
        if not self._markdown:
            return len(text)
        starts = [
            token.map[0]
            for token in make_parser().parse(text)
            if token.level == 0 and token.map is not None
        ]
        lines = text.splitlines(keepends=True)
        # Only the last block can still grow, or turn out to be of another kind.
        return len("".join(lines[: starts[-1]])) if starts else 0

    def _print(self, text: str) -> None:
        if not text.strip():
            return
        if self._markdown and self._printed:
            self._console.print()
        self._printed = True
        self._console.print(_Lines(self._draw(text)))

    def _draw(self, text: str) -> RenderableType:
        if self._markdown:
            return as_markdown(text)
        return Text(text.removesuffix("\n"), style=self._style)


class _Lines:
    """The lines of something, without the space behind them, which would be copied with them.

    Only the last ``room`` of them are drawn, if that is given.
    """

    def __init__(self, shown: RenderableType, room: int | None = None) -> None:
        self._shown = shown
        self._room = room

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = options.update(height=None, no_wrap=False, overflow="fold")
        lines = console.render_lines(self._shown, whole, pad=False)
        for line in lines if self._room is None else lines[-max(1, self._room) :]:
            yield from _strip(line)
            yield Segment.line()


def _strip(line: list[Segment]) -> list[Segment]:
    kept = list(line)
    while kept:
        text, style, control = kept.pop()
        # A background is seen, as that of code is in some themes.
        seen = style is not None and style.bgcolor is not None
        left = text if seen or control else text.rstrip(" ")
        if left:
            return [*kept, Segment(left, style, control)]
    return []


def make_parser() -> MarkdownIt:
    """Return a reader of Markdown for which HTML is a text; as HTML, it would not be shown."""
    return MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


class _Heading(Heading):
    """A heading at the left, as text in a terminal is read."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _Markdown(Markdown):
    elements: ClassVar = {**Markdown.elements, "heading_open": _Heading}


def as_markdown(text: str) -> Markdown:
    """Return Markdown as it is drawn: links show where they lead, and nothing is left out."""
    # rich takes no parser, so the result of ours is put in the place of its own.
    drawn = _Markdown("", code_theme="ansi_dark", hyperlinks=False)
    drawn.markup = text
    drawn.parsed = make_parser().parse(text)
    return drawn
