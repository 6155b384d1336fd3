"""Makes the golden bundles of format version 1, the same bytes every time.

``python -m tests.vectors.make_golden FOLDER`` writes ``bundle-v1.zip`` and
``bundle-v1-withheld.zip``, which discloses metrics and the third epoch alone. Those in
``tests/vectors/`` were made so once, when the formats were frozen, and are never made again:
later releases may derive other files, and must verify those as they are. The keys are
published: never use them.

The run: three epochs, a checkpoint at the second, on a ledger that another run shares; an
event that was signed twice, a hash of weights that came too late for its checkpoint; anchors
on all four networks.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery
from provenance.anchor.publish import publish
from provenance.bundle.writer import write_bundle
from provenance.capture.keys import RunKeys
from provenance.chains.local import LocalNetwork
from provenance.evidence.disclosure import withhold
from provenance.evidence.from_database import from_store
from provenance.evidence.run_evidence import RunEvidence
from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.tensors import state_digest
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.note import SignerKey
from provenance.formats.producers.batch import sign_batch
from provenance.formats.producers.certificate import run_id, sign_identity
from provenance.formats.producers.statement import chain_on, chain_start
from provenance.formats.record import Kind, record_digest
from provenance.ledger.ingest import ingest
from provenance.ledger.seal import SealPolicy
from provenance.ports.transport import Delivery
from provenance.settings import LocalSettings, RetrySettings
from provenance.stores.sql import SqlStore
from tests.vectors.paper_chains import PaperBitcoin, PaperEthereum, PaperIpfs

GOLDEN = Path(__file__).parent / "bundle-v1.zip"
WITHHELD = Path(__file__).parent / "bundle-v1-withheld.zip"
DISCLOSED = ("metrics", "training/epoch/3", "late")
KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
RUN, OTHER = (run_id(PUBLIC, time) for time in (0x0192F0C12345, 0x0192F0C12346))
IDENTITY = sign_identity(RUN, PUBLIC, Ed25519PrivateKey.from_private_bytes(b"\x06" * 32))
LEDGER_SEED = b"\x05" * 32
LEDGER = SignerKey.from_private_bytes("example.org/ledger", LEDGER_SEED)
START = 1_760_000_000
NETWORKS = ("ethereum", "bitcoin", "ipfs", "local")
Fields = tuple[Kind, int | None, dict[str, Any]]


class _Transport:
    def ack(self, deliveries: object) -> None: ...

    def publish_acknowledged(self, run: UUID, upto: object, generation: object) -> None: ...


def _state(step: int) -> dict[str, Any]:
    weight = (np.arange(6, dtype="<f4").reshape(2, 3) - step) / 8
    return state_digest({"layer.weight": weight, "steps": np.array(step, "<i8")}).as_fields()


def _before() -> list[Fields]:
    train = (np.arange(24, dtype="<f4").reshape(8, 3), np.arange(8, dtype="<i8") % 2)
    return [
        (Kind.DATA_TRAIN, None, dataset_digest(train).as_fields()),
        (Kind.DATA_TEST, None, dataset_digest([{"text": "näive", "label": 1}]).as_fields()),
        (Kind.ARCHITECTURE, None, {"framework": "example", "class": "example.Net"}),
        (Kind.WEIGHTS, None, _state(0)),
        (
            Kind.CONFIG,
            None,
            {
                "public_key": PUBLIC.hex(),
                "hash_algorithm": "blake3",
                "world_size": 1,
                "code": {"commit": "c0" * 20, "dirty": False},
                "environment": {"python": "3.11.0", "packages": {"numpy": "2.0.0"}},
                "parent": None,
                "training": {"epochs": 3, "learning_rate": 0.001},
            },
        ),
        _seal("before"),
    ]


def _seal(phase: str, epoch: int | None = None) -> Fields:
    return (Kind.SEAL, epoch, {"phase": phase, "epoch": epoch, "anchor": True})


def _training() -> list[Fields]:
    made: list[Fields] = []
    for epoch in (1, 2, 3):
        values = {"loss": [0.7, float("nan"), 0.125][epoch - 1], "tokens": epoch * 2**55}
        made.append((Kind.METRICS, epoch, {"metrics": values}))
        made.append((Kind.PRIVACY, epoch, {"privacy": {"epsilon": 0.5 * epoch, "delta": 1e-05}}))
        if epoch != 2:
            made.append((Kind.STATE, epoch, _state(epoch)))
        else:
            made += [_seal("checkpoint", 2), (Kind.STATE, 2, _state(2))]  # too late for it
    made += [
        (Kind.RESULTS, None, {"results": {"accuracy": 0.9}, "epochs": 3}),
        _seal("after"),
    ]
    return made


def _records(events: list[Fields], first: int, run: UUID, name: bytes) -> list[bytes]:
    header = SegmentHeader(run, name, 0, 1, 0)
    salt = RunKeys(run, KEY.private_bytes_raw()).salt
    return [
        record_of(Event(seq, kind, epoch, 0, (START + seq) * 10**9, fields), header, salt).encode()
        for seq, (kind, epoch, fields) in enumerate(events, first)
    ]


def _batch(
    events: list[Fields], before: list[Fields], *, run: UUID = RUN, producer: int = 1
) -> bytes:
    """Events behind those that the producer wrote before."""
    name = bytes([producer]) * 16
    certificate, key = RunKeys(run, KEY.private_bytes_raw()).producer(name, 0)
    digests = map(record_digest, _records(before, 0, run, name))
    return sign_batch(
        certificate,
        key,
        len(before),
        chain_on(chain_start(run, name), digests),
        _records(events, len(before), run, name),
        IDENTITY if run == RUN else None,
    )


def evidence(anchors: Path) -> RunEvidence:
    """The run's evidence, from a database that lived as short as this call.

    Args:
        anchors: The local network's file, to be made.
    """
    store = SqlStore.open("sqlite://")
    policy = SealPolicy(NETWORKS, LEDGER, grace_s=60.0)
    ticks = count(START + 100)
    owners = count()
    local = LocalNetwork(LocalSettings(path=anchors), LEDGER_SEED, lambda: float(START + 90))
    networks = (PaperEthereum(), PaperBitcoin(), PaperIpfs(), local)

    def bring(*payloads: bytes) -> None:
        deliveries = [Delivery(str(at), payload) for at, payload in enumerate(payloads)]
        ingest(_Transport(), store, policy, deliveries, float(next(ticks)))  # type: ignore[arg-type]  # all of a transport that ingest uses

    def anchor() -> None:
        for network in networks:
            for work in (publish, confirm):
                now, owner = float(next(ticks)), f"owner-{next(owners)}"
                clock, retry = partial(float, now + 60.0), RetrySettings()
                work(AnchorDelivery(store, network, clock, owner, 60.0, retry, lambda: 0.0))
            for _ in range(60):
                next(ticks)

    before, rest = _before(), _training()
    other = _batch(_before(), [], run=OTHER, producer=2)
    bring(_batch(before, []), other)
    anchor()
    end = (Kind.RUN_END, None, {"events": len(before) + len(rest), "reason": "finished"})
    first, later = rest[:5], rest[5:]
    bring(_batch(first, before))
    bring(_batch([(Kind.METRICS, 1, {"metrics": {"loss": 0.1}})], before))  # a second value
    bring(_batch([*later, end], [*before, *first]))
    anchor()
    found = from_store(store, RUN, LEDGER.verifier)
    store.close()
    return found


def make(folder: Path) -> None:
    """Write both bundles."""
    with tempfile.TemporaryDirectory() as scratch:
        found = evidence(Path(scratch) / "anchors.jsonl")
    write_bundle(found, folder / GOLDEN.name, ots=True)
    write_bundle(withhold(found, DISCLOSED), folder / WITHHELD.name, ots=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
