"""What the Letta API says is not there, as an error that a user can read."""

from __future__ import annotations

import json

import pytest

from letta_adapters.backends.http_errors import error_from_response
from letta_adapters.errors import LettaError, NotFoundError


def error(detail: str) -> LettaError:
    return error_from_response(404, {}, json.dumps({"detail": detail}).encode())


def test_a_conversation_that_is_unknown_is_named_and_nobody_else() -> None:
    found = error(
        "Conversation not found with id='['conv-1']', access level in ['read'] for "
        "actor='id='user-1' organization_id='org-1' name='x''"
    )
    assert isinstance(found, NotFoundError)
    assert "Conversation conv-1 was not found." in str(found)
    assert "user-1" not in str(found)


def test_a_model_that_is_unknown_is_looked_for_among_models() -> None:
    found = error("NOT_FOUND: Handle nope/nope not found, must be one of ['openai/gpt-4o']")
    assert "Handle nope/nope not found, must be one of ['openai/gpt-4o']" in str(found)
    assert "models.list()" in str(found)
    assert "Check the id" not in str(found)


@pytest.mark.parametrize("detail", ["Agent with ID agent-1 not found", "Not Found"])
def test_anything_else_is_said_as_the_server_says_it(detail: str) -> None:
    assert detail in str(error(detail))
    assert "Check the id" in str(error(detail))
