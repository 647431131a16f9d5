"""``docs/command-line.md`` has all that the parser has, and no more."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from letta_adapters.cli.exits import EXIT_CODES
from letta_adapters.cli.parser import build_parser

PAGE: Final = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text("utf-8")


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


def test_the_page_has_every_command_and_no_other() -> None:
    [commands] = [
        set(action.choices or ())
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    assert set(re.findall(r"^\| `(\w+)[ `]", PAGE.split("\n## ")[0], flags=re.M)) == commands


def test_the_page_has_every_option_and_no_other() -> None:
    actions = [action for parser in parsers(build_parser()) for action in parser._actions]
    options = {option for action in actions for option in action.option_strings}
    everywhere = {"--help", "-h", "--version"}
    written = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", PAGE)) - everywhere
    assert written == options - everywhere


def test_the_page_has_every_exit_code() -> None:
    table = PAGE.split("\n## Exit codes\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", table, flags=re.MULTILINE)
    assert {int(code): text for code, text in rows} == dict(EXIT_CODES)
