"""Scenario 15: a key signs two different records for one place."""

from __future__ import annotations

import copy
from uuid import UUID

from provenance.app.report import write_report
from provenance.bootstrap import sending
from provenance.formats.record import Kind, record_digest
from tests.faults.support.harness import World, rounds, scenario, seeded
from tests.faults.support.processes import until
from tests.support.runs import Producer, complete_run, some_run


def contradicted(producer: Producer, seq: int) -> Producer:
    """The same producer, saying something else at ``seq``."""
    other = copy.deepcopy(producer.events)
    other[seq].fields["contradiction"] = "another value"
    return Producer(producer.run, producer.rank, producer.world_size, producer.name, events=other)


def stored(world: World, run: UUID) -> dict[int, bytes]:
    with world.store().snapshot() as tx:
        return {row.seq: row.digest for row in tx.records(run)}


def test_the_first_value_stands_and_the_report_shows_the_other(world: World) -> None:
    with scenario(15, "Same key, different digest") as tally:
        rng = seeded()
        world.start("hashing", "confirm", "beat", "anchor-local")
        transport = sending.open_transport(world.settings)
        expected: set[UUID] = set()
        for _ in range(rounds(2, 50)):
            producer = complete_run(epochs=2, run=some_run())
            kinds = {e.seq: e.kind for e in producer.events}
            free = [s for s, kind in kinds.items() if kind not in (Kind.SEAL, Kind.CONFIG)]
            seq = rng.choice(free)
            other = contradicted(producer, seq)
            first, second = rng.sample([producer, other], 2)
            late = rng.random() < 0.5
            batches = [first.batch(), second.batch(seq, seq + 1)]
            transport.append(batches[:1] if late else batches)
            world.wait_sealed(producer.run)
            if late:  # the run is sealed already
                transport.append(batches[1:])

            def seen(run: UUID = producer.run) -> bool:
                with world.store().snapshot() as tx:
                    return bool(tx.equivocations(run))

            assert until(seen, 30), f"seq {seq} ({kinds[seq]}), late: {late}"
            digests = {e: record_digest(d) for e, d in enumerate(first.records())}
            held = stored(world, producer.run)
            tally.events += len(digests)
            tally.lost += len(digests.keys() - held.keys())
            assert held == digests, "the first value did not stand"
            with world.store().snapshot() as tx:
                (kept,) = tx.equivocations(producer.run)
            assert (kept.seq, kept.digest) == (seq, record_digest(second.records()[seq]))
            expected.add(producer.run)
            tally.kills += 1
            world.wait_final(producer.run)
            page = write_report(world.settings, str(producer.run))
            text = page.read_text(encoding="utf-8").lower()
            assert "equivocation" in text
            assert kept.digest.hex()[:16] in text, "the report does not name the other value"
        transport.close()
        findings = world.fsck()["findings"]
        assert len(findings) == len(expected)
        assert {finding["kind"] for finding in findings} == {"equivocation"}
