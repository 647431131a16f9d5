"""Write the API reference's pages: every public name stands on exactly one of them.

``python -m tools.pages.reference`` writes ``docs/reference/``. The pages hold no text of their own:
mkdocstrings puts in signatures and docstrings when the site is built.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final

PAGES: Final = Path(__file__).parents[2] / "docs" / "reference"
_MADE: Final = "<!-- Made by `python -m tools.pages.reference`. -->\n"
# Module → title, and which of its names stand on the page; the others of a module are on its first
# page whose names are `None`.
MODULES: Final = {
    "letta_adapters.langchain": "langchain",
    "letta_adapters.llama_index": "llama-index",
    "letta_adapters.testing": "testing",
    "letta_adapters.tracing": "client",
    "letta_adapters.web": "web",
    "letta_adapters.web.agui": "web",
}
TITLES: Final = {
    "client": "Clients, sessions, functions",
    "messages": "Messages and content",
    "permissions": "Permissions, tools and agents' settings",
    "errors": "Errors",
    "langchain": "LangChain",
    "llama-index": "LlamaIndex",
    "testing": "Testing kit",
    "web": "Rooms on the web",
}
# What is reached through a client or given to one, and has no name at the top.
REACHED: Final = {
    "client": (
        "letta_adapters.sync.client.Agents",
        "letta_adapters.sync.client.Conversations",
        "letta_adapters.sync.client.Models",
        "letta_adapters.sync.resources.Memory",
        "letta_adapters.sync.resources.Passages",
        "letta_adapters.sync.resources.Blocks",
        "letta_adapters.sync.resources.Tools",
        "letta_adapters.sync.resources.Runs",
        "letta_adapters.client.memory.AsyncMemory",
        "letta_adapters.client.blocks.AsyncPassages",
        "letta_adapters.client.blocks.AsyncBlocks",
        "letta_adapters.client.blocks.AsyncTools",
        "letta_adapters.client.blocks.AsyncRuns",
        "letta_adapters.client.resources.AsyncAgents",
        "letta_adapters.client.resources.AsyncConversations",
        "letta_adapters.client.resources.AsyncModels",
    ),
    "permissions": (
        "letta_adapters.options.AgentOptions",
        "letta_adapters.options.SessionOptions",
    ),
}
# Where a name of the top level belongs, by the module that defines it.
_BY_HOME: Final = {
    "errors": "errors",
    "messages": "messages",
    "content": "messages",
    "engine": "messages",
    "permissions": "permissions",
    "tools": "permissions",
    "options": "permissions",
}


def collect() -> dict[str, list[str]]:
    """Return the public names of each page, as dotted paths to import them from."""
    pages: dict[str, list[str]] = {page: [] for page in TITLES}
    for name in import_module("letta_adapters").__all__:
        if name != "__version__":
            pages[_choose_page(name)].append(f"letta_adapters.{name}")
    for module, page in MODULES.items():
        pages[page] += [f"{module}.{name}" for name in import_module(module).__all__]
    for page, names in REACHED.items():
        pages[page] += names
    return pages


def _choose_page(name: str) -> str:
    found = getattr(import_module("letta_adapters"), name)
    home = str(getattr(found, "__module__", "")).split(".")
    # An alias of types (`Message`) has no module of ours: such are messages.
    return _BY_HOME.get(home[1], "client") if home[0] == "letta_adapters" else "messages"


def render(page: str, names: list[str]) -> str:
    """Return the text of a page."""
    blocks = "".join(f"\n::: {name}\n" for name in names)
    return f"# {TITLES[page]}\n\n{_MADE}{blocks}"


def render_all() -> dict[Path, str]:
    """Return the text of each page by its file."""
    return {PAGES / f"{page}.md": render(page, names) for page, names in collect().items()}


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for file, text in render_all().items():
        file.write_text(text, encoding="utf-8")
