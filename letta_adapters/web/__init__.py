"""A room on the web for one agent's conversation (``pip install "letta-adapters[web]"``).

::

    from letta_adapters.web import Hubs, Viewer, create_app

    def authorize(connection):
        user = my_users.find(connection.cookies.get("session"))
        return user and Viewer(name=user.name, room=user.agent_id, may_send=True, may_approve=True)

    def open_session(room, ask):
        return client.resume_session(room, can_use_tool=ask, include_partial_messages=True)

    app = create_app(Hubs(open_session), authorize=authorize)
"""

from __future__ import annotations

try:
    import sse_starlette  # noqa: F401 - needs Starlette, so it stands for both
except ImportError as error:
    raise ImportError(
        f"letta_adapters.web needs {error.name}: pip install 'letta-adapters[web]'", name=error.name
    ) from error

from letta_adapters.web.access import Authorize, Viewer
from letta_adapters.web.app import create_app, routes
from letta_adapters.web.events import Event
from letta_adapters.web.frontend import frontend_tool
from letta_adapters.web.hub import AskViewers, Hub, OpenSession
from letta_adapters.web.limits import HubOptions
from letta_adapters.web.rooms import Hubs
from letta_adapters.web.watch import Watch

__all__ = [
    "AskViewers",
    "Authorize",
    "Event",
    "Hub",
    "HubOptions",
    "Hubs",
    "OpenSession",
    "Viewer",
    "Watch",
    "create_app",
    "frontend_tool",
    "routes",
]
