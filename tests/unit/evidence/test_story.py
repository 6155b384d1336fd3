"""Where a run stands and where it was started again, of processes that one table draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from provenance.evidence.story import Restart, restarts, state_of
from provenance.formats.record import Kind, Phase, Record
from provenance.ports.values import LedgerEntry
from tests.support.runs import RUN

Step = tuple[int, str]
"""When, in seconds, and what; see :func:`process`."""


def process(name: str, rank: int, *steps: Step) -> list[Record]:
    """A process by its steps: ``config`` (with the before mark), ``epoch N``, ``mark N`` (of a
    checkpoint), ``note``, ``weights X``, ``rate X`` (another configuration), or a state it ends
    in."""
    records: list[Record] = []

    def add(at: int, kind: Kind, of: int | None = None, **body: Any) -> None:
        ts = f"2026-01-01T00:{at // 60:02d}:{at % 60:02d}.{len(records) % 10**6:06d}Z"
        producer = name.encode().ljust(16, b".")
        records.append(Record(RUN, kind, of, rank, producer, len(records), ts, bytes(32), body))

    for at, what in steps:
        word, _, rest = what.partition(" ")
        if word in ("config", "rate"):
            size, rate = (1, rest) if word == "rate" else (int(rest or 1), "0.1")
            add(at, Kind.CONFIG, world_size=size, training={"rate": rate})
            add(at, Kind.SEAL, phase="before", epoch=None, anchor=False)
        elif word == "epoch":
            add(at, Kind.METRICS, int(rest), metrics={"loss": 1})
            add(at, Kind.STATE, int(rest), root=f"w{rest}")
        elif word == "mark":
            add(at, Kind.SEAL, int(rest), phase="checkpoint", epoch=int(rest), anchor=False)
        elif word == "weights":
            add(at, Kind.WEIGHTS, root=rest)
        elif word == "note":
            add(at, Kind.NOTE, text="seen")
        else:
            add(at, Kind.RUN_END, events=len(records), state=word, reason=rest or word)
    return records


CONFIG, CHILD = (0, "config"), [(12, "note"), (13, "closed exit")]
MAIN = [CONFIG, (5, "epoch 1")]
FINISHED = [*MAIN, (10, "finished")]
FAILED = [*MAIN, (9, "mark 1"), (10, "failed OSError")]
SITUATIONS: dict[str, tuple[list[list[Record]], str]] = {
    "one process": ([process("a", 0, *MAIN)], "running"),
    "one that finished": ([process("a", 0, *FINISHED)], "finished"),
    "one that failed": ([process("a", 0, *FAILED)], "failed (OSError)"),
    "one that closed": ([process("a", 0, *MAIN, (10, "closed exit"))], "closed (exit)"),
    "a child ends first": ([process("a", 0, *MAIN), process("c", 0, *CHILD)], "running"),
    "a child leaves by `with`": (
        [process("a", 0, *MAIN), process("c", 0, (12, "note"), (13, "finished"))],
        "running",
    ),
    "a child fails": (
        [process("a", 0, *MAIN), process("c", 0, (12, "note"), (13, "failed OSError"))],
        "running",
    ),
    "a child outlives": (
        [process("a", 0, *FINISHED), process("c", 0, (4, "note"), (12, "note"))],
        "finished",
    ),
    "a child outlives a failure": (
        [process("a", 0, *FAILED), process("c", 0, (12, "note"))],
        "failed (OSError)",
    ),
    "a restart after a kill": (
        [process("a", 0, *MAIN), process("b", 0, (11, "config"), (12, "epoch 2"))],
        "running",
    ),
    "a restart that closed": (
        [
            process("a", 0, *MAIN),
            process("b", 0, (11, "config"), (12, "epoch 2"), (13, "mark 2"), (13, "closed exit")),
        ],
        "closed (exit)",
    ),
    "a restart that failed with nothing to say": (
        [process("a", 0, *MAIN), process("b", 0, (11, "failed ValueError"))],
        "failed (ValueError)",
    ),
    "a restart that finished": (
        [process("a", 0, *FAILED), process("b", 0, (11, "config"), (14, "finished"))],
        "finished",
    ),
    "finished, then resumed and failed": (
        [process("a", 0, *FINISHED), process("b", 0, (11, "config"), (14, "failed ValueError"))],
        "failed (ValueError)",
    ),
    "finished, then resumed and killed": (
        [process("a", 0, *FINISHED), process("b", 0, (11, "config"), (14, "epoch 2"))],
        "running",
    ),
    "an evaluation joins the finished run": (
        [process("a", 0, *FINISHED), process("b", 0, (11, "note"), (12, "config"),
                                             (12, "closed exit"))],
        "finished",
    ),
    "an evaluation joins the failed run": (
        [process("a", 0, *FAILED), process("b", 0, (11, "note"), (12, "config"),
                                           (12, "closed exit"))],
        "failed (OSError)",
    ),
    "an evaluation joins the live run": (
        [process("a", 0, *MAIN), process("b", 0, (11, "note"), (12, "config"),
                                         (12, "closed exit"))],
        "running",
    ),
    "a worker that began it goes after the driver": (
        [
            process("w", 0, (1, "config"), (5, "epoch 1"), (6, "mark 1"), (12, "closed exit")),
            process("d", 0, (0, "weights w"), (10, "mark 1"), (11, "finished")),
        ],
        "finished",
    ),
    "two ranks, one fails": (
        [
            process("a", 0, (0, "config 2"), (10, "finished")),
            process("b", 1, (5, "epoch 1"), (9, "failed OSError")),
        ],
        "failed (rank 1, OSError)",
    ),
    "two ranks fail, rank 0 of what rank 1 failed of": (
        [
            process("a", 0, (0, "config 2"), (12, "failed DistBackendError")),
            process("b", 1, (5, "epoch 1"), (11, "failed OSError")),
        ],
        "failed (rank 1, OSError)",
    ),
    "two ranks, one made no tracker": (
        [
            process("a", 0, (0, "config 2"), (10, "finished completed")),
            process("b", 1, (9, "finished idle")),
        ],
        "finished (completed)",
    ),
    "two ranks, one never came": (
        [process("a", 0, (0, "config 2"), (10, "finished"))],
        "running (rank 1)",
    ),
    "a rank that the configuration does not know fails": (
        [process("a", 0, *FINISHED), process("b", 1, (5, "epoch 1"), (9, "failed OSError"))],
        "failed (rank 1, OSError)",
    ),
    "rank 1 is started again after a kill": (
        [
            process("a", 0, (0, "config 2"), (20, "finished")),
            process("b", 1, (5, "epoch 1")),
            process("c", 1, (11, "epoch 1"), (12, "epoch 2"), (19, "finished")),
        ],
        "finished",
    ),
    "rank 1 is started again after a signal": (
        [
            process("a", 0, (0, "config 2"), (20, "finished")),
            process("b", 1, (5, "epoch 1"), (6, "mark 1"), (6, "interrupted SIGTERM")),
            process("c", 1, (11, "epoch 1")),
        ],
        "running (rank 1)",
    ),
    "a child of rank 1 ends first": (
        [
            process("a", 0, (0, "config 2"), (20, "finished")),
            process("b", 1, (5, "epoch 1")),
            process("c", 1, *CHILD),
        ],
        "running (rank 1)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_where_a_run_stands(name: str) -> None:
    processes, line = SITUATIONS[name]
    records = [record for own in processes for record in own]
    for order in (records, records[::-1]):
        assert state_of(order, [], now=0.0, lost_after_s=float("inf")).line == line
    lost = line.replace("running", "lost")
    assert state_of(records, [], now=2e9, lost_after_s=60.0).line == lost
    kinds = (Kind.CONFIG, Kind.NOTE, Kind.SEAL, Kind.RUN_END)
    listed = [record for record in records if record.kind in kinds]
    if name not in ("a child of rank 1 ends first", "rank 1 is started again after a signal"):
        assert state_of(listed, [], now=0.0, lost_after_s=float("inf")).line == line
    after = LedgerEntry(0, RUN, Phase.AFTER, None, bytes(32), False, 0.0)
    assert state_of(records, [after], now=0.0, lost_after_s=float("inf")).line == lost


def again(*processes: Sequence[Record]) -> list[Restart]:
    return restarts([record for own in processes for record in own])


def test_a_restart_says_what_is_new_and_how_the_process_before_it_ended() -> None:
    first = process("a", 0, (0, "config"), (1, "weights w0"), (2, "epoch 1"), (3, "epoch 2"))
    child = process("c", 0, (3, "note"), (30, "closed exit"))
    second = process("b", 0, (10, "config"), (10, "weights w2"), (11, "epoch 2"),
                     (12, "failed OSError"))  # fmt: skip
    third = process("d", 0, (20, "rate x"), (21, "epoch 3"), (22, "finished"))
    found = again(third, second, child, first)
    assert [(restart.number, restart.line) for restart in found] == [
        (
            3,
            "was started again at epoch 2; epoch 2 was tracked twice; states as initial weights "
            "those of epoch 2; the process before it ended unannounced",
        ),
        (
            4,
            "was started again at epoch 3; states another configuration (rate); "
            "the process before it: failed (OSError)",
        ),
    ]
    assert [restart.before[:1] for restart in found] == [b"a", b"b"]


@pytest.mark.parametrize("start", [0, 3, 11], ids=["before", "during", "near the end"])
def test_a_restart_is_told_by_its_epochs_where_a_clock_is_wrong(start: int) -> None:
    first = process("a", 0, (1, "config"), (5, "epoch 1"), (9, "epoch 2"), (12, "epoch 3"))
    second = process("b", 0, (start, "config"), (start + 1, "epoch 3"), (start + 4, "finished"))
    beside = process("e", 0, (6, "note"), (6, "config"), (7, "closed exit"))
    (found,) = again(second, beside, first)
    assert (found.before[:1], found.producer[:1]) == (b"a", b"b")
    assert found.line == (
        "was started again at epoch 3; its times are not behind those of the process before it: "
        "a clock is wrong, or both ran at once; epoch 3 was tracked twice; "
        "states the same again; the process before it has no end"
    )


def test_a_driver_beside_its_workers_is_no_restart_and_hides_none() -> None:
    driver = process("d", 0, (0, "weights w"), (40, "mark 1"), (41, "finished"))
    worker = process("w", 0, (1, "config"), (5, "epoch 1"), (12, "failed OSError"))
    assert again(driver, worker) == []
    next_one = process("x", 0, (20, "config"), (25, "epoch 2"), (30, "closed exit"))
    assert [restart.before[:1] for restart in again(driver, worker, next_one)] == [b"w"]


def test_a_damaged_record_without_a_time_fells_nothing() -> None:
    damaged = [replace(record, ts="") for record in process("a", 0, *MAIN)]
    second = process("b", 0, (20, "config"), (21, "epoch 2"))
    assert [restart.number for restart in again(damaged, second)] == [2]


def test_neither_a_child_nor_one_that_outlives_its_parent_is_or_hides_a_restart() -> None:
    first, child = process("a", 0, *MAIN), process("c", 0, (7, "note"), (40, "note"))
    assert again(first, child) == []
    second = process("b", 0, (20, "config"), (21, "failed OSError"))
    third = process("d", 0, (30, "config"), (31, "finished"))
    assert [restart.number for restart in again(first, child, second, third)] == [3, 4]


def test_what_is_kept_of_a_restart_does_not_grow_with_those_before_it() -> None:
    processes = [process(f"{at:x}", 0, (at, "config"), (at, f"epoch {at}")) for at in range(1000)]
    found = again(*processes)
    assert len(found) == 999
    assert sum(len(restart.repeats) + len(restart.before) for restart in found) < 20_000
