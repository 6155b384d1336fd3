"""The tables of the system of record. Constraints are the promises.

* One value per ``(run, producer, seq)``; one ledger entry per index and per
  ``(run, phase, epoch)``; one root per ledger size.
* One hash per complete subtree of the ledger.
* An anchor's root is the root of the head at its size; one anchor per ``(network, size)``.
* A transaction id belongs to one version. A nonce of a key belongs to one anchor: row
  ``(network, key, nonce)`` of ``nonces`` names it, and a version can only refer to a nonce
  that its own anchor holds.

Tables are changed by a new file in ``migrations/versions`` and a new entry at the end of
:data:`REVISIONS`; a test compares the two.

Over 400 lines: all tables stand together.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    false,
)

from provenance.formats.record import Kind, Phase
from provenance.ports.values import AnchorState, Work
from provenance.stores.sql.column_types import EnumText, FreeText, JsonText, Lines

REVISIONS: Final = ("0001",)
"""Every schema revision this release knows, oldest first; the last is the one it needs."""

NO_EPOCH: Final = -1
"""An absent epoch in ``ledger_entries``: NULLs would not collide in a UNIQUE constraint."""

OUTCOME: Final = "outcome"
"""Stands for the phase of an entry that is no seal but the outcome of a later verification; its
number stands for the epoch."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_RowId = BigInteger().with_variant(Integer, "sqlite")


def _size(column: str, size: int) -> CheckConstraint:
    return CheckConstraint(f"length({column}) = {size}", name=f"{column}_size")


def _at_least(column: str, least: int) -> CheckConstraint:
    return CheckConstraint(f"{column} >= {least}", name=f"{column}_range")


