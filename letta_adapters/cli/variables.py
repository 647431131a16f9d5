"""Internal: the table of the environment variables that this package reads.

``letta-adapters doctor`` and a test that holds ``docs/environment.md`` against it go by it; another
test looks in the package for the names. The variables that only pass through to the embedded
runtime are a list of their own (``backends/runtime/passed_variables.py``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from letta_adapters.backends.runtime._compat import STATE_DIR


@dataclass(frozen=True)
class Variable:
    """An environment variable: its name, who reads it, and for what.

    Args:
        name: Its name.
        reader: ``clients`` is every client, the command line's too.
        about: What it is for.
    """

    name: str
    reader: Literal["clients", "command line", "testing kit", "live tests"]
    about: str


VARIABLES: Final = (
    Variable("LETTA_BASE_URL", "clients", "the address of the Letta API"),
    Variable("LETTA_API_KEY", "clients", "the key of the Letta API"),
    Variable("LETTA_APP_SERVER_URL", "clients", "the address of an App Server"),
    Variable("LETTA_APP_SERVER_TOKEN", "clients", "the token of an App Server"),
    Variable("LETTA_MODEL", "clients", "the model of an agent that is made without one"),
    Variable(STATE_DIR, "clients", "where the agents of this machine are"),
    Variable("LMSTUDIO_API_KEY", "clients", "the key of `Local(openai_compatible=)`, unpickled"),
    Variable("HOME", "clients", "where `~` is: all state that has no place of its own"),
    Variable("GIT_CONFIG_GLOBAL", "clients", "the user's configuration of git"),
    Variable("XDG_CONFIG_HOME", "clients", "the same"),
    Variable(
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        "clients",
        "whether spans hold what was said",
    ),
    Variable("SSL_CERT_FILE", "clients", "certificates to trust"),
    Variable("SSL_CERT_DIR", "clients", "certificates to trust"),
    Variable("HTTP_PROXY", "clients", "the proxy of http: addresses"),
    Variable("HTTPS_PROXY", "clients", "the proxy of https: addresses"),
    Variable("ALL_PROXY", "clients", "the proxy of all other addresses"),
    Variable("NO_PROXY", "clients", "hosts that are reached without a proxy"),
    Variable("NO_COLOR", "command line", "no colours"),
    Variable("TERM", "command line", "`dumb`: no escape codes"),
    Variable("XDG_DATA_HOME", "command line", "where the demo keeps its agent"),
    Variable("XDG_STATE_HOME", "command line", "where the history of typed lines is"),
    Variable("LOCALAPPDATA", "command line", "the same, on Windows"),
    Variable("CI", "testing kit", "nothing is recorded where it is set"),
    Variable("LETTA_RIG_MODEL", "testing kit", "the address of the scripted model, to record"),
    Variable("LETTA_AGENT_ID", "live tests", "an agent to use instead of a new one"),
    Variable("LETTA_CONVERSATION_ID", "live tests", "a conversation to go on with"),
    Variable("LETTA_LIVE_TEST_TIMEOUT_MS", "live tests", "how long a turn may take"),
    Variable("LETTA_LIVE_EMBEDDED", "live tests", "`1`: the embedded runtime, too"),
)


def list_variables(environ: Mapping[str, str] = os.environ) -> Iterator[tuple[Variable, bool]]:
    """Yield each variable, and whether it is set to something; never its value."""
    for variable in VARIABLES:
        # Those of proxies are in use in small letters as well.
        small = (variable.name.lower(),) if variable.name.endswith("_PROXY") else ()
        names = (variable.name, *small)
        yield variable, any(environ.get(name, "").strip() for name in names)


def to_table() -> str:
    """Return the table as Markdown, for ``docs/environment.md``."""
    rows = [f"| `{one.name}` | {one.reader} | {one.about} |" for one in VARIABLES]
    return "\n".join(("| variable | read by | for |", "|---|---|---|", *rows))
