"""Attack the client from the wire, and print the outcome: the figures of docs/security.md."""
