"""Makes the worked examples of docs/FORMAT.md.

``python -m tests.vectors.make_format`` (from the root of the repository) writes
``tests/vectors/format/`` and puts the same bytes into the tagged blocks of the document. The
tests call :func:`examples` and compare. Keys, salts and times are fixed: the keys here are
published, never use them.

Over 400 lines: every example of one document.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tempfile
import textwrap
from collections.abc import Mapping
from dataclasses import astuple, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.approvals.statement import Anchoring
from provenance.bundle.attachments.opentimestamps import from_ledger_root
from provenance.capture.keys import RunKeys
from provenance.chains.ethereum.attestations import ATTESTATIONS
from provenance.chains.ethereum.bitcoin_view import BITCOIN_ANCHOR, proof_of
from provenance.chains.ethereum.contract import store_call
from provenance.chains.local import LocalNetwork
from provenance.compliance.statement import ComplianceStatement
from provenance.compliance.statement import sign as sign_report
from provenance.evidence.sharing import sharing, state_at
from provenance.fingerprint.arrays import block_header, tensor_header
from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.elements import element_bytes
from provenance.fingerprint.file_tree import FileLeaf
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.shards import HeldState
from provenance.fingerprint.tensors import state_digest, tensor_digest
from provenance.formats import merkle
from provenance.formats.approval import TrustApproval, sign
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.dsse import Envelope
from provenance.formats.event import Event, SegmentHeader, frame, record_of
from provenance.formats.item_set import ItemProof
from provenance.formats.merkle import Frontier
from provenance.formats.note import SignerKey
from provenance.formats.opentimestamps.file import TimestampFile
from provenance.formats.producers.acknowledgement import sign_acknowledgement
from provenance.formats.producers.batch import SignedRange, open_batch, sign_batch
from provenance.formats.producers.certificate import run_id, sign_identity
from provenance.formats.producers.statement import (
    chain_on,
    chain_start,
    sign_statement,
    statement_digest,
)
from provenance.formats.receipt import AnchorProof, LedgerProof, Receipt
from provenance.formats.record import Kind, Phase, Record, canonical_json, record_digest, salt_for
from provenance.formats.run_tree.selection import DigestedRecord
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree
from provenance.formats.run_tree.walk import RunWalk
from provenance.formats.tlog.account import Account
from provenance.formats.tlog.fork import ForkProof, ForkSide
from provenance.formats.tlog.outcome import Outcome
from provenance.formats.tlog.proof import TlogProof
from provenance.items.folder import ItemFolder
from provenance.items.proving import StatedSet, prove
from provenance.ports.values import anchor_payload
from provenance.proofs.beacon import Beacon, draw_seed, sign_beacon
from provenance.proofs.bitcoin import double_sha256
from provenance.proofs.bulletproofs.commitment import Opening, opening_of
from provenance.proofs.bulletproofs.curve import generator
from provenance.proofs.ipfs.cid import raw_cid
from provenance.proofs.timelock.lock import After, private_key, release, seal
from provenance.roll.roll import Roll, RolledRun, config_digest, data_digest, seeds_of
from provenance.settings import LocalSettings
from provenance.zk.statement import Number, Statement
from tests.support.ledger_values import SealedEntry
from tests.vectors.make_host import host_example
from tests.vectors.make_owners import owners_examples
from tests.vectors.paper_chains import PaperBitcoin

HERE: Final = Path(__file__).parent / "format"
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "FORMAT.md"
BLOCK: Final = re.compile(r"```(hex|json|text) name=([a-z0-9-]+)\n(.*?)```", re.DOTALL)

PRODUCER: Final = bytes.fromhex("01" * 16)
RUN_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC: Final = RUN_KEY.public_key().public_bytes_raw()
RUN: Final = run_id(PUBLIC, 0x0192F0C12345)
KEYS: Final = RunKeys(RUN, b"\x07" * 32)
CERTIFICATE, PRODUCER_KEY = KEYS.producer(PRODUCER, 0)
IDENTITY: Final = Ed25519PrivateKey.from_private_bytes(b"\x06" * 32)
SALT_KEY: Final = KEYS.salt
WITNESS_SEED: Final = b"\x04" * 32
LEDGER: Final = SignerKey.from_private_bytes("example.org/ledger", b"\x05" * 32)
START_NS: Final = 1_760_000_000_000_000_000
GENERATORS: Final = ("blinding", "inner", "left/0", "left/127", "right/0", "right/127")
HEADER: Final = SegmentHeader(RUN, PRODUCER, 0, 1, 0)


def story() -> list[Event]:
    """A whole run of one epoch, as its one process writes it."""
    digest = state_digest({"w": np.array([1.5, -2.0], dtype="<f4")}, HashFactory("sha256"))
    fields: list[tuple[Kind, int | None, dict[str, Any]]] = [
        (
            Kind.DATA_TRAIN,
            None,
            dataset_digest(np.arange(6, dtype="<u1").reshape(3, 2)).as_fields(),
        ),
        (Kind.ARCHITECTURE, None, {"class": "example.Net", "framework": "example"}),
        (Kind.WEIGHTS, None, digest.as_fields()),
        (
            Kind.CONFIG,
            None,
            {
                "public_key": PUBLIC.hex(),
                "hash_algorithm": "sha256",
                "world_size": 1,
                "training": {"epochs": 1, "learning_rate": 0.001},
            },
        ),
        (Kind.SEAL, None, {"phase": "before", "epoch": None, "anchor": True}),
        (
            Kind.METRICS,
            1,
            {"metrics": {"loss": 0.25, "best": float("inf"), "tokens": 2**60, "é": float("nan")}},
        ),
        (Kind.PRIVACY, 1, {"privacy": {"delta": 1e-05, "epsilon": 1.2}}),
        (Kind.STATE, 1, digest.as_fields()),
        (Kind.RESULTS, None, {"results": {"accuracy": 0.9}, "epochs": 1}),
        (Kind.SEAL, None, {"phase": "after", "epoch": None, "anchor": True}),
        (Kind.RUN_END, None, {"events": 10, "reason": "finished"}),
    ]
    return [
        Event(seq, kind, epoch, 0, START_NS + seq * 1_000_000_000, body)
        for seq, (kind, epoch, body) in enumerate(fields)
    ]


def records() -> list[Record]:
    return [record_of(event, HEADER, SALT_KEY) for event in story()]


def tree(phase: Phase) -> MLProvenanceMerkleTree:
    """As sealed: at ``before`` the later records are not there yet."""
    coverage = ((PRODUCER, 5 if phase is Phase.BEFORE else 11),)
    walk = RunWalk(RUN, digested(), [SealedEntry(0, phase, None, coverage)])
    return MLProvenanceMerkleTree(walk.leaves or (), walk.seals[0].producers)


def digested() -> list[DigestedRecord]:
    return [DigestedRecord(r, record_digest(r.encode())) for r in records()]


def report_statement() -> str:
    """Of two files, ``a`` and ``b``, about the example run."""
    stated = ComplianceStatement(
        run=RUN,
        root=tree(Phase.AFTER).root,
        seal="after",
        framework="eu-ai-act",
        version="1",
        table=hashlib.sha256(b"table").digest(),
        outcome="consistent",
        files={"report.html": hashlib.sha256(b"a").hexdigest(),
               "report.json": hashlib.sha256(b"b").hexdigest()},
    )  # fmt: skip
    return sign_report(stated, IDENTITY).decode() + "\n"


def checkpoint() -> dict[str, object]:
    """One that was sealed when the record of seq 7, weights, had not arrived."""
    sealed = SealedEntry(0, Phase.CHECKPOINT, 1, ((PRODUCER, 7),))
    walk = RunWalk(RUN, digested(), [sealed, SealedEntry(1, Phase.AFTER, None, ((PRODUCER, 11),))])
    roots, (late,) = [seal.root for seal in walk.seals if seal.root is not None], walk.late
    return {
        "epoch": 1,
        "coverage": {PRODUCER.hex(): 7},
        "root": roots[0].hex(),
        "late": late.digest.hex(),
        "root_after": roots[1].hex(),
    }


def chain(count: int) -> bytes:
    """That of the producer's first records."""
    return chain_on(chain_start(RUN, PRODUCER), [item.digest for item in digested()[:count]])


