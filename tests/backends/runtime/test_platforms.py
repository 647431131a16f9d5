"""Where the ``letta`` wheel is not built for, the error does not advise to install it."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest
from packaging import tags

from letta_adapters.backends.runtime import find
from letta_adapters.backends.runtime.errors import RuntimeUnavailableError


@pytest.mark.parametrize(
    ("platforms", "built"),
    [
        (["musllinux_1_2_x86_64", "musllinux_1_1_x86_64", "linux_x86_64"], False),
        (["manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64"], False),
        (["manylinux_2_39_x86_64", "manylinux_2_28_x86_64", "linux_x86_64"], True),
        (["macosx_13_0_arm64", "macosx_12_0_arm64"], False),
        (["macosx_15_0_arm64", "macosx_14_0_arm64"], True),
        (["win_amd64"], True),
    ],
)
def test_a_missing_wheel_is_told_from_one_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, platforms: list[str], built: bool
) -> None:
    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(importlib.metadata, "version", none)
    faked = [tags.Tag("py3", "none", platform) for platform in platforms]
    monkeypatch.setattr(tags, "sys_tags", lambda: iter(faked))
    with pytest.raises(RuntimeUnavailableError) as caught:
        find.find_installation()
    assert ("not Alpine" in caught.value.message) is not built
    assert ("pip install" in str(caught.value)) is built
    assert caught.value.code == ("runtime_unavailable" if built else "unsupported_platform")
