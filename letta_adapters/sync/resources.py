"""Internal: the blocking twins of memory, blocks, passages, tools and runs."""

from __future__ import annotations

from letta_adapters.client.blocks import AsyncBlocks, AsyncPassages, AsyncRuns, AsyncTools
from letta_adapters.client.memory import AsyncMemory
from letta_adapters.sync.bridge import Bridged, blocking


class Memory(Bridged[AsyncMemory]):
    """The memory of agents; see :class:`~letta_adapters.client.memory.AsyncMemory`."""

    list = blocking(AsyncMemory.list)
    read = blocking(AsyncMemory.read)
    write = blocking(AsyncMemory.write)
    create = blocking(AsyncMemory.create)
    delete = blocking(AsyncMemory.delete)
    attach = blocking(AsyncMemory.attach)
    detach = blocking(AsyncMemory.detach)
    history = blocking(AsyncMemory.history)
    diff = blocking(AsyncMemory.diff)


class Passages(Bridged[AsyncPassages]):
    """The archival memory of agents (Letta API)."""

    insert = blocking(AsyncPassages.insert)
    list = blocking(AsyncPassages.list)
    search = blocking(AsyncPassages.search)
    delete = blocking(AsyncPassages.delete)


class Blocks(Bridged[AsyncBlocks]):
    """The blocks of memory, whichever agents have them (Letta API)."""

    list = blocking(AsyncBlocks.list)
    retrieve = blocking(AsyncBlocks.retrieve)
    create = blocking(AsyncBlocks.create)
    update = blocking(AsyncBlocks.update)
    delete = blocking(AsyncBlocks.delete)


class Tools(Bridged[AsyncTools]):
    """The tools that the server runs (Letta API)."""

    list = blocking(AsyncTools.list)
    retrieve = blocking(AsyncTools.retrieve)
    create = blocking(AsyncTools.create)
    attach = blocking(AsyncTools.attach)
    detach = blocking(AsyncTools.detach)
    delete = blocking(AsyncTools.delete)


class Runs(Bridged[AsyncRuns]):
    """The server's records of requests (Letta API)."""

    list = blocking(AsyncRuns.list)
    retrieve = blocking(AsyncRuns.retrieve)
    messages = blocking(AsyncRuns.messages)
    steps = blocking(AsyncRuns.steps)
    cancel = blocking(AsyncRuns.cancel)
