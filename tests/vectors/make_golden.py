"""Makes the golden bundles of format version 1, the same bytes every time.

``python -m tests.vectors.make_golden FOLDER`` writes them all. Those in ``tests/vectors/`` were
made so once, and are never made again: later releases may derive other files, and must verify
those as they are. The keys are published: never use them.

``bundle-v1.zip``: three epochs, a checkpoint at the second, on a ledger that another run shares; an
event that was signed twice, a hash of weights that came too late for its checkpoint; anchors
on all four networks. ``bundle-v1-withheld.zip`` discloses metrics and the third epoch alone.

``bundle-v1-ranks.zip``: two ranks, of which one is started again; steps, an artifact, a note, the
budgets of an accountant. ``bundle-v1-launch.zip``: the run of one rank of a launch alone, which
failed, with weights that could not be hashed. Both on the local file alone.

``bundle-v1-items.zip``: a run with item sets, on the local file; ``items-v1-proof.json`` that none
of the test data's items is in its train data.

``bundle-v1-approved.zip``: a run on Ethereum whose final root two persons approved.

``bundle-v1-hidden.zip``: accuracies that records commit to, and three proofs about them.

``bundle-v1-host.zip``: a run whose host's TPM quoted at its start and end.

``bundle-v1-child.zip``: an adapter of the run of ``bundle-v1.zip``, which also names a model; on
the local file of another ledger.

``bundle-v1-runs.zip``: two seeds that were drawn from a block, and a random one; and the roll of
its ledger, which has a run that nobody finished.

Over 400 lines: every golden bundle.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import count
from math import inf
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.anchor.conditions import Condition
from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery
from provenance.anchor.publish import publish
from provenance.approvals.anchoring import AnchoringApprovals, add, take, waiting
from provenance.bundle.writer import write_bundle
from provenance.capture.keys import RunKeys
from provenance.capture.ship.commitments import Committer
from provenance.chains.local import LocalNetwork
from provenance.evidence.disclosure import withhold
from provenance.evidence.from_database import from_store
from provenance.evidence.run_evidence import RunEvidence
from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.tensors import state_digest
from provenance.formats.approval import sign
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.item_set import ItemProof
from provenance.formats.note import SignerKey
from provenance.formats.producers.batch import sign_batch
from provenance.formats.producers.certificate import run_id, sign_identity
from provenance.formats.producers.statement import chain_on, chain_start
from provenance.formats.record import Kind, record_digest
from provenance.items.folder import ItemFolder
from provenance.items.proving import owned_set, prove
from provenance.ledger.ingest import ingest
from provenance.ledger.seal import SealPolicy
from provenance.ports.transport import Delivery
from provenance.proofs.beacon import Beacon, draw_seed
from provenance.proofs.bulletproofs.commitment import opening_of
from provenance.proofs.renyi import RenyiAccountant
from provenance.roll.from_database import roll_of
from provenance.roll.roll import FILE
from provenance.settings import ApprovalSettings, CommitmentSettings, LocalSettings, RetrySettings
from provenance.stores.sql import SqlStore
from provenance.zk.prove import find_number
from provenance.zk.statement import Statement
from tests.vectors.make_host import host_example
from tests.vectors.paper_chains import PaperBitcoin, PaperEthereum, PaperIpfs, block_header

GOLDEN = Path(__file__).parent / "bundle-v1.zip"
WITHHELD = Path(__file__).parent / "bundle-v1-withheld.zip"
RANKS = Path(__file__).parent / "bundle-v1-ranks.zip"
LAUNCH = Path(__file__).parent / "bundle-v1-launch.zip"
ITEMS = Path(__file__).parent / "bundle-v1-items.zip"
ITEMS_PROOF = Path(__file__).parent / "items-v1-proof.json"
TEST_ITEMS = [{"label": at % 2, "text": f"test {at}"} for at in range(10)]
CHILD = Path(__file__).parent / "bundle-v1-child.zip"
APPROVED = Path(__file__).parent / "bundle-v1-approved.zip"
HIDDEN = Path(__file__).parent / "bundle-v1-hidden.zip"
RUNS = Path(__file__).parent / "bundle-v1-runs.zip"
HOST = Path(__file__).parent / "bundle-v1-host.zip"
DISCLOSED = ("metrics", "training/epoch/3", "late")
KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
RUN, OTHER, SHARED, LAUNCHED, SILENT, ADAPTER, SEEDED = (
    run_id(PUBLIC, 0x0192F0C12345 + n) for n in range(7)
)
ASKED = run_id(PUBLIC, 0x0192F0C12445)
HOSTED = run_id(PUBLIC, 0x0192F0C12446)
IDENTITY = sign_identity(RUN, PUBLIC, Ed25519PrivateKey.from_private_bytes(b"\x06" * 32))
LEDGER_SEED = b"\x05" * 32
LEDGER = SignerKey.from_private_bytes("example.org/ledger", LEDGER_SEED)
START = 1_760_000_000
NETWORKS = ("ethereum", "bitcoin", "ipfs", "local")
Fields = tuple[Kind, int | None, dict[str, Any]]


class _Transport:
    def ack(self, deliveries: object) -> None: ...

    def generation(self) -> None: ...

    def publish_acknowledged(self, run: UUID, upto: object, generation: object) -> None: ...


def _state(step: int, **more: Any) -> dict[str, Any]:
    weight = (np.arange(6, dtype="<f4").reshape(2, 3) - step) / 8
    own = {"layer.weight": weight, "steps": np.array(step, "<i8")}
    return state_digest({**own, **more}).as_fields()


def _adapter(step: int) -> dict[str, Any]:
    """Beside the weights of the third epoch."""
    pair = {"layer.lora_A.weight": (1, 3), "layer.lora_B.weight": (2, 1)}
    return _state(3, **{name: np.full(shape, step, "<f4") for name, shape in pair.items()})


def _before(**config: Any) -> list[Fields]:
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
                **config,
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


def _records(
    events: list[Fields], keys: RunKeys, name: bytes, rank: int = 0, start: int = START
) -> list[bytes]:
    """All that a producer wrote, one a second."""
    header = SegmentHeader(keys.run, name, rank, 1, 0)
    return [
        record_of(
            Event(seq, kind, epoch, rank, (start + seq) * 10**9, fields), header, keys.salt
        ).encode()
        for seq, (kind, epoch, fields) in enumerate(events)
    ]


def _batch(
    events: list[Fields],
    before: list[Fields],
    *,
    run: UUID = RUN,
    producer: int = 1,
    rank: int = 0,
    start: int = START,
) -> bytes:
    """Events behind those that the producer wrote before, one a second."""
    name, keys = bytes([producer]) * 16, RunKeys(run, KEY.private_bytes_raw())
    records = _records([*before, *events], keys, name, rank, start)
    first = len(before)
    certificate, key = keys.producer(name, rank)
    chain = chain_on(chain_start(run, name), map(record_digest, records[:first]))
    identity = IDENTITY if run == RUN else None
    return sign_batch(certificate, key, first, chain, records[first:], identity)


class _Deployment:
    """A ledger on some networks, whose database lives as short as this object.

    Args:
        anchors: The local network's file, to be made.
        seed: The ledger's key.
    """

    def __init__(self, anchors: Path, networks: tuple[str, ...], seed: bytes = LEDGER_SEED) -> None:
        self.ledger = SignerKey.from_private_bytes(LEDGER.verifier.name, seed)
        local = LocalNetwork(LocalSettings(path=anchors), seed, lambda: float(START + 90))
        known: dict[str, Any] = {
            each.name: each for each in (PaperEthereum(), PaperBitcoin(), PaperIpfs(), local)
        }
        self.networks = [known[name] for name in networks]
        self.store = SqlStore.open("sqlite://")
        self.policy = SealPolicy(networks, self.ledger, grace_s=60.0)
        self.ticks, self.owners = count(START + 100), count()
        self.conditions: tuple[Condition, ...] = ()

    def bring(self, *payloads: bytes) -> None:
        deliveries = [Delivery(str(at), payload) for at, payload in enumerate(payloads)]
        now = float(next(self.ticks))
        ingest(_Transport(), self.store, self.policy, deliveries, lambda: now)  # type: ignore[arg-type]  # all of a transport that ingest uses

    def anchor(self) -> None:
        for network in self.networks:
            for work in (publish, confirm):
                now, owner = float(next(self.ticks)), f"owner-{next(self.owners)}"
                clock, retry = partial(float, now + 60.0), RetrySettings()
                how = (owner, 60.0, retry, lambda: 0.0, self.conditions)
                work(AnchorDelivery(self.store, network, clock, *how))
            for _ in range(60):
                next(self.ticks)

    def evidence(self, run: UUID) -> RunEvidence:
        found = from_store(self.store, run, self.ledger.verifier)
        self.store.close()
        return found


def evidence(anchors: Path) -> RunEvidence:
    """Of the run on all networks."""
    made = _Deployment(anchors, NETWORKS)
    before, rest = _before(), _training()
    other = _batch(_before(), [], run=OTHER, producer=2)
    made.bring(_batch(before, []), other)
    made.anchor()
    end = _end([*before, *rest], None)
    first, later = rest[:5], rest[5:]
    made.bring(_batch(first, before))
    made.bring(_batch([(Kind.METRICS, 1, {"metrics": {"loss": 0.1}})], before))  # a second value
    made.bring(_batch([*later, end], [*before, *first]))
    made.anchor()
    return made.evidence(RUN)


def _end(events: list[Fields], state: str | None, reason: str = "finished") -> Fields:
    fields = {"events": len(events), "reason": reason}
    return (Kind.RUN_END, None, fields if state is None else {**fields, "state": state})


def _epoch(epoch: int, rank: int) -> list[Fields]:
    history = [(1.1, 0.125, 8 * epoch)]
    names = ("noise_multiplier", "sample_rate", "steps")
    budget = {
        "accountant": "rdp",
        "delta": 1e-05,
        "epsilon": round(RenyiAccountant().epsilon(history, 1e-05), 9),
        "history": [dict(zip(names, steps, strict=True)) for steps in history],
    }
    return [
        (Kind.METRICS, epoch, {"metrics": {"loss": 1 / epoch + rank}}),
        (Kind.PRIVACY, epoch, {"privacy": budget}),
    ]


def ranks_evidence(anchors: Path) -> RunEvidence:
    """Of the run of two ranks."""
    made, batch = _Deployment(anchors, ("local",)), partial(_batch, run=SHARED)
    series = [{"metrics": {"loss": [1.0, 0.5]}, "step": [0, 1]}]
    until = "2025-10-09T08:53:28.000000Z"
    leader = [
        *_before(world_size=2),
        (Kind.STEPS, None, {"series": series, "steps": 2, "until": until}),
        *_epoch(1, 0),
        (Kind.STATE, 1, _state(1)),
        _seal("checkpoint", 1),
        (Kind.ARTIFACT, None, {"name": "plot.png", "digest": f"blake3:{'00' * 32}", "bytes": 9}),
        (Kind.NOTE, None, {"text": "looks well", "tags": ["kept"]}),
        *_epoch(2, 0),
        (Kind.RESULTS, None, {"results": {"accuracy": 0.9}, "epochs": 2}),
        _seal("after"),
    ]
    first = [*_epoch(1, 1), _seal("checkpoint", 1)]
    first.append(_end(first, "interrupted", "SIGTERM"))
    again = _epoch(2, 1)
    again.append(_end(again, "finished"))
    made.bring(
        batch([*leader, _end(leader, "finished")], [], producer=3),
        batch(first, [], producer=4, rank=1),
        batch(again, [], producer=5, rank=1, start=START + 10),
    )
    made.anchor()
    return made.evidence(SHARED)


def launched_evidence(anchors: Path) -> RunEvidence:
    """Of the run of one rank of a launch."""
    made = _Deployment(anchors, ("local",))
    launch = {"by": "torchrun", "rank": 1, "world_size": 4, "id": "1a" * 32}
    lost = {"dropped": 1, "reason": "weights not recorded: no tensor", "what": "weights"}
    events = [
        *_before(launch=launch),
        (Kind.METRICS, 1, {"metrics": {"loss": 1.0}}),
        (Kind.GAP, 1, lost),
        _seal("checkpoint", 1),
    ]
    made.bring(_batch([*events, _end(events, "failed", "OSError")], [], run=LAUNCHED, producer=6))
    made.anchor()
    return made.evidence(LAUNCHED)


def items_evidence(scratch: Path) -> tuple[RunEvidence, ItemProof]:
    """Of a run over texts, of which one stands twice, and the proof about its test data."""
    made, kept = _Deployment(scratch / "items.jsonl", ("local",)), ItemFolder(scratch, ASKED)
    train = [{"label": at % 2, "text": f"näive {at % 50}"} for at in range(51)]
    events = _before()
    for at, (split, rows) in enumerate((("train", train), ("test", TEST_ITEMS))):
        key = kept.path(split, "key")  # type: ignore[arg-type]  # one of the two
        key.parent.mkdir(parents=True, exist_ok=True)
        key.touch(0o600)
        key.write_text(f"{bytes([8 + at] * 32).hex()}\n")
        kind, _, fields = events[at]
        own = kept.record(split, rows)  # type: ignore[arg-type]  # one of the two
        fields = {**dataset_digest(rows).as_fields(), "items": own.as_fields()}
        events[at] = kind, None, fields
    events += [(Kind.METRICS, 1, {"metrics": {"loss": 1.0}}), _seal("after")]
    made.bring(_batch([*events, _end(events, "finished")], [], run=ASKED, producer=7))
    made.anchor()
    found = made.evidence(ASKED)
    asked = ((str(at), row) for at, row in enumerate(TEST_ITEMS))
    _, proof = prove(owned_set(found, kept, "train"), kept, "not-in", asked)
    assert proof is not None
    return found, proof


def approved_evidence(anchors: Path) -> RunEvidence:
    """Of a run whose final root two of three approved."""
    made = _Deployment(anchors, ("ethereum",))
    keys = [Ed25519PrivateKey.from_private_bytes(bytes([at]) * 32) for at in (2, 3, 4)]
    by = {f"person {at}": key.public_key().public_bytes_raw().hex() for at, key in enumerate(keys)}
    rule = ApprovalSettings(2, by, networks=("ethereum",))
    approvals = AnchoringApprovals(rule, LEDGER.verifier.vkey, lambda: float(START))
    made.conditions = (approvals,)
    events = [*_before(), (Kind.METRICS, 1, {"metrics": {"loss": 1.0}}), _seal("after")]
    events.append(_end(events, "finished"))
    made.bring(_batch(events, [], run=LAUNCHED, producer=6))
    made.anchor()
    with made.store.transaction() as tx:
        row = waiting(tx, "ethereum")
        assert row is not None
        envelope = take(approvals, tx, row, date(2027, 1, 31)).envelope
        assert envelope is not None
        add(approvals, tx, sign(sign(envelope, keys[0]), keys[2]), "approval")
    made.anchor()
    return made.evidence(LAUNCHED)


def host_evidence(anchors: Path) -> RunEvidence:
    """Of a run whose host's TPM quoted at both ends."""
    made, keys = _Deployment(anchors, ("local",)), RunKeys(HOSTED, KEY.private_bytes_raw())
    name = bytes([8]) * 16
    *events, mark = _before()
    for phase, then in (
        ("start", [mark, (Kind.METRICS, 1, {"metrics": {"loss": 1.0}})]),
        ("end", [_seal("after")]),
    ):
        written = map(record_digest, _records(events, keys, name))
        chain = chain_on(chain_start(HOSTED, name), written)
        events.append((Kind.HOST, None, host_example(HOSTED, PUBLIC, chain, phase)))
        events += then
    made.bring(_batch([*events, _end(events, "finished")], [], run=HOSTED, producer=8))
    made.anchor()
    return made.evidence(HOSTED)


