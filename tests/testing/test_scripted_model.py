"""The scripted model, seen by a client over real sockets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from letta_adapters.testing.scripted_model import (
    ModelError,
    ModelRequest,
    RemoteScript,
    Reply,
    ScriptedModel,
    ToolUse,
    Usage,
)


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as running:
        yield running


def ask(model: ScriptedModel, text: str = "hi", **body: Any) -> httpx.Response:
    """One chat completion; ``body`` overrides the request's fields."""
    full = {"model": "scripted", "messages": [{"role": "user", "content": text}], **body}
    url = f"{model.base_url}/chat/completions"
    return httpx.post(url, json=full, timeout=5, trust_env=False)


def said(model: ScriptedModel, text: str = "hi", **body: Any) -> str:
    content: str = ask(model, text, **body).json()["choices"][0]["message"]["content"]
    return content


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    """The JSON chunks of a streamed answer; checks the frame around them."""
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def deltas(answer: httpx.Response) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks(answer) for choice in chunk["choices"]]


# --- what is answered -----------------------------------------------------------------------


def test_replies_come_in_order_and_then_the_model_echoes(model: ScriptedModel) -> None:
    model.script("one", Reply("two"))
    assert [said(model) for _ in range(3)] == ["one", "two", "You said: hi"]


def test_echo_joins_text_parts_of_the_last_user_message(model: ScriptedModel) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "user", "content": "before"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "after"},
    ]
    assert said(model, messages=messages) == "You said: ab"


def test_echo_of_a_tool_result(model: ScriptedModel) -> None:
    messages = [{"role": "user", "content": "add"}, {"role": "tool", "content": "3"}]
    assert said(model, messages=messages) == "Tool said: 3"


def test_when_waits_for_its_request_and_repeat_stays(model: ScriptedModel) -> None:
    model.script(Reply("sunny", when="weather", repeat=True), Reply("next"))
    assert said(model, "hello") == "next"
    assert said(model, "the weather?") == "sunny"
    assert said(model, "weather again") == "sunny"
    assert said(model, "hello") == "You said: hello"


def test_script_replaces_the_queue(model: ScriptedModel) -> None:
    model.script("old", "older")
    model.script("new")
    assert [said(model), said(model)] == ["new", "You said: hi"]


def test_respond_answers_when_the_queue_is_empty() -> None:
    def respond(request: ModelRequest) -> Reply | str:
        return request.last_user_text.upper()

    with ScriptedModel("first", respond=respond) as model:
        assert [said(model), said(model)] == ["first", "HI"]


def test_a_failing_respond_is_reported_to_the_client() -> None:
    def respond(request: ModelRequest) -> Reply | str:
        raise LookupError("no idea")

    with ScriptedModel(respond=respond) as model:
        answer = ask(model)
    assert answer.status_code == 500
    assert "no idea" in answer.json()["error"]["message"]


def test_a_complete_answer(model: ScriptedModel) -> None:
    model.script(Reply("look", reasoning="hm", tool_calls=[ToolUse("add", {"a": 1})]))
    first, second = ask(model).json(), ask(model).json()
    choice = first["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "look",
        "reasoning_content": "hm",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "add", "arguments": '{"a": 1}'},
            }
        ],
    }
    assert first["usage"]["total_tokens"] == 120
    assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 64}
    assert first["usage"]["completion_tokens_details"] == {"reasoning_tokens": 5}
    assert (first["id"], first["created"]) == (second["id"], second["created"])
    assert second["choices"][0]["finish_reason"] == "stop"


def test_an_error_instead_of_an_answer(model: ScriptedModel) -> None:
    model.script(Reply(error=ModelError(429, "slow down", "rate_limit", "too_fast")))
    answer = ask(model, stream=True)
    assert answer.status_code == 429
    error = {"message": "slow down", "type": "rate_limit", "param": None, "code": "too_fast"}
    assert answer.json() == {"error": error}
    assert said(model) == "You said: hi"


# --- how it is streamed ---------------------------------------------------------------------


def test_text_streams_as_word_tokens_after_reasoning(model: ScriptedModel) -> None:
    model.script(Reply(" Hello  big\nworld ", reasoning="well now"))
    found = deltas(ask(model, stream=True))
    assert found[0]["role"] == "assistant"
    assert [d["reasoning_content"] for d in found if "reasoning_content" in d] == ["well ", "now"]
    assert [d["content"] for d in found if "content" in d] == [" Hello  ", "big\n", "world "]
    assert list(found[2]) == ["content"]


