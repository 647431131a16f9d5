"""Exceptions of the user's own code (tools, permission callbacks), shown to the developer.

The model reads one sentence of it; the line that failed is for whoever wrote the code.
"""

from __future__ import annotations

import logging
import traceback

# The characters of a traceback that are kept: the end, which names the line.
_MAX_CHARS = 20_000

log = logging.getLogger("letta_adapters.tools")


def report_raised(what: str, error: BaseException) -> str:
    """Log an exception of the user's code with its traceback, and return the traceback as text.

    Args:
        what: The code that raised it, for the log's first line (``"The tool 'lookup'"``).
        error: The exception.
    """
    log.warning("%s raised %s.", what, type(error).__name__, exc_info=error)
    return "".join(traceback.format_exception(error))[-_MAX_CHARS:]
