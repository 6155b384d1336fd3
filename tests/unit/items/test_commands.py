"""``provenance data prove`` and ``provenance data check`` over real runs, good and forged."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from provenance.app.bundle import make_bundle
from provenance.bundle.reader import read_bundle
from provenance.cli import main
from provenance.fingerprint.elements import element_bytes
from provenance.formats.item_set import ItemProof
from provenance.formats.record import canonical_json
from provenance.items.folder import ItemFolder
from provenance.items.proving import StatedSet, prove
from provenance.settings import Settings, load
from provenance.tracker import ProvenanceTracker
from tests.support import stranger
from tests.support.home import brought_home

pytestmark = pytest.mark.slow

ROWS = np.arange(240, dtype=np.uint8).reshape(60, 4)
LABELS = np.arange(60) % 3
TRAIN = 48
"""Rows of the train data; the others are the test data."""

IN, OUT = "[[4, 5, 6, 7], 1]", "[[4, 5, 6, 7], 2]"


@dataclass(frozen=True)
class ItemWorld:
    """Runs at one base directory; ``bundles`` in their order."""

    settings: Settings
    runs: tuple[str, ...]
    bundles: tuple[Path, ...]

    def folder(self, at: int = 0) -> ItemFolder:
        """What the owner keeps of a run's sets."""
        return ItemFolder(self.settings.base_dir, UUID(self.runs[at]))


def item_world(base: Path, runs: int = 2) -> ItemWorld:
    """Runs over the same data, each under keys of its own; items are ``[row, label]``."""
    settings, named = load(None, base), []
    for _ in range(runs):
        with ProvenanceTracker(base) as tracker:
            train, test = slice(0, TRAIN), slice(TRAIN, None)
            tracker.track_data((ROWS[train], LABELS[train]), (ROWS[test], LABELS[test]), items=True)
            tracker.store_merkle_on_blockchain_before_training({})
            tracker.track_epoch(1, {"loss": 0.5})
        named.append(tracker.run_id)
    brought_home(base)
    bundles = (make_bundle(settings, run, base / f"{run}.zip").path for run in named)
    return ItemWorld(settings, tuple(named), tuple(bundles))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ItemWorld:
    return item_world(tmp_path_factory.mktemp("items") / "base")


class Cli:
    """Commands at a world's base directory; the last line that one wrote."""

    def __init__(self, world: ItemWorld, capsys: pytest.CaptureFixture[str], tmp: Path) -> None:
        self.world, self.capsys, self.proof = world, capsys, tmp / "proof.json"

    def __call__(self, *words: object, json: bool = False) -> tuple[int, str]:
        base = ["--base-dir", str(self.world.settings.base_dir), *(["--json"] if json else [])]
        code = main(["data", *map(str, words), *base])
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out or captured.err

    def prove(self, claim: str, *items: object, run: int = 0, split: str = "train") -> int:
        own = [f"--{claim}", self.world.runs[run], "--split", split, "-o", self.proof]
        return self("prove", *items, *own)[0]

    def check(self, *items: object, run: int = 0) -> tuple[int, str]:
        return self("check", self.proof, *items, "--bundle", self.world.bundles[run])


