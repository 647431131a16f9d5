"""Take everything private and everything volatile out of a recording, and keep it playable.

Two passes over the whole cassette: the first learns (secrets, ids, the days of the recording), the
second rewrites. Both are repeated until nothing changes, so that the result is a fixed point:
sanitizing it again changes nothing. How each kind of thing is found is in the modules this one
uses: ``_secrets`` (known secrets, in all encodings), ``_finder`` (one text), ``_bodies`` (JSON,
and strings spread over a stream's deltas), ``_ids``, ``_dates``.

Placeholders are plain words, letters and digits, so that they are valid in JSON, YAML, URLs and
base64 alike: ``REDACTED``, ``user``, ``user@example.com``, ``host.test``, ``http://letta.test``,
numbered ids, ``2026-01-01T00:00:00``.

What cannot be known is not removed: an opaque secret that is neither in the environment, nor in an
authentication header, nor under a telling key. Pass such values as ``secrets``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from urllib.parse import urlsplit

from ._bodies import Streams, clean_body
from ._dates import DateFinder
from ._edits import applied
from ._finder import Finder
from ._ids import IdMap
from ._json_text import read_json
from ._patterns import BOUNDARY, MULTIPART_BOUNDARY
from ._secrets import Secrets
from .cassette import (
    Cassette,
    Headers,
    Interaction,
    RecordedRequest,
    RecordedResponse,
    split_events,
)
