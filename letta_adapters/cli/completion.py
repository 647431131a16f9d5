"""Internal: implement ``letta-adapters completion SHELL``: print what makes a shell complete."""

from __future__ import annotations

import argparse
import sys

import shtab

from letta_adapters.cli.exits import OK
from letta_adapters.cli.parser import as_path, build_parser


def run(args: argparse.Namespace) -> int:
    """Print the script for one shell."""
    parser = build_parser()
    _name_files(parser)
    sys.stdout.write(shtab.complete(parser, shell=args.shell) + "\n")
    sys.stdout.flush()
    return OK


def _name_files(parser: argparse.ArgumentParser) -> None:
    """Tell shtab which values are files."""
    # argparse has no public way to look at the options of a parser.
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _name_files(command)
        elif action.type is as_path or "--image" in action.option_strings:
            # shtab reads this attribute, which the class does not declare.
            vars(action)["complete"] = shtab.FILE
