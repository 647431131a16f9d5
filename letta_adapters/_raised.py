"""What the user's own code (tools, permission callbacks) raised: shown to the developer.

The model reads one sentence of it; the line that failed is for whoever wrote the code.
"""

from __future__ import annotations

import logging
import traceback

# Of a traceback's text; the end, which names the line, is kept.
_MAX_CHARS = 20_000

log = logging.getLogger("letta_adapters.tools")


def report_raised(what: str, error: BaseException) -> str:
    """Log an exception of the user's code with its traceback, and return that as text.

    Args:
        what: Who raised it, for the log's first line (``"The tool 'lookup'"``).
        error: What was raised.
    """
    log.warning("%s raised %s.", what, type(error).__name__, exc_info=error)
    return "".join(traceback.format_exception(error))[-_MAX_CHARS:]
