"""Count how often one call changes modules of the package on its way to the wire."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, Final

import httpx

from letta_adapters.chat.stream import ChatStream
from letta_adapters.langchain import ChatLetta

PACKAGE: Final = "letta_adapters"
# A Letta in memory is the server at the end of the way, and no part of it.
SERVER: Final = f"{PACKAGE}.testing."
# Between the first line of the one and the message's request in the other, calls are counted.
_START: Final = ChatStream._run.__code__
_SEND: Final = httpx.AsyncClient.send.__code__


class Changes:
    """Count the calls from one module of the package into another, until a message is sent.

    The caller is the nearest function of the package on the stack, so a call through a library
    counts as well. A coroutine counts once, however often it is resumed. Methods that ``dataclass``
    makes do not count: there is no module to open for them.
    """

    def __init__(self) -> None:
        self.count = 0
        self.modules: set[str] = set()
        self._seen: dict[int, FrameType] = {}
        self._state = "before"

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """Take one event of :func:`sys.setprofile`."""
        if event != "call" or self._state == "after" or id(frame) in self._seen:
            return
        self._seen[id(frame)] = frame  # kept, so that no other frame gets its id
        if frame.f_code is _START:
            self._state = "inside"
        if self._state != "inside":
            return
        if frame.f_code is _SEND:
            request = frame.f_locals["request"]
            if request.method == "POST" and request.url.path.endswith("/messages"):
                self._state = "after"
            return
        module = _module_of(frame)
        if module is not None:
            self.modules.add(module)
            self.count += _caller_of(frame) not in (None, module)

    def finish(self) -> None:
        """Check that the whole way was seen.

        Raises:
            RuntimeError: The beginning or the end was not met; they have other names now.
        """
        if self._state != "after":
            raise RuntimeError(f"The call was not followed to the wire: {self._state} its way.")


def _module_of(frame: FrameType) -> str | None:
    name = str(frame.f_globals.get("__name__"))
    if frame.f_code.co_filename == "<string>" or name.startswith(SERVER):
        return None
    return name if name.startswith(f"{PACKAGE}.") else None


def _caller_of(frame: FrameType) -> str | None:
    above = frame.f_back
    while above is not None and _module_of(above) is None:
        above = above.f_back
    return None if above is None else _module_of(above)


async def follow(model: ChatLetta, history: list[Any]) -> tuple[Changes, Any]:
    """Make one call and count its way to the wire."""
    changes = Changes()
    sys.setprofile(changes)
    try:
        answer = await model.ainvoke(history)
    finally:
        sys.setprofile(None)
    changes.finish()
    return changes, answer