def hidden_evidence(anchors: Path) -> RunEvidence:
    """Of a run whose accuracies nobody sees, with proofs about them."""
    made, producer = _Deployment(anchors, ("local",)), bytes([7]) * 16
    keys = RunKeys(SILENT, KEY.private_bytes_raw(), commitments=CommitmentSettings(("accuracy",)))
    committer = Committer(keys, producer, anchors)  # whose openings nobody keeps
    accuracies = {1: 0.5, 2: 0.91, 3: 0.91}
    epochs = [(Kind.METRICS, at, {"metrics": {"accuracy": a}}) for at, a in accuracies.items()]
    given: list[Fields] = [*_before(), *epochs, _seal("after")]
    events = [
        (kind, epoch, committer.committed(Event(seq, kind, epoch, 0, 0, fields)).fields)
        for seq, (kind, epoch, fields) in enumerate([*given, _end(given, "finished")])
    ]
    made.bring(_batch(events, [], run=SILENT, producer=7))
    made.anchor()
    evidence = made.evidence(SILENT)
    numbers = {epoch: find_number(evidence, "accuracy", str(epoch)) for epoch in accuracies}
    openings = {
        epoch: opening_of(keys.blinding, producer, len(_before()) + epoch - 1, "accuracy", value)
        for epoch, value in {1: 500_000, 2: 910_000, 3: 910_000}.items()
    }
    proved = {
        "at-least": Statement(numbers[3], at_least=900_000).prove(openings[3]),
        "between": Statement(numbers[1], 0, 1_000_000).prove(openings[1]),
        "equal": Statement(numbers[3], equals=numbers[2]).prove(openings[3], openings[2]),
    }
    attachments = {f"proofs/{name}.json": proof.encode() for name, proof in proved.items()}
    return replace(evidence, attachments=attachments)


