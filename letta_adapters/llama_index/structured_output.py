"""Internal: ask for structured output, and check an answer that should be an object."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from functools import partial
from typing import Any

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.llms.utils import parse_partial_json
from llama_index.core.tools import BaseTool, FunctionTool
from pydantic import BaseModel

from letta_adapters.chat.constraints import ConstrainedRequest, Constraints, with_schema
from letta_adapters.chat.response import Answer, Part, ResponseReader
from letta_adapters.client.structured import find_json
from letta_adapters.errors import StructuredOutputError, TurnFailedError
from letta_adapters.llama_index._compat import OBJECT_TOOL
from letta_adapters.llama_index.messages import build_assistant_message
from letta_adapters.llama_index.responses import ResponseMaker, build_response


def find_output_class(tools: Sequence[BaseTool]) -> type[BaseModel] | None:
    """Return the class whose object the only tool stands for, if it stands for one.

    Nobody answers such a call: its arguments are the result.
    """
    # An application may offer tools of its own; only the program's single one stands for an object.
    if len(tools) != 1 or not isinstance(tools[0], FunctionTool):
        return None
    made_by = getattr(tools[0].real_fn, "__qualname__", "")
    schema = tools[0].metadata.fn_schema
    return schema if made_by == OBJECT_TOOL and isinstance(schema, type) else None


def add_shape(
    constraints: Constraints, wanted: Shape, tools: Sequence[Mapping[str, Any]]
) -> Constraints:
    """Return the constraints for an object of this class: one bad answer may be mended.

    Args:
        constraints: The call's other constraints.
        wanted: The object's class; the prompt has told its schema already.
        tools: The tool whose arguments are the object; without one it is JSON text.
    """
    name = str(tools[0]["name"]) if tools else None
    made = with_schema(constraints, {}, wanted.validate, tool=name)
    return made if name is not None else replace(made, note=constraints.note)


def forbid_broken_calls(constraints: Constraints) -> Constraints:
    """Return the constraints for calls that can be run: one that cannot may be mended once."""
    before = constraints.check

    # The constraint that was there comes first: its complaint tells more than a broken call's.
    def check(answer: Answer) -> str | None:
        problem = before(answer) if before is not None else None
        return problem or _find_broken_call(answer) or None

    return replace(constraints, check=check)


def require_runnable(answer: Answer) -> Answer:
    """Return the answer if all of its calls can be run.

    Raises:
        TurnFailedError: The arguments of one are no JSON object, also after it was to be mended.
    """
    problem = _find_broken_call(answer)
    if not problem:
        return answer
    raise TurnFailedError(
        problem,
        code="invalid_tool_call",
        accepted=True,
        hint="Ask again, or give the agent another model.",
    )


def _find_broken_call(answer: Answer) -> str:
    """Return the fault of the first call whose arguments are no JSON object; ``""`` without one."""
    return next((call.problem for call in answer.reader.tool_calls if call.problem), "")


def require_object(constrained: ConstrainedRequest, answer: Answer) -> Answer:
    """Return the answer if it meets the constraints.

    Raises:
        StructuredOutputError: It is not, also after it was to be mended.
    """
    check = constrained.constraints.check
    problem = check(answer) if check is not None else None
    if problem is None:
        return answer
    raise StructuredOutputError(
        f"The agent did not give the object that was asked for. {problem}",
        accepted=True,
        hint="Ask again, simplify the class, or give the agent another model.",
    )


def keep_json(pieces: Iterable[Part]) -> list[Part]:
    """Return an answer whose text is the object alone, without a model's words around it."""
    pieces = list(pieces)
    text = "".join(value for kind, value in pieces if kind == "text")
    # The text goes last: the other pieces are what the agent did before it answered.
    rest = [piece for piece in pieces if piece[0] != "text"]
    return [*rest, ("text", find_json(text))]