@pytest.fixture
def cli(world: ItemWorld, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    return Cli(world, capsys, tmp_path)


def test_an_item_is_proven_in_and_another_absent_and_the_code_is_the_run_s(
    cli: Cli, tmp_path: Path
) -> None:
    assert cli.prove("in", IN) == 0
    code, text = cli.check(IN)
    assert (code, text.splitlines()[0]) == (
        0,
        f"1 item is in the train data of run {cli.world.runs[0]} (data/train/0: 48 items); rests on"
        " the evidence of the run, verified",
    )
    assert "not checked: that these are the items that the run trained on" in text
    here = ("check", cli.proof, IN, "--run", cli.world.runs[0])
    assert (cli(*here)[0], cli(*here, "--offline")[0]) == (0, 3)
    code, text = cli(*here, "--headers", tmp_path / "none")
    assert (code, "none: cannot be read as a file of block headers" in text) == (2, True)
    assert cli.check(OUT)[0] == 1
    assert cli.prove("not-in", OUT) == 0
    assert cli.check(OUT)[0] == 0
    assert cli.check(IN)[0] == 1
    assert cli.proof.stat().st_mode & 0o777 == 0o600


def test_one_proof_is_of_a_whole_test_set(cli: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", ROWS[TRAIN:], LABELS[TRAIN:])
    assert cli.prove("not-in", tmp_path / "test.npz") == 0
    code, text = cli.check(tmp_path / "test.npz")
    assert (code, text.startswith("all 12 items are absent from the train data")) == (0, True)
    assert cli.check(f"{tmp_path}/test.npz:3")[1].startswith("1 item is absent")
    assert cli.check(tmp_path / "test.npz", run=1)[0] == 1


def test_the_run_may_be_named_by_its_bundle(cli: Cli) -> None:
    assert cli("prove", IN, "--in", cli.world.bundles[0], "-o", cli.proof)[0] == 0
    assert cli.check(IN)[0] == 0


def test_it_holds_no_further_than_the_evidence(cli: Cli, tmp_path: Path) -> None:
    """What is wrong elsewhere in the bundle is in the exit code and the line."""
    folder = tmp_path / "bundle"
    with zipfile.ZipFile(cli.world.bundles[0]) as archive:
        archive.extractall(folder)
    (path,) = folder.rglob("records/training/epoch/1/metrics/*.json")
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.4"))
    assert cli.prove("in", IN) == 0
    code, text = cli("check", cli.proof, IN, "--bundle", folder)
    assert (code, "rests on the evidence of the run, failed: " in text.splitlines()[0]) == (1, True)


def test_a_batch_that_is_partly_in_says_which(cli: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", ROWS[TRAIN - 2 :], LABELS[TRAIN - 2 :])
    own = ["--not-in", cli.world.runs[0], "-o", cli.proof]
    code, text = cli("prove", tmp_path / "some.npz", *own, json=True)
    told = json.loads(text)
    assert (code, told["items"], told["others"]) == (
        1,
        14,
        [f"{tmp_path}/some.npz:0", f"{tmp_path}/some.npz:1"],
    )
    assert not cli.proof.exists()


FORMS = {
    "[[4, 5, 6, 7.5], 1]": "found [4, 5, 6, 7.5], the set's items have U8[4] at [0]",
    "[[4, 5, 6, 300], 1]": "found [4, 5, 6, 300], the set's items have U8[4] at [0]",
    "[[4, 5, 6], 1]": "found [4, 5, 6], the set's items have U8[4] at [0]",
    '[[4, 5, 6, 7], "one"]': "found 'one', the set's items have I64[] at [1]",
    "[[4, 5, 6, 7]]": "found LIST[1] at [], the set's items have LIST[2] at [], U8[4] at [0]",
    "[4, 5, 6, 7]": "found 4, the set's items have U8[4] at [0]",
    '{"x": 1}': "found DICT[1] at [], the set's items have LIST[2] at [], U8[4] at [0]",
    "no-such-file": "found neither, expected a file with one item's bytes",
}


@pytest.mark.parametrize("item", FORMS)
def test_an_item_of_another_form_is_refused_since_its_absence_would_say_nothing(
    cli: Cli, item: str
) -> None:
    code, text = cli("prove", item, "--not-in", cli.world.runs[0], "-o", cli.proof)
    assert (code, FORMS[item] in text, text.count("\n")) == (2, True, 1), text


def test_a_zip_of_arrays_is_no_bundle(cli: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", ROWS)
    assert cli.prove("in", IN) == 0
    code, text = cli("check", cli.proof, IN, "--bundle", tmp_path / "test.npz")
    told = f"{tmp_path}/test.npz: not a bundle, there is no manifest.json in it"
    assert (code, told in text, text.count("\n")) == (2, True, 1), text


def forged(cli: Cli, **changes: Any) -> None:
    proof = ItemProof.decode(cli.proof.read_bytes(), "proof")
    cli.proof.write_bytes(replace(proof, **changes).encode())


def other_run(cli: Cli) -> None:
    cli.prove("in", IN, run=1)


def other_run_renamed(cli: Cli) -> None:
    cli.prove("in", IN, run=1)
    forged(cli, run=cli.world.folder(0).run)


def other_record(cli: Cli) -> None:
    """Of the same run, with the record that the first run has."""
    own = ItemProof.decode(cli.proof.read_bytes(), "proof")
    cli.prove("in", IN, run=1)
    forged(cli, run=own.run, record=own.record)


def other_key(cli: Cli) -> None:
    forged(cli, key=cli.world.folder(0).key("test"))


def other_split(cli: Cli) -> None:
    forged(cli, split="test")


def no_data_record(cli: Cli) -> None:
    evidence = read_bundle(cli.world.bundles[0])
    config = next(r for r in evidence.records if r.path == "training/config")
    forged(cli, record=config.digest)


def fewer_siblings(cli: Cli) -> None:
    forged(cli, siblings=ItemProof.decode(cli.proof.read_bytes(), "proof").siblings[1:])


def cut_off(cli: Cli) -> None:
    cli.proof.write_bytes(cli.proof.read_bytes()[:-1])


def newer(cli: Cli) -> None:
    cli.proof.write_bytes(cli.proof.read_bytes().replace(b'"v":1', b'"v":2'))


def another_file(cli: Cli) -> None:
    cli.proof.write_text('{"a": 1}')


NO_PROOF = "proof.json: cannot be read as a proof of 'provenance data prove': "
FORGED = [
    (other_run, "run: the proof is of run"),
    (other_run_renamed, "has none of digest"),
    (other_record, "key: is not the one that the record commits to"),
    (other_key, "key: is not the one that the record commits to"),
    (other_split, "split: found test, the proof's record is data/train/0"),
    (no_data_record, "split: found train, the proof's record is training/config"),
    (fewer_siblings, "needs"),
    (cut_off, NO_PROOF + "is not JSON"),
    (newer, NO_PROOF + "v: found version 2, expected 1"),
    (another_file, NO_PROOF + "v: found no version, expected 1"),
]


@pytest.mark.parametrize(("forge", "told"), FORGED, ids=lambda v: getattr(v, "__name__", ""))
def test_a_forged_proof_is_refused_in_one_line(
    cli: Cli, forge: Callable[[Cli], None], told: str
) -> None:
    assert cli.prove("in", IN) == 0
    forge(cli)
    code, text = cli.check(IN)
    expected = 2 if NO_PROOF in told else 1
    assert (code, told in text, text.count("\n")) == (expected, True, 1), text
    assert not any(claims_of_the_stranger(cli, [IN]))


def claims_of_the_stranger(cli: Cli, items: list[str]) -> list[bool]:
    """What ``tests/stranger`` says of items and the proof, by the bundle of the first run."""
    own = stranger.load()
    bundle = own.Bundle(own.load(cli.world.bundles[0]))
    assert bundle.problems == []
    digests = {record["path"]: record["digest"] for record in bundle.run["records"]}
    bodies = {path: (digests[path], body) for path, body in bundle.bodies.items()}
    data = [
        element_bytes([np.array(row, np.uint8), label], "item")
        for row, label in map(json.loads, items)
    ]
    claimed = stranger.load("items").claimed
    try:
        claims: list[bool] = claimed(cli.proof.read_bytes(), bundle.run["run"], bodies, data)
    except ValueError:
        return []
    return claims


def test_the_stranger_agrees(cli: Cli) -> None:
    assert cli.prove("in", IN) == 0
    assert claims_of_the_stranger(cli, [IN, OUT]) == [True, False]
    assert cli.prove("not-in", OUT) == 0
    assert claims_of_the_stranger(cli, [IN, OUT]) == [False, True]


def test_a_record_that_nobody_signed_so_does_not_count(cli: Cli, tmp_path: Path) -> None:
    """A set without the item, put into the bundle in the place of the one that was recorded."""
    folder, forged_by = tmp_path / "bundle", ItemFolder(tmp_path, UUID(cli.world.runs[0]))
    with zipfile.ZipFile(cli.world.bundles[0]) as archive:
        archive.extractall(folder)
    evidence = read_bundle(cli.world.bundles[0])
    real = next(r for r in evidence.records if r.path == "data/train/0")
    others = (ROWS[2:TRAIN], LABELS[2:TRAIN])
    made = replace(forged_by.record("train", others), count=TRAIN)
    (path,) = folder.rglob("records/data/train/0.json")
    record = json.loads(path.read_bytes())
    record["body"]["items"] = made.as_fields()
    path.write_bytes(canonical_json(record))
    stated = StatedSet(forged_by.run, "train", "data/train/0", real.digest, made, is_table=False)
    _, proof = prove(stated, forged_by, "not-in", [("item", (ROWS[1], LABELS[1]))])
    assert proof is not None
    cli.proof.write_bytes(proof.encode())
    code, text = cli("check", cli.proof, IN, "--bundle", folder)
    assert (code, text.count("\n")) == (1, 1), text
    assert "data/train/0: does not count: SHA-256 of the record is" in text, text


def test_a_withheld_record_and_a_run_without_a_set_are_told(cli: Cli, tmp_path: Path) -> None:
    settings, run = cli.world.settings, cli.world.runs[0]
    bundle = make_bundle(settings, run, tmp_path / "b.zip", disclose=["config"]).path
    assert cli.prove("in", IN) == 0
    code, text = cli("check", cli.proof, IN, "--bundle", bundle)
    assert (code, "data/train/0: is withheld" in text) == (1, True)


def test_a_proof_that_is_a_pipe_is_refused(cli: Cli) -> None:
    os.mkfifo(cli.proof)
    code, text = cli.check(IN)
    assert (code, text.endswith("cannot be read: it is not a regular file\n")) == (2, True), text


@pytest.mark.parametrize(
    ("what", "spoilt", "told"),
    [
        ("key", None, "train.key: cannot be read: No such file or directory"),
        ("key", b"00" * 32, "train.key: is another key than that of data/train/0"),
        ("key", b"xyz", "train.key: is no item key, expected 64 hex digits"),
        ("digests", None, "train.digests: cannot be read: No such file or directory"),
        ("digests", bytes(64), "train.digests: has other digests than data/train/0 states"),
        ("digests", bytes(33), "train.digests: found 33 bytes, expected digests of 32"),
    ],
)
def test_what_the_owner_lost_is_told_in_one_line(
    cli: Cli, what: str, spoilt: bytes | None, told: str
) -> None:
    path = cli.world.folder(1).path("train", what)
    kept = path.read_bytes()
    if spoilt is None:
        path.unlink()
    else:
        path.write_bytes(spoilt)
    try:
        code, text = cli("prove", IN, "--in", cli.world.runs[1], "-o", cli.proof)
    finally:
        path.write_bytes(kept)
        path.chmod(0o600)
    assert (code, told in text, text.count("\n")) == (2, True, 1), text


def test_a_key_that_others_may_read_is_refused(cli: Cli) -> None:
    path = cli.world.folder(1).path("train", "key")
    path.chmod(0o644)
    try:
        code, text = cli("prove", IN, "--in", cli.world.runs[1], "-o", cli.proof)
    finally:
        path.chmod(0o600)
    assert (code, "mode 0644, expected 0600" in text) == (2, True), text
