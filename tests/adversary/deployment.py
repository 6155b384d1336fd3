"""A whole deployment for the campaign: two runs, one of them archived, four networks, a database,
bundles, a stream.

A second one has the same runs by the same keys, with other values and another ledger: what is
spliced from there is signed, and fits wherever nothing ties it to the rest.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.bundle.archive import Archive
from provenance.bundle.writer import bundle_files
from provenance.errors import ProvenanceError
from provenance.evidence.from_database import DAMAGED, from_store
from provenance.formats.note import SignerKey
from provenance.formats.producers.certificate import sign_identity
from provenance.formats.record import Kind
from provenance.fsck.checker import Deployment as Checked
from provenance.fsck.checker import fsck
from provenance.stores.sql import SqlStore
from provenance.verify.report import VerificationReport
from provenance.verify.verifier import verify
from tests.support.fsck_world import MemoryReader
from tests.support.runs import run_of
from tests.support.verify_world import (
    OWN,
    SIGNER,
    Fields,
    World,
    config,
    ending,
    metrics,
    seal,
)

NETWORKS = ("ethereum", "bitcoin", "ipfs", "local")
KEYS = tuple(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (0x21, 0x22))
RUNS = tuple(run_of(0x01890A5DAC96 + n, key) for n, key in enumerate(KEYS))
IDENTITY = Ed25519PrivateKey.from_private_bytes(b"\x23" * 32)
ELSEWHERE = SignerKey.from_private_bytes("example.net/other", b"\x24" * 32)
P, Q = b"p" * 16, b"q" * 16
Files = dict[str, bytes]
Seen = frozenset[str]
"""What a checker says of evidence, a line each; of the untouched too (an equivocation is told)."""


def _begin(key: Ed25519PrivateKey, shift: float) -> list[Fields]:
    return [
        (Kind.DATA_TRAIN, None, {"algorithm": "blake3", "root": f"mth-sha256:{shift}"}),
        (Kind.DATA_TEST, None, {"algorithm": "blake3", "root": "mth-sha256:01"}),
        (Kind.ARCHITECTURE, None, {"type": "mlp"}),
        (Kind.WEIGHTS, None, {"algorithm": "blake3", "root": "mth-sha256:02"}),
        config(key, world_size=2),
        seal("before"),
    ]


def _leader(shift: float) -> list[Fields]:
    return [
        metrics(1, loss=0.7 + shift, accuracy=0.1),
        (Kind.STATE, 1, {"algorithm": "blake3", "root": "mth-sha256:1"}),
        (Kind.PRIVACY, 1, {"privacy": {"epsilon": 1.0 + shift, "delta": 1e-5}}),
        seal("checkpoint", 1),
        (Kind.STATE, 1, {"algorithm": "blake3", "root": "mth-sha256:too late"}),
        metrics(2, loss=0.5 + shift),
    ]


def _follower(shift: float) -> list[Fields]:
    told: list[Fields] = [metrics(1, loss=2.0 + shift), seal("checkpoint", 1), metrics(2, loss=1.0)]
    return [*told, (Kind.RUN_END, None, {"events": len(told), "reason": "finished"})]


@dataclass
class Deployment:
    """Built at once, in ``base``; nothing changes it afterwards.

    Attributes:
        batches: Of both runs, in the order of the stream.
    """

    base: Path
    shift: float = 0.0
    signer: SignerKey = SIGNER
    batches: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base.mkdir(parents=True)
        self.world = World(NETWORKS, url=f"sqlite:///{self.database}", signer=self.signer)
        for run, key in zip(RUNS, KEYS, strict=True):
            self._record(run, key)
        row = Archive(self.archive).write(self.world.evidence(RUNS[1]), self.world.now)
        with self.world.store.transaction() as tx:
            tx.archive_run(row)
        self.world.store.close()
        with sqlite3.connect(self.database) as connection:  # the file is then all there is
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def _record(self, run: UUID, key: Ed25519PrivateKey) -> None:
        public = key.public_key().public_bytes_raw()
        options: dict[str, Any] = {"run": run, "key": key}
        options["identity"] = sign_identity(run, public, IDENTITY)
        begin, leader = _begin(key, self.shift), _leader(self.shift)
        follower = _follower(self.shift)
        whole = ending([*begin, *leader])
        self._take(self.world.batch(begin, **options))
        self._take(self.world.batch(follower[:2], producer=Q, rank=1, **options))
        self._take(self.world.batch(leader, first=len(begin), **options))
        self._take(self.world.batch([metrics(1, loss=9.0)], first=len(begin), **options))
        self._take(self.world.batch(follower[2:], producer=Q, rank=1, first=2, **options))
        at = len(begin) + len(leader)
        self._take(self.world.batch(whole[at:], first=at, **options))

    def _take(self, payload: bytes) -> None:
        self.batches.append(payload)
        self.world.ingest(payload)
        self.world.anchor()

    @property
    def database(self) -> Path:
        return self.base / "ledger.db"

    @property
    def archive(self) -> Path:
        return self.base / "archive"

    def bundle(self, run: UUID) -> Files:
        store = SqlStore.open(f"sqlite:///{self.database}", archive=self.archive)
        found = from_store(store, run, self.signer.verifier)
        store.close()
        return bundle_files(found)

    # --- who looks at it ------------------------------------------------------------------

    def verified(self, evidence: Any) -> VerificationReport:
        """With every pin that there is, and every node."""
        return verify(
            evidence,
            self.world.networks,
            verifier_key=self.signer.verifier,
            trust=OWN,
            now=self.world.now,
        )

    def look(self, database: Path) -> Seen:
        """What ``verify --all`` and ``fsck`` say of a database."""
        said: set[str] = set()
        try:
            store = SqlStore.open(f"sqlite:///{database}", archive=self.archive)
            try:
                for run in RUNS:
                    report = self.verified(from_store(store, run, self.signer.verifier))
                    said |= {f"{run}: {line}" for line in lines(report)}
            finally:
                store.close()
        except (ProvenanceError, *DAMAGED) as error:  # as `verify --all` has it
            said.add(str(error))
        readers = {
            name: MemoryReader(node.chain, name=name) for name, node in self.world.networks.items()
        }
        where = Checked(
            self.base / "spool", f"sqlite:///{database}", None, NETWORKS, self.signer.verifier,
            60.0, self.base / "journal.jsonl", self.archive,
        )  # fmt: skip
        try:
            checked = fsck(where, readers, self.world.now)
            said |= {f"fsck {finding}" for finding in checked.findings}
            said |= {f"fsck unchecked {line}" for line in checked.unchecked}
        except ProvenanceError as error:
            said.add(f"fsck {error}")
        return frozenset(said)


def lines(report: VerificationReport) -> Seen:
    """The word, what stands against it, and who stands behind the run."""
    return frozenset(
        {
            report.outcome,
            f"identity {report.standing}",
            *(f"{finding.subject}: {finding.problem}" for finding in report.findings),
            *report.verdict.missing,
        }
    )


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
