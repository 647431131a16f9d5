"""Client-side tools: Python functions that an agent calls and this process runs."""

from letta_adapters.tools.client_side import Tool as Tool
from letta_adapters.tools.client_side import tool as tool
from letta_adapters.tools.context import ToolContext as ToolContext
from letta_adapters.tools.result import ToolResult as ToolResult

# The name of earlier versions, which applications may return and pickles refer to.
ToolOutcome = ToolResult
