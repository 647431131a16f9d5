"""Where agents live, behind one protocol (:mod:`letta_adapters.backends.base`)."""
