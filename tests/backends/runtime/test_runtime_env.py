"""Which variables may be named for the embedded runtime."""

from __future__ import annotations

import pytest

from letta_adapters import InvalidInputError, Local


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"env": {"HOME": "/x"}}, "data_dir"),
        ({"env": {"LETTA_API_KEY": "a secret"}}, "api=Rest"),
        ({"env": {"GIT_DIR": "a secret"}}, "GIT_DIR"),
        ({"env": {"GIT_CONFIG_COUNT": "1"}}, "GIT_CONFIG_COUNT"),
        ({"env": {"A=a secret": "x"}}, "'A'"),
        ({"env": {"A": "a secret\0"}}, "NUL"),
        ({"inherit_env": ["GIT_WORK_TREE"]}, "GIT_WORK_TREE"),
        ({"inherit_env": ["AWS_*"]}, "AWS_"),
        ({"inherit_env": "PATH"}, "list of names"),
        ({"inherit_env": [""]}, "''"),
    ],
)
def test_names_that_cannot_be_given(options, told):
    with pytest.raises(InvalidInputError, match=told) as caught:
        Local(**options)
    assert "secret" not in str(caught.value)


def test_values_are_in_no_repr():
    spec = Local(env={"TOKEN": "a secret"}, inherit_env=["SSH_AUTH_SOCK"])
    assert "a secret" not in repr(spec)
    assert spec.inherit_env == ("SSH_AUTH_SOCK",)
