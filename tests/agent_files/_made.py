"""An agent file in the form that letta 0.16.8 exports, with a bit of everything."""

from __future__ import annotations

import json
from typing import Any

SOURCE = "def multiply(a: int, b: int) -> int:\n    return a * b\n"


def tool(name: str = "multiply", **fields: Any) -> dict[str, Any]:
    made = {
        "id": f"tool-{name}",
        "tool_type": "custom",
        "source_type": "python",
        "name": name,
        "source_code": SOURCE,
        "json_schema": {"name": name, "parameters": {"type": "object", "properties": {}}},
        "pip_requirements": None,
        "npm_requirements": None,
        "default_requires_approval": None,
    }
    return made | fields


CORE = tool("memory_insert", tool_type="letta_sleeptime_core", source_code=None)


def agent(**fields: Any) -> dict[str, Any]:
    made = {
        "id": "agent-0",
        "name": "librarian",
        "system": "You keep books.",
        "agent_type": "letta_v1_agent",
        "tool_ids": ["tool-multiply", "tool-memory_insert"],
        "block_ids": ["block-0"],
        "source_ids": [],
        "tool_rules": [],
        "tags": ["books"],
        "metadata": None,
        "llm_config": {"handle": "openai/gpt-5", "model_endpoint": "https://api.example.com/v1"},
        "embedding_config": None,
        "secrets": {"TOKEN": ""},
        "tool_exec_environment_variables": {"TOKEN": ""},
        "messages": [{"id": "message-0", "role": "system", "content": []}],
        "in_context_message_ids": ["message-0"],
        "files_agents": [],
    }
    return made | fields


def document(**fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "agents": [agent()],
        "groups": [],
        "blocks": [{"id": "block-0", "label": "persona", "value": "I keep books."}],
        "files": [],
        "sources": [],
        "tools": [tool(), CORE],
        "mcp_servers": [],
        "skills": [],
        "metadata": {"revision_id": "unknown"},
        "created_at": None,
    }
    return made | fields


def dump(**fields: Any) -> bytes:
    return json.dumps(document(**fields)).encode()
