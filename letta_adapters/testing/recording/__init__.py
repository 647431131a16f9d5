"""Internal: record exchanges with a real Letta, and play them back.

Internal: its public names are those of :mod:`letta_adapters.testing`.
"""
