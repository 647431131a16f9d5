"""AG-UI, the protocol of many front ends, for a room (``pip install "letta-adapters[agui]"``).

::

    from letta_adapters.web import Hubs, create_app
    from letta_adapters.web.agui import agui_routes

    hubs = Hubs(open_session)
    agui = agui_routes(hubs, authorize=authorize)
    app = create_app(hubs, authorize=authorize, pages=agui)

A front end then talks to ``/agui``: ``new HttpAgent({url: "/agui"})`` of ``@ag-ui/client``.
"""

from __future__ import annotations

try:
    import ag_ui.core  # noqa: F401 - a clear word before the first import that fails
except ImportError as error:
    raise ImportError(
        f"letta_adapters.web.agui needs {error.name}: pip install 'letta-adapters[agui]'",
        name=error.name,
    ) from error

from letta_adapters.web.agui.route import FindRoom, agui_routes

__all__ = ["FindRoom", "agui_routes"]
