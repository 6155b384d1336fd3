"""What a worker tells of itself: calls of networks, and why a queue cannot do its work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from provenance.app import health
from provenance.errors import NetworkUnavailable
from provenance.observe import counts
from provenance.settings import Settings, load
from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork
from workers import alive, anchoring
from workers import app as app_module


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    counts._more.clear()
    counts._now.clear()
    yield
    counts._more.clear()
    counts._now.clear()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("PROVENANCE_BASE_DIR", str(tmp_path))
    monkeypatch.delenv("PROVENANCE_CONFIG", raising=False)
    app_module.settings_of.cache_clear()
    (tmp_path / "run").mkdir()
    yield load(None, tmp_path)
    app_module.settings_of.cache_clear()


def task(of: object, queue: str) -> object:
    request = SimpleNamespace(delivery_info={"routing_key": queue})
    return SimpleNamespace(name=of.name, request=request)  # type: ignore[attr-defined]


def problem(settings: Settings, queue: str) -> str | None:
    (age,) = health.ages(settings, [queue])
    assert age.age_s is not None
    return age.problem


def test_why_a_task_could_not_work_stands_until_one_does(settings: Settings) -> None:
    queue, publish = "anchor.local", task(anchoring.publish, "anchor.local")
    alive.ended(task=publish, retval="the database is full")
    assert problem(settings, queue) == "the database is full"
    alive.ended(task=task(alive.beat, queue))
    assert problem(settings, queue) == "the database is full", "a beat does no work"
    alive.ended(task=publish, retval=SystemError("killed"), state="FAILURE")
    assert problem(settings, queue) == "SystemError: killed"
    alive.ended(task=publish)
    assert problem(settings, queue) is None
    name = anchoring.publish.name
    assert counts._more["tasks", queue, name, "failed"] == 2
    assert counts._more["tasks", queue, name, "done"] == 1


def test_calls_of_a_network_are_counted_with_their_errors() -> None:
    network = MemoryNetwork(MemoryChain())
    measured = counts.measured(network)
    name = network.name
    assert measured.name == name
    identity = measured.identity()
    assert identity.network == name
    assert counts._more["rpc_bucket", name, "identity", "0.05"] == 1
    if identity.balance is not None:
        assert counts._now["balance", name] == identity.balance

    network.fail_next("identity", NetworkUnavailable("refused"))
    with pytest.raises(NetworkUnavailable):
        measured.identity()
    assert counts._more["rpc_errors", name, "identity", "NetworkUnavailable"] == 1
    assert counts._more["rpc_bucket", name, "identity", "0.05"] == 2
