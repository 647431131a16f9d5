"""Internal: find, start, share, watch and stop the embedded runtime, Letta Code's own server.

In: a :class:`~letta_adapters.Local`. Out: a
:class:`~letta_adapters.backends.runtime.manager.RuntimeHandle`, which is a URL and a token. The
protocol spoken over that URL is no business of this package.
"""
