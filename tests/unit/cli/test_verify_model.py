"""Weights against a run: exactly these, nearly these, or not to be said; and what sign refuses.

Over 400 lines: case by case, one subject.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)
from safetensors.numpy import save_file

from provenance import cli
from provenance.app import model
from provenance.app.verify import verify_run
from provenance.bundle.writer import write_bundle
from provenance.errors import FormatError, InputError, MissingExtraError, ProvenanceError
from provenance.evidence.run_evidence import RunEvidence
from provenance.fingerprint import model_files as files
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.model_files import read_model, weights_files
from provenance.fingerprint.tensors import state_digest
from provenance.formats.dsse import Statement, key_hint, pae
from provenance.formats.record import Kind
from provenance.models import signature
from provenance.models.key import CURVES, PASSPHRASE, read_signing_key
from provenance.models.match import ModelMatch, match_model
from provenance.settings import Settings
from provenance.verify.verifier import verify
from tests.support.frameworks import framework
from tests.support.model_world import deployment, key_files, model_folder, real_story, weights
from tests.support.verify_world import RUN, SIGNER, World, ending, seal

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PROVENANCE_")]:
        monkeypatch.delenv(name)


def world(events: list[Any] | None = None) -> World:
    stage = World(names=("local",))
    stage.ingest(stage.batch(real_story() if events is None else events))
    stage.anchor()
    return stage


EVIDENCE = world().evidence()


def match(path: Path, evidence: RunEvidence = EVIDENCE) -> ModelMatch:
    report = verify(evidence, None, verifier_key=SIGNER.verifier, now=0.0)
    return match_model(report, read_model(path))


def torch_weights(epoch: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in weights(epoch).items()}


def written(
    form: str, epoch: int = 2, change: Callable[[dict[str, Any]], Any] | None = None
) -> Path:
    """The weights of an epoch in a file of one form, relative to here."""
    state = weights(epoch)
    if change is not None:
        change(state)
    tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}
    if form == "safetensors":
        save_file(state, "m.safetensors")
        return Path("m.safetensors")
    if form == "npz":
        np.savez("m.npz", **state)
        return Path("m.npz")
    if form == "pt legacy":
        torch.save(tensors, "m.pth", _use_new_zipfile_serialization=False)
        return Path("m.pth")
    if form == "checkpoint":
        optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
        full = {"epoch": 2, "optimizer": optimizer, "model_state_dict": tensors}
        torch.save(full, "m.ckpt")
        return Path("m.ckpt")
    if form in ("shards", "indexed"):
        Path("folder").mkdir()
        first, second = Path("folder/a-00001.safetensors"), Path("folder/a-00002.safetensors")
        names = sorted(state)
        save_file({names[0]: state[names[0]]}, first)
        save_file({name: state[name] for name in names[1:]}, second)
        if form == "indexed":
            places = {name: (first if name == names[0] else second).name for name in names}
            Path("folder/model.safetensors.index.json").write_text(
                json.dumps({"weight_map": places})
            )
            torch.save({"x": torch.ones(1)}, "folder/optimizer.pt")
        return Path("folder")
    if form == "trainer folder":
        Path("folder").mkdir()
        torch.save(tensors, "folder/pytorch_model.bin")
        for beside in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"):
            torch.save({"x": torch.ones(1)}, f"folder/{beside}")
        return Path("folder")
    torch.save(tensors, "m.pt")
    return Path("m.pt")


FORMS = (
    "safetensors", "npz", "pt", "pt legacy", "checkpoint", "shards", "indexed", "trainer folder",
)  # fmt: skip


# --- matching ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_weights_is_found(form: str) -> None:
    found = match(written(form))
    assert (found.outcome, found.exit_code) == ("match", 0)
    (one,) = found.matches
    assert (one.path, one.epoch, one.rank) == ("training/epoch/2/state/0", 2, 0)
    assert found.weights is not None
    assert str(found.weights) == one.root == str(state_digest(weights(2)))
    assert found.state == ("model_state_dict" if form == "checkpoint" else "")
    assert found.seal is not None
    assert (found.seal.label, found.seal.root) == ("after", EVIDENCE.entries[-1].root)
    assert found.origin == SIGNER.verifier.name
    assert found.others == 0


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha3-256", "blake2b"])
def test_each_record_is_compared_with_its_own_algorithm(algorithm: str) -> None:
    evidence = world(real_story(algorithm)).evidence()
    assert match(written("safetensors", 3), evidence).matches[0].algorithm == algorithm
    near = match(
        written("pt", 3, lambda s: s.update({"norm.count": np.array(8)})), evidence
    ).nearest
    assert near is not None
    assert near.tensor == "norm.count"


def test_weights_before_training_and_of_several_epochs_and_ranks() -> None:
    assert [m.when for m in match(written("safetensors", 0)).matches] == ["before training"]
    events = real_story()
    same = state_digest(weights(3)).as_fields()
    # Epoch 2 and 3 alike: a learning rate of zero.
    events = [(k, e, same if (k, e) == (Kind.STATE, 2) else f) for k, e, f in events]
    found = match(written("safetensors", 3), world(events).evidence())
    assert [item.epoch for item in found.matches] == [2, 3]


def test_one_flipped_bit_names_the_tensor_and_the_nearest_epoch() -> None:
    path = written("safetensors")
    data = bytearray(path.read_bytes())
    header = int.from_bytes(data[:8], "little")
    places = json.loads(data[8 : 8 + header])
    data[8 + header + places["fc.weight"]["data_offsets"][0]] ^= 1
    path.write_bytes(data)
    found = match(path)
    assert (found.outcome, found.exit_code) == ("no match", 1)
    near = found.nearest
    assert near is not None
    assert near.stated.path == "training/epoch/2/state/0"
    assert near.tensor == "fc.weight"
    assert near.problem.startswith("has digest blake3:")
    assert (near.differing, near.total) == (1, 3)


@pytest.mark.parametrize(
    ("change", "tensor", "says"),
    [
        (lambda s: s.pop("fc.bias"), "fc.bias", "is missing"),
        (lambda s: s.update(extra=np.ones(1)), "extra", "is not in the record"),
        (
            lambda s: s.update({"fc.weight": s["fc.weight"].astype("float64")}), "fc.weight",
            "has dtype F64, the record states F32",
        ),
        (
            lambda s: s.update({"fc.weight": s["fc.weight"].reshape(3, 4)}), "fc.weight",
            "has shape [3, 4], the record states [4, 3]",
        ),
        # Two differ: the first by name is named.
        (lambda s: s.update({"norm.count": np.array(1), "fc.bias": s["fc.bias"] + 1}),
         "fc.bias", "has digest"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["safetensors", "npz", "pt"])
def test_the_first_tensor_that_differs_is_named(
    form: str, change: Callable[[dict[str, Any]], Any], tensor: str, says: str
) -> None:
    near = match(written(form, 2, change)).nearest
    assert near is not None
    assert near.stated.epoch == 2
    assert near.tensor == tensor
    assert says in near.problem


def test_weights_of_another_model_are_compared_with_the_last_epoch() -> None:
    found = match(written("safetensors", 9))
    assert found.nearest is not None
    assert found.nearest.stated.epoch == 3
    assert found.nearest.differing == 2  # norm.count is the same constant in all of them.


def test_withheld_records_leave_it_open() -> None:
    hidden = replace(
        EVIDENCE,
        records=tuple(
            replace(r, withheld=True, data=None) if r.kind is Kind.STATE else r
            for r in EVIDENCE.records
        ),
    )
    found = match(written("safetensors"), hidden)
    assert (found.outcome, found.exit_code) == ("unchecked", 3)
    assert found.withheld == tuple(f"training/epoch/{n}/state/0" for n in (1, 2, 3))
    assert found.nearest is not None  # model/weights is disclosed
    assert match(written("safetensors", 0), hidden).exit_code == 0


def test_a_run_without_weights_cannot_be_said_anything_of() -> None:
    events = [
        event for event in real_story(states=()) if event[0] not in (Kind.WEIGHTS, Kind.RUN_END)
    ]
    events.append((Kind.RUN_END, None, {"events": len(events), "reason": "x"}))
    found = match(written("safetensors"), world(events).evidence())
    assert (found.outcome, found.weights, found.nearest) == ("unchecked", None, None)


def test_a_record_under_no_root_is_no_match() -> None:
    stage = World(names=("local",))
    stage.ingest(stage.batch(real_story()[:-3]))  # open: no after seal
    found = match(written("safetensors"), stage.evidence())
    assert (found.outcome, found.exit_code) == ("unchecked", 3)
    assert [(d.epoch, d.problem) for d in found.doubtful] == [(2, "no run root covers it")]


def tampered(body: dict[str, Any]) -> RunEvidence:
    """Epoch 2's record states something else than its digest stands for."""

    def change(data: bytes | None) -> bytes:
        document = json.loads(data or b"")
        document["body"] = body
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    return replace(
        EVIDENCE,
        records=tuple(
            replace(r, data=change(r.data)) if r.path == "training/epoch/2/state/0" else r
            for r in EVIDENCE.records
        ),
    )