def child_evidence(anchors: Path, root: bytes) -> RunEvidence:
    """Of a run that trained an adapter beside the weights of `RUN`, which has the root."""
    made = _Deployment(anchors, ("local",), b"\x04" * 32)
    run = {"run": str(RUN), "epoch": 3, "role": "adapter-of", "root": root.hex()}
    model = {"model": f"hf:example/net@{'0c' * 20}", "role": "merged", "algorithm": "blake3"}
    before = _before(parent=[run, {**model, "weights": _state(0)["root"]}])
    before[3] = (Kind.WEIGHTS, None, _adapter(0))
    events = [
        *before,
        (Kind.METRICS, 1, {"metrics": {"loss": 0.0625}}),
        (Kind.STATE, 1, _adapter(1)),
        (Kind.RESULTS, None, {"results": {"accuracy": 0.95}, "epochs": 1}),
        _seal("after"),
    ]
    end = _end(events, "finished")
    made.bring(_batch([*events, end], [], run=ADAPTER, producer=8, start=START + 200))
    made.anchor()
    return made.evidence(ADAPTER)


def seeded_evidence(anchors: Path) -> RunEvidence:
    """Of a run that drew seeds, with the roll of its ledger."""
    made = _Deployment(anchors, ("local",))
    block = Beacon("bitcoin", "regtest", 101, block_header(bytes(32), bytes(32), START - 600))
    drawn = [(draw_seed(SEEDED, draw, [block]), draw, [block.as_json()]) for draw in range(2)]
    seeds: list[Fields] = [
        (Kind.SEED, None, {"seed": seed, "draw": draw, "blocks": blocks})
        for seed, draw, blocks in [*drawn, (42, 2, [])]
    ]
    training = {"epochs": 1, "seed": drawn[0][0]}
    events = [seeds[0], *_before(training=training), *_epoch(1, 0), *seeds[1:]]
    events += [(Kind.RESULTS, None, {"results": {"accuracy": 0.9}, "epochs": 1}), _seal("after")]
    made.bring(_batch(_before(), [], run=OTHER, producer=2))
    made.bring(_batch([*events, _end(events, "finished")], [], run=SEEDED, producer=8))
    made.anchor()
    with made.store.snapshot() as tx:
        roll = roll_of(tx, tx.ledger_size(), float(START), inf)
    return replace(made.evidence(SEEDED), attachments={FILE: roll.encode()})


