"""MCP servers as client-side tools: this process runs them, the agent calls them.

Internal: not part of the public API.
"""