def test_exact_deltas(model: ScriptedModel) -> None:
    model.script(Reply(["He", "", "llo"]))
    found = deltas(ask(model, stream=True))
    assert [d["content"] for d in found if "content" in d] == ["He", "", "llo"]


@pytest.mark.parametrize("wanted", [True, False])
def test_usage_chunk_only_if_asked_for(model: ScriptedModel, wanted: bool) -> None:
    model.script(Reply("x", usage=Usage(prompt=7, completion=3, cached=1, reasoning=2)))
    found = chunks(ask(model, stream=True, stream_options={"include_usage": wanted}))
    assert ("usage" in found[-1]) is wanted
    if wanted:
        assert found[-1]["choices"] == []
        assert found[-1]["usage"]["total_tokens"] == 10


def test_finish_reason(model: ScriptedModel) -> None:
    model.script(Reply("cut", finish_reason="length"), Reply(tool_calls=[ToolUse("f", {})]), "x")
    ends = [chunks(ask(model, stream=True))[-1]["choices"][0]["finish_reason"] for _ in range(3)]
    assert ends == ["length", "tool_calls", "stop"]


def test_an_empty_answer_is_one_chunk(model: ScriptedModel) -> None:
    model.script("")
    assert deltas(ask(model, stream=True)) == [{"role": "assistant"}]


def test_parallel_calls_interleave_and_join(model: ScriptedModel) -> None:
    broken = '{"city": "Rome, the eternal'
    calls = [ToolUse("weather", {"city": "Paris, in the spring"}), ToolUse("weather", broken)]
    model.script(Reply(tool_calls=calls))
    pieces = [d["tool_calls"][0] for d in deltas(ask(model, stream=True)) if "tool_calls" in d]
    assert [p["index"] for p in pieces[:6]] == [0, 1, 0, 1, 0, 1]
    assert [p["id"] for p in pieces if "id" in p] == ["call_1", "call_2"]
    assert [p["function"].get("name") for p in pieces[:3]] == ["weather", "weather", None]
    assert all(len(p["function"]["arguments"]) <= 12 for p in pieces)
    joined = [
        "".join(p["function"]["arguments"] for p in pieces if p["index"] == i) for i in (0, 1)
    ]
    assert json.loads(joined[0]) == {"city": "Paris, in the spring"}
    assert joined[1] == broken


def test_call_ids_count_until_the_next_script(model: ScriptedModel) -> None:
    def ids() -> list[str]:
        message = ask(model).json()["choices"][0]["message"]
        return [call["id"] for call in message["tool_calls"]]

    twice = Reply(tool_calls=[ToolUse("f", {}), ToolUse("f", {}, id="mine")], repeat=True)
    model.script(twice)
    assert [ids(), ids()] == [["call_1", "mine"], ["call_2", "mine"]]
    model.script(twice)
    assert ids() == ["call_1", "mine"]


def test_each_delta_arrives_on_its_own(model: ScriptedModel) -> None:
    model.script(Reply("a b c", token_delay=0.02))
    body = {"stream": True, "messages": []}
    url = f"{model.base_url}/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=5, trust_env=False) as answer:
        reads = [raw for raw in answer.iter_raw() if b"content" in raw]
    assert [raw.count(b"data: ") for raw in reads] == [1, 1, 1]


# --- failures and the end -------------------------------------------------------------------


