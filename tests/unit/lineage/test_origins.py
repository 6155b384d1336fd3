"""A model that a run names as its parent, joined to the runs whose epoch it is."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from provenance import ProvenanceTracker
from provenance.cli import main
from provenance.lineage import walk
from tests.support.beyond import lineage_forms
from tests.support.beyond.lineage_world import base
from tests.support.home import brought_home
from tests.support.stranger import load

pytestmark = pytest.mark.slow  # whole commands
ZERO = {name: value * 0 for name, value in base().items()}
HUB = "hf:org/net@" + "0c" * 20
FILES = ("net.safetensors", "net.pt", HUB)
"""The model of epoch 1 of two runs, in three forms."""


class Family(NamedTuple):
    place: Path
    runs: Mapping[str, str]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """A run and its twin, heirs of their models, and one of a model that nobody made."""
    place = tmp_path_factory.mktemp("origins")
    snapshot = place / "hub/models--org--net/snapshots" / ("0c" * 20)
    snapshot.mkdir(parents=True)
    made, last, further = (
        {name: value + more for name, value in base().items()} for more in (0, 1, 2)
    )
    save_file(made, place / "net.safetensors")
    save_file(made, snapshot / "model.safetensors")
    torch.save({name: torch.from_numpy(value) for name, value in made.items()}, place / "net.pt")
    save_file({"odd": np.ones(3, "f4")}, place / "odd.safetensors")
    (place / "other").mkdir()
    save_file(last, place / "other" / "net.safetensors")
    runs: dict[str, str] = {}

    def run(name: str, states: list[Any], parent: Any = None) -> None:
        tracker = ProvenanceTracker(place, parent=parent, name=name)
        tracker.track_model(states[0])
        for epoch, weights in enumerate(states[1:], 1):
            tracker.track_epoch(epoch, {"loss": 1 / epoch}, model=weights)
        tracker.store_merkle_on_blockchain_after_training({})
        runs[name] = tracker.run_id

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(place / "hub"))
        run("first", [ZERO, made, last])
        run("twin", [ZERO, made])
        # The heir trains nothing in its first epoch: it has the same weights, and is not its own
        # parent.
        run("heir", [made, made, further], [str(place / FILES[0]), str(place / FILES[1]), HUB])
        run("next", [last], str(place / "other" / "net.safetensors"))
        run("last", [last], [str(place / FILES[0]), str(place / "other" / "net.safetensors")])
        run("stray", [ZERO], str(place / "odd.safetensors"))
    brought_home(place)
    for name in runs:
        assert command(place, "bundle", runs[name], "-o", str(place / f"{name}.zip")) == 0
    return Family(place, runs)


def command(place: Path, *words: str) -> int:
    return main([*words, "--base-dir", str(place)])


Asked = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def asked(family: Family, capsys: pytest.CaptureFixture[str]) -> Asked:
    def graph(*words: str, place: Path = family.place) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = command(place, "lineage", *words, "--json")
        return code, json.loads(capsys.readouterr().out)

    return graph


def parents_of(graph: dict[str, Any], child: str) -> dict[str, dict[str, Any]]:
    return {edge["parent"]: edge for edge in graph["edges"] if edge["child"] == child}


def test_a_file_in_each_form_is_the_epoch_of_both_runs_that_made_it(
    family: Family, asked: Asked
) -> None:
    code, graph = asked(family.runs["heir"])
    assert (code, graph["problems"]) == (0, [])
    named = parents_of(graph, family.runs["heir"])
    assert named.keys() == {*FILES}
    for name, edge in named.items():
        assert (edge["matches"], edge["tensors"]["changed"]) == (True, [*sorted(base())])
        assert edge["line"].endswith(", which are its initial weights")
        joined = parents_of(graph, name)
        assert joined.keys() == {family.runs["first"], family.runs["twin"]}
        for run, found in joined.items():
            line = f"has the weights of epoch 1 of run {run}: the roots are equal, and "
            assert (found["matches"], found["line"].startswith(line)) == (True, True)


def test_the_proof_leads_from_the_record_to_the_anchored_root(family: Family, asked: Asked) -> None:
    """By the stranger's verifier, from the bundle of that run and the JSON alone."""
    _, graph = asked(family.runs["heir"])
    weights = {node["id"]: node["weights"] for node in graph["nodes"]}
    edge = parents_of(graph, "net.pt")[family.runs["first"]]
    stranger = load()
    bundle = stranger.Bundle(stranger.load(family.place / "first.zip"), None)
    assert bundle.problems == []
    record = bundle.files[f"records/{edge['proof']['path']}.json"]
    assert json.loads(record)["body"]["root"] == weights["net.pt"]
    assert hashlib.sha256(record).hexdigest() == edge["proof"]["leaf_digest"]
    value = bytes.fromhex(edge["proof"]["leaf_digest"])
    for level in edge["proof"]["levels"]:
        hashes = [bytes.fromhex(item) for item in level["proof"]]
        value, _ = stranger.included(value, level["index"], level["size"], hashes)
    assert value.hex() == bundle.run["entries"][-1]["root"]


