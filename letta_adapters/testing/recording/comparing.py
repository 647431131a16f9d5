"""Compare frames of a WebSocket with recorded ones.

Internal: not part of the public API.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from letta_adapters.testing.cassette import SENT, RecordedRequest
from letta_adapters.testing.recording.wildcards import same_value

# Fields that are new in every run: the value sent now takes the recorded one's place.
_FRESH: Final = frozenset({"request_id", "client_message_id", "cwd"})


def frames_differ(
    clean: Callable[[RecordedRequest], RecordedRequest],
) -> Callable[[str, str], str]:
    """Return a function that compares a recorded frame with a sent one: ``""``, or how they differ.

    Args:
        clean: Writes a request as the sanitizer would on this machine, today.
    """

    def differ(recorded: str, sent: str) -> str:
        # The recorded frame is cleaned, too: a name that is private here may stand in it in plain.
        request = RecordedRequest(SENT, "", (("content-type", "application/json"),), b"")
        was, now = (clean(replace(request, body=text.encode())) for text in (recorded, sent))
        return _difference(json.loads(was.body), json.loads(now.body), "")

    return differ


def _difference(recorded: Any, sent: Any, path: str) -> str:
    """Return how a (cleaned) frame differs from the recorded one, or ``""``."""
    if isinstance(recorded, Mapping) and isinstance(sent, Mapping):
        if recorded.keys() != sent.keys():
            return f"{path or 'the frame'} has {sorted(sent)} instead of {sorted(recorded)}"
        parts = [(recorded[name], sent[name], f"{path}.{name}") for name in recorded]
    elif isinstance(recorded, list) and isinstance(sent, list) and len(recorded) == len(sent):
        numbered = enumerate(zip(recorded, sent, strict=True))
        parts = [(a, b, f"{path}[{n}]") for n, (a, b) in numbered]
    elif same_value(recorded, sent) or (_is_fresh(path) and type(recorded) is type(sent) is str):
        return ""
    else:
        return f"{path} is {sent!r} instead of {recorded!r}"
    return next((found for part in parts if (found := _difference(*part))), "")


def fresh_texts(recorded: Any, sent: Any, path: str = "") -> dict[str, str]:
    """Map each recorded text that is new in every run to the one sent now, both inside JSON."""
    if isinstance(recorded, Mapping):
        parts = [(recorded[name], sent[name], f"{path}.{name}") for name in recorded]
    elif isinstance(recorded, list):
        parts = [(a, b, path) for a, b in zip(recorded, sent, strict=True)]
    elif _is_fresh(path) and recorded != sent:
        return {recorded: json.dumps(sent)[1:-1]}
    else:
        return {}
    return {was: now for part in parts for was, now in fresh_texts(*part).items()}


def _is_fresh(path: str) -> bool:
    return path.rpartition(".")[2] in _FRESH
