"""Write ``docs/errors.md`` from the tree of exceptions: ``python -m tools.pages.errors``.

Name, code, what happened and the hint come from the classes: those of ``letta_adapters/errors.py``
and those of the runtime on this machine. What to do where the
error has no hint of its own (as each message has one that fits it) stands here, and the test fails
for a class without any.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from letta_adapters import errors
from letta_adapters.backends.runtime import errors as runtime
from letta_adapters.errors import LettaError
from tools.pages.griffe_docstrings import to_markdown

PAGE: Final = Path(__file__).parents[2] / "docs" / "errors.md"
ADVICE: Final[dict[str, str]] = {
    "LettaError": "Read `error.hint`.",
    "InvalidInputError": "Change what the message names.",
    "UnsupportedOptionError": "Leave the option out, or use a backend of `supported_by`.",
    "UnsupportedImageError": "Use a model that sees images, or send text.",
    "ConfigurationError": "Name a backend, or set the variables that the message names; "
    "`letta-adapters doctor` says what is found.",
    "ConflictError": "Read the conversation's state (`session.bootstrap_state()`) and try anew.",
    "StreamTruncatedError": "Look at `accepted`. If it is `True` the message is stored: read "
    "`session.list_messages()` for what became of it, and do not send it again.",
    "LettaTimeoutError": "Raise the limit that the message names, or ask for less.",
    "TimeoutBeforeAcceptanceError": "Look at `accepted`: `False` means that sending again is safe.",
    "TimeoutAfterAcceptanceError": "Do not send again: the message is stored. Read "
    "`session.list_messages()`, or raise `turn_timeout`.",
    "RuntimeStartError": "Read its last output in the message; then `letta-adapters doctor`.",
    "ServerError": "Try later, if `accepted` is `False`. The server's log has the reason.",
    "ProtocolError": "Check that `base_url` is a Letta, and the versions of both.",
    "TurnFailedError": "Look at `code`: the table below has those of turns.",
    "TurnCancelledError": "Somebody stopped it: nothing to do.",
    "ModelProviderError": "Try later; the provider's own words are in the message.",
    "ProviderRateLimitError": "Wait `retry_after` seconds where it is set, or use another model.",
    "NotPermittedError": "Let the user in (`authorize`), with `may_send` or `may_approve`.",
}
# Codes of turns that have no class of their own: what happened, what to do.
TURNS: Final[dict[str, tuple[str, str]]] = {
    "max_steps": (
        "The agent reached its step limit before it finished.",
        "Raise `max_steps`, or ask for less at once.",
    ),
    "max_tokens_exceeded": (
        "The model reached its output token limit: the answer is cut off.",
        "Raise the agent's `max_tokens`, or ask for a shorter answer.",
    ),
    "context_window_overflow": (
        "The conversation is too long for the model.",
        "Begin a fresh conversation, or use a model with a larger window.",
    ),
    "insufficient_credits": (
        "The account has no credits left.",
        "Fill up the account of Letta or of the model's provider.",
    ),
    "no_tool_call": (
        "The agent stopped without the tool call it was required to make.",
        "Ask again, or change the agent's tool rules.",
    ),
    "internal_error": ("The server has no code for it.", "Read the message."),
    "no_pending_approval": (
        "No call waits for an answer any more.",
        "Somebody has answered already: read `session.list_messages()`.",
    ),
    "denied_rounds": (
        "Too many steps in a row consisted of denied calls only.",
        "Allow one, or raise `max_denied_rounds`.",
    ),
    "max_rounds": (
        "The agent gave too many answers in one run of `LettaRunnable`.",
        "Look why it calls your tools again and again, or raise `max_rounds`.",
    ),
    "ran_unasked": (
        "The runtime ran a tool without asking, and the turn was stopped.",
        "Report it: it is a fault of the runtime or of this package.",
    ),
}
_HEAD: Final = """\
# Errors

<!-- Made by `python -m tools.pages.errors` from the classes of errors. -->

<!-- snippet: api -->
```python
from letta_adapters import LettaError, create_session

try:
    with create_session() as session:
        result = session.run_turn("Hello!", timeout=60).raise_for_status()
except LettaError as error:
    print(error.code, error.message, error.hint)  # `code` is for programs, the rest for people
    if error.accepted is False:
        ...  # nothing was stored: sending again is safe
```

Every error is a `LettaError`. `str(error)` is the message and the hint. Where they apply there are
`status_code`, `run_id` and `accepted`: whether the server took the message (`None`: unknown). In
LangChain each is LangChain's own class of error too (`letta_adapters.langchain.errors`).

| error | `code` | what happened | what to do | try again? |
|---|---|---|---|---|
"""
_RETRY: Final = "if `accepted` is `False`"


def list_classes() -> list[type[LettaError]]:
    """Return the classes of the tree, each behind the one that it is made of."""
    return list(_walk(LettaError))


def _walk(cls: type[LettaError]) -> Iterator[type[LettaError]]:
    if not cls.__name__.startswith("_"):
        yield cls
    for child in cls.__subclasses__():
        # One with two bases stands below the first of them.
        ours = child.__module__ in (errors.__name__, runtime.__name__)
        if ours and child.__bases__[0] is cls:
            yield from _walk(child)


def find_advice(cls: type[LettaError]) -> str:
    """Return what to do about an error; nothing if nobody says."""
    own = cls.__dict__.get("default_hint", "")
    return ADVICE.get(cls.__name__) or to_code(own) or to_code(cls.default_hint)


def to_code(hint: str) -> str:
    """Return a hint with what is code in it marked as such."""
    return re.sub(
        r"(?<!`)\b(session\.\w+\(\)|resume_session\(.*?\)|Rest\(.*?\)|LETTA_\w+)", r"`\1`", hint
    )


def _passes(cls: type[LettaError]) -> str:
    error = cls.__new__(cls)
    error.accepted = False
    return _RETRY if errors.is_retryable(error) else "no"


def _row(cls: type[LettaError]) -> str:
    depth = 0
    base: type = cls
    while base is not LettaError:
        base = base.__bases__[0]
        depth += not base.__name__.startswith("_")
    doc = to_markdown(inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
    name = f"{'· ' * depth}`{cls.__name__}`"
    return f"| {name} | `{cls.default_code}` | {doc} | {find_advice(cls)} | {_passes(cls)} |"


def render() -> str:
    """Return the page."""
    rows = "\n".join(_row(cls) for cls in list_classes())
    turns = "\n".join(
        f"| `{code}` | {happened} | {advice} |" for code, (happened, advice) in TURNS.items()
    )
    return (
        f"{_HEAD}{rows}\n\n## How a turn failed\n\n"
        "A result that failed has one of these in `error_code`, or the `code` of a class above,\n"
        "and `raise_for_status()` raises it. Those without a class are a `TurnFailedError`.\n\n"
        f"| code | what happened | what to do |\n|---|---|---|\n{turns}\n"
    )


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
