"""The run tree: a vector worked by hand, the order of its leaves, its proofs, its prefixes.

Over 400 lines: case by case, one file: `provenance/formats/run_tree/tree.py`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import (
    FormatError,
    InputError,
    ProofError,
    TooLargeError,
    UnknownVersionError,
)
from provenance.formats.merkle import EMPTY_ROOT
from provenance.formats.run_tree.proof import Level, PrefixProof, RunProof
from provenance.formats.run_tree.tree import (
    MerkleNode,
    MLProvenanceMerkleTree,
    Problem,
    RecordLeaf,
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
        ("run.seal", None, bytes(32), "'run.seal' is no leaf; leaves are config, data.test"),
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
    assert proof.root() == TREE.root
    message = proof.leaf_digest
    for step in proof.steps():
        message = sha(step.prefix + message + step.suffix)
    assert message == TREE.root
    assert RunProof.from_json(proof.to_json()) == proof
    assert RunProof.from_json(json.dumps(proof.to_json())) == proof
    assert RunProof.from_json(json.dumps(proof.to_json()).encode()) == proof


def test_a_changed_record_is_refused() -> None:
    proof = replace(TREE.proof("training/epoch/1/metrics/0"), leaf_digest=sha(b"other"))
    with pytest.raises(ProofError, match="training/epoch/1/metrics/0: run root is"):
        proof.verify(TREE.root)


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
        replace(proof, levels=bad).root()


def broken(**changes: object) -> dict[str, Any]:
    document = copy.deepcopy(TREE.proof("training/epoch/1/metrics/0").to_json())
    return document | changes


def broken_level(**changes: object) -> dict[str, Any]:
    document = broken()
    document["levels"][1] |= changes
    return document


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        (broken(v=2), UnknownVersionError, "version 2, expected 1"),
        (broken(v=True), UnknownVersionError, "version true"),
        (broken(v="1"), UnknownVersionError, "version '1'"),
        ({}, FormatError, "proof: v: found no version"),
        (broken(extra=1), FormatError, "proof: extra: unknown key"),
        (broken(path="a"), FormatError, "proof: path: found 'a', expected a path of a run tree"),
        (broken(path=1), FormatError, "proof: path: found 1"),
        (broken(leaf_digest="00" * 31), FormatError, "proof: leaf_digest: found .*, expected 64"),
        (broken(leaf_digest="AA" * 32), FormatError, "proof: leaf_digest: found .*, expected 64"),
        (broken(leaf_digest=None), FormatError, "proof: leaf_digest: found .*, expected 64"),
        (broken(levels={}), FormatError, "proof: levels: found an object, expected a list"),
        (broken(levels=[1]), FormatError, r"proof: levels\[0\]: found 1, expected an object"),
        (broken_level(index="0"), FormatError, r"levels\[1\].index: found '0', expected a whole"),
        (broken_level(size=True), FormatError, r"levels\[1\].size: found true, expected a whole"),
        (broken_level(proof="00"), FormatError, r"levels\[1\].proof: found '00', expected a list"),
        (
            broken_level(proof=["00"]),
            FormatError,
            r"levels\[1\].proof\[0\]: found '00', expected 64",
        ),
        (
            broken_level(node_path="x"),
            FormatError,
            r"levels\[1\].node_path: found 'x', expected a path",
        ),
        (broken_level(v=1), FormatError, r"levels\[1\].v: unknown key"),
        ("[]", FormatError, "proof: found a list, expected an object"),
        ("{", FormatError, "proof is not JSON"),
        (b"\xff", FormatError, "proof is not JSON"),
        ("[" * 100_000, FormatError, "proof is not JSON"),
        (" " * 262_145, TooLargeError, "more than 262144 bytes"),
    ],
)
def test_what_is_wrong_with_a_proof_document(
    document: Any, error: type[FormatError], message: str
) -> None:
    with pytest.raises(error, match=message):
        RunProof.from_json(document)


def before() -> MLProvenanceMerkleTree:
    return MLProvenanceMerkleTree(
        [record for record in LEAVES if record.epoch is None and record.kind != "results"],
        STATEMENTS[:1],
    )


def test_before_is_a_prefix_of_after() -> None:
    assert before().root.hex() == VECTOR["before_root"]
    assert before().is_prefix_of(TREE) is None
    assert TREE.is_prefix_of(TREE) is None
    proof = TREE.prefix_proof(before())
    assert isinstance(proof, PrefixProof)
    assert (proof.before_size, proof.after_size) == (1, 4)
    assert proof.proof == TREE.consistency(1)
    proof.verify(before().root, TREE.root)
    assert len(TREE.training_entries()) == 4
    with pytest.raises(ValueError, match="no prefix of 5"):
        TREE.consistency(5)


def test_a_prefix_proof_binds_everything() -> None:
    proof = TREE.prefix_proof(before())
    with pytest.raises(ProofError, match="before root"):
        proof.verify(TREE.root, TREE.root)
    with pytest.raises(ProofError, match="after root"):
        proof.verify(before().root, before().root)
    with pytest.raises(ProofError, match="before root"):
        replace(proof, data=bytes(32)).verify(before().root, TREE.root)
    with pytest.raises(ProofError, match="after root"):
        replace(proof, after_producers=bytes(32)).verify(before().root, TREE.root)
    with pytest.raises(ProofError, match="consistency"):
        replace(proof, proof=(bytes(32), *proof.proof[1:])).verify(before().root, TREE.root)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ([leaf("data.test", "more")], "data: differs from the earlier root"),
        ([leaf("model.weights", "more")], "model: differs from the earlier root"),
        (
            [leaf("config", "late", seq=1, rank=None)],
            "training/config: differs from the earlier root",
        ),
    ],
)
def test_what_breaks_a_prefix(change: list[RecordLeaf], problem: str) -> None:
    after = MLProvenanceMerkleTree([*LEAVES, *change])
    assert str(before().is_prefix_of(after)) == problem
    with pytest.raises(ProofError, match=f"not a prefix: {problem}"):
        after.prefix_proof(before())


def test_a_missing_or_moved_entry_breaks_a_prefix() -> None:
    problem = TREE.is_prefix_of(before())
    assert problem == Problem("training/epoch/1", "was under the earlier root and is missing")
    sealed = MLProvenanceMerkleTree(record for record in LEAVES if record.epoch is None)
    assert str(sealed.is_prefix_of(TREE)) == (
        "training/results: was entry 1 of training, where training/epoch/1 is now"
    )
    assert str(Problem("", "x")) == "run: x"


def test_as_dict_is_json() -> None:
    tree = TREE.as_dict()
    assert json.loads(json.dumps(tree)) == tree
    assert set(tree) == {"path", "label", "kind", "value", "children"}

    def rebuild(item: Any) -> MerkleNode:
        children = tuple(rebuild(child) for child in item["children"])
        value = bytes.fromhex(item["value"])
        return MerkleNode(item["path"], item["label"], item["kind"], value, children)

    assert rebuild(tree) == TREE.root_node
