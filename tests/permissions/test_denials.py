"""The texts of denied tool calls are those of the recordings, and stand in one module."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from letta_adapters.permissions import denials
from letta_adapters.permissions.policy import DOES
from tools.road import Tree

TREE: Final = Tree(Path(__file__).parents[2] / "letta_adapters")
# What a text that a model reads in place of a result has in it, however it is worded.
DENIAL: Final = re.compile(
    r"\bdenied (by|this)\b|^Denied\b|so it was not run|request to call tool denied"
    r"|^The turn was stopped|call was abandoned|gave the call up|permission callback failed",
    re.IGNORECASE,
)
# A Letta in memory answers in words of its own, and errors for people say what was denied.
OTHERS: Final = ("testing", "cli")


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (denials.BY_CALLBACK, "The user denied this tool call."),
        (denials.BY_USER, "Denied by the user."),
        (denials.WITHOUT_REASON, "Denied."),
        (
            denials.NOBODY_ASKED,
            "This tool call needs an approval and the application has no way to give one, "
            "so it was not run. Nobody was asked, and the user has not refused it.",
        ),
        (
            denials.ANSWERED_ANOTHER,
            "The turn that asked has ended, and what was decided was about a call of that turn, so "
            "it was not run. Nobody was asked about this one, and the user has not refused it.",
        ),
        (
            denials.NO_TURN_ASKED,
            "This tool call needs an approval and no turn of the application is there to give "
            "one, so it was not run.",
        ),
        (denials.DISALLOWED, "This tool is not allowed in this session, so it was not run."),
        (denials.TURN_STOPPED, "The turn was stopped."),
        (denials.TURN_ENDED, "The turn was ended at this step."),
        (
            denials.LEFT_OPEN,
            "The turn that made it has ended, and nobody can be asked about it here.",
        ),
        (denials.NOT_HERE, "The turn that made it has ended, and its tool is not here any more."),
        (denials.explain_silence(2.5), "Nobody has answered within 2.5 seconds."),
        (
            denials.explain_unanswered("The turn was aborted."),
            "This call has no result: The turn was aborted. The user has not refused it. If it had "
            "begun, what it did is not known.",
        ),
        (denials.ABANDONED, "The call was abandoned."),
        (denials.GIVEN_UP, "The application gave the call up."),
        (
            denials.explain_unasked(DOES["executes"]),
            "This tool call needs an approval and the application has no way to give one, "
            "so it was not run. Nobody was asked, and the user has not refused it. "
            "(The call executes something.)",
        ),
        (
            denials.explain_failed_callback(ValueError("no idea")),
            "The permission callback failed (ValueError: no idea).",
        ),
        (
            denials.show_as_result("Not today."),
            "Error: request to call tool denied. User reason: Not today.",
        ),
    ],
)
def test_a_model_reads_what_it_always_read(text: str, wire: str) -> None:
    assert text == wire


def test_no_other_module_words_a_denial() -> None:
    found = {
        f"{name}: {node.value}"
        for name, parsed in TREE.parsed.items()
        if name != "permissions.denials" and name.split(".")[0] not in OTHERS
        for node in _list_texts(parsed)
        if DENIAL.search(node.value)
    }
    assert found == set()


def _list_texts(parsed: ast.Module) -> list[ast.Constant]:
    """Return the string constants that are no docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(parsed)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return [
        node
        for node in ast.walk(parsed)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]
