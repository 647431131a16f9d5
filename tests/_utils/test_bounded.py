"""Caches of bounded size, which threads and event loops share."""

from __future__ import annotations

import threading

from letta_adapters._utils.bounded import Bounded


def test_a_thread_that_reads_does_not_break_a_write_that_is_looking_for_the_oldest() -> None:
    readers: list[threading.Thread] = []
    read: list[str | None] = []

    def in_use(key: str) -> bool:
        if not readers:
            readers.append(threading.Thread(target=lambda: read.append(cache.get("a"))))
            readers[0].start()
            # It may have to wait for the write; if nothing keeps it from reading, it is done here.
            readers[0].join(0.2)
        return key == "a"

    cache: Bounded[str, str] = Bounded(2, in_use=in_use)
    for key in "abc":
        cache[key] = key
    readers[0].join()
    assert read == ["a"]
    assert list(cache) == ["c", "a"]


def test_a_thread_that_writes_does_not_break_one_that_forgets() -> None:
    writers: list[threading.Thread] = []

    def write() -> None:
        cache["new"] = 0

    def which(key: str) -> bool:
        if not writers:
            writers.append(threading.Thread(target=write))
            writers[0].start()
            writers[0].join(0.2)
        return key != "b"

    cache: Bounded[str, int] = Bounded()
    cache.update(a=1, b=2, c=3)
    cache.drop(which)
    writers[0].join()
    assert list(cache) == ["b", "new"]
