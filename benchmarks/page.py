"""Write ``docs/benchmarks.md`` and its plots from the figures in this folder's ``README.md``.

Nothing is measured here, so that the page and the plots say what was published and nothing else. A
plot takes the first number of each cell, which is the median.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
FIGURES: Final = Path(__file__).parent / "README.md"
PAGE: Final = ROOT / "docs" / "benchmarks.md"
PLOTS: Final = ROOT / "docs" / "plots"
_OURS, _OTHERS = ("#0b6e4f", "#7cc6a4"), ("#5c6570", "#b3bac2")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Plot:
    """One section of the page: the first table below a heading, and its bars.

    Args:
        name: The name of the file, without its suffix.
        section: How the heading in the figures begins.
        title: The heading on the page.
        columns: The columns that are drawn, by their place, with what the bars are called.
        unit: What the axis says.
        text: What the page says above the plot.
    """

    name: str
    section: str
    title: str
    columns: dict[int, str]
    unit: str
    text: str


PLOTTED: Final = (
    Plot(
        "streaming",
        "Streaming: CPU per event",
        "Streaming: what an event costs",
        {1: "sync", 3: "async"},
        "CPU, µs an event",
        "From the socket to the message, in a stream of 2,000 events.",
    ),
    Plot(
        "concurrency",
        "Many turns at once",
        "A hundred turns at once",
        {1: "CPU"},
        "CPU, ms a turn",
        "`ChatLetta.abatch` makes a new conversation for each answer, so it sends two requests.",
    ),
    Plot(
        "growth",
        "Growth:",
        "From a hundred turns to a thousand",
        {1: "100 at once", 2: "1,000 at once"},
        "CPU, ms a turn",
        "The connections that were in use lately are kept, so a thousand turns open none. What is\n"
        "left of the growth is Python's garbage collector, which the third row leaves out.",
    ),
    Plot(
        "turns",
        "Turns of one token",
        "What a call costs whatever its answer",
        {1: "CPU"},
        "CPU, ms a call",
        "Calls of one token, one after the other on warm connections.",
    ),
    Plot(
        "frameworks",
        "Frameworks: CPU per event",
        "LangChain: what a chunk costs",
        {2: "ChatLetta", 5: "ChatOpenAI"},
        "CPU, times that of raw httpx and json.loads",
        "From the socket to LangChain's own chunk, beside `ChatOpenAI` with the same tokens.",
    ),
    Plot(
        "imports",
        "Import time",
        "Imports",
        {1: "CPU"},
        "CPU, ms",
        "Each statement in a fresh interpreter, whose own start is not counted.",
    ),
)


def run(**_: bool) -> bool:
    """Write the page and the plots; nothing is measured, so `quick` changes nothing."""
    figures = FIGURES.read_text("utf-8")
    PLOTS.mkdir(exist_ok=True)
    for plot in PLOTTED:
        file = PLOTS / f"{plot.name}.svg"
        file.write_text(_draw(plot, _cells(find_table(figures, plot.section)[1])), "utf-8")
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1e3:.1f} kB")
    PAGE.write_text(render(figures), "utf-8")
    print(PAGE.relative_to(ROOT))
    return True


def render(figures: str) -> str:
    """Return the page's text.

    Args:
        figures: The text of this folder's ``README.md``.
    """
    versions = figures.partition("## Numbers\n\n")[2].partition("\n\n")[0]
    parts = [
        "# Benchmarks",
        "What the client costs, beside what one would use in its place. CPU is that of the whole\n"
        "client process; a bar is a median. How each is measured, what bounds it and which bars\n"
        "are not met stands in `benchmarks/README.md`, whose tables these are;\n"
        "`python -m benchmarks` measures again. What holds besides speed:\n"
        "[what you can rely on](guarantees.md).",
        versions,
    ]
    for plot in PLOTTED:
        said, table = find_table(figures, plot.section)
        picture = f"![{plot.title}: the medians of the table above](plots/{plot.name}.svg)"
        parts += [f"## {plot.title}", plot.text, *([said] if said else []), table, picture]
    return "\n\n".join(parts) + "\n"


def find_table(figures: str, section: str) -> tuple[str, str]:
    """Return the first table below the heading that begins so, after what is said above it.

    Raises:
        ValueError: There is no such heading, or no table below it.
    """
    begun = figures.partition(f"\n### {section}")[2].partition("\n### ")[0]
    lines = begun.split("\n")
    first = next((n for n, line in enumerate(lines) if line.startswith("|")), None)
    if first is None:
        raise ValueError(f"benchmarks/README.md has no table below {section!r}")
    last = next((n for n in range(first, len(lines)) if not lines[n].startswith("|")), len(lines))
    return "\n".join(lines[1:first]).strip(), "\n".join(lines[first:last])


def _cells(table: str) -> list[list[str]]:
    """Return the rows of a table, without its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n")[2:]]


def _median(cell: str) -> str:
    found = _NUMBER.search(cell)
    if found is None:
        raise ValueError(f"there is no number in {cell!r}")
    return found[0]


def _draw(plot: Plot, rows: list[list[str]]) -> str:
    """Return the SVG of horizontal bars: a group for each row, a bar for each column."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text; ids and metadata are the same each time, so that only figures change a file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": plot.name, "font.size": 9})
    figure = Figure(figsize=(8, 0.6 + len(rows) * (0.2 + 0.2 * len(plot.columns))))
    figure.set_layout_engine("constrained")
    axes: Any = figure.subplots()
    height = 0.8 / len(plot.columns)
    colours = [_OURS if _is_ours(plot, row) else _OTHERS for row in rows]
    for number, (column, name) in enumerate(plot.columns.items()):
        places = [place + (number + 0.5) * height - 0.4 for place in range(len(rows))]
        values = [float(_median(row[column]).replace(",", "")) for row in rows]
        if plot.name == "frameworks":
            colour = [(_OURS, _OTHERS)[number][0]] * len(rows)
        else:
            colour = [pair[number] for pair in colours]
        bars = axes.barh(places, values, height * 0.92, color=colour, label=name)
        several = f" ({name})" if len(plot.columns) > 1 else ""
        axes.bar_label(bars, [_median(row[column]) + several for row in rows], padding=3)
    axes.set_yticks(range(len(rows)), [re.sub(r"[*`]", "", row[0]) for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel(plot.unit)
    axes.spines[["top", "right"]].set_visible(False)
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in written.getvalue().split("\n"))


def _is_ours(plot: Plot, row: list[str]) -> bool:
    ours = ("letta-adapters", "letta_adapters", "LettaClient", "ChatLetta", "LettaLLM")
    return any(name in row[0] for name in ours) or (plot.name == "growth" and "**" in row[0])
