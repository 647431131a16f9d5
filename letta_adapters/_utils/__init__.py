"""Helpers that know nothing of Letta: bounded caches, locks, files, waiting.

Internal: not part of the public API.
"""
