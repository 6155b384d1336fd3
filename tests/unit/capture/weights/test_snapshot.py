"""Snapshotter: later training does not show, memory is bounded, nothing is raised."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from provenance.capture.weights import snapshot
from provenance.capture.weights.snapshot import Snapshotter, copy_of
from provenance.errors import InputError, ProvenanceError
from provenance.fingerprint.tensors import state_digest
from tests.support.frameworks import framework

torch = framework("torch")
WAIT_S = 30.0


class Gate:
    """A hash function that waits until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.threads: list[str] = []

    def __call__(self, model: Any) -> float:
        self.threads.append(threading.current_thread().name)
        self.entered.release()
        if threading.current_thread().name == "provenance-snapshot":
            assert self.open.wait(WAIT_S)
        return float(model["w"].sum())


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def linear() -> Any:
    return torch.nn.Linear(3, 2)


def estimator() -> Any:
    from sklearn.linear_model import LogisticRegression

    x = np.arange(20.0).reshape(10, 2)
    return LogisticRegression().fit(x, np.arange(10) % 2)


MODELS: list[tuple[str, Callable[[], Any], Callable[[Any], None]]] = [
    ("module", linear, lambda m: m.weight.data.zero_()),
    ("state dict", lambda: linear().state_dict(), lambda s: s["weight"].zero_()),
    ("arrays", lambda: {"w": np.ones(5), "b": {"c": np.ones(2)}}, lambda d: d["b"]["c"].fill(9)),
    ("list", lambda: [np.ones(5), torch.ones(2)], lambda v: v[1].zero_()),
    ("strided", lambda: {"w": np.arange(12.0).reshape(3, 4).T}, lambda d: d["w"].fill(0)),
    ("estimator", estimator, lambda e: e.coef_.fill(0)),
    ("array", lambda: np.ones(4), lambda a: a.fill(0)),
]


@pytest.mark.parametrize(("make", "train"), [m[1:] for m in MODELS], ids=[m[0] for m in MODELS])
def test_a_copy_has_the_same_digest_and_does_not_change_with_the_model(
    make: Callable[[], Any], train: Callable[[Any], None]
) -> None:
    model = make()
    before = state_digest(model)
    taken = copy_of(model)
    train(model)
    assert state_digest(model) != before
    assert state_digest(taken) == before


def test_bfloat16_and_gradients_survive_the_copy() -> None:
    weight = torch.ones(4, dtype=torch.bfloat16, requires_grad=True)
    taken = copy_of({"w": weight})
    assert isinstance(taken, dict)
    assert state_digest(taken) == state_digest({"w": weight})
    assert not taken["w"].requires_grad


def test_a_snapshot_is_hashed_beside_the_training_as_it_was_taken(gate: Gate) -> None:
    done: list[float] = []
    snapshots = Snapshotter(gate)
    weights = {"w": np.ones(3)}
    snapshots.submit(weights, done.append)
    weights["w"].fill(100)
    assert gate.entered.acquire(timeout=WAIT_S)
    assert not done
    gate.open.set()
    assert snapshots.drain(WAIT_S)
    assert done == [3.0]
    assert gate.threads == ["provenance-snapshot"]
    assert snapshots.inline == 0


@pytest.mark.parametrize("mode", [None, "copy", "stall-free"])
def test_weights_that_are_hashed_sooner_than_copied_are_hashed_at_the_call(
    gate: Gate, mode: str | None
) -> None:
    done: list[float] = []
    snapshots = Snapshotter(gate, at_once=lambda model: bool(model["w"].size > 2))
    snapshots.submit({"w": np.ones(3)}, done.append, mode)
    assert (done, snapshots.inline, gate.threads) == ([3.0], 1, ["MainThread"])
    snapshots.submit({"w": np.ones(2)}, done.append, mode)
    gate.open.set()
    assert snapshots.drain(WAIT_S)
    assert (done, gate.threads[1:]) == ([3.0, 2.0], ["provenance-snapshot"])


def test_a_question_that_fails_leaves_the_caller_to_hash(gate: Gate) -> None:
    done: list[float] = []
    snapshots = Snapshotter(gate, at_once=lambda model: bool(model["absent"]))
    snapshots.submit({"w": np.ones(3)}, done.append)
    assert (done, snapshots.inline) == ([3.0], 1)


def test_while_the_arena_is_in_use_the_caller_hashes(gate: Gate) -> None:
    done: list[float] = []
    snapshots = Snapshotter(gate)
    snapshots.submit({"w": np.full(1, 1.0)}, done.append)
    assert gate.entered.acquire(timeout=WAIT_S)
    snapshots.submit({"w": np.full(1, 2.0)}, done.append)
    assert done == [2.0]
    assert snapshots.inline == 1
    assert not snapshots.drain(0.01)
    gate.open.set()
    assert snapshots.drain(WAIT_S)
    assert done == [2.0, 1.0]


def test_sync_is_hashed_by_the_caller(gate: Gate) -> None:
    done: list[float] = []
    Snapshotter(gate).submit({"w": np.ones(2)}, done.append, "sync")
    assert done == [2.0]
    assert gate.threads == ["MainThread"]


ARENAS: list[tuple[str, Callable[[float], Any]]] = [
    ("tensor", lambda x: torch.full((3, 2), x)),
    ("strided", lambda x: torch.full((3, 2), x).T),
    ("bfloat16", lambda x: torch.full((3,), x, dtype=torch.bfloat16)),
    ("array", lambda x: np.full((3, 2), x)),
]


