"""A real embedded Letta for tests: Letta Code on this machine, with a scripted model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from letta_adapters.testing.scripted_model import ModelRequest, Reply, ScriptedModel

if TYPE_CHECKING:
    from letta_adapters.backends.config import Local
    from letta_adapters.sync.client import LettaClient

MODEL: Final = "lmstudio/scripted"
_PROMPT: Final = "You are a test agent."


class LocalLetta:
    """The runtime of the ``letta`` wheel in a directory of its own, and the model behind it.

    Use it with ``with``, or through the fixture ``letta_local``::

        def test_it(letta_local):
            letta_local.model.script("Hello Ada.")
            model = ChatLetta(agent_id=letta_local.agent(), client=letta_local.client)
            assert model.invoke("I am Ada.").text == "Hello Ada."

    Args:
        respond: Returns what the model says when nothing is scripted; by default it repeats.
        models: The ids of its models; their handles are ``lmstudio/<id>``.
        vision: The models see images, and say so.

    Raises:
        RuntimeUnavailableError: The ``letta`` wheel or ``git`` is missing; it says what to install.
    """

    def __init__(
        self,
        respond: Callable[[ModelRequest], Reply] | None = None,
        models: Sequence[str] = ("scripted",),
        vision: bool = True,
    ) -> None:
        self.model = ScriptedModel(respond=respond, models=tuple(models), vision=vision)
        # Never the state directory of whoever runs the tests. A file that a runtime still writes
        # while it ends must not fail the test, hence the ignored errors.
        self._home = tempfile.TemporaryDirectory(
            prefix="letta-adapters-test-", ignore_cleanup_errors=True
        )
        self._client: LettaClient | None = None
        self._agents: dict[str, str] = {}

    @property
    def spec(self) -> Local:
        """Return the argument for a client of your own: ``AsyncLettaClient(letta_local.spec)``."""
        from letta_adapters.backends.config import Local

        endpoint = {"base_url": self.model.base_url}
        return Local(data_dir=Path(self._home.name), openai_compatible=endpoint)

    @property
    def client(self) -> LettaClient:
        """Return a client, for synchronous code and for adapters."""
        if self._client is None:
            from letta_adapters.sync.client import LettaClient

            self._client = LettaClient(self.spec)
        return self._client

    def agent(self, name: str = "test", **options: Any) -> str:
        """Return the id of a bare agent, made once per name; ``options`` are ``create_agent``'s."""
        if name not in self._agents:
            given = {"model": MODEL, "system_prompt": _PROMPT, "persona": "I am a test."}
            self._agents[name] = self.client.create_agent(name=name, **given | options)
        return self._agents[name]

    def __enter__(self) -> LocalLetta:
        self.model.start()
        return self

    def __exit__(self, *_: object) -> None:
        # The client ends first: its runtime still uses the model and the directory.
        if self._client is not None:
            self._client.close()
        self.model.stop()
        self._home.cleanup()
