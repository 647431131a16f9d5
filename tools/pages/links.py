"""Find links that lead nowhere, in the repository's Markdown and on the page of a package index.

``python -m tools.pages.links`` checks files and anchors; with ``LETTA_CHECK_LINKS=1`` it asks other
hosts too. ``python -m tools.pages.links dist/*.whl`` renders the description that a wheel carries
as a package index does. An index knows no files beside the description and this project has no
address on a host, so there every link must be absolute: ``pyproject.toml`` takes the others out.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import BytesParser
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import httpx
from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).parents[2]
_EXTERNAL: Final = ("http://", "https://", "mailto:")
_PLACES: Final = ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/*.md", "packages/**/*.md")


@dataclass(frozen=True)
class Link:
    """A link of a file: where it stands and where it leads."""

    file: Path
    target: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT).as_posix()}: {self.target}"


def find_files() -> list[Path]:
    """Return the Markdown files of the repository."""
    return sorted({file for place in _PLACES for file in ROOT.glob(place) if file.is_file()})


def find_links(file: Path) -> list[Link]:
    """Return the links and pictures of a file."""
    tokens = MarkdownIt("commonmark").enable("table").parse(file.read_text("utf-8"))
    inline = [child for token in tokens for child in token.children or ()]
    found = [token.attrGet("href") or token.attrGet("src") for token in inline]
    return [Link(file, str(target)) for target in found if target]


def is_external(link: Link) -> bool:
    """Return whether a link leads to another host."""
    return link.target.startswith(_EXTERNAL)


def find_fault(link: Link) -> str:
    """Return what is wrong with a link inside the repository; nothing if it is right."""
    path, _, anchor = unquote(link.target).partition("#")
    to = (link.file.parent / path).resolve() if path else link.file
    if not to.is_relative_to(ROOT) or not to.exists():
        return "no such file"
    # The site holds `docs/` alone: a page of it that links elsewhere is broken there.
    docs = ROOT / "docs"
    if link.file.is_relative_to(docs) and not to.is_relative_to(docs):
        return "leads out of docs/, where the site has nothing"
    if anchor and to.suffix == ".md" and anchor not in list_anchors(to):
        return "no such heading"
    return ""


@lru_cache
def list_anchors(file: Path) -> frozenset[str]:
    """Return the anchors of a file's headings that a host of repositories and the site agree on."""
    tokens = MarkdownIt("commonmark").parse(file.read_text("utf-8"))
    titles = [
        "".join(part.content for part in tokens[at + 1].children or ())
        for at, token in enumerate(tokens)
        if token.type == "heading_open"
    ]
    return frozenset(
        _slug_host(title) for title in titles if _slug_host(title) == _slug_site(title)
    )


def _slug_host(title: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", title.strip().lower())
    return kept.replace(" ", "-")


def _slug_site(title: str) -> str:
    # As Python-Markdown's table of contents does it.
    ascii_ = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_).strip().lower())


def find_faults_of_description(description: str) -> list[str]:
    """Return what would be broken in a description on a package index, rendered as it does it."""
    # Only whoever checks a description needs the extra `docs`.
    from readme_renderer.markdown import render  # noqa: PLC0415

    html = render(description)
    if html is None:
        return ["it cannot be rendered"]
    ids = set(re.findall(r'\bid="([^"]+)"', html))
    found: list[str] = []
    for target in re.findall(r'\b(?:href|src)="([^"]*)"', html):
        fine = target.startswith(_EXTERNAL) or (target[:1] == "#" and target[1:] in ids)
        found += [] if fine else [f"{target} leads nowhere on a package index"]
    return found


def read_description(wheel: Path) -> str:
    """Return the description that a wheel carries."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        payload = BytesParser().parsebytes(archive.read(name)).get_payload(decode=True)
        assert isinstance(payload, bytes)
        return payload.decode("utf-8")


def check_external(links: list[Link]) -> Iterator[str]:
    """Yield the links to other hosts that do not answer."""
    with httpx.Client(follow_redirects=True, timeout=20) as http:
        for target in sorted({link.target for link in links if link.target.startswith("http")}):
            try:
                status = http.get(target).status_code
            except httpx.HTTPError as error:
                yield f"{target}: {error!r}"
                continue
            if status >= 400 and status not in (403, 429):  # some refuse whoever is no browser
                yield f"{target}: {status}"


def main(arguments: list[str]) -> int:
    """Print what is wrong, and how many links are right."""
    if arguments:
        wrong = [
            f
            for name in arguments
            for f in find_faults_of_description(read_description(Path(name)))
        ]
        print(*wrong, f"descriptions: {len(arguments)}, broken links: {len(wrong)}", sep="\n")
        return 1 if wrong else 0
    links = [link for file in find_files() for link in find_links(file)]
    inside = [link for link in links if not is_external(link)]
    wrong = [f"{link}: {fault}" for link in inside if (fault := find_fault(link))]
    if os.environ.get("LETTA_CHECK_LINKS"):
        wrong += check_external(links)
    print(*wrong, f"links: {len(inside) - len(wrong)} of {len(inside)} lead somewhere", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