@pytest.mark.parametrize("make", [a[1] for a in ARENAS], ids=[a[0] for a in ARENAS])
def test_the_arena_is_written_over_by_the_next_copy(make: Callable[[float], Any]) -> None:
    first = copy_of({"a": [make(1)], "b": make(2)})
    kept = first["a.0"], first["b"]
    model = {"a": [make(3)], "b": make(4)}
    second = copy_of(model, first)
    assert second["a.0"] is kept[0]
    assert second["b"] is kept[1]
    assert state_digest(second) == state_digest(model)


@pytest.mark.parametrize(
    "model",
    [
        {"a": np.ones(4)}, {"a": np.ones(3, np.float32)}, {"a": [np.ones(3)]}, [np.ones(3)],
        {"b": np.ones(3)}, {"a": torch.ones(3, dtype=torch.float64)}, {"a": {"a": np.ones(3)}},
        {"a": np.ones(3), "c": torch.ones(1)}, np.ones(3),
    ],
    ids=str,
)  # fmt: skip
def test_an_arena_of_another_shape_is_left_alone(model: Any) -> None:
    arena = {"a": np.zeros(3)}
    taken = copy_of(model, arena)
    assert state_digest(taken) == state_digest(model)
    assert taken is not model


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (RuntimeError("CUDA out of memory\nmore"), "RuntimeError: CUDA out of memory"),
        (InputError("no tensors"), "no tensors"),
    ],
)
def test_what_fails_is_told_and_not_raised(error: Exception, shown: str) -> None:
    told: list[ProvenanceError] = []

    def broken(_: object) -> None:
        raise error

    snapshots = Snapshotter(broken, told.append)
    snapshots.submit({"w": np.ones(1)}, lambda _: None)
    assert snapshots.drain(WAIT_S)
    assert [str(e) for e in told] == [shown]
    assert snapshots.errors == 1
    snapshots.submit({"w": np.ones(1)}, lambda _: None)  # the thread has survived
    assert snapshots.drain(WAIT_S)
    assert snapshots.errors == 2


def test_callbacks_that_fail_are_counted_not_raised() -> None:
    def broken(_: object) -> None:
        raise ValueError("callback")

    snapshots = Snapshotter(state_digest, broken)
    snapshots.submit({"w": np.ones(1)}, broken)
    assert snapshots.drain(WAIT_S)
    assert snapshots.errors == 1
    quiet = Snapshotter(state_digest)
    quiet.submit({}, broken)
    assert quiet.drain(WAIT_S)
    assert quiet.errors == 1


class Uncopyable:
    """A model whose state cannot be copied, only read."""

    def state_dict(self) -> Any:
        return {"w": self}

    def __deepcopy__(self, memo: object) -> Any:
        raise TypeError("cannot pickle")


def test_a_model_that_cannot_be_copied_is_hashed_in_place() -> None:
    done: list[object] = []
    snapshots = Snapshotter(lambda model: model)
    model = Uncopyable()
    snapshots.submit(model, done.append)
    assert done == [model]
    assert snapshots.inline == 1


def test_without_a_thread_the_caller_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done: list[Any] = []
    snapshots = Snapshotter(lambda model: float(model["w"].sum()))
    snapshots.submit({"w": np.ones(2)}, done.append)
    assert done == [2.0]


def test_after_close_the_thread_is_gone_and_the_caller_hashes(gate: Gate) -> None:
    done: list[float] = []
    gate.open.set()
    snapshots = Snapshotter(gate)
    snapshots.submit({"w": np.ones(1)}, done.append)
    assert snapshots.close(WAIT_S)
    assert snapshots._thread is not None
    snapshots._thread.join(WAIT_S)
    assert not snapshots._thread.is_alive()
    snapshots.submit({"w": np.ones(2)}, done.append)
    assert done == [1.0, 2.0]


@pytest.mark.slow
def test_a_snapshotter_that_nobody_closes_keeps_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a trial whose tracker is left behind; with more work there is one again."""
    monkeypatch.setattr(snapshot, "IDLE_S", 0.01)
    found: list[float] = []
    snapshotter = Snapshotter(lambda model: float(model["w"].sum()))
    for _ in range(3):
        snapshotter.submit({"w": np.ones(2)}, found.append)
        thread = snapshotter._thread
        assert snapshotter.drain(WAIT_S)
        if thread is not None:
            thread.join(WAIT_S)
            assert not thread.is_alive()
    assert found == [2.0, 2.0, 2.0]
    assert snapshotter.inline == 0
    left = weakref.ref(snapshotter)
    del snapshotter, thread
    gc.collect()
    assert left() is None


def test_drain_of_nothing_returns_at_once() -> None:
    assert Snapshotter(state_digest).drain()


FORK_WHILE_HASHING = """
import os, sys, threading
import numpy as np
from provenance.capture.weights.snapshot import Snapshotter
entered, opened = threading.Event(), threading.Event()

def slow(model):
    entered.set()
    assert opened.wait(30)
    return float(model["w"].sum())

snapshots = Snapshotter(slow)
snapshots.submit({"w": np.ones(1)}, lambda _: None)
assert entered.wait(30)
child = os.fork()
if child == 0:
    done = []
    opened.set()
    snapshots.submit({"w": np.ones(5)}, done.append)
    os._exit(0 if snapshots.drain(30) and done == [5.0] else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
opened.set()
sys.exit(status or not snapshots.drain(30))
"""


@pytest.mark.slow
def test_a_forked_child_hashes_its_own() -> None:
    # In a process of its own: coverage's tracer takes a lock that a fork does not survive.
    subprocess.run([sys.executable, "-c", FORK_WHILE_HASHING], check=True, timeout=90)
