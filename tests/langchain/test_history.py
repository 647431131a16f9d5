"""The cases, over the Letta API (recorded from a real server) and the real embedded runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from letta_adapters import AsyncLettaClient, ConversationBusyError, LettaClient, Rest
from letta_adapters.backends.app_server.backend import AppServerBackend
from letta_adapters.chat.cache import get_cache, known_answers, recent
from letta_adapters.langchain import ChatLetta
from letta_adapters.messages import content_text
from letta_adapters.sync.bridge import get_bridge
from letta_adapters.testing import LettaCassette
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.rest.conftest import MODEL
from tests.langchain.cases import CASES, Case, get_weather

CutOff = Callable[[], Awaitable[None]]


class Breakable(httpx.AsyncBaseTransport):
    """A transport whose responses can be cut off."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._bodies: list[_Body] = []
        self.away = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("away")
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._bodies.append(_Body(response.stream))
        response.stream = self._bodies[-1]
        return response

    async def cut_off(self) -> None:
        """The body that is read now ends in an error."""
        self._bodies[-1].broken = True

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner
        self.broken = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._inner:
            if self.broken:
                raise httpx.ReadError("cut off")
            yield data

    async def aclose(self) -> None:
        await self._inner.aclose()


class LettaWorld:
    """An agent of a real backend."""

    def __init__(self, client: Any, agent_id: str, script: Any, cut_off: CutOff) -> None:
        self.script = script
        self.cut_off = cut_off
        self.client = client
        self._agent_id = agent_id
        self.transport: Any = None

    def model(self, **fields: Any) -> ChatLetta:
        return ChatLetta(agent_id=self._agent_id, client=self.client, **fields)

    async def _stored(self, message: AIMessage) -> list[dict[str, Any]]:
        page = self.client.list_messages(
            self._agent_id, message.response_metadata["conversation_id"], order="asc", limit=50
        )
        page = page if isinstance(self.client, LettaClient) else await page
        return [dict(item) for item in page.raw]

    async def said(self, message: AIMessage) -> list[str]:
        stored = await self._stored(message)
        texts = [content_text(m["content"]) for m in stored if m["message_type"] == "user_message"]
        return [text for text in texts if not text.startswith("{")]

    async def told(self, message: AIMessage) -> str:
        """All that the conversation was told, by anyone but the agent."""
        stored = await self._stored(message)
        kinds = ("user_message", "system_message")
        return "\n".join(content_text(m["content"]) for m in stored if m["message_type"] in kinds)


class DeafWorld:
    """A model that answers as it was scripted and never looks at its input."""

    def __init__(self) -> None:
        self._replies: list[str] = []

    def script(self, *replies: Any) -> None:
        self._replies += [getattr(reply, "text", reply) for reply in replies]

    def model(self, **_: Any) -> BaseChatModel:
        return FakeListChatModel(responses=self._replies)

    async def said(self, message: AIMessage) -> list[str]:
        return []

    async def cut_off(self) -> None:
        return


@pytest.fixture
def embedded_world(
    embedded: LettaClient, embedded_agent: str, embedded_model: ScriptedModel
) -> LettaWorld:
    embedded_model.clear()

    async def cut() -> None:
        backend = embedded._core.backend
        assert isinstance(backend, AppServerBackend)
        (await backend.connection())._socket.transport.abort()

    async def cut_off() -> None:
        await get_bridge().acall(cut())

    return LettaWorld(embedded, embedded_agent, embedded_model.script, cut_off)


@pytest.fixture
async def rest_world(letta_cassette: LettaCassette) -> AsyncIterator[LettaWorld]:
    rest = Rest(base_url=letta_cassette.base_url, api_key=letta_cassette.api_key or "")
    transport = Breakable(letta_cassette.make_transport())
    async with httpx.AsyncClient(
        base_url=letta_cassette.base_url, transport=transport
    ) as http_client:
        async with AsyncLettaClient(rest, http_client=http_client) as client:
            agent_id = await client.create_agent(
                name="history",
                model=MODEL,
                persona="I am a test.",
                system_prompt="You are a test.",
                base_tools=False,
            )
            world = LettaWorld(client, agent_id, letta_cassette.script, transport.cut_off)
            world.transport = transport
            yield world


def know_nothing() -> None:
    """Be another process."""
    recent._calls.clear()
    recent._seen.clear()
    recent._unended.clear()
    known_answers._markers.clear()


