"""App Server frames → messages."""
