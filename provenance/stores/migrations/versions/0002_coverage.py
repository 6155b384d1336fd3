"""Checkpoints state what they cover.

Those that are there were sealed by a rule without it: of a producer with a mark of the
checkpoint the epoch records before that mark counted, of any other all. What that rule gives
is written down, so that their roots recompute as before.
"""

from __future__ import annotations

import json
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_EPOCH_KINDS: Final = ("state", "metrics", "privacy")
_ENTRIES: Final = sa.table(
    "ledger_entries",
    sa.column("entry", sa.BigInteger()),
    sa.column("run", sa.Uuid()),
    sa.column("phase", sa.String()),
    sa.column("epoch", sa.BigInteger()),
    sa.column("coverage", sa.Text()),
)
_RECORDS: Final = sa.table(
    "records",
    sa.column("run", sa.Uuid()),
    sa.column("producer", sa.LargeBinary()),
    sa.column("seq", sa.BigInteger()),
    sa.column("kind", sa.String()),
    sa.column("epoch", sa.BigInteger()),
    sa.column("data", sa.LargeBinary()),
)


def upgrade() -> None:
    op.add_column(
        "ledger_entries", sa.Column("coverage", sa.Text(), nullable=False, server_default="{}")
    )
    connection = op.get_bind()
    checkpoints: dict[UUID, list[tuple[int, int]]] = {}
    for row in connection.execute(
        sa.select(_ENTRIES.c.run, _ENTRIES.c.entry, _ENTRIES.c.epoch)
        .where(_ENTRIES.c.phase == "checkpoint")
        .order_by(_ENTRIES.c.entry)
    ):
        checkpoints.setdefault(row.run, []).append((row.entry, row.epoch))
    for run, sealed in checkpoints.items():
        marks, written = _marks(connection, run), _written(connection, run)
        before = -1
        for entry, epoch in sealed:
            coverage: dict[str, int] = {}
            for producer, seq, number in written:
                if before < number <= epoch and seq < marks.get((producer, epoch), seq + 1):
                    coverage[producer.hex()] = seq + 1
            connection.execute(
                sa.update(_ENTRIES)
                .where(_ENTRIES.c.entry == entry)
                .values(coverage=json.dumps(coverage))
            )
            before = max(before, epoch)


def _written(connection: sa.Connection, run: UUID) -> list[tuple[bytes, int, int]]:
    """Producer, seq and epoch of a run's epoch records, by producer and seq."""
    columns = (_RECORDS.c.producer, _RECORDS.c.seq, _RECORDS.c.epoch)
    rows = connection.execute(
        sa.select(*columns)
        .where(_RECORDS.c.run == run, _RECORDS.c.kind.in_(_EPOCH_KINDS))
        .where(_RECORDS.c.epoch.is_not(None))
        .order_by(_RECORDS.c.producer, _RECORDS.c.seq)
    )
    return [(row.producer, row.seq, row.epoch) for row in rows]


def _marks(connection: sa.Connection, run: UUID) -> dict[tuple[bytes, int], int]:
    """Where each producer wrote its first mark of each checkpoint."""
    found: list[tuple[str, int, bytes, int]] = []
    for row in connection.execute(
        sa.select(_RECORDS.c.producer, _RECORDS.c.seq, _RECORDS.c.data)
        .where(_RECORDS.c.run == run, _RECORDS.c.kind == "run.seal")
        .order_by(_RECORDS.c.producer, _RECORDS.c.seq)
    ):
        try:
            record = json.loads(row.data)
            body, ts = record["body"], str(record["ts"])
            phase, epoch = body.get("phase"), body.get("epoch")
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
        if phase == "checkpoint" and type(epoch) is int:
            found.append((ts, row.seq, row.producer, epoch))
    marks: dict[tuple[bytes, int], int] = {}
    for _, seq, producer, epoch in sorted(found):
        marks.setdefault((producer, epoch), seq)
    return marks
