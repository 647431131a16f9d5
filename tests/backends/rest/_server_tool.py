"""A tool that the Letta API server runs itself, in its sandbox."""

from __future__ import annotations

from typing import Any

SERVER_TOOL = '''
def multiply(a: int, b: int) -> int:
    """Multiply two numbers.

    Args:
        a (int): The first.
        b (int): The second.
    """
    print("multiplying")
    return a * b
'''


async def attach(client: Any, agent: str, *, asks: bool) -> None:
    """Give ``agent`` the tool ``multiply``; ``asks``: each call waits for an approval."""
    body = {
        "source_code": SERVER_TOOL,
        "source_type": "python",
        "default_requires_approval": asks,
    }
    tool = await client.request("PUT", "/v1/tools/", body=body)
    await client.request("PATCH", f"/v1/agents/{agent}/tools/attach/{tool['id']}")
