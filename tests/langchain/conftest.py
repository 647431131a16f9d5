"""Who uses a cassette."""

from __future__ import annotations

import pytest

from tests.langchain._standard import MEDIA


def pytest_itemcollected(item: pytest.Item) -> None:
    """``langchain-tests`` wrote the tests, so their mark is set from here."""
    talks = "model" in getattr(item, "fixturenames", ()) and item.name.split("[")[0] not in MEDIA
    if talks and "::TestChatLettaRest::" in item.nodeid:
        item.add_marker(pytest.mark.letta_cassette)
