"""What ``langchain-tests`` is told of ``ChatLetta``: all is on that has a test we can run."""

from __future__ import annotations

from typing import Any, ClassVar

from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from letta_adapters.langchain import ChatLetta

# They fetch their media from the internet; test_media.py has their twins with media of its own.
MEDIA = frozenset(
    {
        "test_pdf_inputs",
        "test_audio_inputs",
        "test_image_inputs",
        "test_image_tool_message",
        "test_pdf_tool_message",
        "test_anthropic_inputs",
    }
)


class Standard(ChatModelIntegrationTests):
    """``params`` are those of the test that runs: a suite makes models from them as well."""

    params: ClassVar[dict[str, Any]] = {}

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLetta

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return dict(self.params)

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def enable_vcr_tests(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> Any:
        return {"invoke": [], "stream": []}