def make(folder: Path) -> None:
    """Write all bundles."""
    with tempfile.TemporaryDirectory() as scratch:
        found = evidence(Path(scratch) / "all.jsonl")
        ranks = ranks_evidence(Path(scratch) / "ranks.jsonl")
        launched = launched_evidence(Path(scratch) / "launched.jsonl")
        items, proof = items_evidence(Path(scratch))
        approved = approved_evidence(Path(scratch) / "approved.jsonl")
        hidden = hidden_evidence(Path(scratch) / "hidden.jsonl")
        hosted = host_evidence(Path(scratch) / "hosted.jsonl")
        seeded = seeded_evidence(Path(scratch) / "seeded.jsonl")
        child = child_evidence(Path(scratch) / "child.jsonl", found.entries[-1].root)
    write_bundle(found, folder / GOLDEN.name, ots=True)
    write_bundle(withhold(found, DISCLOSED), folder / WITHHELD.name, ots=True)
    write_bundle(ranks, folder / RANKS.name)
    write_bundle(launched, folder / LAUNCH.name)
    write_bundle(items, folder / ITEMS.name)
    (folder / ITEMS_PROOF.name).write_bytes(proof.encode())
    write_bundle(approved, folder / APPROVED.name)
    write_bundle(hidden, folder / HIDDEN.name)
    write_bundle(hosted, folder / HOST.name)
    write_bundle(child, folder / CHILD.name)
    write_bundle(seeded, folder / RUNS.name)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