def batch() -> bytes:
    """The last two records, and who stands behind the run."""
    data = [record.encode() for record in records()[9:]]
    return sign_batch(
        CERTIFICATE, PRODUCER_KEY, 9, chain(9), data, sign_identity(RUN, PUBLIC, IDENTITY)
    )


def statement() -> dict[str, object]:
    """The producer's chain, and its statements over what the two seals cover."""
    return {
        "digests": [item.digest.hex() for item in digested()],
        "chains": [chain(count).hex() for count in range(12)],
        "statements": [
            {
                "count": count,
                "signature": sign_statement(
                    RUN, PRODUCER, count, chain(count), PRODUCER_KEY
                ).signature.hex(),
                "digest": statement_digest(RUN, PRODUCER, count, chain(count)).hex(),
            }
            for count in (5, 11)
        ],
    }


def ledger() -> list[bytes]:
    """Five entries; 1 and 3 are the example run's."""
    others = [hashlib.sha256(f"another run {at}".encode()).digest() for at in range(3)]
    before, after = tree(Phase.BEFORE).root, tree(Phase.AFTER).root
    return [others[0], before, others[1], after, others[2]]


def note(size: int) -> str:
    return sign_head(Head(LEDGER.name, size, merkle.root(ledger()[:size])), LEDGER)


