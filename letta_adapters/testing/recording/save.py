"""Internal: write cassettes in the only way there is: sanitize, scan, rehearse, write.

A file is complete or as it was before: the text is written beside it first, and then moved.

The rehearsal plays a recording by its own requests, also in another order. So one that its own test
could not replay is found where it is made, and not in CI. Requests whose order is chance (they
overlapped, as those of parallel sessions do) are played the other way round as well. An order that
something enforced is kept: an id must have been handed out before it is used, and requests that are
equal, or name one conversation, follow each other as they did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from letta_adapters.testing import leaks
from letta_adapters.testing.cassette import (
    Cassette,
    Interaction,
    RecordedRequest,
    group_connections,
    is_frame,
)
from letta_adapters.testing.recording.binding import NUMBER
from letta_adapters.testing.recording.lanes import Lanes, play_through
from letta_adapters.testing.recording.matching import make_frame_comparison
from letta_adapters.testing.recording.player import CassetteMissError, CassetteTransport
from letta_adapters.testing.sanitizer.patterns import ID_TOKEN
from letta_adapters.testing.sanitizer.sanitize import (
    BASE_URL,
    RequestCleaner,
    SanitizeRules,
    sanitize,
)


def save_cassette(
    cassette: Cassette,
    path: str | Path,
    *,
    rules: SanitizeRules | None = None,
    secrets: Iterable[str] = (),
) -> Cassette:
    """Sanitize a recording and write it to ``path``; return the sanitized cassette.

    ::

        recorder = RecordingTransport()
        async with httpx.AsyncClient(transport=recorder, base_url=url) as client:
            ...
        save_cassette(recorder.cassette, "cassettes/hello.yaml")

    Args:
        cassette: The recording, as it was made.
        path: The file; its folder is made if need be.
        rules: The sanitizer's rules.
        secrets: More texts to remove, beside those in the environment and in the recording itself.

    Raises:
        LeakError: The scanner, which shares no code with the sanitizer, still finds something;
            nothing was written.
        RehearsalError: The recording does not answer its own requests, in the order they came in
            and with those that overlapped the other way round; nothing was written.
        CassetteSaveError: The file cannot be written.
    """
    known = tuple(secrets)
    clean = sanitize(cassette, rules=rules, secrets=known)
    text = clean.dumps()
    used = rules or SanitizeRules()
    # The scanner also gets the secrets that the raw recording shows by the scanner's own rules.
    leaks.gate(
        text,
        source=str(path),
        secrets=[*known, *leaks.find_secrets(cassette)],
        allow=used.keep,
        patterns=used.patterns,
    )
    # Parsed from the text, as every later run reads it.
    rehearse(cassette, Cassette.loads(text), rules=rules, secrets=known)
    _write(text, Path(path))
    return clean


class CassetteSaveError(AssertionError):
    """The error for a recording that could not be written; the file of that name is as it was."""


def _write(text: str, target: Path) -> None:
    # In the same folder: a file can only be moved in one step within one file system.
    beside = target.parent / f".letta-{uuid4().hex}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # newline="": the text is the same bytes on every system.
            with beside.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
            beside.replace(target)
        # Also on Ctrl-C: no half-written file must stay in the repository.
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise CassetteSaveError(
            f"the recording could not be written to {target}: {error.strerror or error}; "
            "what was there before is as it was. Make room, or let the folder be written to, and "
            "record again."
        ) from error


# -- rehearsing ---------------------------------------------------------------------------------


class RehearsalError(AssertionError):
    """The error for a recording that would not replay; nothing was written."""


def rehearse(
    raw: Cassette,
    clean: Cassette,
    *,
    rules: SanitizeRules | None = None,
    secrets: Iterable[str] = (),
) -> None:
    """Play ``raw``'s requests against ``clean``, its sanitized form, item by item.

    Args:
        raw: The recording as it was made.
        clean: The same, sanitized: item by item the answers to ``raw``'s requests.
        rules: The rules that it was sanitized with.
        secrets: The secrets that it was sanitized with.

    Raises:
        RehearsalError: A request, or a frame of a WebSocket, has no answer; the text names it.
    """
    known = tuple(secrets)
    _rehearse_frames(clean, rules, known)
    pairs = [pair for pair in zip(raw, clean, strict=True) if not is_frame(pair[0])]
    if not pairs:
        return
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    recorded = list(range(len(pairs)))
    # The recorded order first: if that fails, the message must not blame the order.
    for order in (recorded, _reorder(ours)):
        player = CassetteTransport(Cassette(list(theirs)), rules=rules, secrets=known)
        try:
            _play(player, ours, theirs, order, rules)
        except CassetteMissError as error:
            raise RehearsalError(_describe_failure(error, in_order=order == recorded)) from error


def _rehearse_frames(clean: Cassette, rules: SanitizeRules | None, secrets: Sequence[str]) -> None:
    for scene in group_connections(clean):
        items = [clean.interactions[number] for number in scene[1:]]
        differ = make_frame_comparison(RequestCleaner(rules, tuple(secrets)))
        if not Lanes(items, differ).several:
            continue  # one conversation is played in its order
        for reordered in (False, True):
            if missed := play_through(items, differ, reordered=reordered):
                raise RehearsalError(
                    "the recorded conversations do not replay "
                    f"{'in another order' if reordered else 'in the order they were made in'}; "
                    "nothing was written. Use a test, or a client, for each, or send one after the "
                    f"other. No conversation goes on with: {missed[:300]}"
                )


def _describe_failure(error: CassetteMissError, *, in_order: bool) -> str:
    if in_order:
        return f"the recording does not replay; nothing was written: {error}"
    return (
        "the recording replays only in the order it was made in, and its requests overlapped: "
        "equal requests were answered differently, and what followed depends on which came first. "
        "Make them differ (another text, another name) or send them one by one. "
        f"Nothing was written: {error}"
    )


def _play(
    player: CassetteTransport,
    raw: Sequence[Interaction],
    clean: Sequence[Interaction],
    order: Sequence[int],
    rules: SanitizeRules | None,
) -> None:
    # The raw requests are played, with the ids that the sanitizer wrote: so what it did to them is
    # a part of what is rehearsed.
    numbered = _map_numbers(raw, clean)
    given: dict[str, str] = {}
    base = (rules.base_url if rules else None) or ""
    for number in order:
        # The client of a replay knows the ids that the player gave to it, not the recorded ones.
        request = _with_ids(raw[number].request, numbered, given) or clean[number].request
        if base and request.uri.startswith(base.rstrip("/")):
            request = replace(request, uri=BASE_URL + request.uri[len(base.rstrip("/")) :])
        played = player.answer_to(request)
        expected = _find_ids(clean[number].response.body)
        for token, got in zip(expected, _find_ids(played.body), strict=False):
            given.setdefault(token, got)


def _map_numbers(raw: Sequence[Interaction], clean: Sequence[Interaction]) -> dict[str, str]:
    """Return the id that the sanitizer wrote for each one in the recording."""
    made: dict[str, str] = {}
    for before, after in zip(raw, clean, strict=True):
        sides = (
            (before.response.body, after.response.body),
            (before.request.body, after.request.body),
            (before.request.uri.encode(), after.request.uri.encode()),
        )
        for old, new in sides:
            ids, numbers = _find_ids(old), _find_ids(new)
            # A secret or a date that looks like an id may have been replaced, too. Then the two
            # lists do not correspond, and the id is learnt elsewhere.
            if len(ids) == len(numbers):
                for token, number in zip(ids, numbers, strict=True):
                    made.setdefault(token, number)
    return made


def _with_ids(
    request: RecordedRequest, numbered: dict[str, str], given: dict[str, str]
) -> RecordedRequest | None:
    """Return the request as a client sends it that was given the player's ids.

    Returns ``None`` if it contains an id that the sanitizer did not number.
    """

    def name(token: str) -> str:
        number = numbered[token]
        return given.get(number, number)

    text = request.body.decode("utf-8", "surrogateescape")
    try:
        uri = ID_TOKEN.sub(lambda match: name(match[0]), request.uri)
        body = ID_TOKEN.sub(lambda match: name(match[0]), text)
    except KeyError:
        return None
    return replace(request, uri=uri, body=body.encode("utf-8", "surrogateescape"))


def _reorder(items: Sequence[Interaction]) -> list[int]:
    """Return an order in which always the latest request goes first that nothing holds back."""
    waits = _find_predecessors(items)
    order: list[int] = []
    done: set[int] = set()
    while len(order) < len(items):
        ready = (n for n in reversed(range(len(items))) if n not in done and waits[n] <= done)
        number = next(ready)
        order.append(number)
        done.add(number)
    return order


def _find_predecessors(items: Sequence[Interaction]) -> list[set[int]]:
    """Return, for each interaction, the earlier ones that must come before it."""
    # An id that is used must have been handed out: who introduced it comes first.
    introduced: dict[str, int] = {}
    waits: list[set[int]] = []
    kinds: list[tuple[object, list[str], str]] = []
    for number, item in enumerate(items):
        used = _find_ids(item.request.uri.encode() + b" " + item.request.body)
        known = [token for token in used if token in introduced]
        kinds.append((_mask_request(item.request), known, _mask(item.response.body)))
        before = {introduced[token] for token in known}
        before |= {n for n in range(number) if _keeps_order(items, kinds, n, number)}
        waits.append(before)
        for token in used:
            introduced.setdefault(token, number)
        for token in _find_ids(item.response.body):
            introduced.setdefault(token, number)
    return waits


def _overlap(first: Interaction, second: Interaction) -> bool:
    if first.span is None or second.span is None:
        return False
    return first.span[0] < second.span[1] and second.span[0] < first.span[1]


def _keeps_order(
    items: Sequence[Interaction],
    kinds: Sequence[tuple[object, list[str], str]],
    first: int,
    second: int,
) -> bool:
    (form, ids, answer), (form2, ids2, answer2) = kinds[first], kinds[second]
    if not _overlap(items[first], items[second]):
        # One session may send these in turn, each because of the one before, so their order stays.
        return form == form2 or not set(ids).isdisjoint(ids2) or items[second].span is None
    # Equal requests with different answers: the client's next step depends on the answer it was
    # given, and is not known here.
    return form == form2 and ids == ids2 and answer != answer2


def _mask_request(request: RecordedRequest) -> tuple[str, str, str]:
    return request.method, ID_TOKEN.sub("#", request.uri), _mask(request.body)


def _mask(data: bytes) -> str:
    return NUMBER.sub("0", ID_TOKEN.sub("#", data.decode("utf-8", "replace")))


def _find_ids(data: bytes) -> list[str]:
    return ID_TOKEN.findall(data.decode("utf-8", "replace"))
