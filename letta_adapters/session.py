"""The asynchronous session, under the path of earlier versions."""

from letta_adapters.client.session import AsyncSession

__all__ = ["AsyncSession"]
