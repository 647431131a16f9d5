"""A real Letta API server on loopback, for recording cassettes (``python -m tools.rig --help``).

Data flows one way: ``environments`` (the installed programs) → ``processes`` (starting and stopping
them) → ``server`` (one rig: PostgreSQL, Redis if asked for, the scripted model, Letta) →
``__main__`` (the command line). It needs the standard library and ``letta_adapters.testing`` only.
"""
