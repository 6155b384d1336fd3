"""Tickets: what they say before, during and after anchoring; none of it raises or waits long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from provenance import tickets
from provenance.bootstrap import reading, sending
from provenance.errors import MissingExtraError, StoreUnavailable
from provenance.evidence.from_database import anchor_fact
from provenance.formats.record import Phase
from provenance.ports.values import AnchorState
from provenance.settings import Settings, load
from provenance.tickets import Ticket, read_ticket
from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork
from tests.support.verify_world import RUN, World, before, seal, story


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(None, tmp_path / "base")


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    """A world whose database is the one the tickets read."""
    made: Any = World(names=("local",))
    made.store.close()
    made.store = sending.open_store(settings)
    made.networks = {"local": MemoryNetwork(MemoryChain(chain_id=1), name="local")}
    yield made
    made.store.close()


def ticket(settings: Settings, phase: Phase = Phase.AFTER, network: str = "local") -> Ticket:
    return Ticket(settings, RUN, phase, network)


def test_without_a_database_it_is_pending_and_makes_none(settings: Settings) -> None:
    mine = ticket(settings)
    assert mine.as_dict() == {
        "status": "pending", "transaction_id": None, "root": None, "reason": None,
    }  # fmt: skip
    assert mine.transaction_id is None
    assert not settings.base_dir.exists()


@pytest.mark.slow
def test_it_follows_the_anchor(settings: Settings, world: World) -> None:
    first, last = ticket(settings, Phase.BEFORE), ticket(settings)
    assert first.status == "pending"
    world.ingest(world.batch(before()))
    assert first.status == "due"
    assert first.as_dict()["root"] is not None
    assert first.transaction_id is None
    assert last.as_dict()["root"] is None
    world.ingest(world.batch(story()[len(before()) :], first=len(before())))
    assert last.status == "due"
    world.anchor()
    assert last.status == "final"
    assert last.transaction_id == first.transaction_id, "the later head covers both"
    assert first.status == "final"
    assert last.wait(timeout=0) == "final"


def test_a_network_that_the_deployment_does_not_have_ends_the_wait_with_that_reason(
    settings: Settings, world: World
) -> None:
    mine = ticket(settings, network="ethereum")
    assert mine.status == "pending"
    world.ingest(world.batch(story()))
    assert mine.wait(timeout=3600) == "failed"
    found = mine.as_dict()
    assert found["reason"] == "this deployment has no network ethereum"
    assert len(found["root"]) == 64
    with world.store.transaction() as tx:
        size = tx.ledger_size()
        tx.add_anchor("ethereum", size, world.now)
    assert mine.status == "due", "a network that came later covers it"


def test_a_seal_that_asked_for_no_anchor_stays_pending_with_its_root(
    settings: Settings, world: World
) -> None:
    kind, epoch, body = seal("before")
    world.ingest(world.batch([*before()[:-1], (kind, epoch, {**body, "anchor": False})]))
    found = ticket(settings, Phase.BEFORE).as_dict()
    assert (found["status"], len(found["root"])) == ("pending", 64)


def save(world: World, **changes: object) -> None:
    with world.store.transaction() as tx:
        for row in tx.anchors("local"):
            if row.state is not AnchorState.REPLACED:
                tx.save_anchor(replace(row, **changes))  # type: ignore[arg-type]  # keyword arguments of several types


@pytest.mark.slow
def test_a_failed_anchor_says_why(settings: Settings, world: World) -> None:
    world.ingest(world.batch(story()))
    save(world, state=AnchorState.FAILED, reason="contract reverted")
    mine = ticket(settings)
    assert mine.wait(timeout=0) == "failed"
    assert mine.as_dict()["reason"] == "contract reverted"


def test_a_later_head_makes_a_failed_one_good(settings: Settings, world: World) -> None:
    world.ingest(world.batch(story()))
    save(world, state=AnchorState.FAILED, reason="contract reverted")
    with world.store.transaction() as tx:
        head = tx.head()
        assert head is not None
        entry = tx.append_entry(RUN, Phase.CHECKPOINT, 9, bytes(32), True, world.now)
        tx.add_head(replace(head, size=entry.index + 1, root=b"r" * 32, note="n"))
        tx.add_anchor("local", entry.index + 1, world.now)
    assert ticket(settings).status == "due"


def test_the_version_that_counts_gives_the_id(settings: Settings, world: World) -> None:
    world.ingest(world.batch(story()))
    world.anchor()
    with world.store.snapshot() as tx:
        row = next(a for a in tx.anchors("local") if a.state is AnchorState.FINAL)
        (version,) = tx.versions(row.id)
        assert anchor_fact(tx, row).transaction_id == version.version.transaction_id


@pytest.mark.slow
def test_waiting_ends_at_its_time(settings: Settings, world: World) -> None:
    world.ingest(world.batch(story()))
    begun = time.monotonic()
    assert ticket(settings).wait(timeout=0.3) == "due"
    assert time.monotonic() - begun >= 0.3


def test_waiting_ends_when_it_is_confirmed(
    settings: Settings, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ingest(world.batch(story()))
    monkeypatch.setattr(time, "sleep", lambda _: world.anchor())
    assert ticket(settings).wait(timeout=3600) == "final"


def test_a_database_that_is_away_is_unknown_and_raises_nothing(
    settings: Settings, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("database: locked")

    mine = ticket(settings)
    monkeypatch.setattr(tickets, "read_ticket", refuse)
    assert mine.as_dict()["reason"] == "database: locked"
    assert mine.wait(timeout=0) == "unknown"
    monkeypatch.setattr(reading, "open_store", refuse)
    assert mine.status == "unknown"


def test_a_trainer_without_the_workers_extra_reads_unknown(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise MissingExtraError("sqlalchemy", "workers")

    monkeypatch.setattr(reading, "open_store", missing)
    found = ticket(settings).as_dict()
    assert found["status"] == "unknown"
    assert "ml-provenance[workers]" in found["reason"]


def test_it_names_itself_without_secrets(settings: Settings) -> None:
    loud = msgspec.structs.replace(
        settings, redis_url="redis://:sesame@h/0", database_url="postgresql://u:p@h/d"
    )
    assert repr(ticket(loud)) == f"Ticket(local, after, run {RUN})"


def test_reading_an_unknown_run_is_pending(settings: Settings, world: World) -> None:
    assert read_ticket(world.store, RUN, Phase.BEFORE, "local").status == "pending"


@pytest.mark.slow
def test_who_came_after_the_seal_is_told_that_all_was_refused(
    settings: Settings, world: World
) -> None:
    late = Ticket(settings, RUN, Phase.AFTER, "local", b"\x09" * 16)
    world.ingest(world.batch(before()))
    assert late.status == "pending"
    world.ingest(world.batch(story()[len(before()) :], first=len(before())))
    assert ticket(settings).status == "due"
    world.ingest(world.batch(story(), producer=b"\x09" * 16))
    assert late.wait(timeout=0) == "failed"
    assert "refused" in str(late.as_dict()["reason"])
    assert Ticket(settings, RUN, Phase.AFTER, "local", b"p" * 16).status == "due"
