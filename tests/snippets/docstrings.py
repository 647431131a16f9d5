"""How the examples in docstrings are run, where the scene ``api`` is not the one.

Examples in docstrings are short: every public name is there without an import, and so is what
stands here.
"""

from __future__ import annotations

from typing import Final

_KIT: Final = "letta_adapters.testing"
_RECORDER: Final = f"{_KIT}.recording"

# Scene and settings, as in the comment before a fence.
MARKS: Final[dict[str, str]] = {
    "letta_adapters.langchain.chat_model.ChatLetta.aload_profile": "embedded",
    "letta_adapters.client.client.AsyncLettaClient": "embedded",
    "letta_adapters.sync.client.LettaClient": "embedded",
    "letta_adapters.options.Sleeptime": "embedded",
    "letta_adapters.langchain.runnable.LettaRunnable.as_tool": 'api needs="langchain"',
    "letta_adapters.langchain.chat_model.ChatLetta.with_structured_output": (
        """api replies='{"name": "Ada"}'"""
    ),
    "letta_adapters.llama_index.llm.LettaLLM.structured_predict": (
        """api replies='{"name": "Ada"}'"""
    ),
    "letta_adapters.client.structured.StructuredResult": (
        """api prints="Jane Austen" replies='{"name": "Jane Austen"}'"""
    ),
    "letta_adapters.web.agui": 'api needs="ag_ui"',
    "letta_adapters.testing.llama_index": "pytest",
    "letta_adapters.testing.llama_index.agents.AgentConformance": "pytest",
    "letta_adapters.testing.local.LocalLetta": "pytest",
    "letta_adapters.testing.plugin": "pytest",
    "letta_adapters.testing.recording.fixture.LettaCassette": "pytest",
}

_WEATHER: Final = '''
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return "sunny"
'''
_HELLO: Final = """
from tests.snippets.scenes import record

record("cassettes/hello.yaml")
"""
_URL: Final = """
import os

url = os.environ["LETTA_BASE_URL"]
"""
# What stands before an example in a test of it.
GIVEN: Final[dict[str, str]] = {
    "letta_adapters.content.image_from_bytes": "response = httpx.Response(200, content=picture)",
    "letta_adapters.content.image_from_base64": (
        "import base64\nupload = {'data': base64.b64encode(picture).decode()}"
    ),
    "letta_adapters.content.image_from_file": "Path('cat.png').write_bytes(picture)",
    "letta_adapters.engine.transcript.Transcript": "draw = print",
    "letta_adapters.langchain.chat_model.ChatLetta.aload_profile": "model = ChatLetta()",
    "letta_adapters.langchain.chat_model.ChatLetta.bind_tools": _WEATHER,
    "letta_adapters.langchain.chat_model.ChatLetta.with_structured_output": (
        "from pydantic import BaseModel\nmodel = ChatLetta()"
    ),
    "letta_adapters.langchain.runnable.LettaRunnable": _WEATHER,
    "letta_adapters.langchain.runnable.LettaRunnable.stream_events": "agent = LettaRunnable()",
    "letta_adapters.langchain.runnable.LettaRunnable.as_tool": (
        "from langchain.agents import create_agent\nmodel = ChatLetta()"
    ),
    "letta_adapters.langchain.tools.decide": "answer, history = ChatLetta().invoke('Hello!'), []",
    "letta_adapters.llama_index.agent.LettaAgent": (
        "def add(a: int, b: int) -> int:\n    return a + b"
    ),
    "letta_adapters.llama_index.approvals.ApprovalRequiredEvent": "agent = LettaAgent()",
    "letta_adapters.llama_index.contexts.LettaAgentWorkflow": (
        "from llama_index.core.workflow import Context\n"
        "writer = LettaAgent(name='writer', description='It writes.')\n"
        "editor = LettaAgent(name='editor', description='It edits.')"
    ),
    "letta_adapters.llama_index.memory.LettaMemory": "agent = LettaAgent()",
    "letta_adapters.llama_index.llm.LettaLLM.structured_predict": (
        "from llama_index.core import PromptTemplate\n"
        "from pydantic import BaseModel\nllm = LettaLLM()"
    ),
    "letta_adapters.messages.message_from_dict": "message = session.run_turn('Hello!')",
    f"{_KIT}.cassette.Cassette": _HELLO,
    f"{_KIT}.leaks.scan_text": _HELLO,
    f"{_KIT}.llama_index.agents.AgentConformance": (
        "import pytest\n\nfrom letta_adapters.llama_index import LettaAgent\n"
        "from letta_adapters.testing import FakeLetta\n"
        "from letta_adapters.testing.llama_index import AgentConformance, AgentSubject\n"
    ),
    f"{_KIT}.local.LocalLetta": "from letta_adapters.langchain import ChatLetta\n",
    f"{_KIT}.plugin": "import pytest\n",
    f"{_KIT}.recording.fixture.LettaCassette": (
        "import pytest\n\nfrom letta_adapters import AsyncLettaClient, Rest\n"
    ),
    f"{_KIT}.llama_index.watching.watching": "llm = LettaLLM()",
    f"{_KIT}.scripted_model.RemoteScript": (
        "import os\nfrom letta_adapters.testing.scripted_model import RemoteScript\n"
        "model = ScriptedModel().start()\nos.environ['LETTA_RIG_MODEL'] = model.base_url"
    ),
    f"{_RECORDER}.websocket.WebSocketRecorder": "Path('cassettes').mkdir()",
    f"{_RECORDER}.websocket.WebSocketPlayer": (
        "save_cassette(Cassette(), 'cassettes/session.yaml')"
    ),
    "letta_adapters.client.structured.StructuredResult": (
        "from pydantic import BaseModel\n\nclass Author(BaseModel):\n    name: str"
    ),
    "letta_adapters.tools.client_side.tool": "DICTIONARY = {}",
    "letta_adapters.web.agui": "def authorize(at): ...\ndef open_session(room, ask): ...",
    "letta_adapters.web": "class my_users:\n    find = staticmethod(lambda key: None)",
    f"{_RECORDER}.player.CassetteTransport": _HELLO,
    f"{_RECORDER}.recorder.RecordingTransport": _URL,
    f"{_RECORDER}.save.save_cassette": _URL,
    f"{_RECORDER}.vcr.letta_vcr": _HELLO,
    f"{_RECORDER}.vcr.use_letta_vcr": _HELLO,
    f"{_KIT}.sanitizer.sanitize.sanitize": "recorder = RecordingTransport()",
}