def test_models_of_one_name_and_other_weights_are_two(family: Family, asked: Asked) -> None:
    code, graph = asked(family.runs["last"])
    assert code == 0
    (other,) = parents_of(graph, family.runs["last"]).keys() - {"net.safetensors"}
    assert other.startswith("net.safetensors (")
    same = {family.runs[name] for name in ("first", "twin", "heir")}
    assert {*parents_of(graph, "net.safetensors")} == same
    ((run, edge),) = parents_of(graph, other).items()
    assert run == family.runs["first"]
    assert "has the weights of epoch 2 of run" in edge["line"]


def test_a_model_of_no_run_is_told_as_that(family: Family, asked: Asked) -> None:
    code, graph = asked(family.runs["stray"])
    (edge,) = graph["edges"]
    assert (code, edge["matches"], edge["tensors"]) == (0, None, None)
    assert edge["line"].endswith("; no run that is known here has them in a record that counts")


def test_bundles_that_are_given_join_it_without_a_database(
    family: Family, asked: Asked, tmp_path: Path
) -> None:
    child, parent = (str(family.place / f"{name}.zip") for name in ("next", "first"))
    _, graph = asked(child, place=tmp_path)
    assert [edge["matches"] for edge in graph["edges"]] == [True]  # it begins from that model
    code, graph = asked(child, "--parent", parent, place=tmp_path)
    (edge,) = parents_of(graph, "net.safetensors").values()
    assert (code, edge["parent"]) == (0, family.runs["first"])
    _, graph = asked(child, "--parent", str(family.place / "twin.zip"), place=tmp_path)
    assert graph["problems"] == [
        f"run {family.runs['twin']} is no ancestor of run {family.runs['next']}"
    ]