def test_a_record_that_was_changed_to_state_these_weights_is_no_match() -> None:
    found = match(written("safetensors", 9), tampered(state_digest(weights(9)).as_fields()))
    assert (found.outcome, found.exit_code) == ("no match", 1)
    (doubtful,) = found.doubtful
    assert "SHA-256 of the record is" in str(doubtful.problem)
    assert found.damaged[0].startswith("training/epoch/2/state/0: ")


def test_a_damaged_record_may_have_been_the_one() -> None:
    found = match(written("safetensors", 2), tampered({"root": 1}))
    assert found.exit_code == 1
    assert found.damaged
    # Another epoch's record still holds, and what is wrong elsewhere is said.
    other = match(written("safetensors", 3), tampered({"root": 1}))
    assert (other.exit_code, other.others) == (0, 1)


@pytest.mark.parametrize("forgery", ["statement", "hole", "beyond", "key", "certificate"])
def test_a_record_that_its_producer_did_not_sign_is_no_match(forgery: str) -> None:
    """A new ledger over a record that was replaced: all but the signatures fits."""
    lie = (Kind.STATE, 3, state_digest(weights(9)).as_fields())
    story = [lie if event[:2] == lie[:2] else event for event in real_story()]
    stage = World(names=("local",))
    hole = story.index(lie) + 1  # behind it no chain is made
    if forgery in ("hole", "beyond"):
        hole -= 3 if forgery == "beyond" else 0
        stage.ingest(stage.batch(story[:hole]), stage.batch(story[hole + 1 :], first=hole + 1))
        stage.sweep(later=1e6)
    else:
        stage.ingest(stage.batch(story))
    evidence = stage.evidence()
    if forgery == "key":
        evidence = replace(evidence, public_key=bytes(32))
    elif forgery == "certificate":
        (own,) = evidence.producers
        evidence = replace(evidence, producers=(replace(own, certificate=b"x"),))
    else:
        evidence = replace(evidence, producers=EVIDENCE.producers)
    assert evidence.entries[-1].phase.value == "after"
    path = written("safetensors", 9)
    found = match(path, evidence)
    assert (found.matches, found.outcome, found.exit_code) == ((), "no match", 1)
    (doubtful,) = found.doubtful
    assert str(doubtful.problem).startswith("run: " if forgery == "key" else "producer 70707070: ")


