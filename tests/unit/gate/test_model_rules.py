"""What of a model's files is held, and the line that refuses each that somebody changed."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from safetensors.numpy import load_file, save_file

from provenance.fingerprint.hashers import HashFactory
from provenance.formats.record import Kind
from provenance.gate.decision import Gate
from provenance.gate.policy import load_policy
from provenance.models.match import match_model
from tests.support.model_world import deployment, model_folder, real_story, weights
from tests.support.verify_world import Fields, ending
from tests.unit.gate.conftest import PLAIN, Hold, flip, refused, write_policy

pytestmark = pytest.mark.slow


def more_weights(model: Path) -> None:
    shutil.copy(model / "model.safetensors", model / "assets" / "other.safetensors")


def pickled(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.bin").write_bytes(pickle.dumps({"w": 1}))


def link(model: Path) -> None:
    (model / "assets.txt").unlink()
    (model / "assets.txt").symlink_to("/etc/hostname")


def linked_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model.parent / "elsewhere.safetensors")
    (model / "model.safetensors").symlink_to(model.parent / "elsewhere.safetensors")


def fewer_tensors(model: Path) -> None:
    state = load_file(model / "model.safetensors")
    del state["fc.bias"]
    save_file(state, model / "model.safetensors")


CHANGES: dict[Callable[[Path], object], tuple[str, str]] = {
    flip: ("model", "weights of no epoch; nearest is"),
    fewer_tensors: ("model", "is missing"),
    more_weights: ("model", "assets/other.safetensors: was not compared"),
    pickled: ("model", "cannot be read as tensors alone"),
    link: ("model", "is a link"),
    linked_weights: ("model", "is a link"),
    lambda model: (model / "modeling.py").write_text("import os"): ("files", "modeling.py"),
    lambda model: (model / "optimizer.pt").write_bytes(b"x"): ("files", "optimizer.pt"),
    lambda model: save_file(weights(0), model / "model.safetensors"): ("epoch", "before training"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_is_not_the_runs_is_refused(
    change: Callable[[Path], object], hold: Hold, model: Path
) -> None:
    change(model)
    rule, words = CHANGES[change]
    lines = refused(hold())
    assert [*lines] == [rule]
    assert words in lines[rule]


def test_the_last_epoch_may_be_required(hold: Hold, tmp_path: Path) -> None:
    older = model_folder(tmp_path / "older", 2)
    assert hold(model=older).passed
    assert [*refused(hold(model=older, epoch="last"))] == ["epoch"]


def test_a_part_counts_only_where_the_policy_says_so(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model before training whose frozen part an epoch has too is no trained model."""

    def frozen(*given: Any) -> Any:
        match = match_model(*given)
        (epoch,) = match.matches
        part = replace(epoch, part="base model: 2 of the record's 3 tensors")
        return replace(match, matches=(replace(epoch, epoch=None), part))

    monkeypatch.setattr("provenance.gate.decision.match_model", frozen)
    assert [*refused(hold())] == ["epoch"]
    assert hold(parts=True).passed


def test_a_recorded_artifact_may_lie_beside_the_weights(tmp_path: Path, model: Path) -> None:
    digest = str(HashFactory("blake3").digest_file(model / "config.json"))
    artifact: Fields = (Kind.ARTIFACT, None, {"name": "config.json", "digest": digest})
    home = deployment(tmp_path / "with", ending([*real_story()[:-3], artifact]))
    policy = load_policy(write_policy(tmp_path / "p.yaml", home, files=PLAIN[1:]))
    assert Gate(home, policy).decide(model, "latest").passed
    (model / "config.json").rename(model / "setup.py")
    lines = refused(Gate(home, policy).decide(model, "latest"))
    assert lines["files"].startswith("files: found setup.py; ")
    (model / "setup.py").unlink()
    (model / "config.json").write_text("{}")
    assert [*refused(Gate(home, policy).decide(model, "latest"))] == ["files"]


def test_an_artifact_stands_for_no_other_file(tmp_path: Path, model: Path) -> None:
    """What the run recorded as one name's last part is no file of another folder."""
    digest = str(HashFactory("blake3").digest_file(model / "assets" / "vocab.txt"))
    names = ("vocab.txt", "other/vocab.txt")
    events: list[Fields] = [(Kind.ARTIFACT, None, {"name": n, "digest": digest}) for n in names]
    home = deployment(tmp_path / "with", ending([*real_story()[:-3], *events]))
    rest = [pattern for pattern in PLAIN if pattern != "assets/*"]
    policy = load_policy(write_policy(tmp_path / "p.yaml", home, files=rest))
    gate = Gate(home, policy)
    assert refused(gate.decide(model, "latest"))["files"].startswith("files: found assets/vocab")
    (model / "assets" / "vocab.txt").rename(model / "vocab.txt")
    assert gate.decide(model, "latest").passed