def test_verify_takes_the_run_that_made_a_model_for_its_parent(
    family: Family, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """So does the stranger's verifier; another run is a finding."""
    stranger = load()
    bundles = {
        name: stranger.Bundle(stranger.load(family.place / f"{name}.zip"), None)
        for name in ("heir", "first", "stray")
    }
    capsys.readouterr()
    child, parent = (str(family.place / f"{name}.zip") for name in ("heir", "first"))
    assert main(["verify", child, "--offline", "--parent", parent, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    line = f"the model {FILES[0]!r} has the weights of epoch 1 of run {family.runs['first']}; that"
    assert line in json.dumps(found["notices"])
    assert found["findings"] == []
    assert stranger.check_parent(bundles["heir"], bundles["first"]) == (
        f"parent: model {FILES[0]} has the weights of epoch 1"
    )
    for name in ("stray", "heir"):  # the heir has that model's weights too, of its own epoch 1
        other = str(family.place / f"{name}.zip")
        assert main(["verify", child, "--offline", "--parent", other, "--json"]) == 1
        assert "names no run as the run that it continues" in capsys.readouterr().out
        with pytest.raises(ValueError, match="names no run"):
            stranger.check_parent(bundles["heir"], bundles[name])


def test_a_record_that_was_edited_to_have_the_weights_does_not_count(
    family: Family, asked: Asked, tmp_path: Path
) -> None:
    _, graph = asked(family.runs["stray"])
    (root,) = [node["weights"] for node in graph["nodes"] if node["kind"] == "model"]
    assert command(family.place, "bundle", family.runs["twin"], "-o", str(tmp_path / "b")) == 0
    (state,) = (tmp_path / "b/records/training/epoch/1/state").glob("*.json")
    own = json.loads(state.read_bytes())["body"]["root"]
    state.write_bytes(state.read_bytes().replace(own.encode(), root.encode()))
    code, graph = asked(
        str(family.place / "stray.zip"), "--parent", str(tmp_path / "b"), place=tmp_path
    )
    edge = parents_of(graph, "odd.safetensors")[family.runs["twin"]]
    assert (code, edge["matches"], edge["proof"]) == (1, None, None)
    assert "in a record that does not count: " in edge["line"]


def test_a_run_that_cannot_be_read_stops_no_other(
    family: Family, asked: Asked, tmp_path: Path
) -> None:
    """As one whose archive is lost: it is told, and the other run is joined."""
    place, twin = tmp_path / "place", family.runs["twin"]
    shutil.copytree(family.place, place)
    (path,) = place.glob("*.db")
    with sqlite3.connect(path) as database:
        key = (twin.replace("-", ""),)
        database.execute("DELETE FROM records WHERE run = ?", key)
        row = "INSERT INTO archived_runs VALUES (?, zeroblob(32), 9, 9, 1)"
        database.execute(row, key)
    database.close()
    code, graph = asked(family.runs["heir"], place=place)
    assert (code, {*parents_of(graph, "net.pt")}) == (1, {family.runs["first"]})
    assert f"run {twin}: archived as " in graph["problems"][0]


def test_that_not_all_runs_were_looked_at_is_said(
    family: Family, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most, said in ((1, True), (2, False)):
        monkeypatch.setattr(walk, "MAX_RUNS", most)
        _, graph = asked(family.runs["heir"])
        line = parents_of(graph, family.runs["heir"])["net.pt"]["line"]
        assert ("; of the runs that state them 1 were looked at" in line) == said


@pytest.mark.parametrize("form", ["html", "prov", "openlineage"])
def test_each_form_has_the_join(
    family: Family, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    capsys.readouterr()
    assert command(family.place, "lineage", family.runs["heir"], "--format", form) == 0
    text = capsys.readouterr().out
    if form == "html":
        assert text.count("has the weights of epoch 1 of run") == 6
        assert '<span class="status passed">its weights</span>' in text
    elif form == "prov":
        made = {
            (item["prov:entity"], item["prov:activity"])
            for item in lineage_forms.prov(text)["wasGeneratedBy"].values()
        }
        assert ("weights:net.pt", f"run:{family.runs['twin']}") in made
    else:
        events = lineage_forms.openlineage(text)
        for run in ("first", "twin"):
            names = {item["name"] for item in events[family.runs[run]]["outputs"]}
            assert names == {f"{family.runs[run]}/weights", *FILES}
        assert {*FILES} <= {item["name"] for item in events[family.runs["heir"]]["inputs"]}


def test_the_index_is_not_believed_and_fsck_names_its_rows(
    family: Family, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """Last: it changes the database."""
    (path,) = family.place.glob("*.db")
    stray, twin = (family.runs[name].replace("-", "") for name in ("stray", "twin"))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE epoch_weights SET run = ? WHERE run = ?", (stray, twin))
    database.close()
    code, graph = asked(family.runs["heir"])
    assert (code, {*parents_of(graph, "net.pt")}) == (0, {family.runs["first"]})
    capsys.readouterr()
    assert command(family.place, "fsck", "--offline") == 1
    told = capsys.readouterr().out
    assert f"{family.runs['twin']}/epoch_weights/1/" in told
    assert f"{family.runs['stray']}/epoch_weights/1/" in told
