"""Item sets in records and proofs about items: one form, read alike by us and by the stranger."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provenance.app.verify import verify_path
from provenance.errors import FormatError, ProofError, ProvenanceError
from provenance.fingerprint.elements import element_bytes
from provenance.formats.item_set import ItemProof, ItemSet
from provenance.formats.record import Kind, Record, canonical_json
from provenance.items.proving import check, proven_set
from provenance.settings import load
from provenance.verify.catalogue import CONTENT
from tests.support import stranger
from tests.support.paths import STRANGER
from tests.support.verify_world import World, before, ending
from tests.vectors.make_format import HERE
from tests.vectors.make_golden import ITEMS, ITEMS_PROOF, TEST_ITEMS

RECORD = Record.decode((HERE / "item-record.json").read_bytes().removesuffix(b"\n"))
PROOF = (HERE / "item-proof.json").read_bytes().removesuffix(b"\n")
STATED = ItemSet.of(RECORD.body, "record")
assert STATED is not None


def test_what_is_read_is_written_again() -> None:
    assert STATED is not None
    assert STATED.as_fields() == RECORD.body["items"]
    proof = ItemProof.decode(PROOF, "proof")
    assert proof.encode() == PROOF
    assert proof.shown(STATED).size == 6
    assert ItemSet.of({"count": 3}, "record") is None


SETS: list[tuple[str, Any, str]] = [
    ("v", 2, "items.v: found version 2, expected 1"),
    ("v", True, "items.v: found version true, expected 1"),
    ("root", "mth-sha256:00", "root: found '00', expected 64 lower-case hex digits"),
    ("root", "ce" * 32, "items.root: found"),
    ("root", "blake3:" + "ce" * 32, "root: found"),
    ("size", 7, "items.size: found 7, expected a whole number from 1 to 6"),
    ("size", 0, "items.size: found 0, expected a whole number from 1 to 6"),
    ("size", 6.0, "items.size: found 6.0"),
    ("count", 5, "items.count: found 5, expected the record's own, 6"),
    ("count", True, "items.count: found true"),
    ("key", "4D" * 32, "items.key: found"),
    ("key", "4d" * 31, "items.key: found"),
    ("form", [], "items.form: found a list, expected 1 to 64 nodes, or null"),
    ("form", [{"name": "[]", "dtype": "U8", "shape": []}] * 65, "expected 1 to 64 nodes, or null"),
    ("form", [{"name": "[]", "dtype": "U8"}], "items.form[0].shape: found nothing"),
    ("form", [{"name": "[]", "dtype": "U8", "shape": [-1]}], "items.form[0].shape[0]: found -1"),
    ("form", [{"name": 1, "dtype": "U8", "shape": []}], "items.form[0].name: found 1"),
    ("more", 1, "items.more: unknown key"),
]


@pytest.mark.parametrize(("field", "value", "told"), SETS)
def test_a_set_that_no_writer_wrote(field: str, value: Any, told: str) -> None:
    items: Any = RECORD.body["items"]
    body = {**RECORD.body, "items": {**items, field: value}}
    with pytest.raises(FormatError) as caught:
        ItemSet.of(body, "record")
    assert told in str(caught.value)
    theirs = stranger.load("items")
    with pytest.raises((ValueError, KeyError, TypeError)):
        theirs.check_set({"kind": "data.train", "body": body})
    theirs.check_set({"kind": "data.train", "body": RECORD.body})


PROOFS: list[tuple[str, Any, str]] = [
    ("v", 2, "found version 2, expected 1"),
    ("claim", "out", "claim: found 'out', expected one of in, not-in"),
    ("split", "validation", "split: found 'validation', expected one of train, test"),
    ("leaves", [1, 0], "leaves: found a list, expected numbers that ascend"),
    ("leaves", [0, 0], "leaves: found a list, expected numbers that ascend"),
    ("digests", "AA==", "digests: found 1 bytes, expected base64 of hashes of 32 bytes"),
    ("digests", "A", "digests: found no base64"),
    ("siblings", "é", "siblings: found no base64"),
    ("key", None, "key: found null"),
    ("more", 1, "more: unknown key"),
]


@pytest.mark.parametrize(("field", "value", "told"), PROOFS)
def test_a_proof_that_no_writer_wrote(field: str, value: Any, told: str) -> None:
    data = canonical_json({**json.loads(PROOF), field: value})
    with pytest.raises(FormatError) as caught:
        ItemProof.decode(data, "proof")
    assert told in str(caught.value)
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        stranger.load("items").claimed(data, str(RECORD.run), {}, [])


@pytest.mark.parametrize("change", [lambda d: d + b"\n", lambda d: b" " + d, lambda d: d[:-1]])
def test_a_proof_has_one_form(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(FormatError):
        ItemProof.decode(change(PROOF), "proof")


def test_leaves_beyond_the_set_are_none() -> None:
    assert STATED is not None
    proof = ItemProof.decode(PROOF, "proof")
    with pytest.raises(ProofError):
        ItemProof(**{**vars_of(proof), "leaves": (0, 2)}).shown(STATED)


def vars_of(proof: ItemProof) -> dict[str, Any]:
    return {name: getattr(proof, name) for name in ItemProof.__slots__}


@pytest.mark.slow
def test_verification_names_a_set_that_does_not_fit_its_data_and_lists_one_that_does() -> None:
    items: Any = RECORD.body["items"]
    for changed, outcome in (({}, "verified"), ({"size": 7}, "failed")):
        world = World(("ethereum",))
        body = {**RECORD.body, "items": {**items, **changed}}
        world.ingest(world.batch(ending([(Kind.DATA_TRAIN, None, body), *before()[1:]])))
        world.anchor()
        report = world.verify()
        assert report.outcome == outcome
        listed = [line for line in report.not_checked if "item set" in line]
        if changed:
            (finding,) = report.findings
            assert (finding.check, finding.path, listed) == (CONTENT, "data/train/0", [])
        else:
            assert listed[0].endswith("of that data: data/train/0 (6 items, 6 distinct)")


def golden_files(folder: Path) -> list[str]:
    """The test items as the stranger takes them: the bytes of each in a file."""
    for at, item in enumerate(TEST_ITEMS):
        (folder / f"{at}.item").write_bytes(element_bytes(item, "item"))
    return [str(folder / f"{at}.item") for at in range(len(TEST_ITEMS))]


def test_the_golden_proof_holds_forever(tmp_path: Path) -> None:
    report = verify_path(load(None, tmp_path), ITEMS)
    proof = ItemProof.decode(ITEMS_PROOF.read_bytes(), "proof")
    stated = proven_set(report, proof)
    asked = [(str(at), item) for at, item in enumerate(TEST_ITEMS)]
    found = check(stated, proof, asked)
    assert (found.holds, found.items, found.size) == (True, 10, 50)
    present = check(stated, proof, [("present", {"label": 0, "text": "näive 0"})])
    assert present.others == ("present",)


@pytest.mark.slow
def test_the_strangers_script_says_the_same(tmp_path: Path) -> None:
    def script(proof: Path) -> tuple[int, str]:
        command = [sys.executable, str(STRANGER / "items.py"), str(ITEMS), str(proof)]
        done = subprocess.run(
            [*command, *golden_files(tmp_path)], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    assert script(ITEMS_PROOF) == (0, "10 of 10 as claimed\n")
    (tmp_path / "forged").write_bytes(
        ITEMS_PROOF.read_bytes().replace(b'"claim":"not-in"', b'"claim":"in"')
    )
    assert script(tmp_path / "forged") == (1, "0 of 10 as claimed\n")


def test_every_hex_digit_of_the_golden_proof_counts(tmp_path: Path) -> None:
    """Against the record: one digit at a time of run, record and key."""
    report = verify_path(load(None, tmp_path), ITEMS)
    text = ITEMS_PROOF.read_text()
    for field in ("run", "record", "key"):
        start = text.index(f'"{field}":"') + len(field) + 4
        for at in range(start, text.index('"', start)):
            if text[at] == "-":
                continue
            flipped = text[:at] + format(int(text[at], 16) ^ 1, "x") + text[at + 1 :]
            with pytest.raises(ProvenanceError):
                proof = ItemProof.decode(flipped.encode(), "proof")
                proof.shown(proven_set(report, proof).items)
