"""What a trainer names as parents, and what the configuration record has of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from safetensors.numpy import save_file

from provenance import ProvenanceTracker
from provenance.bundle.writer import write_bundle
from provenance.errors import InputError, ProvenanceError
from provenance.fingerprint.hashers import HashFactory
from provenance.formats.record import Kind
from provenance.lineage.claim import stated_parents
from tests.support.beyond.lineage_world import CHILD, base, family, fields_of, named
from tests.support.spooled import spooled
from tests.support.verify_world import RUN

WEIGHTS = {"algorithm": "blake3", "weights": fields_of(base())["root"]}
REVISION = "hf:org/net@" + "0a" * 20
PLAIN = {"run": str(RUN), "epoch": None}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a bundle, and the Hub's cache of one revision."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub/models--org--net/snapshots" / ("0a" * 20)
    for folder in (tmp_path / "net", snapshot):
        folder.mkdir(parents=True)
        save_file(base(), folder / "model.safetensors")
    world = family([base()], [base()], None)
    write_bundle(world.evidence(), tmp_path / "base.zip")
    write_bundle(world.evidence(CHILD), tmp_path / "report" / "evidence")
    return tmp_path


def stated(given: object) -> Any:
    return stated_parents(given, HashFactory("blake3"))


def test_each_way_to_name_a_parent_is_recorded_in_one_form(place: Path) -> None:
    model = {"model": "model.safetensors", **WEIGHTS}
    for given in (str(RUN), str(RUN).upper(), RUN, SimpleNamespace(run_id=str(RUN))):
        assert stated(given) == PLAIN
    assert stated(SimpleNamespace(tracker=SimpleNamespace(run_id=str(RUN)))) == PLAIN
    for path in ("net/model.safetensors", place / "net" / "model.safetensors"):
        assert stated(path) == model
    assert stated("net") == {**model, "model": "net"}
    for path, run in (("base.zip", RUN), ("report", CHILD)):
        found = stated(path)
        assert (found["run"], found["epoch"], len(found["root"])) == (str(run), None, 64)
    assert stated(REVISION) == {"model": REVISION, **WEIGHTS}
    elsewhere = REVISION.replace("0a", "0b")
    assert stated(elsewhere) == {"model": elsewhere}
    role = {"role": "merged"}
    assert stated([{"source": RUN, "epoch": 3, **role}, {"source": "net", **role}]) == [
        {"run": str(RUN), "epoch": 3, **role},
        {**model, "model": "net", **role},
    ]
    assert stated([RUN]) == PLAIN


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("nowhere.zip", "parent: found 'nowhere.zip', expected a run id or a tracker, the path of"),
        ("x" * 5000, "parent: found 'xxx"),
        ("a\0b", "parent: found 'a\\x00b', expected a run id"),
        ("hf:org/net@main", "parent: found 'hf:org/net@main', expected "),
        ("hf:org@" + "0" * 40, "parent: found 'hf:org@0000"),
        (7, "parent: found '7', expected a run id"),
        ([], "parent: found 0, expected 1 to 64"),
        ([RUN] * 65, "parent: found 65, expected 1 to 64"),
        ({"role": "merged"}, "parent: found no source, expected source, role and epoch"),
        ({"source": RUN, "rol": "merged"}, "parent: found the key 'rol', expected source, role"),
        ({"source": RUN, "role": "cousin"}, "parent.role: found 'cousin', expected one of"),
        ({"source": RUN, "role": ["merged"]}, "parent.role: found ['merged'], expected one of"),
        ({"source": RUN, "epoch": True}, "parent.epoch: found True, expected a whole number"),
        ({"source": RUN, "epoch": -1}, "parent.epoch: found -1, expected a whole number from 0"),
        ({"source": "net", "epoch": 1}, "parent.epoch: found 1 of the model 'net', which has none"),
    ],
)
def test_what_names_no_parent_is_refused_in_one_line(place: Path, given: object, line: str) -> None:
    with pytest.raises(InputError) as refused:
        ProvenanceTracker(place / "run", parent=given)
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)
    assert not (place / "run" / "spool").exists()


@pytest.mark.parametrize("name", ["bad.zip", "a.safetensors"])
def test_a_file_that_is_damaged_is_refused_by_name(place: Path, name: str) -> None:
    (place / name).write_bytes(b"none")
    with pytest.raises(ProvenanceError, match=name):
        ProvenanceTracker(place / "run", parent=name)


@pytest.mark.parametrize(
    ("training", "parent"),
    [
        ({"parent": str(RUN)}, PLAIN),
        ({"parent": "net"}, {"model": "net", **WEIGHTS}),
        ({"parent": [{"source": str(RUN), "role": "merged"}]}, named(role="merged")),
        ({"parent_model": REVISION}, {"model": REVISION, **WEIGHTS}),
        ({"parent": "bert base"}, "bert base"),
        ({"parent": "x" * 5000}, "x" * 5000),
        ({"parent": {"depth": 3}}, {"depth": 3}),
        (
            {"parent": {"source": str(RUN), "role": "cousin"}},
            {"source": str(RUN), "role": "cousin"},
        ),
        ({}, None),
    ],
)
def test_a_configuration_names_parents_and_never_stops_a_training(
    place: Path, training: dict[str, Any], parent: Any
) -> None:
    tracker = ProvenanceTracker(place / "run")
    tracker.store_merkle_on_blockchain_before_training(training)
    (config,) = (e.fields for e in spooled(place / "run") if e.kind is Kind.CONFIG)
    assert config["parent"] == parent
    tracker.close()


def test_what_the_call_names_stands_before_the_configuration(place: Path) -> None:
    tracker = ProvenanceTracker(place / "run", parent=UUID(int=CHILD.int))
    tracker.store_merkle_on_blockchain_before_training({"parent": str(RUN)})
    (config,) = (e.fields for e in spooled(place / "run") if e.kind is Kind.CONFIG)
    assert config["parent"] == {"run": str(CHILD), "epoch": None}
    tracker.close()
