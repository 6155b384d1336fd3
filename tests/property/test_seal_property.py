"""Two producers of one rank, delivered in any order, also too late: an honest run verifies."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from provenance.evidence.from_database import from_store
from provenance.formats.record import Kind, Phase
from provenance.formats.run_tree.walk import RunWalk
from provenance.ledger.ingest import ingest
from provenance.ledger.seal import seal_ready
from provenance.ports.store import LedgerTx
from provenance.ports.transport import Delivery
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.sql import SqlStore
from provenance.verify.verifier import verify
from tests.support.ledger_values import checkpoints_upto, digested, run_leaves
from tests.support.runs import POLICY, RUN, Producer

NOW = 1_760_000_100.0
OTHER = b"\x02" * 16
structlog.reset_defaults()

_steps = st.lists(
    st.tuples(
        st.sampled_from([Kind.METRICS, Kind.STATE, Kind.SEAL]),
        st.integers(0, 4),
    ),
    max_size=10,
)


def story(
    leader: list[tuple[Kind, int]], other: list[tuple[Kind, int]], marks: bool
) -> list[Producer]:
    """Both of rank 0; ``other`` marks no checkpoint unless ``marks``."""
    first, second = Producer(), Producer(name=OTHER)
    first.begin()
    for producer, steps in ((first, leader), (second, other)):
        for kind, epoch in steps:
            if kind is not Kind.SEAL:
                producer.add(kind, epoch, metrics={"loss": epoch})
            elif producer is first or marks:
                producer.seal("checkpoint", epoch)
    second.end()
    first.finish()
    return [first, second]


def replayed(tx: LedgerTx) -> list[tuple[Phase, int | None, bytes | None]]:
    """The roots that the database's records give."""
    records, entries = digested(tx, RUN), tx.entries(RUN)
    random.Random(1).shuffle(records)
    seals = RunWalk(RUN, records, entries).seals
    return [(e.phase, e.epoch, seal.root) for e, seal in zip(entries, seals, strict=True)]


@settings(max_examples=150, deadline=None)
@given(_steps, _steps, st.booleans(), st.integers(0, 2**32), st.booleans())
@pytest.mark.slow
def test_whatever_the_arrival_the_run_verifies(
    leader: list[tuple[Kind, int]],
    other: list[tuple[Kind, int]],
    marks: bool,
    seed: int,
    overdue: bool,
) -> None:
    rng = random.Random(seed)
    producers = story(leader, other, marks)
    pieces = [d for producer in producers for d in producer.deliveries(rng.randint(1, 4))]
    rng.shuffle(pieces)
    store = SqlStore.open("sqlite://")
    policy = replace(POLICY, networks=(), grace_s=60.0)
    with capture_logs() as said:
        while pieces:
            count = rng.randint(1, 3)
            taken = [Delivery(f"{at}", piece.payload) for at, piece in enumerate(pieces[:count])]
            del pieces[:count]
            ingest(MemoryTransport(), store, policy, taken, lambda: NOW)
            report = verify(
                from_store(store, RUN, POLICY.signer.verifier), None,
                verifier_key=POLICY.signer.verifier, now=NOW,
            )  # fmt: skip
            assert report.findings == ()
            if overdue and len(pieces) == 1:
                with store.transaction() as tx:
                    seal_ready(tx, RUN, policy, NOW + 61)
                break
    evidence = from_store(store, RUN, POLICY.signer.verifier)
    report = verify(evidence, None, verifier_key=POLICY.signer.verifier, now=NOW)
    assert [f for f in report.findings if f.check != 4] == []
    with store.snapshot() as tx:
        entries, records = tx.entries(RUN), digested(tx, RUN)
        assert replayed(tx) == [(e.phase, e.epoch, e.root) for e in entries]
        sealed = [e.epoch for e in entries if e.epoch is not None]
        assert sealed == sorted(set(sealed))
        if not (overdue and tx.run(RUN).incomplete):  # type: ignore[union-attr]  # JSON, or known to be there
            assert report.findings == ()
            assert overdue or entries[-1].phase is Phase.AFTER
        known: set[bytes] = set()
        for entry in entries:
            told = checkpoints_upto(entries, entry.index)
            counted = {leaf.digest for leaf in run_leaves(records, entry.phase, told)[0]}
            assert known <= counted
            known = counted
    lines = [line["epoch"] for line in said if line["event"] != "ledger.sealed"]
    assert len(lines) == len(set(lines))
    assert not set(lines) & set(sealed)
    if not marks and not overdue:
        forward: list[int] = []
        for kind, epoch in leader:
            if kind is Kind.SEAL and epoch > max(forward, default=-1):
                forward.append(epoch)
        assert sealed == forward, "the same checkpoints, whatever the arrival"
        asked = {epoch for kind, epoch in leader if kind is Kind.SEAL}
        assert set(lines) == asked - set(sealed)
    store.close()
