"""Write a message's metadata: where it comes from and how many tokens it used.

Internal: not part of the public API.
"""

from __future__ import annotations

from typing import Any, Final

from letta_adapters.chat.response import STOPPED, ResponseReader
from letta_adapters.langchain.messages import MARKER_KEY
from letta_adapters.messages import Usage

PROVIDER: Final = "letta"
# The key in ``response_metadata`` of notes about the run, which are no part of the message.
NOTES: Final = "letta_notes"
# The key in ``response_metadata`` of the server's data about permission questions, by tool call id.
QUESTIONS: Final = "letta_questions"


def metadata_of(reader: ResponseReader) -> dict[str, Any]:
    """Return the message's ``response_metadata``.

    It goes on the last chunk only: LangChain would concatenate strings of several chunks.
    """
    end = reader.end
    assert end is not None
    made: dict[str, Any] = {
        "model_provider": PROVIDER,
        "model_name": end.model or PROVIDER,
        "stop_reason": STOPPED if reader.stopped else end.stop_reason,
        "agent_id": end.agent_id,
        "conversation_id": end.conversation_id,
        "run_ids": list(end.run_ids),
        MARKER_KEY: end.marker.to_dict(),
    }
    if end.replayed:
        made["replayed"] = True
    # Only the two fields that a decision is made by: the others may be large.
    told = {
        call_id: {name: about[name] for name in ("kind", "default") if name in about}
        for call_id, about in end.details.items()
    }
    if any(told.values()):
        made[QUESTIONS] = told
    if reader.start is not None and reader.start.forked:
        made["forked"] = reader.start.forked
    return made


def usage_metadata_of(reader: ResponseReader) -> dict[str, Any] | None:
    """Return the message's ``UsageMetadata``; ``None`` for an answer that was given before."""
    end = reader.end
    return None if end is None or end.usage is None else usage_of(end.usage)


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return Letta's token counts in LangChain's terms.

    Details are there only where the provider gave them.
    """
    made: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    # The Letta API reports 0 cache writes or none at all, depending on how the answer was streamed;
    # both come to mean the same here.
    written = usage.cache_write_tokens or None
    reads = {"cache_read": usage.cached_input_tokens, "cache_creation": written}
    given = {k: v for k, v in reads.items() if v is not None}
    if given:
        made["input_token_details"] = given
    if usage.reasoning_tokens is not None:
        made["output_token_details"] = {"reasoning": usage.reasoning_tokens}
    return made
