"""Internal: tools that run in the page: what an application offers, and how a call gets there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from letta_adapters.errors import InvalidInputError
from letta_adapters.tools import Tool, ToolResult
from letta_adapters.tools.client_side import check_tool_names
from letta_adapters.tools.context import current_call
from letta_adapters.web.page_calls import hand_over

_NO_PAGE: Final = "This tool runs in a page, and there is none here."


class _InPage:
    """The function behind a tool of the page: it waits for the page."""

    async def __call__(self, /, **_: Any) -> ToolResult:
        call, hand = current_call.get(), hand_over.get()
        if call is None or hand is None:
            return ToolResult(_NO_PAGE, is_error=True)
        return await hand(call)


def frontend_tool(
    name: str, description: str, parameters: Mapping[str, Any], *, timeout: float = 60.0
) -> Tool:
    """Return a tool that a page carries out: the front end of an AG-UI client.

    Give it to the session (``tools=[...]``) and to ``Hubs(..., frontend_tools=[...])``. Its call
    goes to a page of the viewer whose message began the turn, if that page has named the
    tool in its run's ``tools``; that run ends, and the page's next one brings the result.

    Args:
        name: The name, by which pages know it too.
        description: The text for the model. What a page says of the tool is not used.
        parameters: The JSON schema of the arguments.
        timeout: The seconds that a page has for its result; then the agent reads that none came.

    Raises:
        InvalidInputError: The name, the schema or the time is wrong.
    """
    return Tool(name, description, dict(parameters), handler=_InPage(), timeout=timeout)


def read_names(tools: Sequence[Tool]) -> frozenset[str]:
    """Return the names of an application's tools for pages.

    Args:
        tools: What :func:`frontend_tool` has returned.

    Raises:
        InvalidInputError: One of them is something else, or two have the same name.
    """
    if isinstance(tools, str | Mapping | Tool):
        raise InvalidInputError("frontend_tools must be a list of tools.")
    for tool in tools:
        if not isinstance(tool, Tool) or not isinstance(tool.handler, _InPage):
            raise InvalidInputError(
                f"frontend_tools holds {getattr(tool, 'name', type(tool).__name__)!r}, which does "
                "not run in a page.",
                hint="Make it with frontend_tool(name, description, parameters).",
            )
    names = [tool.name for tool in tools]
    check_tool_names(names)
    return frozenset(names)
