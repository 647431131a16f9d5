"""Measure the cost of this SDK: ``python -m benchmarks``. See README.md next to this file."""