def fork() -> str:
    """The ledger at size 4, and one of size 2 whose second entry is another."""
    entries = ledger()
    other = merkle.root([entries[0], bytes(32)])
    sides = (
        ForkSide(
            note(4), merkle.root(entries[:2]), merkle.MerkleTree(entries[:4]).consistency_proof(2)
        ),
        ForkSide(sign_head(Head(LEDGER.name, 2, other), LEDGER), other, ()),
    )
    return ForkProof(LEDGER.verifier, 2, sides).encode().decode() + "\n"


def account() -> Account:
    """Of entry 3, the run's ``after``."""
    nodes = tree(Phase.AFTER)
    proof, root = nodes.proof("producers/0"), nodes.proof("producers")
    place = proof.levels[0]
    last = records()[10]
    return Account(
        RUN, Phase.AFTER, None, PRODUCER, 11, chain(10),
        place.index, place.size, place.proof, root.levels[0].proof, last,
    )  # fmt: skip


def roll() -> Roll:
    """Of the ledger at size 4: the example run, and two that nobody finished."""
    training = records()[3].body["training"]
    others = [run_id(PUBLIC, 0x0192F0C10000 + at) for at in range(2)]
    own = RolledRun(
        RUN, (1, 3), "finished", None, data_digest(records()), config_digest(training),
        seeds_of(training), {"accuracy": 0.9},
    )  # fmt: skip
    other = RolledRun(others[1], (2,), "lost", "try 2", config=config_digest({}), seeds={"seed": 7})
    return Roll(4, tuple(ledger()[:4]), (RolledRun(others[0], (0,), "failed"), own, other))


def outcome() -> Outcome:
    """Of the example run, a day behind its seal."""
    networks: dict[str, int | None] = {"bitcoin": 101, "local": None}
    return Outcome(
        LEDGER.verifier.vkey, RUN, ledger()[3], 1, "verified", (), networks, 1_760_086_400,
        "ml-provenance 0.1.0",
    )  # fmt: skip


