"""All that the checker knows of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from provenance.formats.event import Event, SegmentHeader
from provenance.formats.producers.acknowledgement import Acknowledgement
from provenance.fsck.rows import (
    DueRow,
    Entry,
    EquivocationRow,
    MarkRow,
    ProducerRow,
    RecordRow,
    Run,
    StatementRow,
    TreeRow,
)

Key = tuple[bytes, int]
"""Producer and seq."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """All that is known of one run.

    Attributes:
        row: None where the database has no such run.
        entries: The run's ledger entries, by index.
        spooled: Events in the spool.
        streamed: Records in the streams: canonical bytes.
        parked: Records that ingest refused.
        acked: Per producer, the highest count that anybody was told the database has.
        acknowledged: Per producer, what the ledger's key signed that the database has.
        ignore_after_ns: Events with a later time may still be on their way.
    """

    run: UUID
    row: Run | None
    records: Sequence[RecordRow]
    entries: Sequence[Entry]
    producers: Sequence[ProducerRow] = ()
    statements: Sequence[StatementRow] = ()
    equivocations: Sequence[EquivocationRow] = ()
    marks: Sequence[MarkRow] = ()
    due: Sequence[DueRow] = ()
    trees: Sequence[TreeRow] = ()
    spooled: Mapping[Key, tuple[SegmentHeader, Event]] = field(default_factory=dict)
    streamed: Mapping[Key, bytes] = field(default_factory=dict)
    parked: Mapping[Key, Sequence[bytes]] = field(default_factory=dict)
    acked: Mapping[bytes, int] = field(default_factory=dict)
    acknowledged: Mapping[bytes, Acknowledgement] = field(default_factory=dict)
    ignore_after_ns: int | None = None
