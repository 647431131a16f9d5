"""MCP servers as client-side tools: this process runs them, the agent calls their tools.

:class:`McpStdio` and :class:`McpHttp` are the values of ``mcp_servers``; plain dicts are, too.
"""

from letta_adapters.tools.mcp.config import McpHttp as McpHttp
from letta_adapters.tools.mcp.config import McpStdio as McpStdio
