"""The Letta API over HTTP; only ``http.py`` touches httpx.

Internal: not part of the public API.
"""
