"""What a page of stored messages costs in requests, and that none of them is lost or told twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from letta_adapters import AsyncLettaClient, Rest
from letta_adapters.backends.base import Conversation, PageQuery
from letta_adapters.messages import MessagePage

AGENT = "agent-00000000-0000-4000-8000-000000000001"
CONV = "conv-00000000-0000-4000-8000-000000000001"
Item = dict[str, Any]


def stored(count: int, *, parts: int = 1, second: bool = True) -> list[Item]:
    """Stored messages, oldest first; every third is ``parts`` items, which share its id.

    ``second``: each is of a second of its own.
    """
    items: list[Item] = []
    for i in range(count):
        base = {
            "id": f"message-{i:08d}-0000-4000-8000-000000000000",
            "date": f"2026-01-01T{i // 3600:02d}:{i // 60 % 60:02d}:{i % 60:02d}+00:00",
            "run_id": None,
        }
        if not second:
            base["date"] = "2026-01-01T00:00:00+00:00"
        for part in range(parts if i % 3 == 0 else 1):
            kind = "user_message" if i % 3 else "assistant_message"
            items.append(base | {"message_type": kind, "otid": f"{i}-{part}", "content": f"{i}"})
    return items


class Api:
    """Lists messages by the rules of letta 0.16.8."""

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.asked: list[dict[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        query = dict(request.url.params)
        assert request.method == "GET"
        self.asked.append(query)
        ids = list(dict.fromkeys(item["id"] for item in self.items))
        if query["order"] == "desc":
            ids.reverse()
        cursor = query.get("after") or query.get("before")
        ids = ids[ids.index(cursor) + 1 :] if cursor else ids
        page = ids[: int(query["limit"])]
        # A page of the default conversation comes oldest first, whatever was asked.
        if "/conversations/default/" in request.url.path:
            page.sort()
        return httpx.Response(200, json=[i for id_ in page for i in self.items if i["id"] == id_])

    @property
    def limits(self) -> list[int]:
        """The limit of each request, in order."""
        return [int(query["limit"]) for query in self.asked]


@pytest.fixture
async def client(api: Api) -> AsyncIterator[AsyncLettaClient]:
    """A client of ``api``."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(api)) as http:
        rest = Rest(base_url="http://letta.test", api_key="")
        async with AsyncLettaClient(rest, http_client=http) as made:
            yield made


@pytest.fixture
def api(request: pytest.FixtureRequest) -> Api:
    """The API with the messages that the test's parameter makes."""
    return Api(request.param)


async def read_all(
    client: AsyncLettaClient, order: Any, limit: int, conversation: str = CONV
) -> list[MessagePage]:
    """Read all pages."""
    pages = []
    cursor: dict[str, str | None] = {}
    while True:
        page = await client.list_messages(AGENT, conversation, order=order, limit=limit, **cursor)
        pages.append(page)
        if not page.has_more:
            return pages
        cursor = {"after": page.next_after} if order == "asc" else {"before": page.next_before}


@pytest.mark.parametrize("api", [stored(1000)], indirect=True)
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_page_costs_one_request(client: AsyncLettaClient, api: Api, order: str) -> None:
    pages = await read_all(client, order, 100)
    assert len(pages) == 10
    assert len(api.asked) == 10
    assert sum(len(page.raw) for page in pages) == 1000


@pytest.mark.parametrize("api", [stored(3)], indirect=True)
async def test_the_newest_message_costs_one_request(client: AsyncLettaClient, api: Api) -> None:
    page = await client.list_messages(conversation_id=CONV, limit=1)
    assert [item["content"] for item in page.raw] == ["2"]
    assert page.has_more
    assert len(api.asked) == 1


@pytest.mark.parametrize("api", [stored(20, parts=3)], indirect=True)
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("conversation", [CONV, "default"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 19, 20, 21])
async def test_pages_hold_every_item_once(
    client: AsyncLettaClient, api: Api, order: str, limit: int, conversation: str
) -> None:
    pages = await read_all(client, order, limit, conversation)
    # Ascending pages of the default conversation are in order; descending ones are turned round,
    # and the items of one stored message stay as they were said.
    said = [item["otid"] for page in pages for item in page.raw]
    numbers = range(20) if order == "asc" else range(19, -1, -1)
    assert said == [f"{i}-{part}" for i in numbers for part in range(1 if i % 3 else 3)]
    assert all(len({item["id"] for item in page.raw}) <= limit for page in pages)
    assert len(pages) == len(api.asked) == -(-20 // limit)


@pytest.mark.parametrize("api", [stored(4, second=False)], indirect=True)
async def test_an_order_that_does_not_show_loses_no_message(
    client: AsyncLettaClient, api: Api
) -> None:
    page = await client.list_messages(AGENT, limit=1)
    assert [item["content"] for item in page.raw] == ["3"]
    assert page.has_more
    assert api.limits == [2, 1]


@pytest.mark.parametrize(
    ("api", "more"), [(stored(1000), False), (stored(1001), True)], indirect=["api"]
)
async def test_the_longest_page_asks_for_no_more_than_is_allowed(
    client: AsyncLettaClient, api: Api, more: bool
) -> None:
    page = await client.list_messages(conversation_id=CONV, limit=1000)
    assert page.has_more is more
    assert api.limits == [1000, 1]


@pytest.mark.parametrize("api", [stored(3)], indirect=True)
async def test_who_does_not_ask_for_more_messages_is_told_in_one_request(
    client: AsyncLettaClient, api: Api
) -> None:
    where = Conversation(AGENT, CONV)
    page = await client.backend.list_messages(where, PageQuery(1, count_on=False))
    assert len(page.raw) == 1
    assert api.limits == [1]