@pytest.mark.parametrize("where", ["root", "ledger", "proof"])
def test_a_match_needs_its_run_root(where: str) -> None:
    entry = replace(EVIDENCE.entries[-1], root=bytes(32))
    if where == "root":
        broken = replace(EVIDENCE, entries=(*EVIDENCE.entries[:-1], entry))
    elif where == "ledger":
        broken = replace(EVIDENCE, inclusions=())
    else:
        from provenance.evidence.run_evidence import EvidenceProblem

        file = "records/training/epoch/2/state/0.json"
        broken = replace(EVIDENCE, problems=(EvidenceProblem(file, "is damaged"),))
    found = match(written("safetensors"), broken)
    assert found.matches == ()
    assert found.exit_code == 1
    assert found.doubtful[0].problem


@pytest.mark.parametrize(
    "tensors",
    [
        None, [], [7], [{"name": "a"}], [{"name": "a", "digest": "sha256:" + "00" * 32}],
        [{"name": "a", "digest": "blake3:" + "00" * 32}],
    ],
)  # fmt: skip
def test_tensor_digests_that_do_not_make_the_root_name_nothing(tensors: Any) -> None:
    body = state_digest(weights(1)).as_fields() | {"tensors": tensors}
    events = [*real_story(states=())[:-3], (Kind.STATE, 3, body)]
    events = ending([event for event in events if event[0] is not Kind.WEIGHTS])
    found = match(written("safetensors", 2), world(events).evidence())
    assert found.exit_code == 1
    assert found.nearest is not None
    assert found.nearest.tensor is None
    assert "no digests of single tensors" in found.nearest.problem


@pytest.mark.parametrize("tensors", [[], state_digest(weights(9)).as_fields()["tensors"]])
def test_a_record_whose_root_is_of_other_tensors_matches_nothing(
    tensors: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = state_digest(weights(9)).as_fields() | {"tensors": tensors}
    body["root"] = state_digest(weights(2)).as_fields()["root"]
    events = [
        (kind, epoch, body if kind is Kind.WEIGHTS else fields)
        for kind, epoch, fields in real_story(states=())
    ]
    bundle = write_bundle(world(events).evidence(), tmp_path / "b")
    path = written("safetensors", 2)
    assert cli.main(["verify-model", str(path), "--bundle", str(bundle)]) == 1
    text = capsys.readouterr().out
    assert "FOUND model/weights/0: states these weights, and does not count: " in text
    settings = deployment(tmp_path / "artifacts", events)
    says = "does not verify: model/weights/0: (tensor_count is 3|states root)"
    with pytest.raises(ProvenanceError, match=says) as caught:
        model.sign_model(settings, path, "latest", key_files(Path("k")))
    assert caught.value.exit_code == 1


def test_the_order_in_which_a_record_lists_its_tensors_is_no_part_of_the_root() -> None:
    from provenance.formats import merkle

    listed, other = (state_digest(weights(2)).as_fields() for _ in range(2))
    listed["tensors"].reverse()
    leaves = [bytes.fromhex(t["digest"].partition(":")[2]) for t in listed["tensors"]]
    other["root"] = f"mth-sha256:{merkle.root(leaves).hex()}"
    for body, paths, problems, differing in (
        (listed, {"training/epoch/3/state/0"}, [], 1),
        (
            other,
            set(),
            ["training/epoch/3/state/0"],
            3,
        ),  # names no tensors: before training is near
    ):
        events = ending([*real_story(states=())[:-3], (Kind.STATE, 3, body)])
        evidence = world(events).evidence()
        found = match(written("safetensors", 2), evidence)
        assert {item.path for item in found.matches} == paths
        assert [line.partition(":")[0] for line in found.damaged] == problems
        assert [f.path for f in verify(evidence, None, now=0).findings] == problems
        changed = written("safetensors", 2, lambda state: state.update({"norm.count": np.array(8)}))
        near = match(changed, evidence).nearest
        assert near is not None
        assert near.differing == differing


def test_an_algorithm_of_another_release_is_left_out() -> None:
    body = state_digest(weights(2)).as_fields() | {"algorithm": "md5"}
    events = ending([*real_story(states=())[:-3], (Kind.STATE, 3, body)])
    assert match(written("safetensors", 2), world(events).evidence()).exit_code == 1


# --- files -------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("owned",))


def test_pickled_code_is_never_run() -> None:
    torch.save({"a": Evil()}, "m.pt")
    Path("p.bin").write_bytes(pickle.dumps(Evil()))
    np.savez("m.npz", a=np.array([Evil()], dtype=object))
    for name in ("m.pt", "p.bin", "m.npz"):
        with pytest.raises(ProvenanceError) as caught:
            read_model(Path(name)).digests(HashFactory())
        assert "\n" not in str(caught.value)
    torch.save(torch.nn.Linear(2, 2), "whole.pt")
    with pytest.raises(FormatError, match="expected torch.save"):
        read_model(Path("whole.pt"))
    assert not Path("owned").exists()


def test_torch_before_its_safe_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu121")
    with pytest.raises(InputError, match="CVE-2025-32434"):
        read_model(written("pt"))


def test_torch_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    path = written("pt")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match="torch is not installed"):
        files.read_model(path)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({}, "no file with weights"),
        ({"a.txt": b""}, "no file with weights"),
        ({"a.pt": b"", "b.npz": b""}, "several files may hold the weights: a.pt, b.npz"),
        ({"model.safetensors.index.json": b"{"}, "is not JSON"),
        ({"model.safetensors.index.json": b"[]"}, "no weight_map"),
        ({"model.safetensors.index.json": b'{"weight_map": {}}'}, "no weight_map"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "../x.safetensors"}}'}, "names"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": 7}}'}, "names 7"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "x.safetensors"}}'}, "is missing"),
        ({"a.safetensors": b""}, "0 bytes"),
        ({"a.safetensors": b"\x02\0\0\0\0\0\0\0{}"}, "no tensors"),
        ({"a.pt": b""}, "cannot be read as tensors alone"),
        ({"a.pt": b"junk"}, "cannot be read as tensors alone"),
        ({"a.npz": b"junk"}, "npz file"),
    ],
)
def test_folders_and_files_without_weights_give_one_line(
    names: dict[str, bytes], says: str
) -> None:
    Path("folder").mkdir()
    for name, data in names.items():
        Path("folder", name).write_bytes(data)
    with pytest.raises(ProvenanceError, match=says) as caught:
        read_model(Path("folder")).digests(HashFactory())
    assert "\n" not in str(caught.value)


