"""Internal: entry point of ``python -m letta_adapters``, the command ``letta-adapters``."""

from __future__ import annotations

import sys

from letta_adapters.cli import main

if __name__ == "__main__":
    sys.exit(main())
