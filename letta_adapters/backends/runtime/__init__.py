"""Find, start, share, watch and stop the embedded runtime, which is the bundled Letta Code server.

In: a :class:`~letta_adapters.Local`. Out: a
:class:`~letta_adapters.backends.runtime.manager.RuntimeHandle`, which is a URL and a token. The
protocol spoken over that URL is no business of this package.

Internal: not part of the public API.
"""
