"""The suites, pointed at what others make: ``pytest tools/peers``, with their packages installed.

They are expected to fail some of it; ``docs/llama-index.md`` lists what.
"""
