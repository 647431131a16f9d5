"""Internal: replace points in time by one constant, in the notation that each was written in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta, timezone
from enum import Enum

from letta_adapters.testing.sanitizer.edits import Edit
from letta_adapters.testing.sanitizer.patterns import (
    DATETIME_REPR,
    ISO_DATE,
    PROSE_DATE,
    PROSE_YEAR,
)

EPOCH = 1767225600  # 2026-01-01T00:00:00Z, a Thursday
_CONSTANT_DAY = date(2026, 1, 1)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def get_today() -> date:
    """Return today's date in UTC."""
    return datetime.now(timezone.utc).date()


class Place(Enum):
    """The origin of a text, which decides whether a date in it is volatile or was meant."""

    STAMP = "under a key that holds points in time"
    SERVER = "said by the server"
    REQUEST = "said by the test"
    ECHO = "said by the test, and by the server in its name"
    MODEL = "said by the model"


class DateFinder:
    """Finds the points in time that belong to the recording and not to its contents.

    A time of day said by the server, and the value of a timestamp field, always belong to the
    recording. A time in the test's own text, and a date without a time of day, do if they are
    ``volatile``: the days on which the recording was made, as its timestamps show (or today, for a
    live request). The model's text stays, because tests assert on it. So does everything in
    ``asked``, wherever the server repeats it: a date such as somebody's birthday is content.
    """

    def __init__(self, volatile: Iterable[date] = (), asked: Iterable[str] = ()) -> None:
        # A day on each side, since the server may be in another time zone.
        self._days = {day + timedelta(shift) for day in volatile for shift in (-1, 0, 1)}
        self._asked = frozenset(asked)
        self._stamped: set[date] = set()
        self._told: set[date] = set()

    @property
    def seen(self) -> set[date]:
        """Return the recording's days: those of its timestamps, or without any, of other times."""
        return self._stamped or self._told

    def edits(self, text: str, place: Place = Place.SERVER) -> Iterator[Edit]:
        """Yield edits that make the recording's times in ``text`` constant, and note their days."""
        if place is Place.MODEL:
            return
        for match in ISO_DATE.finditer(text):
            day = _day(*match["date"].split("-"))
            if day is not None and self._counts(match, day, place):
                yield Edit(*match.span("date"), "2026-01-01", 7)
                yield from _clock_edits(match)
        for match in DATETIME_REPR.finditer(text) if place is not Place.REQUEST else ():
            clock = ", 0" * match[2].count(",")
            yield Edit(*match.span(), f"2026, 1, 1{clock}", 7)
        # This test is much cheaper than the pattern of dates in prose, and most texts fail it.
        if not PROSE_YEAR.search(text):
            return
        for match in PROSE_DATE.finditer(text):
            day = _prose_day(match)
            if day is not None and self._counts(match, day, place):
                yield Edit(match.start(), _end(match), _constant(match), 7)
                yield from _clock_edits(match)

    def _counts(self, match: re.Match[str], day: date, place: Place) -> bool:
        # A date without a time of day may be anything, so only the recording's own days count.
        if not match["clock"]:
            return day in self._days and (place is Place.REQUEST or str(day) not in self._asked)
        # The constant day is what an earlier round wrote, and no day of the recording.
        if day != _CONSTANT_DAY:
            (self._stamped if place is Place.STAMP else self._told).add(day)
        if place is Place.STAMP:
            return True
        if place is Place.REQUEST:
            return day in self._days
        # What is left was said by the server, whose clock is always volatile, or is an echo of the
        # test, in which only the recording's own days are.
        return match[0] not in self._asked and (place is Place.SERVER or day in self._days)


def find_times(text: str) -> Iterator[str]:
    """Yield the points in time in ``text``.

    One with a time of day is yielded as written, one without as an ISO date.
    """
    for match in ISO_DATE.finditer(text):
        day = _day(*match["date"].split("-"))
        if day is not None:
            yield match[0] if match["clock"] else str(day)
    for match in PROSE_DATE.finditer(text):
        day = _prose_day(match)
        if day is not None:
            yield match[0] if match["clock"] else str(day)


def _prose_day(match: re.Match[str]) -> date | None:
    month = str(_MONTHS.index((match["month"] or match["month2"])[:3].lower()) + 1)
    return _day(match["year"] or match["year2"], month, match["day"] or match["day2"])


def _day(year: str, month: str, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def _clock_edits(match: re.Match[str]) -> Iterator[Edit]:
    if not match["clock"]:
        return
    # The same number of digits, so that the notation (and mostly the length) is kept.
    whole, dot, fraction = match["clock"].partition(".")
    noon = "12:00:00" if match["half"] else "00:00:00"
    text = noon[: 8 if whole.count(":") == 2 else 5] + dot + "0" * len(fraction)
    yield Edit(*match.span("clock"), text, 7)
    if match["half"]:
        yield Edit(*match.span("half"), match["half"][:-2] + "AM", 7)
    if match["zone"]:
        zone = re.sub(r"[+-]\d\d(:?)\d\d", r"+00\g<1>00", match["zone"])
        yield Edit(*match.span("zone"), zone, 7)


def _end(match: re.Match[str]) -> int:
    return max(match.end(name) for name in ("year", "year2"))


def _constant(match: re.Match[str]) -> str:
    # The constant day in the notation of the match, so that it is still recognised as a date.
    month = match["month"] or match["month2"]
    weekday = match["weekday"]
    comma = "," if "," in match[0] else ""
    name = "Jan" if len(month) == 3 and month != "May" else "January"
    start = "" if not weekday else f"{'Thu' if len(weekday) == 3 else 'Thursday'}{comma} "
    if match["day2"]:
        return f"{start}1 {name} 2026"
    return f"{start}{name} 1{comma} 2026"
