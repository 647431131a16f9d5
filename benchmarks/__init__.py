"""What the SDK costs: ``python -m benchmarks``. See README.md next to this file."""
