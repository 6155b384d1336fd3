"""The run tree: a vector worked by hand, the order of its leaves, its proofs, its prefixes.

Over 400 lines: case by case, one file: `provenance/formats/run_tree/tree.py`.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import (
    InputError,
    ProofError,
)
from provenance.formats.merkle import EMPTY_ROOT
from provenance.formats.run_tree.tree import (
    Level,
    MerkleNode,
    MLProvenanceMerkleTree,
    RecordLeaf,
    RunProof,
)
from tests.support.paths import VECTORS

VECTOR: dict[str, Any] = json.loads((VECTORS / "run_tree.json").read_text(encoding="utf-8"))
RECORDS: list[dict[str, Any]] = VECTOR["records"]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def leaf_of(record: dict[str, Any]) -> RecordLeaf:
    ts, producer, seq = record["order"]
    digest = bytes.fromhex(record["digest"])
    order = (ts, producer, seq)
    return RecordLeaf(record["kind"], record["epoch"], record["rank"], order, digest)


LEAVES = [leaf_of(record) for record in RECORDS]
STATEMENTS = [sha(text.encode()) for text in VECTOR["statements"]]
TREE = MLProvenanceMerkleTree(LEAVES, STATEMENTS)


def leaf(
    kind: str, name: str, epoch: int | None = None, rank: int | None = 0, seq: int = 0
) -> RecordLeaf:
    return RecordLeaf(kind, epoch, rank, ("t", "p", seq), sha(name.encode()))


def test_the_vector_by_hand() -> None:
    """Every root of the run tree, with hashlib and nothing else."""

    def one(d: bytes) -> bytes:  # MTH of one entry
        return sha(b"\x00" + d)

    def two(a: bytes, b: bytes) -> bytes:
        return sha(b"\x01" + one(a) + one(b))

    def three(a: bytes, b: bytes, c: bytes) -> bytes:
        return sha(b"\x01" + two(a, b) + one(c))

    def four(a: bytes, b: bytes, c: bytes, d: bytes) -> bytes:
        return sha(b"\x01" + two(a, b) + two(c, d))

    r = {record["path"]: sha(record["record"].encode()) for record in RECORDS}
    none = sha(b"")
    data = two(one(r["data/train/0"]), one(r["data/test/0"]))
    model = two(one(r["model/architecture/0"]), one(r["model/weights/0"]))
    epoch_1 = three(
        one(r["training/epoch/1/state/0"]),
        two(r["training/epoch/1/metrics/0"], r["training/epoch/1/metrics/1"]),
        none,
    )
    epoch_2 = three(
        none, one(r["training/epoch/2/metrics/0"]), one(r["training/epoch/2/privacy/0"])
    )
    training = four(r["training/config"], epoch_1, epoch_2, r["training/results"])
    producers = two(*STATEMENTS)
    root = four(data, model, training, producers)

    nodes = {path: bytes.fromhex(value) for path, value in VECTOR["nodes"].items()}
    assert (nodes["data"], nodes["model"], nodes["training"]) == (data, model, training)
    assert nodes["producers"] == producers
    assert (nodes["training/epoch/1"], nodes["training/epoch/2"]) == (epoch_1, epoch_2)
    assert TREE.root == nodes[""] == root
    before = four(data, model, one(r["training/config"]), one(STATEMENTS[0]))
    assert bytes.fromhex(VECTOR["before_root"]) == before
    empty = four(two(none, none), two(none, none), none, none)
    assert MLProvenanceMerkleTree().root == bytes.fromhex(VECTOR["empty_root"]) == empty


def test_every_node_of_the_vector() -> None:
    for path, value in VECTOR["nodes"].items():
        node = TREE.node(path)
        assert node.value.hex() == value
        assert node.kind == ("empty" if node.value == EMPTY_ROOT else "node")
    for record in RECORDS:
        node = TREE.node(record["path"])
        assert (node.value.hex(), node.kind, node.children) == (record["digest"], "record", ())
    producers = [node for node in TREE.root_node.walk() if node.kind == "producer"]
    assert [node.value for node in producers] == STATEMENTS
    assert [node.path for node in producers] == ["producers/0", "producers/1"]
    found = {node.path for node in TREE.root_node.walk() if node.kind != "producer"}
    assert found == set(VECTOR["nodes"]) | {record["path"] for record in RECORDS}


@given(st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_arrival_does_not_count(order: random.Random) -> None:
    shuffled = list(LEAVES)
    order.shuffle(shuffled)
    assert MLProvenanceMerkleTree(iter(shuffled), STATEMENTS).root == TREE.root


def test_logical_order() -> None:
    tree = MLProvenanceMerkleTree(
        [
            leaf("metrics", "rank 1", 10, rank=1, seq=1),
            leaf("metrics", "rank 0 late", 10, rank=0, seq=9),
            leaf("metrics", "no rank", 10, rank=None, seq=99),
            leaf("metrics", "rank 0", 10, rank=0, seq=2),
            leaf("state", "epoch 9", 9),
        ]
    )
    slot = tree.node("training/epoch/10/metrics")
    names = ("no rank", "rank 0", "rank 0 late", "rank 1")
    assert [child.value for child in slot.children] == [sha(n.encode()) for n in names]
    assert [c.path for c in tree.node("training").children] == [
        "training/epoch/9",
        "training/epoch/10",
    ]
    assert tree.node("training/epoch/9").label == "epoch 9"
    assert [c.label for c in tree.root_node.children] == [
        "data",
        "model",
        "training",
        "producers",
    ]
    assert tree.root_node.label == "run"


def test_one_order_for_two_digests() -> None:
    a, b = leaf("config", "a"), leaf("config", "b")
    assert MLProvenanceMerkleTree([a, b]).root == MLProvenanceMerkleTree([b, a]).root


def test_repeated_config_and_results() -> None:
    tree = MLProvenanceMerkleTree(
        [
            leaf("results", "r1", seq=5),
            leaf("results", "r2", seq=6),
            leaf("config", "c1", seq=1),
            leaf("config", "c2", seq=7),
            leaf("metrics", "m", 0, seq=2),
        ]
    )
    assert [(c.path, c.label) for c in tree.node("training").children] == [
        ("training/config", "config"),
        ("training/config/1", "config 1"),
        ("training/epoch/0", "epoch 0"),
        ("training/results", "results"),
        ("training/results/1", "results 1"),
    ]
    for path in ("training/config/1", "training/results", "training/results/1"):
        tree.proof(path).verify(tree.root)


def test_the_epoch_of_another_kind_has_no_meaning() -> None:
    with_epoch, without = leaf("data.train", "d", 3), leaf("data.train", "d")
    assert MLProvenanceMerkleTree([with_epoch]).root == MLProvenanceMerkleTree([without]).root


@pytest.mark.parametrize(
    ("kind", "epoch", "digest", "message"),
    [
        ("run.seal", None, bytes(32), "'run.seal' is no leaf; leaves are artifact, config"),
        ("metrics", None, bytes(32), "a metrics record needs an epoch of 0 or more, got None"),
        ("state", -1, bytes(32), "got -1"),
        ("config", None, bytes(31), "32 bytes, got 31"),
    ],
)
def test_records_without_a_place(kind: str, epoch: int | None, digest: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RecordLeaf(kind, epoch, 0, ("t", "p", 1), digest)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("date", "no node 'date' in this run; the run has data, model, training"),
        ("data/valid", "data has train, test"),
        ("data/train/1", "data/train has 0"),
        ("data/train/0/x", "data/train has 0"),
        ("training/epoch/1/privacy/0", "training/epoch/1/privacy has no entries"),
        ("training/epoch/7/metrics", "training has config, epoch/1, epoch/2, results"),
        ("training/epoch", "training has config, epoch/1"),
        ("training/config/1", "training has config, epoch/1"),
        ("/data", "the run has data, model, training"),
    ],
)
def test_unknown_paths_list_what_there_is(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TREE.node(path)
    with pytest.raises(InputError, match=message):
        TREE.proof(path)


def test_a_long_list_is_cut() -> None:
    tree = MLProvenanceMerkleTree(leaf("metrics", str(e), e) for e in range(30))
    with pytest.raises(InputError, match=r"epoch/19, \.\.\. \(30 in all\)$"):
        tree.node("training/epoch/30")


@pytest.mark.parametrize("path", [node.path for node in TREE.root_node.walk()])
def test_every_proof_verifies_and_walks(path: str) -> None:
    proof = TREE.proof(path)
    proof.verify(TREE.root)
    message = proof.leaf_digest
    for step in proof.steps():
        message = sha(step.prefix + message + step.suffix)
    assert message == TREE.root


def test_a_changed_record_is_refused() -> None:
    proof = replace(TREE.proof("training/epoch/1/metrics/0"), leaf_digest=sha(b"other"))
    with pytest.raises(ProofError, match="training/epoch/1/metrics/0: run root is"):
        proof.verify(TREE.root)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_bit_of_a_run_proof_counts(data: st.DataObject) -> None:
    proof = TREE.proof(data.draw(st.sampled_from([r["path"] for r in RECORDS])))
    where = [(i, j) for i, level in enumerate(proof.levels) for j in range(len(level.proof))]
    at, element = data.draw(st.sampled_from(where))
    elements = list(proof.levels[at].proof)
    changed = bytearray(elements[element])
    changed[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    elements[element] = bytes(changed)
    levels = list(proof.levels)
    levels[at] = replace(levels[at], proof=tuple(elements))
    with pytest.raises(ProofError):
        replace(proof, levels=tuple(levels)).verify(TREE.root)


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("training/epoch/1/metrics/0", "training/epoch/1/metrics/1"),
        ("training/epoch/1/metrics/0", "training/epoch/1/state/0"),
        ("data/train/0", "data/test/0"),
        ("data/train/0", "model/weights/0"),
        ("data", "model"),
        ("training/config", "training/config/1"),
        ("training/results", "training/config"),
        ("data/train/0", "data"),
        ("data/train/0", ""),
    ],
)
def test_a_proof_of_another_place_is_refused(path: str, other: str) -> None:
    """A valid proof, relabelled with another path, does not pass for that path."""
    proof = TREE.proof(path)
    with pytest.raises(ProofError):
        RunProof(other, proof.leaf_digest, proof.levels).verify(TREE.root)


def test_which_training_entry_an_epoch_is_only_its_record_says() -> None:
    """Epochs may have gaps and config may be repeated, so the path fixes config alone."""
    results = TREE.proof("training/results")
    with pytest.raises(ProofError, match="training/config: is entry 0, the proof says 3"):
        replace(results, path="training/config").verify(TREE.root)
    replace(results, path="training/epoch/9").verify(TREE.root)


def test_a_proof_with_levels_of_another_tree_is_refused() -> None:
    proof = TREE.proof("data/train/0")
    relabelled = tuple(
        replace(level, node_path=path)
        for level, path in zip(proof.levels, ("data/test", "data", ""), strict=True)
    )
    with pytest.raises(ProofError, match="data/test: is entry 1 of 2, the proof says 0 of 2"):
        RunProof("data/test/0", proof.leaf_digest, relabelled).verify(TREE.root)
    with pytest.raises(ProofError, match="levels must be those of"):
        replace(proof, levels=proof.levels[:-1]).verify(TREE.root)
    with pytest.raises(ProofError, match="not a path of a run tree"):
        replace(proof, path="data/valid/0").verify(TREE.root)
    bad = (Level(0, 0, (), "data/train"), *proof.levels[1:])
    with pytest.raises(ProofError, match=r"data/train: .*size must be 1"):
        replace(proof, levels=bad).steps()


def test_as_dict_is_json() -> None:
    tree = TREE.as_dict()
    assert json.loads(json.dumps(tree)) == tree
    assert set(tree) == {"path", "label", "kind", "value", "children"}

    def rebuild(item: Any) -> MerkleNode:
        children = tuple(rebuild(child) for child in item["children"])
        value = bytes.fromhex(item["value"])
        return MerkleNode(item["path"], item["label"], item["kind"], value, children)

    assert rebuild(tree) == TREE.root_node
