"""Files that say which agents reflect: written whole, by any number of processes, or not at all."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letta_adapters import Sleeptime
from letta_adapters.backends.app_server.switches import Reflecting, Stateless
from letta_adapters.errors import ConfigurationError, DiskFullError

OFTEN = Sleeptime(trigger="step-count", step_count=1)
SELDOM = Sleeptime(trigger="step-count", step_count=50)


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / "reflection"


def made(folder: Path) -> list[Path]:
    return [path for path in folder.parent.iterdir() if path.name.startswith("letta-stateless-")]


def test_a_directory_that_could_not_be_kept_from_reflection_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stateless = Stateless(Reflecting(folder))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", full)
        with pytest.raises(DiskFullError, match=str(folder)):
            _ = stateless.directory
    assert made(folder) == []
    directory = stateless.directory
    assert made(folder) == [directory]
    # The one file is what forbids it there.
    assert len(list(folder.iterdir())) == 1
    stateless.close()
    assert [*made(folder), *folder.iterdir()] == []


def test_without_a_place_for_temporary_files_the_error_is_typed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/x']")

    monkeypatch.setattr("letta_adapters.backends.app_server.switches.gettempdir", nowhere)
    with pytest.raises(ConfigurationError, match="No usable temporary directory"):
        _ = Stateless(Reflecting(folder)).directory


def test_a_file_that_cannot_be_removed_does_not_keep_a_backend_from_closing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stateless = Stateless(Reflecting(folder))
    directory = stateless.directory
    assert made(folder) == [directory]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", full)
        stateless.close()
    assert made(folder) == []


def test_two_that_choose_for_one_agent_at_once_both_succeed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, replace = threading.Barrier(2, timeout=30), Path.replace
    errors: list[BaseException] = []

    def replace_together(self: Path, target: Path) -> Path:
        # Both have written, and neither has put it in its place.
        both.wait()
        return replace(self, target)

    def choose(sleeptime: Sleeptime) -> None:
        try:
            Reflecting(folder).choose("agent-1", sleeptime)
        except BaseException as error:
            errors.append(error)

    monkeypatch.setattr(Path, "replace", replace_together)
    # Processes share no more than the folder, and so do these.
    work = [threading.Thread(target=choose, args=(chosen,)) for chosen in (OFTEN, SELDOM)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert errors == []
    (file,) = folder.iterdir()
    assert json.loads(file.read_text())["step_count"] in (1, 50)


@pytest.mark.parametrize(
    ("broken", "choose"),
    [
        ("mkdir", lambda reflecting: reflecting.choose("agent-1", OFTEN)),
        ("replace", lambda reflecting: reflecting.choose("agent-1", OFTEN)),
        ("unlink", lambda reflecting: reflecting.choose("agent-1", Sleeptime(trigger="off"))),
        ("mkdir", lambda reflecting: reflecting.never(Path("/somewhere"))),
        ("touch", lambda reflecting: reflecting.never(Path("/somewhere"))),
    ],
)
def test_a_choice_that_cannot_be_written_is_a_typed_error(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    choose: Callable[[Reflecting], None],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, broken, full)
        with pytest.raises(DiskFullError, match=str(folder)):
            choose(Reflecting(folder))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_a_choice_is_for_this_user_alone(folder: Path) -> None:
    Reflecting(folder).choose("agent-1", OFTEN)
    (file,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
