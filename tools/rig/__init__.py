"""A real Letta API server on loopback, for recording cassettes (``python -m tools.rig --help``).

Data flows one way: ``environments`` (what is installed) → ``processes`` (what is started and
stopped) → ``server`` (one rig: PostgreSQL, Redis if asked for, the scripted model, Letta) →
``__main__`` (the command line). Needs the standard library and ``letta_adapters.testing`` only.
"""
