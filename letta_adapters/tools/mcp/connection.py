"""Internal: one connection to one MCP server: its configuration, its task, and its results."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import import_module
from typing import Any, Final

from letta_adapters._version import __version__
from letta_adapters.content import ImageContent, TextContent
from letta_adapters.errors import (
    ConnectionFailedError,
    InvalidInputError,
    LettaError,
    ProtocolError,
)
from letta_adapters.tools.context import ToolContext
from letta_adapters.tools.mcp.config import McpHttp, McpServer, McpStdio, list_secrets
from letta_adapters.tools.result import ToolResult, format_error, format_result

_HTTP_SECONDS: Final = 30.0
# The mcp package gives a stdio server 2 s to end by itself and 2 s more after SIGTERM.
_END_SECONDS: Final = 10.0
_MAX_STDERR: Final = 1 << 20
_METHOD_NOT_FOUND: Final = -32601


def to_result(result: Mapping[str, Any]) -> ToolResult:
    """Return a ``tools/call`` result (its JSON) as the model reads it.

    Text and images are kept. For audio and other files the model gets a note that they exist.
    Structured content is added, as JSON, unless the text already holds the same.
    """
    parts = [_make_part(block) for block in result.get("content") or ()]
    texts = [part.text for part in parts if isinstance(part, TextContent)]
    structured = result.get("structuredContent")
    if structured is not None and not _repeats(texts, structured):
        texts.append(json.dumps(structured, ensure_ascii=False))
        parts.append(TextContent(texts[-1]))
    failed = bool(result.get("isError"))
    # With an image the parts stay apart; texts alone are easier to read as one.
    if len(texts) < len(parts):
        return ToolResult(format_result(parts), failed)
    text = "\n".join(texts)
    return ToolResult(format_result(text or ("The tool failed." if failed else "")), failed)


def _make_part(block: Mapping[str, Any]) -> TextContent | ImageContent:
    kind = block.get("type")
    file = block.get("resource") or block
    mime = str(file.get("mimeType") or "unknown type")
    data = file.get("blob") if kind == "resource" else block.get("data")
    if kind in ("text", "resource") and file.get("text") is not None:
        uri = f"{file['uri']}:\n" if file.get("uri") else ""
        return TextContent(uri + file["text"])
    if data is not None and (kind == "image" or mime.startswith("image/")):
        try:
            return ImageContent(data=data)
        except InvalidInputError as error:
            return TextContent(f"[An image ({mime}) that cannot be shown. {error.message}]")
    about = " ".join(str(file[k]) for k in ("name", "uri", "description") if file.get(k))
    return TextContent(f"[{kind} ({mime}), not shown{': ' if about else ''}{about}]")


def _repeats(texts: Sequence[str], structured: Any) -> bool:
    """Return whether the texts hold the same data.

    Servers wrap plain values as ``{"result": value}``.
    """
    read = [_decode(text) for text in texts]
    wrapped = isinstance(structured, Mapping) and list(structured) == ["result"]
    values = [structured, structured["result"]] if wrapped else [structured]
    return bool(texts) and any(v in read or v in texts or v in (read, [*texts]) for v in values)


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or nested by the thousand
        return text


class McpConnection:
    """One connection to one server.

    Everything happens in the task ``owner``: the contexts of the mcp package are anyio cancel
    scopes, which only the task that entered them can leave.
    """

    def __init__(self, name: str, spec: McpServer) -> None:
        self.name, self.spec = name, spec
        self._stop = asyncio.Event()
        self._peer: Any = None
        self._read: Any = None
        self._stderr: Any = None
        self._notes = ""
        self._gone = False
        self.ready: asyncio.Future[list[dict[str, Any]]] = asyncio.Future()
        self.owner = asyncio.create_task(self._live(), name=f"mcp server {name}")
        self.owner.add_done_callback(_retrieve)

    async def _live(self) -> None:
        mcp = import_module("mcp")
        me = mcp.types.Implementation(name="letta-adapters", version=__version__)
        async with AsyncExitStack() as stack:
            if hasattr(mcp, "Client"):  # 2.x: it finds out which protocol the server speaks
                self._peer = mcp.Client(self._streams(), client_info=me, cache=None)
                session = (await stack.enter_async_context(self._peer)).session
            else:
                streams = await stack.enter_async_context(self._streams())
                self._peer = session = mcp.ClientSession(*streams, client_info=me)
                await stack.enter_async_context(session)
                await session.initialize()
            tools = await _list_tools(session)
            # Whoever waited may have given up in the meantime.
            if not self.ready.done():
                self.ready.set_result(tools)
                await self._stop.wait()

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[tuple[Any, Any]]:
        async with AsyncExitStack() as stack:
            if isinstance(self.spec, McpStdio):
                transport = self._stdio(self.spec, stack)
            else:
                transport = await self._http(self.spec, stack)
            # 1.x gives three values for HTTP, and two otherwise.
            self._read, write, *_ = await stack.enter_async_context(transport)
            yield self._read, write

    def _stdio(self, spec: McpStdio, stack: AsyncExitStack) -> Any:
        stdio = import_module("mcp.client.stdio")
        env = {key: value.get_secret_value() for key, value in spec.env.items()}
        start = stdio.StdioServerParameters(
            command=spec.command, args=list(spec.args), env=env, cwd=spec.cwd
        )
        # A file, as sys.stderr does not have a descriptor everywhere (Jupyter) and belongs to the
        # user.
        self._stderr = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
        stack.callback(self._keep_stderr)
        return stdio.stdio_client(start, errlog=self._stderr)

    def _keep_stderr(self) -> None:
        # The last words of a server usually say why it ended.
        self._stderr.seek(max(0, self._stderr.seek(0, 2) - 1000))
        self._notes = self._stderr.read().decode("utf-8", "replace").strip()

    async def _http(self, spec: McpHttp, stack: AsyncExitStack) -> Any:
        headers = {key: value.get_secret_value() for key, value in spec.headers.items()}
        read = None if spec.tool_timeout is None else max(300.0, spec.tool_timeout)
        if spec.type == "sse":
            return import_module("mcp.client.sse").sse_client(
                spec.url, headers=headers, timeout=_HTTP_SECONDS, sse_read_timeout=read
            )

        async def note_failure(response: Any) -> None:
            if response.status_code >= 400:  # the mcp package does not always say
                self._notes = f"HTTP {response.status_code}"

        http = import_module("mcp.client.streamable_http")
        timeouts = (_HTTP_SECONDS, read, _HTTP_SECONDS, _HTTP_SECONDS)
        client = http.create_mcp_http_client(headers=headers, timeout=timeouts)
        client.event_hooks = {"response": [note_failure]}
        await stack.enter_async_context(client)
        return http.streamable_http_client(spec.url, http_client=client)

    def lost(self) -> bool:
        """Return whether the connection is known to be unusable."""
        inner = getattr(self._read, "_inner", self._read)  # 2.x wraps the streams of HTTP
        count = getattr(inner, "statistics", None)
        ended = count is not None and count().open_send_streams == 0
        return self._gone or self._stop.is_set() or self.owner.done() or ended

    async def call(
        self, tool: str, arguments: dict[str, Any], context: ToolContext | None = None
    ) -> ToolResult:
        """Call a tool; a failure is a result that describes it.

        Args:
            tool: The server's name of it.
            arguments: Its arguments.
            context: Told of the progress that the server reports.
        """
        # The server may write there for days, and its last words are enough.
        if self._stderr is not None and self._stderr.seek(0, 2) > _MAX_STDERR:
            self._stderr.seek(0)  # the server's next line goes there, too
            self._stderr.truncate()
        told = None if context is None else _make_teller(context)
        request = asyncio.ensure_future(
            self._peer.call_tool(tool, arguments, progress_callback=told)
        )
        request.add_done_callback(_retrieve)
        limit = self.spec.tool_timeout
        try:
            # In some versions a request outlives its connection, and would wait for ever.
            either: set[asyncio.Future[Any]] = {request, self.owner}
            done, _ = await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not request.done():
                request.cancel()  # 2.x tells the server
                await asyncio.wait({request}, timeout=1.0)
        if not done:
            text = f"{tool} timed out after {limit:g} s; its outcome is unknown."
            return ToolResult(text, is_error=True)
        if _find_error(request) is None and request.done() and not request.cancelled():
            return to_result(request.result().model_dump(by_alias=True, mode="json"))
        said, text = self._reason(request)
        # An HTTP server that was restarted answers "Session terminated" or the like.
        session = isinstance(self.spec, McpHttp) and "session" in str(said).lower()
        self._gone = self._gone or said == "Connection closed" or session
        if self.lost():
            text = f"The connection to the MCP server {self.name!r} was lost ({text}). Whether the "
            text += "tool ran is unknown. The next call connects again."
        return ToolResult(format_result(text), is_error=True)

    def _reason(self, work: asyncio.Future[Any]) -> tuple[str | None, str]:
        """Return the server's own words (``None``: another's error) and a text for people."""
        error = _find_error(work)
        said = getattr(getattr(error, "error", None), "message", None)
        text = said or (format_error(error) if error else "it was stopped")
        if work is self.owner and self._notes:
            text += f"; it said: {self._notes}"
        # A server may quote in its error what it was sent.
        for secret in list_secrets(self.spec):
            text = text.replace(secret, "***")
        return said, text

    def problem(self) -> LettaError:
        """Return the reason why there is no connection; only valid once it has ended."""
        said, text = self._reason(self.owner)
        # A server that refuses in words of its own is there, and can be reached.
        bad = said not in (None, "Connection closed") or isinstance(
            _find_error(self.owner), ValueError
        )
        kind = ProtocolError if bad else ConnectionFailedError
        return kind(f"The MCP server {self.name!r} could not be connected: {text}", hint="")

    async def end(self) -> None:
        """Leave the connection, and wait until nothing of it is left."""
        self._stop.set()
        if not self.ready.done():
            self.ready.cancel()
            self.owner.cancel()  # once: a second one would interrupt its clean-up
        await asyncio.wait({self.owner}, timeout=_END_SECONDS)
        # One that does not leave when it is asked to is made to.
        if not self.owner.done():
            self.owner.cancel()
            await asyncio.wait({self.owner}, timeout=_END_SECONDS)


def _make_teller(
    context: ToolContext,
) -> Callable[[float, float | None, str | None], Awaitable[None]]:
    """Return the function that the mcp package calls with each report of progress."""

    async def tell(progress: float, total: float | None, message: str | None = None) -> None:
        # A server that sends no numbers must not cost the call its result.
        with suppress(InvalidInputError):
            context.report(message or "", progress=progress, total=total)

    return tell


def _find_error(work: asyncio.Future[Any]) -> BaseException | None:
    error = work.exception() if work.done() and not work.cancelled() else None
    # anyio wraps errors in groups; the first one inside is the cause.
    while group := getattr(error, "exceptions", None):
        error = group[0]
    return error


def _retrieve(work: asyncio.Future[Any]) -> None:
    _find_error(work)  # or asyncio would log it


async def _list_tools(session: Any) -> list[dict[str, Any]]:
    """Return all pages of ``tools/list``; nothing for a server that has no tools."""
    params_of = import_module("mcp.types").PaginatedRequestParams
    tools: list[dict[str, Any]] = []
    cursors = [None]
    while True:
        params = None if cursors[-1] is None else params_of(cursor=cursors[-1])
        try:
            page = await session.list_tools(params=params)
        except Exception as error:
            # A server without tools need not know this request.
            if getattr(getattr(error, "error", None), "code", None) == _METHOD_NOT_FOUND:
                return tools
            raise
        wire = page.model_dump(by_alias=True, mode="json")
        tools += wire["tools"]
        # A server that repeats a cursor would otherwise be asked for ever.
        if not wire.get("nextCursor") or wire["nextCursor"] in cursors:
            return tools
        cursors.append(wire["nextCursor"])