def time_lock() -> dict[str, tuple[str, str]]:
    """Of the example's record of seq 5, by three approvers, and the shares of two of them."""
    keys = {name: private_key(bytes([at]) * 32) for at, name in enumerate(("a", "b", "c"), 1)}
    public = {name: key.public_key().public_bytes_raw() for name, key in keys.items()}
    after = After("bitcoin", {"chain": "regtest"}, 500)
    drawn = iter(bytes([0x10 * at]) * 32 for at in range(1, 4))
    record = records()[5].encode()
    lock = seal(RUN, ledger()[3], after, 2, public, [record], lambda size: next(drawn)[:size])
    shares = {at: release(lock, keys[name]) for at, name in ((1, "a"), (3, "c"))}
    texts = {f"timelock-share-{at}": share.encode() for at, share in shares.items()}
    return {name: ("json", data.decode() + "\n")
            for name, data in {"timelock": lock.encode(), **texts}.items()}  # fmt: skip


def attest_call() -> bytes:
    """That the example's ``after`` root is verified."""
    registrar = "0x5fbdb2315678afecb367f032d93f642f64180aa3"
    return ATTESTATIONS.call_of("attest", registrar, ledger()[3], 1)


def beacon() -> Beacon:
    """The block that the example anchor lies in."""
    told, on_bitcoin = bitcoin()
    header = bytes.fromhex(told["header"])
    return Beacon("bitcoin", told["chain"], on_bitcoin.anchor.height or 0, header)


def drawn() -> dict[str, Any]:
    """The body of the third seed that the run drew from it."""
    block = beacon()
    return {"seed": draw_seed(RUN, 2, [block]), "draw": 2, "blocks": [block.as_json()]}


def approval() -> str:
    """Of the head at 4, which makes the example run final, by two persons."""
    root = merkle.root(ledger()[:4])
    chain = {"chain_id": 11155111}
    runs = ((RUN, ledger()[3]),)
    day = date(2027, 1, 31)
    stated = Anchoring(LEDGER.verifier.vkey, "ethereum", chain, 4, root, 0, runs, day)
    envelope = Envelope(stated.encode(), {})
    for seed in (b"\x02", b"\x03"):
        envelope = sign(envelope, Ed25519PrivateKey.from_private_bytes(seed * 32))
    return envelope.encode().decode() + "\n"


def trust_approval() -> str:
    """Of a section with the first approver's key as a trainer's."""
    key = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
    section: dict[str, Any] = {"trainers": {"research": key.public_key().public_bytes_raw().hex()}}
    approval = TrustApproval.of(section, date(2027, 1, 31))
    return sign(Envelope(approval.encode(), {}), key).encode().decode() + "\n"


