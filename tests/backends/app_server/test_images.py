"""Images over Letta Code: fetched here where they are URLs, and one that is left out is noticed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import (
    AsyncLettaClient,
    InvalidInputError,
    image_from_bytes,
    image_from_url,
)
from letta_adapters.backends.app_server.vision import Vision, sees
from letta_adapters.errors import UnsupportedImageError
from letta_adapters.testing.local import LocalLetta
from letta_adapters.testing.scripted_model import Reply, ScriptedModel, ToolUse
from tests.backends.app_server._server import AppServer

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8"
    "cfc000000301010018dd8db00000000049454e44ae426082"
)


async def test_a_url_inside_is_refused_before_anything_is_sent(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    async with client.create_session(agent) as session:
        for url in ("http://169.254.169.254/latest/x.png", f"{model.base_url}/x.png"):
            with pytest.raises(InvalidInputError, match="not a public address"):
                await session.send(["what is it?", image_from_url(url)])
        assert model.requests == []
        assert (await session.run_turn("go on")).success


async def test_an_image_that_the_model_was_not_shown(
    client: AsyncLettaClient, agent: str, model: ScriptedModel
) -> None:
    async with client.create_session(agent) as session:
        result = await session.run_turn(image_from_bytes(PNG))  # the model repeats what it sees
        assert (result.success, result.error_code) == (False, "unsupported_image")
        assert "vision" in str(result.error_detail)
        assert (await session.run_turn("in words then")).success


def knowing(client: AsyncLettaClient, url: str) -> AsyncLettaClient:
    """The client, told which model server the runtime uses, as :class:`Local` tells it."""
    client.backend.vision = Vision(lambda: (url, ""))
    return client


async def test_an_image_for_a_model_without_vision_is_refused_before_anything_is_sent(
    connect: Callable[..., AsyncLettaClient], server: AppServer, agent: str, model: ScriptedModel
) -> None:
    async with connect(server) as client:
        knowing(client, model.base_url)
        for session in (client.create_session(agent), client.resume_session(agent_id=agent)):
            async with session:
                with pytest.raises(UnsupportedImageError, match="lmstudio/scripted") as caught:
                    await session.send(["what is it?", image_from_bytes(PNG)])
                assert caught.value.accepted is False
                assert model.requests == []
                assert (await session.run_turn("in words then")).success
                said = str(model.requests[-1].messages)
                assert "what is it?" not in said and "in words then" in said
                model.clear()


async def test_a_tools_image_that_the_model_was_not_shown_fails_the_turn(
    connect: Callable[..., AsyncLettaClient], server: AppServer, agent: str, model: ScriptedModel
) -> None:
    def look() -> Any:
        """Looks."""
        return [image_from_bytes(PNG)]

    async with connect(server) as client:
        knowing(client, model.base_url)
        model.script(Reply(tool_calls=[ToolUse("look", {})]), "A cat, surely.")
        async with client.create_session(agent, tools=[look]) as session:
            result = await session.run_turn("look at it")
            assert "image_url" not in str(model.requests[-1].messages)
            assert (result.success, result.error_code) == (False, "unsupported_image")
            assert (await session.run_turn("in words then")).success


def test_what_a_model_server_says_of_its_models() -> None:
    with ScriptedModel(models=("scripted",), vision=True) as seeing:
        assert sees(seeing.base_url, "", "scripted") is True
        assert sees(seeing.url, "", "scripted") is True
        assert sees(seeing.base_url, "", "another") is None
    assert sees("http://127.0.0.1:9/v1", "", "scripted") is None
    with ScriptedModel(models=("scripted",)) as blind:
        assert sees(blind.base_url, "", "scripted") is False
        assert sees(blind.base_url, "", "another") is None


async def test_the_embedded_runtime_knows_its_model_server() -> None:
    with LocalLetta() as letta:
        async with AsyncLettaClient(letta.spec) as client:
            agent = await client.create_agent(model="lmstudio/scripted", system_prompt="Test.")
            letta.model.script("A dot.")
            async with client.create_session(agent) as session:
                assert (await session.run_turn(["see", image_from_bytes(PNG)])).success
            assert "image_url" in str(letta.model.requests[-1].messages[-1])
            letta.model.vision = False
            async with client.create_session(agent) as session:
                with pytest.raises(UnsupportedImageError):
                    await session.send(["see", image_from_bytes(PNG)])


@pytest.fixture
def seen_by_nobody() -> Iterator[LocalLetta]:
    """The embedded runtime; its model has no vision, and no server says so beforehand."""
    with LocalLetta(vision=False) as letta:
        yield letta


@contextlib.asynccontextmanager
async def not_asking(letta: LocalLetta) -> AsyncIterator[AsyncLettaClient]:
    """A client that knows as much as it knows of any provider's models: nothing."""
    async with AsyncLettaClient(letta.spec) as client:
        backend: Any = client.backend
        backend.vision = Vision(None, told=backend.vision._told)
        yield client


async def test_what_the_models_of_any_provider_were_not_shown_fails_the_turn(
    seen_by_nobody: LocalLetta, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = seen_by_nobody.model
    (tmp_path / "dot.png").write_bytes(PNG)
    async with not_asking(seen_by_nobody) as client:
        agent = await client.create_agent(model="lmstudio/scripted", system_prompt="Test.")
        async with client.create_session(agent, cwd=tmp_path, toolset="default") as session:
            model.script("A cat, surely.")
            result = await session.run_turn(["what is it?", image_from_bytes(PNG)])
            assert (result.success, result.error_code) == (False, "unsupported_image")
            model.clear()
            # The next turn has nothing to do with it, though the history still has the image.
            assert (await session.run_turn("in words then")).success
            read = ToolUse("Read", {"file_path": str(tmp_path / "dot.png")})
            model.script(Reply(tool_calls=[read]), "A cat, surely.")
            result = await session.run_turn("look at the file")
            assert (result.success, result.error_code) == (False, "unsupported_image")
            assert (await session.run_turn("in words then")).success
            assert "images_omitted" not in str(await session.list_messages())
    assert not [r for r in caplog.records if "sees images" in r.getMessage()]


async def test_what_a_model_with_vision_was_shown_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "dot.png").write_bytes(PNG)
    with LocalLetta() as letta:
        async with not_asking(letta) as client:
            agent = await client.create_agent(model="lmstudio/scripted", system_prompt="Test.")
            async with client.create_session(agent, cwd=tmp_path, toolset="default") as session:
                assert (await session.run_turn(["what?", image_from_bytes(PNG)])).success
                read = ToolUse("Read", {"file_path": str(tmp_path / "dot.png")})
                letta.model.script(Reply(tool_calls=[read]), "A dot.")
                assert (await session.run_turn("look at the file")).success
        assert "image_url" in str(letta.model.requests[-1].messages)


async def test_a_server_that_does_not_tell_is_warned_of(
    client: AsyncLettaClient, agent: str, model: ScriptedModel, caplog: pytest.LogCaptureFixture
) -> None:
    """An App Server elsewhere: an image may be left out, and the model need not say so."""
    async with client.create_session(agent) as session:
        model.script("A cat, surely.", "Another one.")
        result = await session.run_turn(["what is it?", image_from_bytes(PNG)])
        assert "image_url" not in str(model.requests[-1].messages)
        assert result.success  # nothing tells that the model answered blindly
        await session.run_turn(["and this?", image_from_bytes(PNG)])
    warned = [r for r in caplog.records if "whether the model sees images" in r.getMessage()]
    assert [(r.name, r.levelname) for r in warned] == [("letta_adapters.app_server", "WARNING")]
