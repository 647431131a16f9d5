"""The asynchronous client and its sessions: the only control flow there is."""

from letta_adapters.client.client import AsyncLettaClient as AsyncLettaClient
