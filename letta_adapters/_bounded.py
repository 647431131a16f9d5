"""A dict that forgets: every cache of this package is one, or says why it cannot grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")

#: How many entries a cache has at most.
BOUND: Final = 1024


class Bounded(MutableMapping[K, V]):
    """Keeps the entries used last; reading and writing one counts as use. For one thread.

    Args:
        bound: How many entries it holds.
        in_use: Says of an entry that it must not be forgotten now. While that is true of all, it
            holds more.
    """

    def __init__(self, bound: int = BOUND, in_use: Callable[[K], bool] | None = None) -> None:
        self.bound = bound
        self._in_use = in_use
        # In the order of their last use.
        self._entries: dict[K, V] = {}

    def __repr__(self) -> str:
        return f"Bounded({len(self)} of {self.bound})"

    def __getitem__(self, key: K) -> V:
        value = self._entries[key] = self._entries.pop(key)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._entries.pop(key, None)
        self._entries[key] = value
        if len(self._entries) > self.bound:
            self._shrink(key)

    def __delitem__(self, key: K) -> None:
        del self._entries[key]

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def drop(self, which: Callable[[K], bool]) -> None:
        """Forget the entries whose key is like that."""
        for key in [key for key in self._entries if which(key)]:
            del self._entries[key]

    def _shrink(self, newest: K) -> None:
        in_use = self._in_use
        for key in list(self._entries):
            if len(self._entries) <= self.bound:
                return
            if key != newest and (in_use is None or not in_use(key)):
                del self._entries[key]
