"""What surrounds the process: certificates, proxies, home and working directory, the event loop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import AsyncLettaClient, LettaClient, Local, Remote, Rest, image_from_file
from letta_adapters.backends.app_server import conversations
from letta_adapters.backends.proxies import find_proxy, is_loopback
from letta_adapters.backends.rest import senders
from letta_adapters.errors import (
    ConfigurationError,
    ConnectionFailedError,
    InvalidInputError,
    WrongEventLoopError,
)
from letta_adapters.options import AgentOptions, SessionOptions
from letta_adapters.testing.fakes import FakeLetta

ELSEWHERE = "http://letta.example:8283"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No proxy and no certificates of this machine's."""
    for name in ("http", "https", "socks", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    senders._ssl_context.cache_clear()
    yield
    senders._ssl_context.cache_clear()


@pytest.fixture
def dead() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


# -- certificates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "certificates.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    for make in (AsyncLettaClient, LettaClient):
        with pytest.raises(ConfigurationError, match="SSL_CERT_FILE") as caught:
            make(Rest(base_url=ELSEWHERE, api_key=""))
        assert str(file) in str(caught.value)


# -- proxies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("all_proxy", "socks5://127.0.0.1:1080", "SOCKS"),
        ("ALL_PROXY", "socks5h://127.0.0.1:1080", "SOCKS"),
        ("https_proxy", "ftp://127.0.0.1:21", "scheme"),
        ("HTTP_PROXY", "http://127.0.0.1:no-port", "port"),
        ("no_proxy", "letta.example:port", "port"),
    ],
)
def test_a_proxy_setting_of_no_use(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    if importable("socksio") and said == "SOCKS":
        pytest.skip("SOCKS proxies work here")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name) as caught:
        AsyncLettaClient(Rest(base_url=ELSEWHERE, api_key=""))
    assert said in str(caught.value)
    # This machine's own addresses are reached without any proxy.
    AsyncLettaClient(Rest(base_url="http://127.0.0.1:8283", api_key=""))


def importable(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


async def test_a_socks_proxy_before_an_app_server(monkeypatch: pytest.MonkeyPatch) -> None:
    if importable("python_socks"):
        pytest.skip("SOCKS proxies work here")
    monkeypatch.setenv("socks_proxy", "socks5://127.0.0.1:1080")
    async with AsyncLettaClient(Remote(url="ws://letta.example:4500", auth_token="t")) as client:
        with pytest.raises(ConfigurationError, match=r"socks_proxy.*python-socks"):
            await client.models.list()


@pytest.mark.parametrize("spec", [Rest(base_url=ELSEWHERE, api_key=""), "remote"])
async def test_a_dead_proxy_is_named(monkeypatch: pytest.MonkeyPatch, dead: str, spec: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", dead.replace("//", "//user:secret-word@"))
    if spec == "remote":
        spec = Remote(url="ws://letta.example:4500", auth_token="t")
    async with AsyncLettaClient(spec) as client:
        with pytest.raises(ConnectionFailedError, match=r"HTTP_PROXY \(") as caught:
            await client.models.list()
    assert dead in str(caught.value)
    assert "NO_PROXY" in str(caught.value)
    assert "secret-word" not in str(caught.value)
    assert caught.value.accepted is False


async def test_loopback_is_not_proxied(monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    from tests.faults._server import Server

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, dead)
    with Server() as server:
        async with AsyncLettaClient(Rest(base_url=server.url, api_key="")) as client:
            assert isinstance(await client.models.list(), list)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:1", True),
        ("ws://127.9.9.9", True),
        ("http://localhost.:80", True),
        ("http://[::1]:80", True),
        ("https://localhost.example", False),
        ("http://10.0.0.1", False),
        ("http://[::1", False),
    ],
)
def test_which_addresses_are_this_machines(
    monkeypatch: pytest.MonkeyPatch, url: str, loopback: bool
) -> None:
    assert is_loopback(url) is loopback
    monkeypatch.setenv("all_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "localhost.example")
    direct = loopback or "localhost.example" in url or url == "http://[::1"
    assert find_proxy(url) == ("" if direct else "all_proxy (http://proxy:3128)")


# -- directories -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["~no-such-user-here/x", "a\0b"])
def test_a_path_that_can_be_none(path: str) -> None:
    makers: list[Callable[[], object]] = [
        lambda: Local(data_dir=path),
        lambda: SessionOptions(cwd=path),
        lambda: AgentOptions(cwd=path),
        lambda: image_from_file(path),
    ]
    for make in makers:
        with pytest.raises(InvalidInputError):
            make()


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(ConfigurationError, match="Set HOME"):
        AsyncLettaClient(Local())


def test_a_working_directory_that_was_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError, match="working directory is gone"):
        conversations.working_directory()


# -- the event loop --------------------------------------------------------------------------------


def without_asyncio(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine up to its first wait, on no event loop that asyncio knows, as trio does."""
    try:
        work.send(None)
    finally:
        work.close()


def test_another_kind_of_event_loop() -> None:
    letta = FakeLetta()
    client = letta.async_client()
    session = client.create_session()
    uses: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: session.initialize(),
        lambda: session.send("hi"),
        lambda: session.run_turn("hi"),
        lambda: session.recover_pending_approvals(),
        lambda: session.__aenter__(),
        lambda: client.prompt("hi"),
        lambda: client.create_agent(),
        lambda: client.models.list(),
        lambda: client.__aenter__(),
    ]
    for use in uses:
        with pytest.raises(WrongEventLoopError, match=r"asyncio.*trio"):
            without_asyncio(use())
    with pytest.raises(WrongEventLoopError, match="asyncio"):
        client.create_session().stream()
