"""Internal: helpers that know nothing of Letta: bounded caches, locks, files, waiting."""
