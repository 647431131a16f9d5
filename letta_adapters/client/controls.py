"""The controls of a session besides talking, which are its model, its toolset and its queue.

Internal: not part of the public API.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letta_adapters.backends.base import Conversation, Opened
from letta_adapters.backends.capabilities import check_supported, has
from letta_adapters.errors import InvalidInputError, ServerError
from letta_adapters.options import PermissionMode, SessionOptions, Toolset

if TYPE_CHECKING:
    from letta_adapters.client.outbox import Outbox
    from letta_adapters.client.turn_slots import TurnSlots


class AsyncControls:
    """The part of :class:`~letta_adapters.AsyncSession` that is not about messages.

    All but :meth:`update_model`, :meth:`queued` and :meth:`remove_queued` exist in Letta Code only;
    the Letta API refuses them by name.
    """

    _slots: TurnSlots
    _options: SessionOptions
    _outbox: Outbox

    async def _open(self) -> Opened:
        raise NotImplementedError

    def _uses(self, model: str) -> None:
        """Remember that the conversation has another model from now on."""
        raise NotImplementedError

    async def _place(self) -> Conversation:
        return (await self._open()).conversation

    async def update_model(self, model: str) -> None:
        """Use another model in this conversation from the next turn on (not in others).

        Raises:
            InvalidInputError: The server has no such model; the error names those spelled alike.
            UnsupportedOptionError: The agent's default conversation always uses its agent's model.
        """
        if not isinstance(model, str) or not model:
            raise InvalidInputError(f"A model handle is needed, not {model!r}.")
        await self._slots.backend.set_model(await self._place(), model)
        self._uses(model)

    async def update_toolset(self, toolset: Toolset) -> None:
        """Use another set of Letta Code's own tools from the next turn on; ``"none"`` for none."""
        await self._change({"toolset": toolset})

    async def change_device_state(
        self,
        *,
        permission_mode: PermissionMode | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        """Change the permission mode or the working directory at once, also in a running turn.

        Raises:
            InvalidInputError: Nothing is to be changed, or ``cwd`` is not a directory.
        """
        given = {"permission_mode": permission_mode, "cwd": cwd}
        changes = {name: value for name, value in given.items() if value is not None}
        if not changes:
            raise InvalidInputError("Give permission_mode=, cwd=, or both.")
        await self._change(changes)

    async def _change(self, changes: Mapping[str, Any]) -> None:
        # The whole set of options is checked again: a change may not go together with the others.
        known = {name: getattr(self._options, name) for name in self._options.model_fields_set}
        changed = SessionOptions(**{**known, **changes})
        check_supported(changed, self._slots.backend.name)
        await self._slots.backend.change_state(await self._place(), changed)
        self._options = changed

    async def device_status(self) -> dict[str, Any]:
        """Return the server's own description of this conversation's state.

        It has ``current_permission_mode``, ``current_working_directory``, ``current_loaded_tools``,
        ``pending_control_requests`` and more, in Letta Code's words.
        """
        return dict((await self._slots.backend.live(await self._place())).device)

    async def queued(self) -> tuple[Mapping[str, Any], ...]:
        """Return the messages that wait behind a running turn, with ``id`` and ``content``.

        First come those of other clients, which wait at the server (Letta Code), then those of this
        client.
        """
        where = await self._place()
        ours = tuple(turn.item for turn in self._slots.queue if turn.conversation == where)
        if not has(self._slots.backend.kind, "shared_queue"):
            return ours
        return (*(await self._slots.backend.live(where)).queue, *ours)

    async def remove_queued(self, item_id: str) -> bool:
        """Take a message out of the queue; return ``False`` if it is not in it (any more).

        A message of this session that was taken out has no stream.
        """
        where = await self._place()
        # Messages of this client wait here and the server does not know them, so they come first.
        for turn in tuple(self._slots.queue):
            if turn.conversation == where and turn.item["id"] == item_id:
                # The server may have it already: it can no longer be taken back.
                if turn.on_its_way:
                    return False
                await turn.stop("The message was taken out of the queue.")
                self._outbox.remove(turn)
                return True
        if not has(self._slots.backend.kind, "shared_queue"):
            return False
        try:
            await self._command("remove_queue_item", item_id=item_id)
        except ServerError:
            # The server refuses an id that is not (or no longer) in its queue, which is no failure.
            return False
        return True

    async def resume_queue(self) -> int:
        """Let the messages go on that an abort has put on hold, and return their number."""
        return int((await self._command("resume_queue")).get("resumed") or 0)

    async def _command(self, name: str, **fields: Any) -> dict[str, Any]:
        where = await self._place()
        runtime = {"agent_id": where.agent_id or None, "conversation_id": where.conversation_id}
        self._slots.check_usable()  # the client may have been closed meanwhile
        made: dict[str, Any] = await self._slots.backend.request(
            "COMMAND", name, params=None, body={"runtime": runtime, **fields}
        )
        return made
