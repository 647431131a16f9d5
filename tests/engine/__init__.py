"""The engine: bytes in, messages out."""