PICKLES: dict[str, Callable[[Path], object]] = {
    "training_args.bin": lambda path: path.write_bytes(b"cposix\nsystem\n(S'id'\ntR."),
    "assets/scaler.pt": lambda path: path.write_bytes(b"x"),
    "tokenizer.model": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
    "merges.txt": lambda path: zipped(path, {"archive/data.pkl": b"."}),
}


@pytest.mark.parametrize("name", PICKLES)
def test_no_pattern_lets_a_pickle_through(
    name: str, hold: Hold, model: Path, tmp_path: Path
) -> None:
    PICKLES[name](model / name)
    line = refused(hold(files=["*", *PLAIN]))["files"]
    assert line.startswith(f"files: found {name} (a pickle); ")
    digest = str(HashFactory("blake3").digest_file(model / name))
    artifact: Fields = (Kind.ARTIFACT, None, {"name": name, "digest": digest})
    home = deployment(tmp_path / "with", ending([*real_story()[:-3], artifact]))
    policy = load_policy(write_policy(tmp_path / "p.yaml", home))
    assert Gate(home, policy).decide(model, "latest").passed


@pytest.mark.parametrize(
    "name",
    [".git/config", ".github/setup.py", ".gitattributes", "assets/model.safetensors.index.json",
     "pytorch_model.bin.index.json"],
)  # fmt: skip
def test_gits_files_and_an_index_of_no_weights_are_files_like_others(
    name: str, hold: Hold, model: Path
) -> None:
    shards = dict.fromkeys(weights(3), "model.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    named = [*PLAIN[:2], *PLAIN[3:5]]
    (model / "assets" / "vocab.txt").unlink()
    (model / ".gitattributes").unlink()
    assert hold(files=named).passed
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("{}")
    assert refused(hold(files=named))["files"].startswith(f"files: found {name}; ")


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def keras_file(path: Path, *structure: str) -> Path:
    """The run's weights as Keras saves them, and what else Keras reads there."""
    h5py = pytest.importorskip("h5py")
    whole = path.suffix == ".keras"
    inner = path.with_name("model.weights.h5") if whole else path
    with h5py.File(inner, "w") as file:
        for name, array in weights(3).items():
            file[name] = array
        for name in () if whole else structure:
            file.attrs[name] = "{}"
    if whole:
        zipped(path, {inner.name: inner.read_bytes(), **dict.fromkeys(structure, b"{}")})
        inner.unlink()
    return path


OWN = ("metadata.json", "config.json")


@pytest.mark.parametrize(
    ("name", "structure", "by_default", "unchecked"),
    [
        ("net.keras", OWN, False, True),
        ("net.keras", (*OWN, "run.py"), False, False),
        ("net.keras", (*OWN, "assets/evil.pkl"), False, False),
        ("net.keras", (), True, True),
        ("net.h5", ("model_config", "keras_version"), False, True),
        ("net.weights.h5", (), True, True),
    ],
)
def test_a_structure_that_nothing_was_compared_with_is_refused(
    name: str, structure: tuple[str, ...], by_default: bool, unchecked: bool, hold: Hold,
    tmp_path: Path,
) -> None:  # fmt: skip
    file = keras_file(tmp_path / name, *structure)
    for decision, passes in (
        (hold(model=file), by_default),
        (hold(model=file, architecture="unchecked"), unchecked),
    ):
        assert decision.passed is passes
        assert passes or [*refused(decision)] == ["architecture"]
    digest = str(HashFactory("blake3").digest_file(file))
    artifact: Fields = (Kind.ARTIFACT, None, {"name": name, "digest": digest})
    home = deployment(tmp_path / "with", ending([*real_story()[:-3], artifact]))
    gate = Gate(home, load_policy(write_policy(tmp_path / "p.yaml", home)))
    assert gate.decide(file, "latest").passed


def test_a_second_state_in_a_keras_file_is_refused(hold: Hold, tmp_path: Path) -> None:
    file = keras_file(tmp_path / "net.keras")
    with ZipFile(file) as archive:
        data = archive.read("model.weights.h5")
    with pytest.warns(UserWarning, match="Duplicate"), ZipFile(file, "a") as archive:
        archive.writestr("model.weights.h5", data)
    lines = refused(hold(model=file, architecture="unchecked"))
    assert "found model.weights.h5 in net.keras" in lines["architecture"]


def test_patterns_are_of_one_folder(hold: Hold, model: Path) -> None:
    lines = refused(hold(files=["*"]))
    assert lines["files"].startswith("files: found .git/HEAD, assets/vocab.txt, assets.d/.hidden; ")


def test_files_that_change_meanwhile_are_refused(
    hold: Hold, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(*given: Any) -> Any:
        found = match_model(*given)
        (model / "config.json").write_text('{"hidden": 5}')
        return found

    monkeypatch.setattr("provenance.gate.decision.match_model", swapped)
    assert "changed while they were checked" in refused(hold())["files"]
