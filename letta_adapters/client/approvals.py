"""Internal: the part of a session that is about tool calls which wait for an answer.

A Letta API keeps such calls with the conversation, so they outlive the request, the process and the
connection that met them. The rules: docs/protocol.md ("Approvals and client-side tools").
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from letta_adapters._utils.tasks import run_within, running_task
from letta_adapters.backends.base import Backend, Conversation, Opened
from letta_adapters.client.facts import Facts
from letta_adapters.client.structured import (
    StructuredResult,
    check_repairs,
    mend,
    read_output_schema,
    run_structured,
)
from letta_adapters.client.tool_calls import (
    Answered,
    EndsTurnError,
    PostponedError,
    ToolCallHandler,
    let_answer,
)
from letta_adapters.client.turn import Turn
from letta_adapters.client.turn_options import TurnOptions
from letta_adapters.client.turn_slots import OutgoingMessage, TurnSlots
from letta_adapters.errors import (
    ConversationBusyError,
    InvalidInputError,
    LettaError,
    PendingApprovalError,
    TimeoutBeforeAcceptanceError,
    UnsupportedOptionError,
    WrongToolCallsError,
)
from letta_adapters.messages import (
    PendingToolCall,
    RecoveredCall,
    RecoveryResult,
    ResultMessage,
)
from letta_adapters.permissions import Allow, Deny, denials, normalise_decision

if TYPE_CHECKING:
    from letta_adapters.client.turn_slots import Outbox
    from letta_adapters.options import SessionOptions

T = TypeVar("T")


_log: Final = logging.getLogger("letta_adapters.turns")


@dataclass(frozen=True, slots=True)
class Asking:
    """Somebody who answers the open calls of a conversation, which wait for nothing else."""

    conversation: Conversation


class AsyncApprovals:
    """Calls that wait for an answer, and the turns that go on with one.

    :class:`~letta_adapters.AsyncSession` is one.
    """

    _slots: TurnSlots
    _options: SessionOptions
    _outbox: Outbox

    def _check_usable(self) -> None:
        raise NotImplementedError

    async def _open(self) -> Opened:
        raise NotImplementedError

    async def _prepare(
        self, message: Any, otid: str | None, timeout: float | None = None
    ) -> tuple[Facts, OutgoingMessage]:
        raise NotImplementedError

    async def _reach(self) -> Facts:
        raise NotImplementedError

    async def _begin(self, facts: Facts, message: OutgoingMessage, owner: object) -> Turn:
        raise NotImplementedError

    async def _start(self, beginning: Coroutine[Any, Any, Turn]) -> Turn:
        raise NotImplementedError

    def _make_turn_options(self, facts: Facts, timeout: float | None = None) -> TurnOptions:
        raise NotImplementedError

    def _make_handler(self, conversation: Conversation) -> ToolCallHandler:
        raise NotImplementedError

    # -- look, answer, leave ----------------------------------------------------------------

    async def pending_approvals(self) -> tuple[PendingToolCall, ...]:
        """Return the tool calls that wait for an answer in this conversation, in their order.

        Calls for approval and calls of client-side tools are among them. On a Letta API they wait
        for as long as it takes, whoever has met them; in Letta Code only while their turn runs.
        """
        opened = await self._open()
        return await self._slots.backend.pending_calls(opened.conversation)

    async def respond(self, decisions: Mapping[str, Allow | Deny | bool]) -> None:
        """Answer all calls that wait, and go on with their turn; then read :meth:`stream`.

        Another session, request or process may have met them. A client-side tool that is allowed is
        run here, by the ``tools`` of this session. Letta API only::

            waiting = await session.pending_approvals()
            await session.respond({call.tool_call_id: Allow() for call in waiting})
            async for message in session.stream():
                print(message)

        Args:
            decisions: An answer to each of the calls, by tool call id. The server takes no part of
                them.

        Raises:
            WrongToolCallsError: An answer is missing, or is for a call that does not wait; nothing
                was sent.
            InvalidInputError: An answer is none, or allows a client-side tool that this session
                does not have; nothing was sent.
            ConversationBusyError: A turn of this client is at work on the calls.
            TurnCancelledError: A denial had ``interrupt=True``: it is stored, and the turn is over.
            UnsupportedOptionError: The backend keeps no calls (Letta Code), or an answer changes
                the input of a tool that the server runs; nothing was sent.
            LettaError: The server refused the answers, or could not be reached.
        """
        await self._respond(decisions, running_task())

    @overload
    async def respond_turn(
        self,
        decisions: Mapping[str, Allow | Deny | bool],
        *,
        output_schema: None = None,
        output_repairs: None = None,
    ) -> ResultMessage: ...
    @overload
    async def respond_turn(
        self,
        decisions: Mapping[str, Allow | Deny | bool],
        *,
        output_schema: type[T],
        output_repairs: int | None = None,
    ) -> StructuredResult[T]: ...
    @overload
    async def respond_turn(
        self,
        decisions: Mapping[str, Allow | Deny | bool],
        *,
        output_schema: Mapping[str, Any],
        output_repairs: int | None = None,
    ) -> StructuredResult[Any]: ...
    async def respond_turn(
        self,
        decisions: Mapping[str, Allow | Deny | bool],
        *,
        output_schema: Any = None,
        output_repairs: int | None = None,
    ) -> ResultMessage:
        """Answer all calls that wait as :meth:`respond` does, and return the turn's result.

        Args:
            decisions: The answers, by the id of the call.
            output_schema: The data that the turn's message asked for, as for :meth:`run_turn`: the
                answer is read as this. Nothing is said about it to the agent, unless an answer does
                not fit.
            output_repairs: How often such an answer goes back to the agent; 1 unless given.

        Raises:
            InvalidInputError: ``output_schema`` is wrong; nothing was sent.
            LettaError: What :meth:`respond` raises.
        """
        return await self._respond_turn(decisions, running_task(), output_schema, output_repairs)

    async def _respond_turn(
        self,
        decisions: Mapping[str, Allow | Deny | bool],
        owner: object,
        output_schema: Any,
        output_repairs: int | None,
    ) -> ResultMessage:
        repairs = check_repairs(output_repairs, output_schema)
        # Before the answers go out: a wrong schema must not show only when the turn is over.
        wanted = None if output_schema is None else read_output_schema(output_schema)
        self._outbox.check_read(owner)
        result = await _read_result(await self._respond(decisions, owner), owner)
        if wanted is None:
            return result

        async def run(content: Any, name: str | None) -> ResultMessage:
            return await self._run_turn(content, name, None, owner)

        return await mend(run, result, wanted, repairs)

    async def _respond(self, decisions: Mapping[str, Allow | Deny | bool], owner: object) -> Turn:
        self._check_usable()
        self._check_durable("respond")
        given = _check_decisions(decisions)
        facts = await self._reach()
        opened = await facts.complete()
        place = opened.conversation
        # Before the look at turns: a tool of that very turn is to learn that it waits for itself.
        self._slots.check_outside(place)
        turn = self._slots.turns.get(place.key)
        if turn is not None and not turn.given_up(owner):
            raise ConversationBusyError(
                "A turn of this client runs in the conversation, and answers its calls itself.",
                hint="Answer in its can_use_tool, or detach() it first.",
                accepted=False,
            )

        handler = self._make_handler(place)

        async def answer(waiting: Sequence[PendingToolCall]) -> Answered:
            # Every check comes before the first tool runs: what it did could not be taken back.
            _check_complete(waiting, given)
            made = [handler.check_decision(call, given[call.tool_call_id]) for call in waiting]
            await self._check_tools(opened, handler, waiting, given)
            return await handler.carry_out(waiting, made)

        message = OutgoingMessage(str(uuid.uuid4()), None)
        return await self._start(self._begin_answering(facts, message, owner, answer, handler))

    async def _check_tools(
        self,
        opened: Opened,
        handler: ToolCallHandler,
        waiting: Sequence[PendingToolCall],
        given: Mapping[str, Allow | Deny],
    ) -> None:
        """Refuse to allow a client-side tool that nobody here could run."""
        allowed = {c.tool_name for c in waiting if isinstance(given[c.tool_call_id], Allow)}
        foreign = allowed - {*handler.tools, *opened.tools}
        if not foreign:
            return
        # What the server does not know it would call "not found", and the agent would read that.
        foreign -= await list_agent_tools(self._slots.backend, opened.conversation.agent_id)
        if foreign:
            raise InvalidInputError(
                f"Neither this session nor the agent has the tool {', '.join(sorted(foreign))}.",
                hint="Give it to the session (tools=[...]), or deny the call.",
            )

    async def detach(self) -> None:
        """Leave the session's turn and its pending calls as they are, on the server.

        An agent at work goes on, and stops at its next question. Calls that wait are there for
        :meth:`pending_approvals` and :meth:`respond`, from any process; a ``can_use_tool`` or a
        client-side tool that is at work on them is cancelled. The turn's stream ends with a result
        whose error code is ``detached``. It is no error if no turn runs. Letta API only.

        Raises:
            UnsupportedOptionError: The backend keeps no calls (Letta Code): there closing the
                session interrupts the turn, and ends its calls.
        """
        self._check_usable()
        self._check_durable("detach")
        turn = self._outbox.current
        if turn is not None:
            await turn.detach()

    def _check_durable(self, what: str) -> None:
        backend = self._slots.backend
        if not backend.capabilities.durable_pending_calls:
            raise UnsupportedOptionError(
                what,
                backend=backend.name,
                supported_by=("rest",),
                reason="Letta Code keeps no call over the end of its connection: closing the "
                "session interrupts the turn. Answer in can_use_tool while the turn runs.",
            )

    # -- turns that meet calls left open ----------------------------------------------------

    @overload
    async def run_turn(
        self, message: Any, *, otid: str | None = None, timeout: float | None = None
    ) -> ResultMessage: ...
    @overload
    async def run_turn(
        self,
        message: Any,
        *,
        otid: str | None = None,
        timeout: float | None = None,
        output_schema: type[T],
        output_repairs: int | None = None,
    ) -> StructuredResult[T]: ...
    @overload
    async def run_turn(
        self,
        message: Any,
        *,
        otid: str | None = None,
        timeout: float | None = None,
        output_schema: Mapping[str, Any],
        output_repairs: int | None = None,
    ) -> StructuredResult[Any]: ...
    async def run_turn(
        self,
        message: Any,
        *,
        otid: str | None = None,
        timeout: float | None = None,
        output_schema: Any = None,
        output_repairs: int | None = None,
    ) -> ResultMessage:
        """Send a message, wait for the turn's end, and return its result.

        A tool call that an earlier turn left open blocks the message. It is put to ``can_use_tool``
        (with ``context.recovered``), and the answer goes out together with the message. Where
        nobody can be asked the call is ended without being run, and its agent is told so.
        ``result.recovered`` names such calls and their fate. This is done at most
        ``recovery_attempts`` times; as the message was refused, nothing is sent twice.

        Args:
            message: Text, an image, or a sequence of text and image parts.
            otid: The message's id for the server; see :meth:`~letta_adapters.AsyncSession.send`.
            timeout: Seconds the turn may take, instead of the session's ``turn_timeout``. A turn
                that takes longer is stopped, and its result says so.
            output_schema: The data that the answer is to be: a pydantic model, a dataclass, a
                ``TypedDict``, or a JSON schema as a dict. ``result.output`` is the object.
            output_repairs: How often an answer that does not fit goes back to the agent, with what
                is wrong with it. Each is a turn of its own (with ``timeout`` for itself); 1 unless
                given.

        Raises:
            InvalidInputError: The message, ``otid``, ``timeout`` or ``output_schema`` is wrong;
                nothing was sent.
            ConversationBusyError: This task has sent messages before whose streams nobody has read.
            PendingApprovalError: A call left open was postponed, or ``recovery_attempts`` is 0.
            LettaError: The server refused the message. A turn that failed later is *returned* as a
                result with ``success=False``.
        """
        owner = running_task()
        return await self._run_shaped(message, otid, timeout, owner, output_schema, output_repairs)

    async def _run_shaped(
        self,
        message: Any,
        otid: str | None,
        timeout: float | None,
        owner: object,
        output_schema: Any,
        output_repairs: int | None,
    ) -> ResultMessage:
        repairs = check_repairs(output_repairs, output_schema)
        if output_schema is None:
            return await self._run_turn(message, otid, timeout, owner)
        wanted = read_output_schema(output_schema)

        async def run(content: Any, name: str | None) -> ResultMessage:
            return await self._run_turn(content, name, timeout, owner)

        return await run_structured(run, message, otid, wanted, repairs)

    async def _run_turn(
        self, message: Any, otid: str | None, timeout: float | None, owner: object
    ) -> ResultMessage:
        attempts = self._options.recovery_attempts
        facts, outgoing = await self._prepare(message, otid, timeout)
        recovered: list[RecoveredCall] = []
        beginning = self._begin(facts, outgoing, owner)
        while True:
            try:
                result = await self._one_turn(beginning, owner)
            except PostponedError as error:
                raise await self._describe_block("The calls that wait were postponed.") from error
            except LettaError as error:
                # A server tells of a call left pending in one of two ways: it refuses the message,
                # or it accepts the message and ends the turn with that error.
                if error.code != "pending_approval":
                    raise
                if attempts <= 0:
                    raise await self._describe_block(error.message) from error
            else:
                if result.error_code != "pending_approval":
                    return replace(result, recovered=tuple(recovered))
                if attempts <= 0:
                    named = (await self._describe_block(str(result.error_detail))).message
                    return replace(result, error_detail=named, recovered=tuple(recovered))
            attempts -= 1
            # A new id, unless the caller chose one: a server may take a known one for a repetition.
            facts, outgoing = await self._prepare(message, otid, timeout)
            beginning = self._begin_again(facts, outgoing, owner, recovered)

    async def _one_turn(self, beginning: Coroutine[Any, Any, Turn], owner: object) -> ResultMessage:
        try:
            self._outbox.check_read(owner)
        except LettaError:
            # Otherwise Python warns of a coroutine that was never awaited.
            beginning.close()
            raise
        return await _read_result(await self._start(beginning), owner)

    async def _describe_block(self, text: str) -> PendingApprovalError:
        """Return the error of a message that calls block, with their names."""
        try:
            waiting = await self.pending_approvals()
        except LettaError:
            # The names only help: without them the error still tells what is in the way.
            waiting = ()
        names = ", ".join(f"{call.tool_name} ({call.tool_call_id})" for call in waiting)
        ids = tuple(call.tool_call_id for call in waiting)
        named = f"{text} It waits for: {names}." if names else text
        return PendingApprovalError(named.strip(), tool_call_ids=ids, accepted=False)

    async def _begin_again(
        self,
        facts: Facts,
        message: OutgoingMessage,
        owner: object,
        recovered: list[RecoveredCall],
    ) -> Turn:
        """Begin a turn whose message was refused, together with answers to the calls that wait.

        Args:
            facts: The facts of the conversation.
            message: The message.
            owner: The task or thread that reads the turn.
            recovered: Calls that were met, to which these are added.
        """
        opened = await facts.complete()  # to know its tools
        handler = self._make_handler(opened.conversation)
        here = {*handler.tools, *opened.tools}

        async def answer(waiting: Sequence[PendingToolCall]) -> Answered:
            # What an earlier attempt has noted was refused together with its message.
            recovered.clear()
            # Nobody is asked about a tool that is not here: it could not run, whatever the answer.
            ask = [c for c in waiting if handler.can_use_tool is not None and c.tool_name in here]
            asked = {call.tool_call_id for call in ask}
            made = Answered()
            if ask:
                made = await handler.answer(ask, {}, recovered=True)
            for call in waiting:
                allowed = call.tool_call_id in made.allowed
                recovered.append(RecoveredCall(call, call.tool_call_id in asked, allowed))
            why = denials.LEFT_OPEN if handler.can_use_tool is None else denials.NOT_HERE
            others = [call for call in waiting if call.tool_call_id not in asked]
            return made + handler.leave_unanswered(others, why)

        return await self._begin_answering(facts, message, owner, answer, handler)

    async def _begin_answering(
        self,
        facts: Facts,
        message: OutgoingMessage,
        owner: object,
        answer: Any,
        handler: ToolCallHandler,
    ) -> Turn:
        """Answer the calls that wait, with the conversation held, and begin the turn.

        Args:
            facts: The facts of the conversation.
            message: The message that goes with the answers.
            owner: The task or thread that reads the turn.
            answer: Called with the calls that wait; returns their answers.
            handler: Runs the tools, whose reports are the first messages of the turn.
        """
        place, backend = facts.known.conversation, self._slots.backend
        async with self._slots.reserve(place, owner) as slot:
            self._check_usable()
            # Read only now: until the conversation was held, another turn could answer these calls.
            waiting = await backend.pending_calls(place)
            tell_recovery(place, waiting)
            options = self._make_turn_options(facts, message.timeout)
            if not backend.capabilities.durable_pending_calls:
                # There the call belongs to a turn that only its own connection can go on with.
                await backend.clear(place, waiting, denials.LEFT_OPEN)
                return await slot.start(message, options)
            try:
                # A turn's clock starts when its message is accepted: what is asked and run before
                # that needs a limit of its own.
                work = let_answer(Asking(place), answer(waiting))
                answered: Answered = await (
                    work if options.timeout is None else run_within(options.timeout, work)
                )
            except EndsTurnError as end:
                # No turn has begun that would tell the server, so its calls are ended here.
                await backend.clear(place, waiting, denials.TURN_ENDED, end.answers)
                raise end.error from end
            except asyncio.TimeoutError as error:
                raise TimeoutBeforeAcceptanceError(
                    f"The calls that wait were not answered within {options.timeout:g} seconds.",
                    accepted=False,
                ) from error
            return await slot.start(
                replace(message, answers=answered.answers),
                replace(options, results=answered.results, reports=handler.reports.take()),
            )

    async def recover_pending_approvals(self) -> RecoveryResult:
        """End the tool calls that an abandoned turn left waiting; no model is called for it.

        None of them is run, and nobody is asked: the agent reads that they have no result.

        Raises:
            LettaError: The server refused.
        """
        return await self._recover(running_task())

    async def _recover(self, owner: object) -> RecoveryResult:
        opened = await self._open()
        backend = self._slots.backend
        # Without the conversation to itself it might end calls that a running turn answers just
        # now.
        async with self._slots.reserve(opened.conversation, owner):
            pending = await backend.pending_calls(opened.conversation)
            if pending:
                tell_recovery(opened.conversation, pending)
                await backend.clear(opened.conversation, pending, denials.ABANDONED)
        return RecoveryResult(pending)


async def list_agent_tools(backend: Backend, agent_id: str) -> frozenset[str]:
    """Return the names of the tools that an agent of a Letta API has."""
    path = f"/v1/agents/{agent_id}"
    agent = await backend.request("GET", path, params={"include": "agent.tools"})
    return frozenset(str(tool.get("name")) for tool in agent.get("tools") or ())


def tell_recovery(place: Conversation, waiting: Sequence[PendingToolCall]) -> None:
    """Log that calls which were left open get an answer now."""
    if waiting:
        where = {"agent_id": place.agent_id, "conversation_id": place.conversation_id}
        _log.info("%d tool call(s) that were left open get an answer.", len(waiting), extra=where)


async def _read_result(turn: Turn, owner: object) -> ResultMessage:
    """Read a turn to its end, and return its result."""
    async with turn.stream(owner) as stream:
        async for item in stream:
            if isinstance(item, ResultMessage):
                return item
    raise AssertionError("a turn always ends with a result")


def _check_decisions(decisions: object) -> dict[str, Allow | Deny]:
    if not isinstance(decisions, Mapping) or not decisions:
        raise InvalidInputError(
            "respond() takes a decision for each tool call id.",
            hint="respond({call.tool_call_id: Allow() for call in await pending_approvals()})",
        )
    return {str(id_): normalise_decision(decision) for id_, decision in decisions.items()}


def _check_complete(waiting: Sequence[PendingToolCall], given: Mapping[str, Allow | Deny]) -> None:
    """Refuse a part of the answers, which the server would not take either.

    Raises:
        WrongToolCallsError: An answer is missing, or nobody waits for it.
    """
    ids = [call.tool_call_id for call in waiting]
    missing = tuple(id_ for id_ in ids if id_ not in given)
    unknown = tuple(id_ for id_ in given if id_ not in ids)
    if missing or unknown:
        raise WrongToolCallsError(missing=missing, unknown=unknown)
