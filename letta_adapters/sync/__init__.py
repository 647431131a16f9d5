"""The blocking client and its sessions: the asynchronous ones, driven from any thread."""

from letta_adapters.sync.client import LettaClient as LettaClient
from letta_adapters.sync.client import Session as Session
from letta_adapters.sync.client import create_agent as create_agent
from letta_adapters.sync.client import create_session as create_session
from letta_adapters.sync.client import prompt as prompt
from letta_adapters.sync.client import resume_session as resume_session