def local_line(payload: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "anchors.jsonl"
        network = LocalNetwork(LocalSettings(path=path), b"\x05" * 32, lambda: 1_760_000_100.0)
        network.broadcast(network.sign(network.draft(payload), None))
        return path.read_bytes()


def cosigned(size: int) -> str:
    """The head with the line of a witness (C2SP tlog-cosignature), made by hand."""
    name, time = "witness.example.com/w1", 1_760_000_200
    key = Ed25519PrivateKey.from_private_bytes(WITNESS_SEED)
    public = b"\x04" + key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(name.encode() + b"\n" + public).digest()[:4]
    text = note(size).rpartition("\n\n")[0] + "\n"
    signed = key.sign(f"cosignature/v1\ntime {time}\n{text}".encode())
    blob = base64.b64encode(key_id + time.to_bytes(8, "big") + signed).decode()
    return note(size) + f"— {name} {blob}\n"


def bitcoin() -> tuple[dict[str, Any], Receipt]:
    """Evidence of the head at size 4 on a regtest chain, and the receipt around it."""
    base, network = receipt(), PaperBitcoin()
    version = network.sign(network.draft(base.anchor.payload), None)
    network.broadcast(version)
    seen = network.observe(version)
    told = network.evidence(version, seen)
    anchor = replace(
        base.anchor,
        network="bitcoin",
        transaction_id=version.transaction_id,
        height=seen.height,
        block_hash=seen.block_hash,
        depth=seen.depth,
        block_time=seen.block_time,
    )
    return told, replace(base, anchor=anchor, evidence=told)


def view_call(told: dict[str, Any], root: bytes) -> bytes:
    """Calldata that has the evidence checked by the BitcoinAnchor contract."""
    proof = astuple(proof_of({**told, "headers": []}))
    return BITCOIN_ANCHOR.call_of("anchored", root, proof, 2)


def view_answer(told: dict[str, Any]) -> bytes:
    """Block hash, time and work: each block of regtest takes two hashes on average."""
    header = bytes.fromhex(told["header"])
    time = int.from_bytes(header[68:72], "little")
    return double_sha256(header)[::-1] + time.to_bytes(32, "big") + (2).to_bytes(32, "big")


def receipt() -> Receipt:
    entries = ledger()
    root = merkle.root(entries[:4])
    return Receipt(
        run=RUN,
        phase=Phase.AFTER,
        epoch=None,
        root=entries[3],
        ledger=LedgerProof(3, 4, root, merkle.MerkleTree(entries[:4]).inclusion_proof(3)),
        head=note(4),
        anchor=AnchorProof(
            network="ipfs",
            state="final",
            transaction_id=str(raw_cid(anchor_payload(root))),
            payload=anchor_payload(root),
            height=None,
            block_hash=None,
            depth=1,
            block_time=None,
            confirmed_at=1_760_000_100.0,
        ),
        evidence={
            "type": "ipfs",
            "transaction_id": str(raw_cid(anchor_payload(root))),
            "block": anchor_payload(root).hex(),
        },
    )


def items() -> tuple[bytes, Record, ItemProof]:
    """An item, a record with an item set, and a proof that a row is not in it."""
    rows = np.arange(12, dtype="<u1").reshape(6, 2)
    with tempfile.TemporaryDirectory() as scratch:
        folder = ItemFolder(Path(scratch), RUN)
        folder.path("train", "key").parent.mkdir(parents=True)
        folder.path("train", "key").touch(0o600)
        folder.path("train", "key").write_text(f"{'08' * 32}\n")
        own = folder.record("train", rows)
        body = {**dataset_digest(rows).as_fields(), "items": own.as_fields()}
        record = record_of(Event(0, Kind.DATA_TRAIN, None, 0, START_NS, body), HEADER, SALT_KEY)
        digest = record_digest(record.encode())
        stated = StatedSet(RUN, "train", "data/train/0", digest, own, is_table=False)
        _, proof = prove(stated, folder, "not-in", [("[9,9]", [9, 9])])
    assert proof is not None
    return element_bytes(rows[0], "row 0"), record, proof


def parents() -> list[dict[str, Any]]:
    """What a run merged from a run and a model of the Hub names."""
    weights = {"w": np.array([0.5, 0.0], dtype="<f4")}
    return [
        {"run": str(RUN), "epoch": 1, "role": "merged", "root": tree(Phase.AFTER).root.hex()},
        {
            "model": "hf:example/net@0123456789abcdef0123456789abcdef01234567",
            "role": "merged",
            "algorithm": "sha256",
            "weights": str(state_digest(weights, HashFactory("sha256"))),
        },
    ]


def shared() -> dict[str, Any]:
    """Two states whose tensors are of each class, and what they share."""
    row, other = np.array([1.5, -2.0], dtype="<f4"), np.array([0.25, -2.0], dtype="<f4")
    one = dict.fromkeys("abcdfg", row)
    two = {
        "a": row, "b": other, "c": row.astype("<f2"), "d": row[:1], "a.lora_A.w": row, "h.f": row,
    }  # fmt: skip
    parent, child = (
        state_digest({name: value.copy() for name, value in own.items()}, HashFactory("sha256"))
        for own in (one, two)
    )
    stated = parent.as_fields(), replace(child, aliases={"h.f": ("f",)}).as_fields()
    records = [
        record_of(Event(0, Kind.WEIGHTS, None, 0, START_NS, body), HEADER, SALT_KEY)
        for body in stated
    ]
    found = sharing(state_at(records[1:], None), state_at(records[:1], None), "", "")
    assert found is not None
    classes = found._asdict()
    names = ("equal", "changed", "retyped", "reshaped", "renamed", "added", "removed")
    return {
        "child": stated[1]["tensors"],
        "parent": stated[0]["tensors"],
        "shared": {name: list(classes[name]) for name in names},
    }


def opening(value: int, seq: int = 5) -> Opening:
    return opening_of(KEYS.blinding, PRODUCER, seq, "loss", value)


def number(own: Opening, **other: Any) -> Number:
    """As if the record of seq 5 stated it."""
    digest, path = record_digest(records()[5].encode()), "training/epoch/1/metrics/0"
    point = own.commitment.format()
    told = Number(RUN, "after", tree(Phase.AFTER).root, path, digest, "loss", 6, point)
    return replace(told, **other)


def commitment() -> dict[str, object]:
    own = opening(250_000)
    return {
        "blinding_key": KEYS.blinding.hex(),
        "value": own.value,
        "blinding": own.blinding.to_bytes(32, "big").hex(),
        "point": own.commitment.format().hex(),
    }


def at_least() -> str:
    own = opening(250_000)
    return Statement(number(own), at_least=200_000).prove(own).encode().decode() + "\n"


def equality() -> str:
    """With the same value in another run."""
    own, other = opening(250_000), opening(250_000, seq=6)
    told = number(other, run=run_id(PUBLIC, 0x0192F0C12346), root=bytes(32), record=bytes(32))
    return Statement(number(own), equals=told).prove(own, other).encode().decode() + "\n"


def examples() -> dict[str, tuple[str, str]]:
    """Each example's language and text, by name."""
    events, made = story(), records()
    metrics = made[5]
    told, on_bitcoin = bitcoin()
    entries = ledger()
    before, after = tree(Phase.BEFORE), tree(Phase.AFTER)
    payload = anchor_payload(merkle.root(entries[:4]))
    weights = np.array([1.5, -2.0], dtype="<f4")
    raw = tensor_digest("w", weights, HashFactory("sha256"))
    pair = state_digest({"w": weights, "b": np.array(7, dtype="<i8")}, HashFactory("sha256"))
    parts = [
        HeldState(part, {"w": ((3,), (at,))}).placed(
            state_digest(part, HashFactory("sha256")).as_fields()
        )
        for at, part in ((0, {"w": weights}), (2, {"w": np.array([0.25], dtype="<f4")}))
    ]
    table = np.arange(6, dtype="<u1").reshape(3, 2)
    array = dataset_digest(table, HashFactory("sha256"))
    item, item_record, item_proof = items()
    sequence = dataset_digest(
        [{"text": "hi", "label": 1}, {"text": "", "label": 0}], HashFactory("sha256")
    )
    files = FileLeaf("a/b.txt", 3, HashFactory("sha256").digest(b"abc")).data()
    frontier = Frontier.empty().extend(entries)
    tree_nodes = {
        node.path: node.value.hex() for node in after.root_node.walk() if node.kind != "record"
    }
    texts: dict[str, tuple[str, str]] = {
        "keys": (
            "json",
            _json(
                {
                    "run": str(RUN),
                    "run_key_seed": "07" * 32,
                    "run_public_key": PUBLIC.hex(),
                    "salt_key": SALT_KEY.hex(),
                    "producer": PRODUCER.hex(),
                    "producer_key_seed": PRODUCER_KEY.private_bytes_raw().hex(),
                    "producer_public_key": CERTIFICATE.producer_key.hex(),
                    "identity_key_seed": "06" * 32,
                    "ledger_key_seed": "05" * 32,
                    "ledger_vkey": LEDGER.verifier.vkey,
                }
            ),
        ),
        "salt": ("hex", _hex(salt_for(SALT_KEY, PRODUCER, 5))),
        "record": ("json", metrics.encode().decode() + "\n"),
        "record-digest": ("hex", _hex(record_digest(metrics.encode()))),
        "numbers": (
            "json",
            canonical_json(
                [0.1, 1.0, -0.0, 1e21, 1e20, 1e-6, 1e-7, 123456789012345680000.0, 2**53 - 1]
            ).decode()
            + "\n",
        ),
        "run-records": (
            "json",
            "[\n" + ",\n".join(r.encode().decode() for r in made) + "\n]\n",
        ),
        "segment-header": ("hex", _hex(HEADER.encode())),
        "event-frame": ("hex", _hex(frame(events[10].encode()))),
        "certificate": ("hex", _hex(CERTIFICATE.encode())),
        "identity": ("hex", _hex(sign_identity(RUN, PUBLIC, IDENTITY))),
        "batch": ("hex", _hex(batch())),
        "statement": ("json", _json(statement())),
        "signed-range": ("hex", _hex(SignedRange.of(open_batch(batch())).encode())),
        "acknowledgement": (
            "hex",
            _hex(sign_acknowledgement(RUN, PRODUCER, 11, chain(11), LEDGER)),
        ),
        "tensor-header": ("hex", _hex(tensor_header("w", "F32", (2,)))),
        "tensor-bytes": ("hex", _hex(weights.tobytes())),
        "tensor-digest": ("text", f"{raw.digest}\n"),
        "tensor-digest-blake3": ("text", f"{tensor_digest('w', weights).digest}\n"),
        "state": ("json", _json(pair.as_fields())),
        "shards": ("json", _json([part["tensors"][0] for part in parts])),
        "block-header": ("hex", _hex(block_header("0", "U8", (3, 2), (0, 3), 0))),
        "dataset": ("json", _json(array.as_fields())),
        "sequence": ("json", _json(sequence.as_fields())),
        "item": ("hex", _hex(item)),
        "item-record": ("json", item_record.encode().decode() + "\n"),
        "item-proof": ("json", item_proof.encode().decode() + "\n"),
        "file-leaf": ("json", files.decode() + "\n"),
        "parents": ("json", _json(parents())),
        "sharing": ("json", _json(shared())),
        "merkle": (
            "json",
            _json(
                {
                    "entries": [entry.hex() for entry in entries],
                    "roots": [merkle.root(entries[:size]).hex() for size in range(6)],
                    "inclusion": {
                        "index": 3,
                        "size": 5,
                        "proof": [p.hex() for p in merkle.MerkleTree(entries).inclusion_proof(3)],
                    },
                    "consistency": {
                        "old_size": 2,
                        "new_size": 5,
                        "proof": [p.hex() for p in merkle.MerkleTree(entries).consistency_proof(2)],
                    },
                }
            ),
        ),
        "frontier": ("hex", _hex(frontier.to_bytes())),
        "run-tree": ("json", _json(tree_nodes)),
        "run-root-before": ("hex", _hex(before.root)),
        "run-root-after": ("hex", _hex(after.root)),
        "checkpoint": ("json", _json(checkpoint())),
        "run-proof": ("json", _json(after.proof("training/epoch/1/metrics/0").to_json())),
        "vkey": ("text", LEDGER.verifier.vkey + "\n"),
        "head": ("text", note(4)),
        "head-cosigned": ("text", cosigned(4)),
        "ots": ("hex", _hex(TimestampFile(from_ledger_root(on_bitcoin)).encode())),
        "tlog-proof": (
            "text",
            TlogProof(3, receipt().ledger.proof, note(4)).encode(),
        ),
        "fork-proof": ("json", fork()),
        "compliance-statement": ("json", report_statement()),
        "beacon": ("json", sign_beacon(beacon(), LEDGER).decode() + "\n"),
        "seed": ("json", _json(drawn())),
        "host": ("json", _json(host_example(RUN, PUBLIC, chain(5)))),
        "account": ("json", account().encode().decode() + "\n"),
        "roll": ("json", roll().encode().decode() + "\n"),
        **time_lock(),
        "attest-call": ("hex", _hex(attest_call())),
        "outcome": ("json", outcome().encode().decode() + "\n"),
        "outcome-entry": ("hex", _hex(outcome().digest())),
        "approval": ("json", approval()),
        "trust-approval": ("json", trust_approval()),
        "bitcoin-transaction": ("hex", _hex(bytes.fromhex(told["transaction"]))),
        "bitcoin-merkle-block": ("hex", _hex(bytes.fromhex(told["merkle_block"]))),
        "bitcoin-view-call": ("hex", _hex(view_call(told, payload[4:]))),
        "bitcoin-view-answer": ("hex", _hex(view_answer(told))),
        "payload": ("hex", _hex(payload)),
        "op-return": ("hex", _hex(b"\x6a\x24" + payload)),
        "contract-call": ("hex", _hex(store_call(payload[4:], ""))),
        **{
            name: ("hex", _hex(value)) if isinstance(value, bytes) else ("json", value)
            for name, value in owners_examples(payload, note(4)).items()
        },
        "cid": ("text", f"{raw_cid(payload)}\n"),
        "local-line": ("json", local_line(payload).decode()),
        "generators": (
            "json",
            _json({name: generator(name).format().hex() for name in GENERATORS}),
        ),
        "commitment": ("json", _json(commitment())),
        "proof-at-least": ("json", at_least()),
        "proof-equals": ("json", equality()),
        "receipt": ("json", receipt().encode().decode() + "\n"),
    }
    return texts


def _json(value: object) -> str:
    return _lines(value, "") + "\n"


def _lines(value: object, indent: str) -> str:
    """JSON with what fits into a line on one line."""
    short = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(indent + short) <= 150:
        return short
    items = (
        [f"{json.dumps(key)}: {_lines(item, indent + ' ')}" for key, item in value.items()]
        if isinstance(value, dict)
        else [_lines(item, indent + " ") for item in value]
    )
    left, right = "{}" if isinstance(value, dict) else "[]"
    return f"{left}\n{indent} " + f",\n{indent} ".join(items) + f"\n{indent}{right}"


def _hex(data: bytes) -> str:
    return "".join(f"{line}\n" for line in textwrap.wrap(data.hex(), 128))


def file_of(language: str, name: str) -> Path:
    """Where an example lies."""
    return HERE / f"{name}.{ {'hex': 'hex', 'json': 'json', 'text': 'txt'}[language] }"


def filled(document: str, texts: Mapping[str, tuple[str, str]]) -> str:
    """The document with each tagged block that is an example replaced by it."""

    def block(match: re.Match[str]) -> str:
        language, name, _ = match.groups()
        known = texts.get(name)
        if known is None or known[0] != language:
            raise ValueError(f"the document's block {language} name={name} is no example")
        return f"```{language} name={name}\n{known[1]}```"

    return BLOCK.sub(block, document)


def main() -> None:
    texts = examples()
    HERE.mkdir(exist_ok=True)
    wanted = {file_of(language, name): text for name, (language, text) in texts.items()}
    for stale in set(HERE.iterdir()) - set(wanted):
        stale.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    if DOCUMENT.exists():
        DOCUMENT.write_text(filled(DOCUMENT.read_text("utf-8"), texts), encoding="utf-8")


if __name__ == "__main__":
    main()
