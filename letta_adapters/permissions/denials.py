"""Internal: hold the text of every denied tool call: what the model reads in place of a result.

A call that is not run gets one answer, and the model goes on by its words. So the texts differ by
what is true: a person said no, nobody could be asked, the session forbids the tool, or nobody waits
for the call any more. A model that reads the third tries no other arguments, one that reads the
last may call again. Where ``can_use_tool`` or a person gives a reason, the model reads that reason
instead.

Some texts say the same in other words. Recordings hold each of them, and applications compare them,
so none is changed for looks. A result that is no denial, as that of a tool which failed or was
never begun, stands where it is made.
"""

from __future__ import annotations

from typing import Final

# Somebody was asked and said no without a reason: the callback of a session,
BY_CALLBACK: Final = "The user denied this tool call."
# the person or program behind LangChain or LlamaIndex,
BY_USER: Final = "Denied by the user."
# or whoever answers the App Server with a denial that says nothing at all.
WITHOUT_REASON: Final = "Denied."

# Nobody could be asked: the application has no callback and no way to hand the question on,
NOBODY_ASKED: Final = (
    "This tool call needs an approval and the application has no way to give one, so it was not "
    "run. Nobody was asked, and the user has not refused it."
)
# the decision that came was about a call that has ended with its process,
ANSWERED_ANOTHER: Final = (
    "The turn that asked has ended, and what was decided was about a call of that turn, so it was "
    "not run. Nobody was asked about this one, and the user has not refused it."
)
# or the question came when no turn of this client was there to take it.
NO_TURN_ASKED: Final = (
    "This tool call needs an approval and no turn of the application is there to give one, "
    "so it was not run."
)

# A denial ends the turn, of which the application reads this if it gave no reason of its own.
INTERRUPTED: Final = "The permission callback interrupted the turn."

# No question is asked: the session rules the tool out (`disallowed_tools`).
DISALLOWED: Final = "This tool is not allowed in this session, so it was not run."

# Nobody answers the call any more, and it would block its conversation (see `explain_unanswered`):
# its turn was stopped (Letta Code, where a turn takes its calls with it),
TURN_STOPPED: Final = "The turn was stopped."
# a decision about another call has ended the turn,
TURN_ENDED: Final = "The turn was ended at this step."
# the application has given its turn up,
ABANDONED: Final = "The call was abandoned."
# nobody can be asked about what an earlier turn, perhaps of another process, has left open,
LEFT_OPEN: Final = "The turn that made it has ended, and nobody can be asked about it here."
# or there is no such tool now,
NOT_HERE: Final = "The turn that made it has ended, and its tool is not here any more."
# or the answer that ends with the call is the whole answer (a forced tool, structured output).
GIVEN_UP: Final = "The application gave the call up."


def explain_unanswered(why: str) -> str:
    """Return the text for a call that nobody decides about any more.

    It is the result of a tool that failed, and no denial: a server tells a denial as the user's.

    Args:
        why: The reason, as a sentence.
    """
    return (
        f"This call has no result: {why} The user has not refused it. If it had begun, what it did "
        "is not known."
    )


def explain_silence(seconds: float) -> str:
    """Return the text for a call that is denied because the callback took too long.

    Args:
        seconds: The time that it had.
    """
    return f"Nobody has answered within {seconds:g} seconds."


def explain_unasked(effect: str) -> str:
    """Return the text for a call about which nobody was asked, with what it would have done.

    Args:
        effect: What a call of this kind does, as a sentence after "It"
            (:data:`letta_adapters.permissions.policy.DOES`).
    """
    return f"{NOBODY_ASKED} (The call {effect}.)"


def explain_failed_callback(error: Exception) -> str:
    """Return the text for a call that is denied because the permission callback raised.

    Args:
        error: What it raised; the model reads its type and message, and no traceback.
    """
    return f"The permission callback failed ({type(error).__name__}: {error})."


def show_as_result(reason: str) -> str:
    """Return a denial as Letta itself words the result of the denied call.

    The Letta API (0.16.8) and Letta Code (0.34.12) wrap the reason they are sent like this. Where a
    server does not repeat the result, the session shows the same.

    Args:
        reason: The text that the server was sent.
    """
    return f"Error: request to call tool denied. User reason: {reason}"