def test_other_things_that_hold_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m.gguf").write_text("")
    with pytest.raises(InputError, match="expected a name in .safetensors"):
        weights_files(Path("m.gguf"))
    with pytest.raises(InputError, match="no such file or folder"):
        weights_files(Path("nothing"))
    torch.save({"a": 7}, "n.pt")
    with pytest.raises(InputError, match="expected a state_dict"):
        read_model(Path("n.pt"))
    torch.save(torch.ones(2), "t.pt")
    assert read_model(Path("t.pt")).states.keys() == {""}
    torch.save([torch.ones(2), torch.ones(3)], "l.pt")
    assert read_model(Path("l.pt")).digests(HashFactory())[""].parameter_count == 5
    monkeypatch.setattr(files, "MAX_INDEX_BYTES", 3)
    Path("folder").mkdir()
    Path("folder/model.safetensors.index.json").write_text("[[]]")
    with pytest.raises(FormatError, match="more than 3 bytes"):
        read_model(Path("folder"))


def test_a_tensor_that_is_in_two_files_is_ambiguous() -> None:
    Path("folder").mkdir()
    save_file(weights(1), "folder/a.safetensors")
    save_file(weights(2), "folder/b.safetensors")
    with pytest.raises(InputError, match="b.safetensors: tensor '.*' is in a.safetensors too"):
        read_model(Path("folder"))


@pytest.mark.parametrize(
    ("beside", "says"),
    [
        ({"model": torch_weights(9)}, "'model': has weights of no record"),
        ({"model": torch_weights(9), "epoch": 2}, "'model': has weights of no record"),
        ({"model": {"net": torch_weights(9), "n": 1}}, "'model': was not compared"),
        ({"model": [torch.ones(2), 1]}, "'model': was not compared"),
        (torch_weights(9), "'fc.bias': was not compared"),
        ({"optimal": torch_weights(9)}, "'optimal': has weights of no record"),
        ({"epoch": 2, "": torch_weights(9)}, "'': was not compared"),
        ({"random_weights": torch_weights(9)}, "'random_weights': has weights of no record"),
        ({"optimizer": torch_weights(9)}, "'optimizer': has weights of no record"),
        ({"rng": torch.ones(2)}, "'rng': was not compared"),
        ({"scaler_model": [torch.ones(2, 2)]}, "'scaler_model': was not compared"),
    ],
)
def test_weights_beside_those_of_the_run_are_named(
    run: Settings, beside: dict[str, Any], says: str
) -> None:
    for whole in (beside | {"zzz": torch_weights(2)}, {"aaa": torch_weights(2)} | beside):
        torch.save(whole, "m.pt")
        found = match(Path("m.pt"))
        assert [item.epoch for item in found.matches] == [2]
        assert (found.outcome, found.exit_code, found.left[0]) == ("unchecked", 3, says)
    with pytest.raises(InputError, match=f"holds other weights .*: {says}.*; not signed"):
        model.sign_model(run, Path("m.pt"), "latest", key_files(Path("k")))


def test_keys_that_are_one_name_are_refused() -> None:
    torch.save({1: torch_weights(2), "1": torch_weights(9), "epoch": 2}, "m.pt")
    with pytest.raises(InputError, match=r"m\.pt: a number and a text are one key"):
        match(Path("m.pt"))


def test_what_a_trainer_saves_beside_the_weights_is_no_other_model() -> None:
    tensor = torch.ones(2)
    optimizer = {"state": {0: {"exp_avg": tensor}}, "param_groups": [{"lr": 0.1}]}
    beside = {
        "optimizer": optimizer, "optimizer_states": [optimizer], "second": [optimizer],
        "lr_schedulers": [{"last": 1}], "cuda_rng_state_all": [tensor.byte()],
        "rng": {"cpu": tensor.byte(), "python": (3, (1, 2))}, "scaler": {"scale": 65536.0},
        "loss": torch.tensor(1), "callbacks": {"best": {"score": torch.tensor(0.5)}},
        "hyper_parameters": {"lr": [0.1, 1]},
    }  # fmt: skip
    torch.save(beside | {"state_dict": torch_weights(2), "last": torch_weights(3)}, "m.ckpt")
    found = match(Path("m.ckpt"))
    assert (found.exit_code, found.left) == (0, ())
    assert found.files.aside == (
        "'optimizer': state of an optimizer", "'optimizer_states': state of an optimizer",
        "'second': state of an optimizer", "'cuda_rng_state_all': state of a generator",
        "'rng': state of a generator",
    )  # fmt: skip


