"""Points in time, made one constant in the notation they came in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date, timedelta

from letta_adapters.testing._edits import Edit
from letta_adapters.testing._patterns import DATETIME_REPR, ISO_DATE, PROSE_DATE

EPOCH = 1767225600  # 2026-01-01T00:00:00Z, a Thursday
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class DateFinder:
    """Finds dates. One with a time of day always counts.

    A mere day counts if it is ``volatile``: the day of the recording, as its timestamps tell (or
    today, for a live request), and is none of ``but``. Somebody's birthday in a prompt is part of
    the test and stays.
    """

    def __init__(self, volatile: Iterable[date] = (), but: Iterable[date] = ()) -> None:
        # A day each side: time zones.
        around = {day + timedelta(shift) for day in volatile for shift in (-1, 0, 1)}
        self._days = around.difference(but)
        self.seen: set[date] = set()

    def edits(self, text: str) -> Iterator[Edit]:
        """Edits which make every date in ``text`` the constant; notes days with times in seen."""
        for match in ISO_DATE.finditer(text):
            day = _day(*match["date"].split("-"))
            if day is not None and self._counts(match, day):
                yield Edit(*match.span("date"), "2026-01-01", 7)
                yield from _clock_edits(match)
        if " 1" not in text and " 2" not in text:
            return
        for match in DATETIME_REPR.finditer(text):
            clock = ", 0" * match[2].count(",")
            yield Edit(*match.span(), f"2026, 1, 1{clock}", 7)
        for match in PROSE_DATE.finditer(text):
            month = match["month"] or match["month2"]
            number = str(_MONTHS.index(month[:3].lower()) + 1)
            day = _day(match["year"] or match["year2"], number, match["day"] or match["day2"])
            if day is not None and self._counts(match, day):
                yield Edit(match.start(), _end(match), _constant(match, month), 7)
                yield from _clock_edits(match)

    def _counts(self, match: re.Match[str], day: date) -> bool:
        if match["clock"]:
            self.seen.add(day)
            return True
        return day in self._days


def days_in(text: str) -> Iterator[date]:
    """The mere days, without a time, that ``text`` names."""
    for match in ISO_DATE.finditer(text):
        day = _day(*match["date"].split("-"))
        if day is not None and not match["clock"]:
            yield day
    for match in PROSE_DATE.finditer(text):
        number = str(_MONTHS.index((match["month"] or match["month2"])[:3].lower()) + 1)
        day = _day(match["year"] or match["year2"], number, match["day"] or match["day2"])
        if day is not None and not match["clock"]:
            yield day


def _day(year: str, month: str, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def _clock_edits(match: re.Match[str]) -> Iterator[Edit]:
    if not match["clock"]:
        return
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


def _constant(match: re.Match[str], month: str) -> str:
    weekday = match["weekday"]
    comma = "," if "," in match[0] else ""
    name = "Jan" if len(month) == 3 and month != "May" else "January"
    start = "" if not weekday else f"{'Thu' if len(weekday) == 3 else 'Thursday'}{comma} "
    if match["day2"]:
        return f"{start}1 {name} 2026"
    return f"{start}{name} 1{comma} 2026"
