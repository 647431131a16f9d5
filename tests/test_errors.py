"""The error tree: types, codes, texts, pickles."""

from __future__ import annotations

import pickle

import pytest

from letta_adapters import (
    LettaError,
    ModelProviderError,
    PendingApprovalError,
    ProviderRateLimitError,
    RateLimitError,
    TurnFailedError,
    UnsupportedOptionError,
    errors,
)
from letta_adapters.errors import error_for_code

CLASSES = sorted(
    (cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, LettaError)),
    key=lambda cls: cls.__name__,
)


def test_every_class_is_drawn_in_the_docstring_with_its_code() -> None:
    for cls in CLASSES:
        assert cls.__name__ in (errors.__doc__ or "")
    codes = [cls.default_code for cls in CLASSES]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        ("pending_approval", PendingApprovalError),
        ("provider_rate_limit", ProviderRateLimitError),
        ("provider_timeout", ModelProviderError),
        ("unsupported_option", UnsupportedOptionError),
        ("max_steps", TurnFailedError),
    ],
)
def test_a_code_gives_its_class(code: str, cls: type) -> None:
    error = error_for_code(code, "what happened", run_id="run-1")
    assert type(error) is cls
    assert (error.code, error.run_id) == (code, "run-1")
    assert str(error).startswith("what happened")


def test_a_provider_limit_is_a_rate_limit_and_a_provider_error() -> None:
    assert issubclass(ProviderRateLimitError, RateLimitError)
    assert issubclass(ProviderRateLimitError, ModelProviderError)


def test_errors_survive_pickling() -> None:
    error = PendingApprovalError("waits", tool_call_ids=("call_1",), accepted=False)
    other = UnsupportedOptionError("memfs", backend="rest", supported_by=("local",))
    for original in (error, other):
        copy = pickle.loads(pickle.dumps(original))
        assert type(copy) is type(original)
        assert copy.__dict__ == original.__dict__
        assert str(copy) == str(original)


@pytest.mark.parametrize("cls", [c for c in CLASSES if c not in (LettaError, TurnFailedError)])
def test_every_class_comes_back_from_its_code(cls: type[LettaError]) -> None:
    assert type(error_for_code(cls.default_code, "what happened")) is cls