@pytest.mark.parametrize("form", ["safetensors", "indexed"])
def test_weights_files_that_were_not_compared_are_named(
    form: str, run: Settings, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(form)
    other = "model.safetensors"
    if form == "safetensors":
        folder, other = model_folder(Path("model"), 2), "pytorch_model.bin"
    words = ["verify-model", str(folder), "--bundle", str(bundle)]
    assert cli.main(words) == 0
    torch.save(torch_weights(9), folder / other)
    capsys.readouterr()
    assert cli.main(words) == 3
    text = capsys.readouterr().out
    assert "not all is found: a part of it has exactly the weights of epoch 2" in text
    assert f"FOUND {other}: was not compared" in text
    assert cli.main([*words, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["left"] == [f"{other}: was not compared"]
    with pytest.raises(InputError, match=f"{other}: was not compared; not signed"):
        model.sign_model(run, folder, "latest", key_files(Path("k")))
    (folder / other).unlink()
    model.sign_model(run, folder, "latest", key_files(Path("k")))


@pytest.mark.parametrize(
    "name",
    [
        "model.gguf", "flax_model.msgpack", "model.pkl", "model.onnx", "model.ubj", "MODEL.PT",
        "M.SafeTensors", "optimizer_adapter.bin", "training_args_model.pt", "m.h5", "a.joblib",
    ],
)  # fmt: skip
def test_weights_of_any_format_and_case_are_named(name: str, run: Settings) -> None:
    folder = model_folder(Path("model"), 2)
    for beside in ("optimizer.pt", "rng_state_0.pth", "random_states_0.pkl"):
        (folder / beside).write_bytes(b"x")
    found = match(folder)
    aside = ("optimizer.pt: unread", "random_states_0.pkl: unread", "rng_state_0.pth: unread")
    assert (found.exit_code, found.left, found.files.aside) == (0, (), aside)
    (folder / name).write_bytes(b"x")
    found = match(folder)
    assert (found.exit_code, found.left) == (3, (f"{name}: was not compared",))
    with pytest.raises(InputError, match=f"{name}: was not compared; not signed"):
        model.sign_model(run, folder, "latest", key_files(Path("k")))


def test_weights_in_subfolders_are_named_and_not_signed(
    run: Settings, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model_folder(Path("model"), 2)
    words = ["verify-model", str(folder), "--bundle", str(bundle)]
    (folder / "optimizer.pt").write_bytes(b"x")
    (folder / ".git/x.pt").write_bytes(b"x")
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "set aside  optimizer.pt: unread" in text
    assert "subfolders" not in text
    for name in ("assets/model.npz", "assets/deep/M.GGUF", "assets/optimizer.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert cli.main(words) == 0
    some = "not checked: weights in subfolders: assets/deep/M.GGUF, assets/model.npz\n"
    assert some in capsys.readouterr().out
    assert cli.main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["below"] == ["assets/deep/M.GGUF", "assets/model.npz"]
    with pytest.raises(InputError, match=r"assets/deep/M.GGUF: was not compared and 1 more"):
        model.sign_model(run, folder, "latest", key_files(Path("k")))


def test_truncated_torch_files_give_one_line() -> None:
    data = written("pt").read_bytes()
    for size in range(0, len(data), 97):
        Path("cut.pt").write_bytes(data[:size])
        with pytest.raises(ProvenanceError) as caught:
            read_model(Path("cut.pt")).digests(HashFactory())
        assert "\n" not in str(caught.value)


# --- the command -------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(EVIDENCE, tmp_path / "b")


def test_the_command_tells_epoch_root_and_seal(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["verify-model", str(written("safetensors")), "--bundle", str(bundle)]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert f"run {RUN}: these are exactly the weights of epoch 2" in text
    assert EVIDENCE.entries[-1].root.hex() in text
    assert f"after, entry {EVIDENCE.entries[-1].index} of ledger {SIGNER.verifier.name}" in text
    assert "not checked: the networks, and whose key signs the ledger" in text
    assert cli.main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["outcome"] == "match"
    assert document["matches"][0]["epoch"] == 2
    assert document["seal"]["root"] == EVIDENCE.entries[-1].root.hex()
    assert not Path("artifacts").exists()


def test_the_command_takes_a_run_of_the_deployment(
    run: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["verify-model", str(written("npz")), "--base-dir", str(run.base_dir)]
    assert cli.main([*words, "--run", "latest"]) == 0
    assert f"run {RUN}: these are exactly the weights of epoch 2" in capsys.readouterr().out
    for given, found in (([], "neither"), (["--run", "latest", "--bundle", "b"], "both")):
        assert cli.main([*words, *given]) == 2
        text = capsys.readouterr().err
        assert f"found {found} --run and --bundle" in text
        assert "provenance bundle RUN -o PATH" in text


@pytest.mark.parametrize(
    ("library", "name"),
    [("xgboost", "m.json"), ("xgboost", "m.ubj"), ("lightgbm", "m.txt"), ("catboost", "m.cbm")],
)
def test_a_boosters_file_is_found_by_its_bare_record_and_by_that_of_its_estimator(
    library: str, name: str
) -> None:
    rng = np.random.default_rng(0)
    x, y, other = rng.random((60, 3)), rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    module = framework(library)
    kind, options = {
        "xgboost": ("XGBClassifier", {"n_estimators": 3, "n_jobs": 1}),
        "lightgbm": ("LGBMClassifier", {"n_estimators": 3, "n_jobs": 1, "verbose": -1}),
        "catboost": ("CatBoostClassifier", {"iterations": 3, "verbose": 0, "thread_count": 1,
                                            "allow_writing_files": False}),
    }[library]  # fmt: skip
    model, another = (getattr(module, kind)(**options).fit(x, of) for of in (y, other))
    bare, wrong = (booster_of(library, each) for each in (model, another))
    bare.save_model(name)
    wrong.save_model(f"other-{name}")
    stated = [state_digest(each).as_fields() for each in (bare, model)]
    story = [
        fields if kind is not Kind.STATE else (kind, epoch, stated[0 if epoch == 1 else 1])
        for fields in real_story(states=(1, 2))
        for kind, epoch in [fields[:2]]
    ]
    found = match(Path(name), world(story).evidence())
    assert found.outcome == "match"
    alone = "epoch 1 (the booster alone" if library == "catboost" else "epoch 1"
    assert [item.when.partition(":")[0] for item in found.matches] == [
        alone, "epoch 2 (the booster alone",
    ]  # fmt: skip
    assert match(Path(f"other-{name}"), world(story).evidence()).outcome == "no match"


def booster_of(library: str, model: Any) -> Any:
    if library == "catboost":
        return model
    return model.get_booster() if library == "xgboost" else model.booster_


def test_the_command_names_the_tensor_that_differs(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written("checkpoint", 2, lambda s: s.update({"fc.bias": s["fc.bias"] * 2}))
    words = ["verify-model", str(path), "--bundle", str(bundle)]
    assert cli.main(words) == 1
    text = capsys.readouterr().out
    assert "no epoch has these weights" in text
    assert "nearest    epoch 2 (training/epoch/2/state/0): 1 of 3 tensors differ" in text
    assert "first      tensor 'fc.bias' has digest blake3:" in text
    assert "under 'model_state_dict'" in text
    assert cli.main([*words, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["nearest"]["tensor"] == "fc.bias"


def test_the_command_on_a_zip(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile("b.zip", "w") as archive:
        for file in sorted(bundle.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(bundle).as_posix())
    assert cli.main(["verify-model", str(written("npz")), "--bundle", "b.zip"]) == 0
    assert "epoch 2" in capsys.readouterr().out


def test_the_command_on_withheld_damaged_and_open_bundles(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(written("safetensors"))
    record = bundle / "records/training/epoch/2/state/0.json"
    record.write_bytes(record.read_bytes().replace(b'"rank":0', b'"rank":1'))
    assert cli.main(["verify-model", path, "--bundle", str(bundle)]) == 1
    text = capsys.readouterr().out
    assert "FOUND training/epoch/2/state/0: states these weights, and does not count" in text
    other = str(model_folder(Path("three"), 3))
    assert cli.main(["verify-model", other, "--bundle", str(bundle)]) == 0
    assert "FOUND elsewhere in the evidence: 1; see provenance verify" in capsys.readouterr().out
    hidden = replace(
        EVIDENCE,
        records=tuple(
            replace(r, withheld=r.kind in (Kind.STATE, Kind.WEIGHTS)) for r in EVIDENCE.records
        ),
    )
    write_bundle(hidden, Path("hidden"))
    assert cli.main(["verify-model", path, "--bundle", "hidden"]) == 3
    text = capsys.readouterr().out
    assert "no record that is disclosed has these weights" in text
    assert "4 records of weights are withheld" in text
    events = ending([e for e in real_story(states=())[:-3] if e[0] is not Kind.WEIGHTS])
    write_bundle(world(events).evidence(), Path("none"))
    assert cli.main(["verify-model", path, "--bundle", "none"]) == 3
    assert "recorded no weights to compare with" in capsys.readouterr().out
    assert cli.main(["verify-model", path, "--bundle", "nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- keys --------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_the_curves_of_the_standard_sign_with_their_hash(curve: ec.EllipticCurve) -> None:
    key = read_signing_key(key_files(Path("k"), curve))
    public = load_pem_public_key(Path("k/pub.pem").read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(key.sign(b"m"), b"m", ec.ECDSA(CURVES[curve.name]))
    assert key.hint == key_hint(Path("k/pub.pem").read_bytes())
    assert "PRIVATE" not in repr(key)


def test_an_encrypted_key_needs_its_passphrase() -> None:
    path = key_files(Path("k"), passphrase="correct horse")
    assert read_signing_key(path, "correct horse").hint
    for given, says in ((None, f"is encrypted; set {PASSPHRASE}"), ("", "is encrypted"),
                        ("battery", f"does not open with {PASSPHRASE}")):  # fmt: skip
        with pytest.raises(InputError, match=says) as caught:
            read_signing_key(path, given)
        assert "battery" not in str(caught.value)
    # A passphrase for a key that needs none is not looked at.
    assert read_signing_key(key_files(Path("plain")), "whatever").hint


def pem(private: Any) -> bytes:
    data = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert isinstance(data, bytes)
    return data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lambda: pem(rsa.generate_private_key(65537, 2048)), "of type RSA, expected an EC key"),
        (lambda: pem(ed25519.Ed25519PrivateKey.generate()), "of type Ed25519, expected an EC key"),
        (lambda: pem(ec.generate_private_key(ec.SECP256K1())), "curve secp256k1"),
        (lambda: Path("k/pub.pem").read_bytes(), "holds a public key"),
        (lambda: b"", "holds no private key in PEM"),
        (lambda: b"\0\1\2", "holds no private key in PEM"),
        (
            lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "holds a private key that does not decode",
        ),
        (lambda: b"x" * 70_000, "more than 65536 bytes"),
    ],
)
def test_other_keys_are_refused_in_one_line(data: Callable[[], bytes], says: str) -> None:
    path = key_files(Path("k"))
    path.write_bytes(data())
    with pytest.raises(InputError, match=says) as caught:
        read_signing_key(path)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_open_to_others_missing_or_no_file_is_refused() -> None:
    path = key_files(Path("k"))
    for mode in (0o640, 0o604, 0o644, 0o610):
        path.chmod(mode)
        with pytest.raises(InputError, match=f"has mode 0{mode:o}, expected 0600: chmod 600"):
            read_signing_key(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_signing_key(Path("none.pem"))
    with pytest.raises(InputError, match="is not a regular file|cannot be read"):
        read_signing_key(Path("k"))
    os.mkfifo("pipe", 0o600)
    with pytest.raises(InputError, match="not a regular file"):
        read_signing_key(Path("pipe"))


# --- signing -----------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Settings:
    return deployment(tmp_path / "artifacts")


def predicate(signature: Path) -> dict[str, Any]:
    """What is signed; the signature is checked on the way."""
    document = json.loads(signature.read_bytes())
    envelope = document["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    public = load_pem_public_key(Path("k/pub.pem").read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    raw = base64.b64decode(envelope["signatures"][0]["sig"])
    public.verify(raw, pae(payload), ec.ECDSA(CURVES[public.curve.name]))
    hint = document["verificationMaterial"]["publicKey"]["hint"]
    assert hint == key_hint(Path("k/pub.pem").read_bytes())
    return dict(Statement.decode(payload).predicate)


def test_a_signature_says_run_root_epoch_and_receipts(run: Settings) -> None:
    folder, key = model_folder(Path("model")), key_files(Path("k"))
    signed = model.sign_model(run, folder, "latest", key)
    assert signed.path == Path("model/model.sig")
    found = predicate(signed.path)
    said = found["provenance"]
    report = verify_run(run, "latest", offline=True)
    assert said["run"] == str(RUN)
    assert said["root"] == report.roots["after"] == signed.root.hex()
    assert said["complete"] is True
    assert [item["seal"] for item in said["seals"]] == ["before", "after"]
    assert said["weights"]["files"] == ["model.safetensors"]
    assert (said["weights"]["epoch"], said["weights"]["record"]) == (3, "training/epoch/3/state/0")
    assert said["weights"]["digest"] == str(state_digest(weights(3)))
    assert said["ledger"]["key"] == report.evidence.vkey
    assert {item["network"] for item in said["receipts"]} == {"local"}
    assert all(len(item["payload"]) == 72 for item in said["receipts"])
    assert [item["name"] for item in found["resources"]] == [
        "assets/vocab.txt", "assets.d/.hidden", "assets.txt", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert found["serialization"] == {
        "method": "files", "hash_type": "sha256", "allow_symlinks": False,
        "ignore_paths": [".git", ".gitattributes", ".github", ".gitignore", "model.sig"],
    }  # fmt: skip
    # Signing again replaces the signature, and leaves nothing beside it.
    model.sign_model(run, folder, "latest", key)
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [".git", ".gitattributes", "assets", "assets.d", "assets.txt", "config.json",
         "model.safetensors", "model.sig"]
    )  # fmt: skip


def test_a_single_file_and_an_output_elsewhere(run: Settings) -> None:
    key = key_files(Path("k"))
    path = written("pt", 1)
    signed = model.sign_model(run, path, "latest", key)
    assert signed.path == Path("m.pt.sig")
    found = predicate(signed.path)
    assert [item["name"] for item in found["resources"]] == ["."]
    assert found["provenance"]["weights"]["files"] == ["."]
    assert found["provenance"]["weights"]["epoch"] == 1
    folder = model_folder(Path("model"))
    signed = model.sign_model(run, folder, "latest", key, Path("out.sig"))
    assert "out.sig" not in predicate(signed.path)["serialization"]["ignore_paths"]
    assert not (folder / "model.sig").exists()


def test_a_signature_says_which_part_of_a_record_it_is_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def story(parts: dict[str, Any]) -> list[Any]:
        state = state_digest(weights(3)).as_fields() | {"covers": {"parts": parts}}
        return [(k, e, state if (k, e) == (Kind.STATE, 3) else b) for k, e, b in real_story()]

    key = key_files(Path("k"))
    np.savez("m.npz", **{"norm.count": weights(3)["norm.count"]})
    settings = deployment(
        tmp_path / "a", story({"adapter verified": ["fc.bias", "fc.weight"], "x": []})
    )
    part = "base model: 1 of the record's 3 tensors, by the trainer's word"
    words = ["verify-model", "m.npz", "--run", "latest", "--base-dir", str(settings.base_dir)]
    assert cli.main(words) == 0
    assert f"exactly the weights of epoch 3 ({part})" in capsys.readouterr().out
    signed = model.sign_model(settings, Path("m.npz"), "latest", key)
    assert signed.as_dict()["part"] == part
    assert predicate(signed.path)["provenance"]["weights"]["part"] == part
    # A part that has all of the record's tensors is the record.
    settings = deployment(tmp_path / "b", story({"all": list(weights(3))}))
    signed = model.sign_model(settings, written("npz", 3), "latest", key)
    assert predicate(signed.path)["provenance"]["weights"]["part"] == ""


def test_the_folder_is_named_by_its_real_name(run: Settings, monkeypatch: Any) -> None:
    folder, key = model_folder(Path("model")), key_files(Path("k")).resolve()
    monkeypatch.chdir(folder)
    signed = model.sign_model(run, Path(), "latest", key)
    payload = json.loads(signed.path.read_bytes())["dsseEnvelope"]["payload"]
    statement = Statement.decode(base64.b64decode(payload))
    assert statement.subjects[0].name == "model"
    assert "model.sig" in statement.predicate["serialization"]["ignore_paths"]  # type: ignore  # JSON, or known to be there


def linked(folder: Path) -> None:
    folder.rename("real")
    folder.symlink_to("real")


@pytest.mark.parametrize(
    ("prepare", "code", "says"),
    [
        (lambda f: save_file(weights(9), f / "model.safetensors"), 1,
         "these are not weights of run .*nearest is epoch 3, where tensor 'fc.bias'"),
        (lambda f: (f / "link").symlink_to("config.json"), 2, "link: is a link"),
        (lambda f: (f / ".git/link").symlink_to("HEAD"), 2, "link: is a link"),
        (lambda f: os.mkfifo(f / "pipe"), 2, "pipe: is neither a file nor a folder"),
        (lambda f: (f / "model.safetensors").unlink(), 2, "no file with weights"),
        (lambda f: (f / "model.sig").write_text("precious"), 2, "no signature; nothing was over"),
        (lambda f: (f / "model.sig").mkdir(), 2, "no signature; nothing was over"),
        (lambda f: shutil.copytree("k", f / "k"), 0, ""),
        (linked, 2, "model: is a link"),
        (lambda f: shutil.rmtree(f), 2, "model: no such file or folder|no such folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_signed_is_refused_in_one_line(
    run: Settings,
    prepare: Callable[[Path], Any],
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    folder, key = model_folder(Path("model")), key_files(Path("k"))
    prepare(folder)
    words = ["sign", "model", "--run", "latest", "--key", str(key)]
    assert cli.main(words) == code
    shown = capsys.readouterr()
    if code:
        assert re.search(says, shown.err), shown.err
        assert shown.err.count("\n") == 1
        assert not (folder / "model.sig").is_file() or (
            (folder / "model.sig").read_text() == "precious"
        )


def test_the_key_does_not_go_into_the_model(run: Settings) -> None:
    folder = model_folder(Path("model"))
    key = key_files(folder / "keys")
    with pytest.raises(InputError, match="private key lies in the model's folder"):
        model.sign_model(run, folder, "latest", key)
    outside = key_files(Path("k"))
    data = outside.read_bytes()
    with pytest.raises(InputError, match="nothing was overwritten"):
        model.sign_model(run, folder, "latest", outside, outside)
    assert outside.read_bytes() == data


def test_weights_are_not_overwritten_by_a_signature(run: Settings) -> None:
    folder, key = model_folder(Path("model")), key_files(Path("k"))
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="no signature; nothing was overwritten"):
        model.sign_model(run, folder, "latest", key, folder / "model.safetensors")
    assert (folder / "model.safetensors").read_bytes() == before
    with pytest.raises(InputError, match="no such folder"):
        model.sign_model(run, folder, "latest", key, Path("no/where.sig"))


def test_a_model_that_changes_meanwhile_is_not_signed(
    run: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, key = model_folder(Path("model")), key_files(Path("k"))
    real = read_model

    def slow(path: Path) -> Any:
        found = real(path)
        (folder / "late.py").write_text("import os")
        return found

    monkeypatch.setattr(model, "read_model", slow)
    with pytest.raises(InputError, match="changed while it was signed"):
        model.sign_model(run, folder, "latest", key)
    assert not (folder / "model.sig").exists()


def test_a_write_that_fails_leaves_the_old_signature(
    run: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, key = model_folder(Path("model")), key_files(Path("k"))
    model.sign_model(run, folder, "latest", key)
    old = (folder / "model.sig").read_bytes()
    names = sorted(p.name for p in folder.iterdir())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        model.sign_model(run, folder, "latest", key)
    assert (folder / "model.sig").read_bytes() == old
    assert sorted(p.name for p in folder.iterdir()) == names


def test_runs_that_cannot_be_claimed(tmp_path: Path) -> None:
    folder, key = model_folder(Path("model"), 2), key_files(Path("k"))
    events = ending([e for e in real_story(states=())[:-3] if e[0] is not Kind.WEIGHTS])
    with pytest.raises(InputError, match="recorded no weights; not signed"):
        model.sign_model(deployment(tmp_path / "none", events), folder, "latest", key)
    with pytest.raises(ProvenanceError, match="epoch 2 .*: no run root covers it") as caught:
        model.sign_model(
            deployment(tmp_path / "open", real_story()[:-3], anchor=False), folder, "latest", key
        )
    assert caught.value.exit_code == 3
    with pytest.raises(ProvenanceError, match="not in the database"):
        model.sign_model(deployment(tmp_path / "other"), folder, "ffffffff", key)


def test_a_run_with_a_gap_is_signed_and_said_to_be_incomplete(tmp_path: Path) -> None:
    events = real_story()[:-3]
    events = ending([*events, (Kind.GAP, None, {"dropped": 3, "reason": "full"})])
    folder, key = model_folder(Path("model")), key_files(Path("k"))
    model.sign_model(deployment(tmp_path / "gap", events), folder, "latest", key)
    assert predicate(folder / "model.sig")["provenance"]["complete"] is False


def test_a_checkpoint_can_be_signed_while_the_run_goes_on(tmp_path: Path) -> None:
    events = [*real_story()[:10], seal("checkpoint", 2)]
    folder, key = model_folder(Path("model"), 2), key_files(Path("k"))
    signed = model.sign_model(deployment(tmp_path / "c", events), folder, "latest", key)
    assert signed.seal == "checkpoint-2"


def test_only_a_run_that_is_seen_to_be_whole_is_signed_as_complete(tmp_path: Path) -> None:
    end = {"events": 12, "reason": "ValueError", "state": "failed"}
    failed = [*real_story(states=(1, 2))[:-3], seal("checkpoint", 3), (Kind.RUN_END, None, end)]
    launch = {"id": "job", "rank": 0, "world_size": 2}
    alone = [
        (kind, epoch, body | {"launch": launch} if kind is Kind.CONFIG else body)
        for kind, epoch, body in real_story()
    ]
    folder, key = model_folder(Path("model"), 2), key_files(Path("k"))
    for name, events in (("failed", failed), ("alone", alone)):
        settings = deployment(tmp_path / name, events)
        assert not verify_run(settings, "latest", offline=True).findings
        signed = model.sign_model(settings, folder, "latest", key)
        assert predicate(signed.path)["provenance"]["complete"] is False


def test_the_command_signs_and_says_how_to_check(
    run: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_folder(Path("my model"))
    key = key_files(Path("k"), passphrase="p")
    words = ["sign", "my model", "--run", "latest", "--key", str(key), "-o", "s.sig"]
    assert cli.main(words) == 2
    assert f"is encrypted; set {PASSPHRASE}" in capsys.readouterr().err
    monkeypatch.setenv(PASSPHRASE, "p")
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    assert shown.out == "s.sig\n"
    assert "5 files; weights of epoch 3" in shown.err
    assert "model_signing verify key 'my model' --signature s.sig --public_key PUB.pem" in shown.err
    assert cli.main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["epoch"], document["files"], document["run_id"]) == (3, 5, str(RUN))


def test_a_run_without_receipts_is_said_to_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment(tmp_path / "artifacts", anchor=False)
    model_folder(Path("model"))
    words = ["sign", "model", "--run", "latest", "--key", str(key_files(Path("k")))]
    assert cli.main(words) == 0
    assert "No network has anchored the run yet" in capsys.readouterr().err


def test_listing_names_what_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(Path("model"))
    for name in ("model.safetensors", "config.json", "assets.txt", ".gitattributes"):
        (folder / name).unlink()
    for name in ("assets", "assets.d"):
        shutil.rmtree(folder / name)
    with pytest.raises(InputError, match="holds no files to sign"):
        signature.list_model(folder, signature.GIT_PATHS)

    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(InputError, match="cannot be listed: Permission denied"):
        signature.list_model(folder, ())
