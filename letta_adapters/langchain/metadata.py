"""What a LangChain message says about itself: where it comes from, what it cost."""

from __future__ import annotations

from typing import Any, Final

from letta_adapters.calls.answer import STOPPED, Reader
from letta_adapters.langchain.convert import MARKER_KEY
from letta_adapters.messages import Usage

PROVIDER: Final = "letta"
# In the ``response_metadata``: what was told of the run meanwhile, and is no part of the message.
NOTES: Final = "letta_notes"
# In the ``response_metadata``, by tool call id: what is known of the permission questions.
QUESTIONS: Final = "letta_questions"


def metadata_of(reader: Reader) -> dict[str, Any]:
    """The message's ``response_metadata``: once, on its last chunk (strings of several chunks
    would be put together)."""
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
    told = {
        call_id: {name: about[name] for name in ("kind", "default") if name in about}
        for call_id, about in end.details.items()
    }
    if any(told.values()):
        made[QUESTIONS] = told
    if reader.start is not None and reader.start.forked:
        made["forked"] = reader.start.forked
    return made


def usage_metadata_of(reader: Reader) -> dict[str, Any] | None:
    """The message's ``UsageMetadata``; ``None`` for an answer that was given before."""
    end = reader.end
    return None if end is None or end.usage is None else usage_of(end.usage)


def usage_of(usage: Usage) -> dict[str, Any]:
    """Letta's token counts in LangChain's terms; details only where the provider gave them."""
    made: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    # The Letta API says 0 or nothing of cache writes, depending on how the answer was streamed.
    written = usage.cache_write_tokens or None
    reads = {"cache_read": usage.cached_input_tokens, "cache_creation": written}
    given = {k: v for k, v in reads.items() if v is not None}
    if given:
        made["input_token_details"] = given
    if usage.reasoning_tokens is not None:
        made["output_token_details"] = {"reasoning": usage.reasoning_tokens}
    return made