@pytest.mark.parametrize("by", ["the same", "another"])
@pytest.mark.parametrize("named", [False, True])
async def test_a_call_is_not_made_twice_while_its_run_goes_on(
    named: bool, by: str, rest_world: LettaWorld, letta_cassette: LettaCassette
) -> None:
    """The network is away for the look-ups too; the server has not stored the message yet."""
    know_nothing()  # recordings have the same ids
    world = rest_world
    world.script("Hello.", Reply(text=[f"word{n} " for n in range(12)], token_delay=0.2), "Never.")
    model = world.model(thread_id="cut" if named else None, max_retries=0)
    history: list[Any] = [HumanMessage("hello", id="h-0")]
    history.append(await model.ainvoke(history))
    history.append(HumanMessage("Count.", id="h-1"))
    asked = history[-1:] if named else history
    with pytest.raises(ConnectionError):
        async for chunk in model.astream(asked):
            if chunk.content:
                world.transport.away = True
                await world.cut_off()
    world.transport.away = False
    if by == "another":
        know_nothing()
        http_client = letta_cassette.http_client()
        rest = Rest(base_url=letta_cassette.base_url, api_key=letta_cassette.api_key or "")
        async with http_client, AsyncLettaClient(rest, http_client=http_client) as client:
            model = model.model_copy(update={"client": client})
            again = await model.ainvoke(asked)
    else:
        again = await model.ainvoke(asked)
    assert again.text.split()[-1] == "word11"
    assert again.response_metadata["replayed"]
    assert await world.said(again) == ["hello", "Count."]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_embedded(case: Case, embedded_world: LettaWorld) -> None:
    await case(embedded_world)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_rest(case: Case, rest_world: LettaWorld) -> None:
    await case(rest_world)


async def test_a_model_that_ignores_its_input_fails_most_of_them() -> None:
    passed = [case.__name__ for case in CASES if await _passes(case)]
    assert len(passed) <= 0.2 * len(CASES), passed


async def _passes(case: Case) -> bool:
    try:
        await case(DeafWorld())
    except BaseException as error:  # pytest.raises() that saw nothing is no Exception
        assert not isinstance(error, KeyboardInterrupt)
        return False
    return True


async def test_a_thread_that_was_cut_off_goes_on(
    embedded_world: LettaWorld, embedded_model: ScriptedModel
) -> None:
    """The server holds such a conversation for ever: a fork of it takes its place."""
    embedded_world.script(Reply(text=["One, ", "two."], token_delay=0.3), "Three.", "Four.")
    model = embedded_world.model(thread_id="cut off")
    with pytest.raises(ConnectionError):
        async for chunk in model.astream("count"):
            if chunk.content:
                await embedded_world.cut_off()
    third = await model.ainvoke("on")
    assert third.text == "Three."
    get_cache(embedded_world.client._core).threads.clear()  # as another process
    fourth = await model.ainvoke("and on")
    assert fourth.text == "Four."
    assert len({m.response_metadata["conversation_id"] for m in (third, fourth)}) == 1
    assert await embedded_world.said(fourth) == ["count", "on", "and on"]
    named = embedded_world.model(conversation_id=third.response_metadata["conversation_id"])
    embedded_world.script(Reply(text=["Five, ", "six."], token_delay=0.3), "Seven.")
    with pytest.raises(ConnectionError):
        async for chunk in named.astream("count"):
            if chunk.content:
                await embedded_world.cut_off()
    with pytest.raises(ConversationBusyError, match="fork"):
        await named.ainvoke("on")


@pytest.mark.parametrize("lost", ["connection", "time"])
async def test_a_result_that_comes_too_late_is_told_all_the_same(
    embedded_world: LettaWorld,
    embedded_model: ScriptedModel,
    lost: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An App Server keeps a call for its connection, and for 300 s: then it is a message."""
    call = ToolUse("get_weather", {"city": "Rome"}, id=f"late-{lost}")
    embedded_world.script(Reply(tool_calls=[call]), "Sunny, then.", "Sunny, then.")
    model: Any = embedded_world.model().bind_tools([get_weather])
    asked = await model.ainvoke([HumanMessage("Rome?")])
    if lost == "connection":
        await embedded_world.cut_off()
    else:
        monkeypatch.setattr("letta_adapters.chat.stream.HELD_SECONDS", -1.0)
    result = ToolMessage("sunny in Rome", tool_call_id=asked.tool_calls[0]["id"])
    answer = await model.ainvoke([HumanMessage("Rome?"), asked, result])
    assert answer.text == "Sunny, then."
    told = str(embedded_model.requests[-1].messages)
    assert told.count("sunny in Rome") == 1
