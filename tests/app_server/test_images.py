"""Images over Letta Code: fetched here where they are URLs, and one that is left out is noticed."""

from __future__ import annotations

import pytest

from letta_adapters import AsyncLettaClient, InvalidInputError, image_from_bytes, image_from_url
from letta_adapters.testing.scripted_model import ScriptedModel

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
