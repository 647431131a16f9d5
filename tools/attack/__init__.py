"""Attack the client from the wire, and print what became of it: the figures of docs/security.md."""
