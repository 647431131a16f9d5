"""Calls of the adapters against a real server: ``pytest -m live tests/live``.

``python -m tools.rig run --redis -- python -m pytest -m live tests/live`` has one with Redis.
"""

from __future__ import annotations

import os
import uuid

import pytest
from langchain_core.messages import HumanMessage

from letta_adapters import AsyncLettaClient, Rest, ServerError
from letta_adapters.langchain import ChatLetta

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not (os.environ.get("LETTA_API_KEY") or os.environ.get("LETTA_BASE_URL")),
        reason="live tests need LETTA_API_KEY or LETTA_BASE_URL",
    ),
]


async def test_one_question_to_two_agents_is_two_questions() -> None:
    """A server with Redis takes an ``otid`` for one request, whoever it goes to."""
    question = [HumanMessage("Say one word.", id=str(uuid.uuid4()))]
    async with AsyncLettaClient(Rest(background=True)) as client:
        for name in ("one", "two"):
            agent = await client.create_agent(
                name=name, model=os.environ.get("LETTA_MODEL"), system_prompt="You are a test."
            )
            try:
                answer = await ChatLetta(agent_id=agent, client=client).ainvoke(question)
            except ServerError as error:
                if error.code == "background_unavailable":
                    pytest.skip("the server has no Redis")
                raise
            else:
                where = answer.response_metadata["conversation_id"]
                page = await client.list_messages(agent, where)
                kinds = [message["message_type"] for message in page.raw]
                assert kinds.count("user_message") == 1
            finally:
                await client.agents.delete(agent)
