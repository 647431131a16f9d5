"""The places where agents live, behind one protocol (:mod:`letta_adapters.backends.base`).

Internal: not part of the public API.
"""
