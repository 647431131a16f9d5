"""Run the conformance suites against other packages' adapters: ``pytest tools/peers``.

The packages must be installed. They are expected to fail some of it; ``docs/llama-index.md`` lists
what.
"""
