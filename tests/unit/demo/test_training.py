"""The demo's training: it learns, repeats itself, and can be recorded."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from provenance.demo.training import Training, digits
from provenance.errors import MissingExtraError
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any, Any, Any]:
    return digits()


def test_the_dataset_is_real_and_split_without_overlap(data: tuple[Any, Any, Any, Any]) -> None:
    x, y, x_test, y_test = data
    assert (len(x), len(x_test)) == (1400, 397)
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert (x.min(), x.max()) == (0.0, 1.0)
    assert set(y) == set(y_test) == set(range(10))
    again = digits()
    assert all(np.array_equal(a, b) for a, b in zip(data, again, strict=True))


@pytest.mark.slow
def test_it_learns_and_the_same_seed_gives_the_same_weights(
    data: tuple[Any, Any, Any, Any],
) -> None:
    factory = HashFactory("blake3")

    def run() -> tuple[list[int], list[dict[str, float]], str, str]:
        mine = Training(data, 4, 7)
        initial = state_digest(mine.model, factory).as_fields()["root"]
        rows = list(mine.epochs())
        final = state_digest(mine.model, factory).as_fields()["root"]
        return [n for n, _ in rows], [m for _, m in rows], str(initial), str(final)

    numbers, metrics, initial, final = run()
    assert numbers == [1, 2, 3, 4]
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert metrics[-1]["test_accuracy"] > 0.8
    assert initial != final
    assert run()[2:] == (initial, final)
    assert Training(data, 4, 7).config["epochs"] == 4


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"ml-provenance\[demo\]"):
        digits()