def test_break_after_drops_the_connection(model: ScriptedModel) -> None:
    model.script(Reply("one two three", break_after=2))
    body = {"stream": True, "messages": []}
    received = b""
    url = f"{model.base_url}/chat/completions"
    with (
        httpx.stream("POST", url, json=body, timeout=5, trust_env=False) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        for raw in answer.iter_raw():
            received += raw
    assert received.count(b"data: ") == 2
    assert b"DONE" not in received


def test_break_after_cuts_a_body_short(model: ScriptedModel) -> None:
    model.script(Reply("one two three", break_after=0))
    with pytest.raises(httpx.RemoteProtocolError):
        ask(model)


@pytest.mark.parametrize("reply", [Reply("x", delay=60), Reply("a b", token_delay=60)])
def test_stop_does_not_wait_for_a_delayed_reply(reply: Reply) -> None:
    server = ScriptedModel(reply)
    failures: list[Exception] = []

    def client() -> None:
        try:
            ask(server, stream=True)
        except httpx.HTTPError as error:
            failures.append(error)

    with server:
        thread = threading.Thread(target=client)
        thread.start()
        while not server.requests:
            time.sleep(0.005)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    thread.join(20)
    assert not thread.is_alive()
    assert len(failures) == 1


def test_a_client_that_hangs_up_is_no_news(
    model: ScriptedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    model.script(Reply("word " * 2000, token_delay=0.001))
    body = {"stream": True, "messages": []}
    url = f"{model.base_url}/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=5, trust_env=False) as answer:
        next(answer.iter_raw())
    time.sleep(0.05)
    model.stop()
    assert capfd.readouterr() == ("", "")


def test_start_stop_start() -> None:
    model = ScriptedModel()
    with pytest.raises(RuntimeError, match="not running"):
        _ = model.base_url
    with model:
        with pytest.raises(RuntimeError, match="already running"):
            model.start()
        assert model.base_url.startswith("http://127.0.0.1:")
    model.stop()
    with model:
        assert said(model) == "You said: hi"


# --- what is recorded, and the other routes -------------------------------------------------


def test_requests_are_recorded(model: ScriptedModel) -> None:
    ask(model, "first", tools=[{"type": "function"}])
    ask(model, "second", stream=True)
    first, second = model.requests
    assert (first.last_user_text, first.stream, first.tools) == (
        "first",
        False,
        [{"type": "function"}],
    )
    assert (second.last_user_text, second.stream, second.tools) == ("second", True, [])
    assert second.messages == second.body["messages"]
    model.requests.clear()
    assert len(model.requests) == 2
    model.clear()
    assert model.requests == []


def test_models_and_embeddings() -> None:
    with ScriptedModel(models=("a", "b")) as model, httpx.Client(trust_env=False) as client:
        listed = client.get(f"{model.base_url}/models").json()
        assert [entry["id"] for entry in listed["data"]] == ["a", "b"]
        body = {"model": "e", "input": ["x", "y"], "dimensions": 3}
        made = client.post(f"{model.base_url}/embeddings", json=body).json()
        assert [(row["index"], len(row["embedding"])) for row in made["data"]] == [(0, 3), (1, 3)]
        one = client.post(f"{model.base_url}/embeddings", json={"input": "x"}).json()
        assert len(one["data"]) == 1
        assert model.requests == []


def test_remote_script(model: ScriptedModel) -> None:
    remote = RemoteScript(model.base_url)
    remote.script(
        "plain",
        Reply(["a", "b"], tool_calls=[ToolUse("f", {"x": 1}), ToolUse("g", "{")], usage=Usage(1)),
        Reply(error=ModelError(503)),
    )
    assert said(model) == "plain"
    answer = ask(model).json()
    assert answer["choices"][0]["message"]["content"] == "ab"
    calls = answer["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == ['{"x": 1}', "{"]
    assert answer["usage"]["prompt_tokens"] == 1
    assert ask(model).status_code == 503
    assert [request.last_user_text for request in remote.requests()] == ["hi"] * 3
    remote.script("never used")
    remote.clear()
    assert remote.requests() == []
    assert said(model) == "You said: hi"


@pytest.mark.parametrize("script", [{}, [{"txt": "typo"}], [7], [{"tool_calls": [{"name": "f"}]}]])
def test_a_bad_script_is_refused_and_the_queue_kept(model: ScriptedModel, script: object) -> None:
    model.script("kept")
    answer = httpx.put(f"{model.url}/script", json=script, trust_env=False)
    assert answer.status_code == 400
    assert "bad script" in answer.json()["error"]["message"]
    assert said(model) == "kept"


def test_remote_script_reports_a_refusal(model: ScriptedModel) -> None:
    with pytest.raises(ValueError, match="no such route"):
        RemoteScript(f"{model.url}/elsewhere").clear()


@pytest.mark.parametrize("content", [b"{", b"[]"])
def test_a_bad_body_is_refused(model: ScriptedModel, content: bytes) -> None:
    url = f"{model.base_url}/chat/completions"
    assert httpx.post(url, content=content, trust_env=False).status_code == 400


def test_many_clients_at_once(model: ScriptedModel) -> None:
    model.script(*[str(number) for number in range(20)])
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(said(model))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers, key=int) == [str(number) for number in range(20)]
