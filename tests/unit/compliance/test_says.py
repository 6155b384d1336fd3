"""What one record says to a topic: a value that somebody stated, never an absence."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from provenance.app.verify import verify_path
from provenance.compliance.dossier import dossier_of
from provenance.compliance.says import says
from provenance.compliance.topics import TOPICS
from provenance.evidence.lineage import Lineage
from provenance.evidence.run_evidence import RecordFile
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.record import Kind, record_digest
from provenance.settings import load
from tests.support.paths import ROOT
from tests.support.verify_world import NOW, RUN

OTHER: Final = "0192f0c1-2345-8fe8-84b0-4bcead339ab1"
MODEL: Final = f"hf:example/net@{'0c' * 20}"


def record_file(kind: Kind, **body: Any) -> RecordFile:
    event = Event(0, kind, None, 0, int(NOW * 1e9), body)
    record = record_of(event, SegmentHeader(RUN, b"p" * 16, 0, 1, 0), b"s" * 32)
    data = record.encode()
    digest = record_digest(data)
    return RecordFile("x", kind, None, 0, b"p" * 16, 0, record.ts, digest, data)


ABSENT: dict[str, tuple[str, dict[str, Any]]] = {
    "no commit": (
        "code",
        {"code": {"commit": None, "dirty": None, "problem": "no git repository"}},
    ),
    "a seed without a block": ("seed", {"seed": 5, "draw": 0, "problem": "no beacon came"}),
    "a seed of no block": ("seed", {"seed": 5, "draw": 0, "blocks": []}),
    "no budget": (
        "privacy",
        {"privacy": {"epsilon": None, "delta": 1e-5, "accountant": "rdp", "problem": "NaN"}},
    ),
    "results without a number": ("results", {"results": {}, "epochs": 3}),
    "results that are null": ("results", {"results": {"eval": {}, "test": None}, "epochs": 3}),
    "no metrics": ("metrics", {"metrics": {"eval": {}}}),
    "no package": ("software", {"environment": {"packages": {}, "python": ""}}),
    "no parent": ("parent", {"parent": None}),
    "no parents": ("parent", {"parent": []}),
    "no note": ("notes", {"text": None, "tags": []}),
    "no name": ("run", {"name": None, "team": None, "group": None, "tags": [], "notes": ""}),
    "no hyperparameters": ("hyperparameters", {"training": {}}),
    "no item set": ("item-sets", {"count": 5, "root": "mth-sha256:00", "items": None}),
}


@pytest.mark.parametrize("name", ABSENT)
def test_an_absence_says_nothing(name: str) -> None:
    topic, body = ABSENT[name]
    assert says(record_file(TOPICS[topic].kinds[0], **body), TOPICS[topic]) is None


POINT: Final = {"point": "02" + "af" * 32, "scale": 6}
SAID: dict[str, tuple[str, dict[str, Any], str]] = {
    "a commit": (
        "code",
        {"code": {"commit": "c0", "dirty": False}},
        "code.commit: c0; code.dirty: no",
    ),
    "a commit, and no more": ("code", {"code": {"commit": "c0", "dirty": None}}, "code.commit: c0"),
    "a seed": ("seed", {"seed": 5, "draw": 0, "blocks": [{"height": 1}]}, "seed: 5; draw: 0"),
    "numbers": (
        "results",
        {"results": {"loss": 0, "ok": False, "eval": {}}, "epochs": 3},
        "results.loss: 0; results.ok: no; epochs: 3",
    ),
    "hidden numbers": (
        "results",
        {
            "results": {"eval": {}},
            "epochs": 3,
            "commitments": {"eval.accuracy": POINT, "loss": {"point": None, "scale": 6}},
        },
        "epochs: 3; eval.accuracy: hidden, committed to; loss: hidden, without a commitment",
    ),
    "a hidden budget": (
        "privacy",
        {"privacy": {"delta": 1e-5}, "commitments": {"epsilon": POINT}},
        "privacy.delta: 1e-05; epsilon: hidden, committed to",
    ),
    "an item set": (
        "item-sets",
        {"items": {"count": 51, "root": "mth-sha256:cc", "form": [], "size": 50, "v": 1}},
        "items.count: 51; items.root: mth-sha256:cc",
    ),
    "a run": (
        "parent",
        {"parent": {"run": OTHER, "epoch": 3, "role": "fine-tuned", "root": "96" * 32}},
        f"says that it is fine-tuned from run {OTHER} at epoch 3; stated, not checked here",
    ),
    "a run and a model": (
        "parent",
        {"parent": [{"run": OTHER, "epoch": None}, {"model": MODEL, "role": "merged"}]},
        f"says that it continues run {OTHER}; stated, not checked here; "
        f"says that it is merged from the model {MODEL}; stated, not checked here",
    ),
    "a text": ("parent", {"parent": "ours"}, "parent: ours; stated, not checked here"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_stated_is_said(name: str) -> None:
    topic, body, line = SAID[name]
    assert says(record_file(TOPICS[topic].kinds[0], **body), TOPICS[topic]) == line


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Lineage(OTHER, 3, "continues run it from epoch 3", True, True), "continues run it from"),
        (Lineage(OTHER, 3, "its weights are of another", False), "its weights are of another"),
        (Lineage(OTHER, None, "which is not known here"), "says that it continues run"),
        (Lineage(str(RUN), 3, "of another parent", True, True), "says that it continues run"),
    ],
)
def test_a_parent_that_was_verified_too_is_told_as_found(found: Lineage, expected: str) -> None:
    record = record_file(Kind.CONFIG, parent={"run": OTHER, "epoch": None})
    line = says(record, TOPICS["parent"], found) or ""
    assert line.startswith(expected)
    assert line.endswith("stated, not checked here") is (expected == "says that it continues run")


@pytest.mark.slow
def test_item_sets_are_evidence_of_data_governance(tmp_path: Path) -> None:
    report = verify_path(load(None, tmp_path), ROOT / "tests/vectors/bundle-v1-items.zip")
    rows = {row.requirement.id: row for row in dossier_of(report, "eu-ai-act").rows}
    for name in ("Art. 10(1)", "Art. 10(2)(b)", "Art. 10(2)(e)"):
        (sets,) = [e for e in rows[name].evidence if e.topic is TOPICS["item-sets"]]
        assert [item.file for item in sets.items] == [
            "records/data/test/0.json",
            "records/data/train/0.json",
        ]
        assert "items.count: 51; items.root: mth-sha256:cccb4d76" in sets.items[1].says
