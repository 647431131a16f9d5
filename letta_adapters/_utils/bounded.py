"""Internal: a dict of bounded size, used by every cache that can grow."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping
from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")

#: The greatest number of entries of a cache.
BOUND: Final = 1024


class Bounded(MutableMapping[K, V]):
    """A dict that keeps the entries used last; reading and writing one counts as use.

    Threads may share it: an entry is read, written or forgotten as a whole. What is two of these
    (``setdefault``, ``pop``) is two for the other threads as well.

    Args:
        bound: The number of entries it holds.
        in_use: Returns true for a key that must not be forgotten now. While that is true of all, it
            holds more. It is called in the middle of a write, and does not use the dict itself.
    """

    def __init__(self, bound: int = BOUND, in_use: Callable[[K], bool] | None = None) -> None:
        self.bound = bound
        self._in_use = in_use
        # In the order of their last use, the oldest first. A plain dict keeps an order too, but to
        # find its first entry takes the longer the more were taken from its front.
        self._entries: OrderedDict[K, V] = OrderedDict()
        # A read changes the order, which whoever looks for the oldest entry is going through.
        # Reentrant: memory may be collected in between, and what is cleaned up then may come here.
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Bounded({len(self)} of {self.bound})"

    def __getitem__(self, key: K) -> V:
        with self._lock:
            value = self._entries[key]
            self._entries.move_to_end(key)
            return value

    def __setitem__(self, key: K, value: V) -> None:
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            if len(self._entries) > self.bound:
                self._shrink(key)

    def __delitem__(self, key: K) -> None:
        with self._lock:
            del self._entries[key]

    def __contains__(self, key: object) -> bool:
        # One look, which changes nothing: it needs no lock.
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        with self._lock:
            return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def drop(self, which: Callable[[K], bool]) -> None:
        """Forget the entries for whose key ``which`` returns true."""
        with self._lock:
            for key in [key for key in self._entries if which(key)]:
                del self._entries[key]

    def _shrink(self, newest: K) -> None:
        in_use = self._in_use
        surplus, oldest = len(self._entries) - self.bound, list[K]()
        # Looks at no more entries than it has to: a full cache comes here with every new one.
        for key in self._entries:
            # The entry that was just written is the one its writer is about to use.
            if key != newest and (in_use is None or not in_use(key)):
                oldest.append(key)
                if len(oldest) == surplus:
                    break
        for key in oldest:
            del self._entries[key]
