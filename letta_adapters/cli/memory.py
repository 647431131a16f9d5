"""Internal: implement ``/memory`` of a chat: what the agent keeps in mind, to see and to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from letta_adapters.cli.flow import Flow
from letta_adapters.cli.render import clean, one_line, unmask
from letta_adapters.errors import InvalidInputError

if TYPE_CHECKING:
    from rich.console import Console

    from letta_adapters.cli.lines import Keyboard
    from letta_adapters.messages import InitMessage
    from letta_adapters.sync.client import LettaClient

_EDIT: Final = "edit"


class MemoryView:
    """The memory of one agent, at the terminal or in a pipe.

    Args:
        client: The client of the chat.
        init: The agent and the conversation.
        console: The place where memory is shown.
        keyboard: The person who may change it; ``None`` in a pipe.
    """

    def __init__(
        self,
        client: LettaClient,
        init: InitMessage,
        console: Console,
        keyboard: Keyboard | None,
    ) -> None:
        self._client = client
        self._agent = init.agent_id
        self._conversation = init.conversation_id
        self._console = console
        self._keyboard = keyboard

    def run(self, given: str) -> None:
        """List the memory, show the part that is named, or let it be edited (``edit NAME``).

        Raises:
            LettaError: There is no such part, or it cannot be changed.
        """
        word, _, rest = given.partition(" ")
        if not given:
            self._list()
        elif word == _EDIT and rest.strip():
            self._edit(rest.strip())
        else:
            self._show(given)

    def _list(self) -> None:
        items = self._client.agents.memory.list(self._agent)
        if not items:
            self._console.print(Text("Its memory is empty.", style="dim"))
            return
        width = max(len(unmask(item.label)) for item in items)
        for item in items:
            line = Text(f"{unmask(item.label):{width}}  ")
            room = f" of {item.limit}" if item.limit else ""
            kept = ", read-only" if item.read_only else ""
            line.append(f"{len(item.value)}{room} characters{kept}", style="dim")
            if item.description:
                line.append(f"  {one_line(item.description)}", style="dim")
            self._console.print(line)

    def _show(self, label: str) -> None:
        item = self._client.agents.memory.read(self._agent, label)
        if item.description:
            self._console.print(Text(one_line(item.description), style="dim"))
        if not item.value.strip():
            self._console.print(Text("(empty)", style="dim"))
        elif self._console.is_terminal:
            flow = Flow(self._console, markdown=True)
            flow.add(unmask(item.value))
            flow.end()
        else:
            # Not by rich, which would expand tabs: a pipe gets the text as it is.
            self._console.file.write(clean(item.value).removesuffix("\n") + "\n")

    def _edit(self, label: str) -> None:
        memory = self._client.agents.memory
        if self._keyboard is None:
            raise InvalidInputError(
                "Nobody is there who could edit it.",
                hint="In Python: client.agents.memory.write(agent_id, label, value).",
            )
        item = memory.read(self._agent, label)
        try:
            text = self._keyboard.edit_text(item.value)
        except (EOFError, KeyboardInterrupt):
            text = item.value
        if text == item.value:
            self._console.print(Text("Nothing is changed.", style="dim"))
            return
        # Refused if the agent itself, or somebody else, has changed it while it was edited.
        memory.write(self._agent, label, text, if_match=item.version)
        # A conversation that has begun goes on with the memory that it began with.
        if self._client.backend_name == "rest" and self._conversation != "default":
            self._client.conversations.recompile(self._conversation)
        self._console.print(Text(f"{unmask(label)} is changed.", style="dim"))
