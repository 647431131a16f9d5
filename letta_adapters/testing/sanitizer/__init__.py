"""Internal: take everything private and everything volatile out of a recording.

Internal: its public names are those of :mod:`letta_adapters.testing`.
"""
