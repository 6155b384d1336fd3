"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "heads",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("length(root) = 32", name=op.f("ck_heads_root_size")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_heads_size_range")),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_heads")),
        sa.UniqueConstraint("size", "root", name=op.f("uq_heads_size_root")),
    )
    op.create_table(
        "networks",
        sa.Column("network", sa.String(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("paused", sa.Text(), nullable=True),
        sa.Column("checked_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("network", name=op.f("pk_networks")),
    )
    op.create_table(
        "parked",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("run", sa.Uuid(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("parked_at", sa.Double(), nullable=False),
        sa.CheckConstraint("length(id) = 64", name=op.f("ck_parked_id_size")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parked")),
    )
    op.create_index(op.f("ix_parked_run"), "parked", ["run"], unique=False)
    op.create_table(
        "runs",
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("sealed_at", sa.Double(), nullable=True),
        sa.Column("incomplete", sa.Text(), nullable=True),
        sa.Column("last_ingest", sa.Double(), nullable=True),
        sa.CheckConstraint("state IN ('open', 'sealed')", name=op.f("ck_runs_state")),
        sa.PrimaryKeyConstraint("run", name=op.f("pk_runs")),
    )
    op.create_table(
        "anchors",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("network", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.Double(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("version_id", sa.BigInteger(), nullable=True),
        sa.Column("height", sa.BigInteger(), nullable=True),
        sa.Column("depth", sa.BigInteger(), nullable=False),
        sa.Column("block_time", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["size", "root"], ["heads.size", "heads.root"], name=op.f("fk_anchors_size_root")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_anchors")),
        sa.UniqueConstraint("id", "network", name=op.f("uq_anchors_id_network")),
        sa.UniqueConstraint("network", "size", name=op.f("uq_anchors_network_size")),
    )
    op.create_index(
        op.f("ix_anchors_network_state_next_attempt_at"),
        "anchors",
        ["network", "state", "next_attempt_at"],
        unique=False,
    )
    op.create_table(
        "equivocations",
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column("producer", sa.LargeBinary(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.CheckConstraint("length(digest) = 32", name=op.f("ck_equivocations_digest_size")),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name=op.f("fk_equivocations_run")),
        sa.PrimaryKeyConstraint("run", "producer", "seq", "digest", name=op.f("pk_equivocations")),
    )
    op.create_table(
        "ledger_entries",
        sa.Column("entry", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("anchor", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("entry >= 0", name=op.f("ck_ledger_entries_entry_range")),
        sa.CheckConstraint("epoch >= -1", name=op.f("ck_ledger_entries_epoch_range")),
        sa.CheckConstraint("length(root) = 32", name=op.f("ck_ledger_entries_root_size")),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name=op.f("fk_ledger_entries_run")),
        sa.PrimaryKeyConstraint("entry", name=op.f("pk_ledger_entries")),
        sa.UniqueConstraint(
            "run", "phase", "epoch", name=op.f("uq_ledger_entries_run_phase_epoch")
        ),
    )
    op.create_table(
        "records",
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column("producer", sa.LargeBinary(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=True),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.Double(), nullable=False),
        sa.CheckConstraint("length(digest) = 32", name=op.f("ck_records_digest_size")),
        sa.CheckConstraint("length(producer) = 16", name=op.f("ck_records_producer_size")),
        sa.CheckConstraint("seq >= 0", name=op.f("ck_records_seq_range")),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name=op.f("fk_records_run")),
        sa.PrimaryKeyConstraint("run", "producer", "seq", name=op.f("pk_records")),
    )
    op.create_index(op.f("ix_records_run_kind"), "records", ["run", "kind"], unique=False)
    op.create_table(
        "nonces",
        sa.Column("network", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("anchor_id", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("nonce >= 0", name=op.f("ck_nonces_nonce_range")),
        sa.ForeignKeyConstraint(["anchor_id"], ["anchors.id"], name=op.f("fk_nonces_anchor_id")),
        sa.PrimaryKeyConstraint("network", "key", "nonce", name=op.f("pk_nonces")),
        sa.UniqueConstraint(
            "network",
            "key",
            "nonce",
            "anchor_id",
            name=op.f("uq_nonces_network_key_nonce_anchor_id"),
        ),
    )
    op.create_table(
        "receipts",
        sa.Column("entry", sa.BigInteger(), nullable=False),
        sa.Column("anchor_id", sa.BigInteger(), nullable=False),
        sa.Column("network", sa.String(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["anchor_id"], ["anchors.id"], name=op.f("fk_receipts_anchor_id")),
        sa.ForeignKeyConstraint(
            ["entry"], ["ledger_entries.entry"], name=op.f("fk_receipts_entry")
        ),
        sa.PrimaryKeyConstraint("entry", "anchor_id", name=op.f("pk_receipts")),
    )
    op.create_index(op.f("ix_receipts_anchor_id"), "receipts", ["anchor_id"], unique=False)
    op.create_table(
        "anchor_versions",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("anchor_id", sa.BigInteger(), nullable=False),
        sa.Column("network", sa.String(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("transaction_id", sa.String(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=True),
        sa.Column("fee", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("sent_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["anchor_id", "network"],
            ["anchors.id", "anchors.network"],
            name=op.f("fk_anchor_versions_anchor_id_network"),
        ),
        sa.ForeignKeyConstraint(
            ["network", "key", "nonce", "anchor_id"],
            ["nonces.network", "nonces.key", "nonces.nonce", "nonces.anchor_id"],
            name=op.f("fk_anchor_versions_network_key_nonce_anchor_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_anchor_versions")),
        sa.UniqueConstraint(
            "network", "transaction_id", name=op.f("uq_anchor_versions_network_transaction_id")
        ),
    )
    op.create_index(
        op.f("ix_anchor_versions_anchor_id"), "anchor_versions", ["anchor_id"], unique=False
    )