runs = Table(
    "runs",
    metadata,
    Column("run", Uuid, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("state", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("sealed_at", Double),
    Column("incomplete", FreeText),
    Column("last_ingest", Double),
    Column("identity", LargeBinary),
    CheckConstraint("state IN ('open', 'sealed')", name="state"),
)
Index(None, runs.c.state, runs.c.created_at)
Index(None, runs.c.created_at, runs.c.run)
Index(None, runs.c.last_ingest)

summaries = Table(
    "summaries",
    metadata,
    Column("run", Uuid, ForeignKey(runs.c.run), primary_key=True),
    Column("name", FreeText),
    Column("team", FreeText),
    Column("group", FreeText),
    Column("tags", Lines, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", FreeText),
    Column("rank", BigInteger),
    Column("begun", Double),
    Column("seen", Double),
    Column("epoch", BigInteger),
    Column("step", BigInteger),
    Column("parent", FreeText),
    Column("numbers", JsonText, nullable=False),
    Column("has_results", Boolean, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    Column("joined", BigInteger),
    Column("day", BigInteger),
    Column("day_bytes", BigInteger, nullable=False),
)
Index(None, summaries.c.seen)
Index(None, summaries.c.name)
Index(None, summaries.c.team)
Index(None, summaries.c.day, summaries.c.team)
Index(None, summaries.c.state)
_lost = summaries.c.dropped > 0
Index(None, summaries.c.dropped, sqlite_where=_lost, postgresql_where=_lost)

records = Table(
    "records",
    metadata,
    Column("run", Uuid, ForeignKey(runs.c.run), primary_key=True),
    Column("producer", LargeBinary, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", EnumText(Kind), nullable=False),
    Column("epoch", BigInteger),
    Column("rank", BigInteger, nullable=False),
    Column("ts", String, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("chain", LargeBinary),
    Column("stored_at", Double, nullable=False),
    _size("producer", 16),
    _size("digest", 32),
    _at_least("seq", 0),
)
Index(None, records.c.run, records.c.kind)
Index(None, records.c.run, records.c.epoch)

epoch_weights = Table(
    "epoch_weights",
    metadata,
    Column("run", Uuid, ForeignKey(runs.c.run), primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, primary_key=True),
    _size("root", 32),
)
"""An index: which runs state a root of weights in a ``state`` record, and of which epochs. It names
where to look, and proves nothing."""
Index(None, epoch_weights.c.root, epoch_weights.c.run, epoch_weights.c.epoch)

archived_runs = Table(
    "archived_runs",
    metadata,
    Column("run", Uuid, ForeignKey(runs.c.run), primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("archived_at", Double, nullable=False),
    _size("digest", 32),
)
"""Runs whose rows of ``records`` lie in archive files (:mod:`provenance.bundle.archive`)."""

producers = Table(
    "producers",
    metadata,
    Column("run", Uuid, ForeignKey(runs.c.run), primary_key=True),
    Column("producer", LargeBinary, primary_key=True),
    Column("rank", BigInteger, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("contiguous", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    Column("highest", BigInteger, nullable=False),
    Column("ended", BigInteger),
    Column("end_state", FreeText),
    Column("marked", BigInteger, nullable=False),
    _size("producer", 16),
    _size("chain", 32),
    _at_least("contiguous", 0),
)

statements = Table(
    "statements",
    metadata,
    Column("run", Uuid, ForeignKey(runs.c.run), primary_key=True),
    Column("producer", LargeBinary, primary_key=True),
    Column("count", BigInteger, primary_key=True, autoincrement=False),
    Column("signature", LargeBinary, nullable=False),
    Column("kept", Boolean, nullable=False),
    _size("signature", 64),
    _at_least("count", 1),
)
Index(None, statements.c.run, statements.c.kept)

marks = Table(
    "marks",
    metadata,
    Column("run", Uuid, ForeignKey(runs.c.run), primary_key=True),
    Column("phase", EnumText(Phase), primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("producer", LargeBinary, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("rank", BigInteger, nullable=False),
    Column("anchor", Boolean, nullable=False),
    Column("ts", String, nullable=False),
    Column("counts", Boolean, nullable=False),
    _size("producer", 16),
)
Index(None, marks.c.run, marks.c.producer, marks.c.seq)

due_checkpoints = Table(
    "due_checkpoints",
    metadata,
    Column("run", Uuid, ForeignKey(runs.c.run), primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
)

due_announcements = Table(
    "due_announcements",
    metadata,
    Column("run", Uuid, ForeignKey(runs.c.run), primary_key=True),
)
"""Runs that are sealed, which their shippers were not told yet."""

run_trees = Table(
    "run_trees",
    metadata,
    Column("run", Uuid, ForeignKey(runs.c.run), primary_key=True),
    Column("leader", LargeBinary, nullable=False),
    Column("leader_ts", String, nullable=False),
    Column("leader_seq", BigInteger, nullable=False),
    Column("world_size", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("model", LargeBinary, nullable=False),
    Column("training", LargeBinary, nullable=False),
    Column("closed", BigInteger, nullable=False),
    _size("leader", 16),
    _size("data", 32),
    _size("model", 32),
)

due_work = Table(
    "due_work",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("kind", EnumText(Work), nullable=False),
    Column("run", Uuid, ForeignKey(runs.c.run), nullable=False),
    Column("entry", BigInteger, key="index"),
    Column("told", FreeText),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", Double, nullable=False),
    _at_least("entry", 0),
    sqlite_autoincrement=True,  # whoever is late drops a row by its id: never another's
)
Index(None, due_work.c.kind, due_work.c.attempts, due_work.c.next_attempt_at)
Index(None, due_work.c.run)

equivocations = Table(
    "equivocations",
    metadata,
    Column("run", Uuid, ForeignKey(runs.c.run), primary_key=True),
    Column("producer", LargeBinary, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("proof", LargeBinary, nullable=False),
    _size("digest", 32),
)

parked = Table(
    "parked",
    metadata,
    Column("id", String, primary_key=True),
    Column("run", Uuid),
    Column("reason", FreeText, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("parked_at", Double, nullable=False),
    _size("id", 64),
)
Index(None, parked.c.run)

held_runs = Table(
    "held_runs",
    metadata,
    Column("run", Uuid, primary_key=True),
    Column("team", FreeText),
    Column("trainer", FreeText),
    Column("reason", FreeText, nullable=False),
    Column("at", Double, nullable=False),
)
"""Runs whose batches are not taken for now; not all of them are in ``runs``."""
Index(None, held_runs.c.team, held_runs.c.trainer, held_runs.c.at)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("entry", BigInteger, key="index", primary_key=True, autoincrement=False),
    Column("run", Uuid, ForeignKey(runs.c.run), nullable=False),
    Column("phase", EnumText(Phase), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("anchor", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("coverage", Text, nullable=False, server_default="{}"),
    UniqueConstraint("run", "phase", "epoch"),
    _size("root", 32),
    _at_least("entry", 0),
    _at_least("epoch", NO_EPOCH),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("entry", BigInteger, ForeignKey(ledger_entries.c.index), key="index", primary_key=True),
    Column("document", LargeBinary, nullable=False),
)
"""What the entries of later verifications hash, :mod:`provenance.formats.tlog.outcome`."""

subtrees = Table(
    "subtrees",
    metadata,
    Column("node", _RowId, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    _size("hash", 32),
    _at_least("node", 1),
)
"""The ledger's levels: RFC 6962 roots of its complete subtrees of two entries and more, under
their in-order numbers (:func:`provenance.formats.merkle.node_number`). The even numbers are the
leaf hashes of ``ledger_entries.root``."""

heads = Table(
    "heads",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("cosigned", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("size", "root"),
    _size("root", 32),
    _at_least("size", 0),
)
Index(None, heads.c.cosigned, heads.c.size)

anchors = Table(
    "anchors",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("network", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("state", EnumText(AnchorState), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", Double, nullable=False),
    Column("lease_owner", String),
    Column("lease_until", Double),
    Column("reason", FreeText),
    Column("version_id", BigInteger),
    Column("height", BigInteger),
    Column("depth", BigInteger, nullable=False),
    Column("block_time", Double),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("paid", Double),
    UniqueConstraint("network", "size"),
    UniqueConstraint("id", "network"),
    ForeignKeyConstraint(["size", "root"], [heads.c.size, heads.c.root]),
)
Index(None, anchors.c.network, anchors.c.state, anchors.c.next_attempt_at)
Index(None, anchors.c.network, anchors.c.state, anchors.c.size)
Index(None, anchors.c.network, anchors.c.paid)

approvals = Table(
    "approvals",
    metadata,
    Column("anchor_id", BigInteger, ForeignKey(anchors.c.id), primary_key=True),
    Column("envelope", LargeBinary, nullable=False),
)
"""Statements that persons are to sign before an anchor, each with the signatures it has."""

signing_requests = Table(
    "signing_requests",
    metadata,
    Column("network", String, primary_key=True),
    Column("root", LargeBinary, primary_key=True),
    Column("document", LargeBinary, nullable=False),
)
"""What the owners of a k-of-n key sign for a head, with the signatures it has."""

nonces = Table(
    "nonces",
    metadata,
    Column("network", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("nonce", BigInteger, primary_key=True, autoincrement=False),
    Column("anchor_id", BigInteger, ForeignKey(anchors.c.id), nullable=False),
    UniqueConstraint("network", "key", "nonce", "anchor_id"),
    _at_least("nonce", 0),
)

anchor_versions = Table(
    "anchor_versions",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("anchor_id", BigInteger, nullable=False),
    Column("network", String, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("transaction_id", String, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("key", String, nullable=False),
    Column("nonce", BigInteger),
    Column("fee", BigInteger, nullable=False),
    Column("detail", JsonText, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("sent_at", Double),
    UniqueConstraint("network", "transaction_id"),
    ForeignKeyConstraint(["anchor_id", "network"], [anchors.c.id, anchors.c.network]),
    ForeignKeyConstraint(
        ["network", "key", "nonce", "anchor_id"],
        [nonces.c.network, nonces.c.key, nonces.c.nonce, nonces.c.anchor_id],
    ),
)
Index(None, anchor_versions.c.anchor_id)

receipts = Table(
    "receipts",
    metadata,
    Column("entry", BigInteger, ForeignKey(ledger_entries.c.index), key="index", primary_key=True),
    Column("anchor_id", BigInteger, ForeignKey(anchors.c.id), primary_key=True),
    Column("network", String, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)
Index(None, receipts.c.anchor_id)

networks = Table(
    "networks",
    metadata,
    Column("network", String, primary_key=True),
    Column("identity", JsonText, nullable=False),
    Column("paused", FreeText),
    Column("checked_at", Double, nullable=False),
    Column("explained", BigInteger),
)

commits = Table(
    "commits",
    metadata,
    Column("writer", String, primary_key=True),
    Column("at", Double, nullable=False),
)
"""When a writer last committed, as the sweep does at each turn: that the database takes writes."""
