"""Calls that a type checker must refuse, each in a line of its own; nobody runs them."""

from __future__ import annotations

from letta_adapters import Local, Remote, Rest, create_agent, create_session
from letta_adapters.langchain import ChatLetta, LettaRunnable
from letta_adapters.llama_index import LettaAgent

Rest(api_key=5)  # wrong
Rest(apikey="key")  # wrong
Remote(auth_token=b"token")  # wrong
Local(data_dir=7)  # wrong
Local(inherit_env=5)  # wrong
ChatLetta(api_key=5)  # wrong
ChatLetta(agentid="agent-1")  # wrong
LettaAgent(agentid="agent-1")  # wrong
LettaRunnable(agentid="agent-1")  # wrong
LettaRunnable(ask_timeout="soon")  # wrong
create_agent(modell="letta/auto")  # wrong
create_session("agent-1", permission_mode="everything")  # wrong
create_session("agent-1", reasoning_effort="hard")  # wrong
create_session("agent-1", offered_tools=5)  # wrong
create_session("agent-1").update_model(reasoning_effort=3)  # wrong
create_agent(reasoning_effort="hard")  # wrong
