"""The backends an application names, under the path of earlier versions."""

from letta_adapters.backends.config import Local, Remote, Rest, RuntimeStatus

__all__ = ["Local", "Remote", "Rest", "RuntimeStatus"]
