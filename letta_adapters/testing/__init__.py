"""The testing kit: record a conversation with a real Letta once, and replay it in every later run.

* :class:`RecordingTransport` copies live HTTP traffic into a :class:`Cassette`;
* :func:`sanitize_cassette` removes everything private or volatile,
  :mod:`letta_adapters.testing.leaks` checks that independently, :func:`save_cassette` does both
  and writes the file;
* :class:`CassetteTransport` plays the file back with its original streaming, or with any chunking,
  timing, cut or fault;
* :func:`letta_vcr` / :func:`use_letta_vcr` play (and record) the same files through plain vcrpy;
* :class:`FakeLetta` is a Letta in memory, :class:`LocalLetta` the real embedded runtime with a
  :class:`ScriptedModel` behind it;
* :mod:`letta_adapters.testing.llama_index` contains conformance suites for LlamaIndex;
* :mod:`letta_adapters.testing.plugin` is the pytest plugin that uses all of it.

Names are loaded on first use: importing this package imports neither vcrpy nor PyYAML nor httpx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from letta_adapters.testing.cassette import (
        Cassette,
        CassetteFormatError,
        Interaction,
        RecordedError,
        RecordedRequest,
        RecordedResponse,
    )
    from letta_adapters.testing.fakes import FakeLetta
    from letta_adapters.testing.leaks import Leak, LeakError, scan_file, scan_text, scan_tree
    from letta_adapters.testing.local import LocalLetta
    from letta_adapters.testing.recording.fixture import LettaCassette
    from letta_adapters.testing.recording.player import CassetteMissError, CassetteTransport
    from letta_adapters.testing.recording.recorder import RecordingTransport
    from letta_adapters.testing.recording.save import (
        CassetteSaveError,
        RehearsalError,
        save_cassette,
    )
    from letta_adapters.testing.recording.vcr import letta_vcr, use_letta_vcr
    from letta_adapters.testing.recording.websocket import WebSocketPlayer, WebSocketRecorder
    from letta_adapters.testing.sanitizer.sanitize import SanitizeRules
    from letta_adapters.testing.sanitizer.sanitize import sanitize as sanitize_cassette
    from letta_adapters.testing.scripted_model import ModelError, Reply, ScriptedModel, ToolUse

_HOME_OF = {
    "Cassette": "cassette",
    "CassetteFormatError": "cassette",
    "CassetteMissError": "recording.player",
    "CassetteSaveError": "recording.save",
    "CassetteTransport": "recording.player",
    "FakeLetta": "fakes",
    "Interaction": "cassette",
    "Leak": "leaks",
    "LeakError": "leaks",
    "LettaCassette": "recording.fixture",
    "LocalLetta": "local",
    "ModelError": "scripted_model",
    "RecordedError": "cassette",
    "RecordedRequest": "cassette",
    "RecordedResponse": "cassette",
    "RecordingTransport": "recording.recorder",
    "RehearsalError": "recording.save",
    "Reply": "scripted_model",
    "SanitizeRules": "sanitizer.sanitize",
    "ScriptedModel": "scripted_model",
    "ToolUse": "scripted_model",
    "WebSocketPlayer": "recording.websocket",
    "WebSocketRecorder": "recording.websocket",
    "letta_vcr": "recording.vcr",
    "sanitize_cassette": "sanitizer.sanitize",
    "save_cassette": "recording.save",
    "scan_file": "leaks",
    "scan_text": "leaks",
    "scan_tree": "leaks",
    "use_letta_vcr": "recording.vcr",
}

__all__ = [
    "Cassette",
    "CassetteFormatError",
    "CassetteMissError",
    "CassetteSaveError",
    "CassetteTransport",
    "FakeLetta",
    "Interaction",
    "Leak",
    "LeakError",
    "LettaCassette",
    "LocalLetta",
    "ModelError",
    "RecordedError",
    "RecordedRequest",
    "RecordedResponse",
    "RecordingTransport",
    "RehearsalError",
    "Reply",
    "SanitizeRules",
    "ScriptedModel",
    "ToolUse",
    "WebSocketPlayer",
    "WebSocketRecorder",
    "letta_vcr",
    "sanitize_cassette",
    "save_cassette",
    "scan_file",
    "scan_text",
    "scan_tree",
    "use_letta_vcr",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # The function cannot be called `sanitize` here: importing the module of that name sets it.
    attribute = "sanitize" if name == "sanitize_cassette" else name
    return getattr(importlib.import_module(f"{__name__}.{home}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
