"""The embedded runtime, shared by the adapters' tests."""

from __future__ import annotations

from tests.embedded import embedded, embedded_agent, embedded_model

__all__ = ["embedded", "embedded_agent", "embedded_model"]