class Shape:
    """Hold the class whose object a call asks for, and the object of its answer."""

    def __init__(self, wanted: Any) -> None:
        self.wanted = wanted
        self.made: Any = None

    def validate(self, data: Any) -> Any:
        """Return the object, and keep it.

        Raises:
            ValueError: The data does not fit the class.
        """
        self.made = self.wanted.model_validate(data)
        return self.made


def end_with_valid(objects: Generator[Any, None, None], shape: Shape | None) -> Any:
    """Yield the objects, and at the end the valid one.

    LlamaIndex keeps whichever object of a stream has more fields, also where an answer was mended.
    """
    last: Any = None
    with closing(objects):
        for last in objects:  # the last one is looked at
            yield last
    if shape is not None and last != shape.made:
        yield shape.made


async def aend_with_valid(objects: AsyncGenerator[Any, None], shape: Shape | None) -> Any:
    """Yield the objects; see :func:`end_with_valid`."""
    last: Any = None
    async with aclosing(objects):
        async for last in objects:
            yield last
    if shape is not None and last != shape.made:
        yield shape.made


class Draft:
    """Show an object while it comes: each response has the data so far, as JSON."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the answer so far: another one begins."""
        self._text = ""
        self._shown: Any = None

    def feed(self, pieces: Iterable[Part]) -> list[ChatResponse]:
        """Return the responses that new pieces add."""
        text = "".join(value for kind, value in pieces if kind == "text")
        self._text += text
        # Models like to say something before the object.
        start = self._text.find("{")
        if not text or start < 0:
            return []
        try:
            # A complete object first: text behind it would make the whole text no JSON.
            found, _ = json.JSONDecoder().raw_decode(self._text[start:])
        except ValueError:
            found = _parse_partial(self._text[start:])
        except RecursionError:
            return []  # nested by the thousand: the check at the end complains of it
        # Many tokens add nothing to the data yet; a response for each would only repeat it.
        if not isinstance(found, dict) or found == self._shown:
            return []
        self._shown = found
        return [ChatResponse(message=build_assistant_message(json.dumps(found)), delta="")]


def _parse_partial(text: str) -> Any:
    """Return the data of a JSON text that is not at its end; ``None`` where that is no JSON."""
    try:
        return parse_partial_json(text)
    except (ValueError, RecursionError):
        return None


class ObjectMaker(ResponseMaker):
    """Make the responses of an answer that is an object; it is shown when it is valid."""

    def __init__(self, constrained: ConstrainedRequest, reader: Any, *, ephemeral: bool) -> None:
        # Only a whole answer can be checked, so this maker replays and never feeds.
        super().__init__(reader, ephemeral=ephemeral)
        self._constrained = constrained

    def replay(self, pieces: Iterable[Part]) -> list[ChatResponse]:
        """Return the responses of the whole answer.

        Raises:
            StructuredOutputError: It is not the object that was asked for.
        """
        answer = require_object(self._constrained, Answer(self._reader, tuple(pieces)))
        return super().replay(keep_json(answer.pieces))


def choose_makers(
    constrained: ConstrainedRequest, shape: Shape | None
) -> tuple[Callable[[ResponseReader], ResponseMaker], Draft | None]:
    """Return the function that makes a stream's responses, and a draft for an object."""
    ephemeral = constrained.request.ephemeral
    if shape is None:
        return partial(ResponseMaker, ephemeral=ephemeral), None
    # The arguments of a tool's call are known only at its end: there is nothing to show before.
    draft = None if constrained.request.tools else Draft()
    return partial(ObjectMaker, constrained, ephemeral=ephemeral), draft


def build_checked_response(
    constrained: ConstrainedRequest, answer: Answer, shape: Any = None
) -> ChatResponse:
    """Return the whole answer, checked against the call's constraints.

    Raises:
        TurnFailedError: A call cannot be run, or the answer is not the object that was asked for.
    """
    if constrained.constraints.final:
        require_runnable(answer)
    pieces = (
        answer.pieces if shape is None else keep_json(require_object(constrained, answer).pieces)
    )
    return build_response(answer.reader, pieces, ephemeral=constrained.request.ephemeral)
