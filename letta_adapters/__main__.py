"""Entry point of ``python -m letta_adapters``, the same as the ``letta-adapters`` command.

Internal: not part of the public API.
"""

from __future__ import annotations

import sys

from letta_adapters.cli import main

if __name__ == "__main__":
    sys.exit(main())
