"""Run the code of the documentation: find it, give it a Letta, and say what became of it."""
