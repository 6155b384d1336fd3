"""A full checkpoint against an epoch whose weights two ranks recorded in shards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from provenance import cli
from provenance.bundle.writer import write_bundle
from provenance.evidence.disclosure import withhold
from provenance.fingerprint.model_files import read_model
from provenance.models.match import ModelMatch, match_model
from provenance.verify.verifier import verify
from tests.support.model_world import weights
from tests.support.shard_world import sharded, shards
from tests.support.verify_world import SIGNER, World

State = dict[str, Any]
WORLD = sharded()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(form: str, state: State) -> Path:
    path = Path(f"full.{form}")
    if form == "safetensors":
        save_file(state, path)
    elif form == "npz":
        np.savez(path, **state)
    else:
        tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}
        torch.save({"model": tensors, "step": 3}, path)
    return path


def match(path: Path, world: World = WORLD, evidence: Any = None) -> ModelMatch:
    report = verify(evidence or world.evidence(), None, verifier_key=SIGNER.verifier, now=0.0)
    return match_model(report, read_model(path))


@pytest.mark.parametrize("form", ["safetensors", "npz", "pt"])
def test_the_whole_checkpoint_is_the_epoch(form: str) -> None:
    found = match(written(form, weights(2)))
    assert (found.outcome, found.exit_code) == ("match", 0)
    assert [item.path for item in found.matches] == [f"training/epoch/2/state/{r}" for r in (0, 1)]
    assert found.state == ("model" if form == "pt" else "")
    assert found.nearest is None


@pytest.mark.parametrize("form", ["safetensors", "npz", "pt"])
@pytest.mark.parametrize(("row", "rank", "where"), [(1, 0, "[0:2, 0:3]"), (3, 1, "[2:4, 0:3]")])
def test_one_bit_of_it_is_not(form: str, row: int, rank: int, where: str) -> None:
    state = weights(2)
    state["fc.weight"].view(np.uint8)[row, 0] ^= 1
    found = match(written(form, state))
    assert (found.outcome, found.exit_code) == ("no match", 1)
    assert found.nearest is not None
    assert (found.nearest.stated.epoch, found.nearest.tensor) == (2, "fc.weight")
    assert (found.nearest.differing, found.nearest.total) == (1, 3)
    assert f" in {where}, rank {rank} states blake3:" in found.nearest.problem


@pytest.mark.parametrize("form", ["safetensors", "npz", "pt"])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_the_names_of_a_wrapper_are_the_records(form: str, prefix: str) -> None:
    state = {f"{prefix}{name}": value for name, value in weights(2).items()}
    found = match(written(form, state))
    assert (found.outcome, found.exit_code) == ("match", 0)
    assert "removed" in found.names[0]
    state[f"{prefix}fc.weight"].view(np.uint8)[3, 0] ^= 1
    near = match(written(form, state)).nearest
    assert near is not None
    assert (near.stated.epoch, near.tensor, near.differing) == (2, "fc.weight", 1)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", ["a", "z"])
def test_no_tensor_hides_behind_another_of_its_name(hidden: str) -> None:
    def tied(rank: int, epoch: int, body: State) -> State:
        own = [t | {"aliases": ["a", "z"]} if "weight" in t["name"] else t for t in body["tensors"]]
        return body | {"tensors": own}

    state = weights(2)
    assert match(written("npz", state | {hidden: state["fc.weight"]}), sharded(tied)).exit_code == 0
    found = match(written("npz", state | {hidden: state["fc.weight"] + 1}), sharded(tied))
    assert found.outcome == "no match"


@pytest.mark.slow
def test_an_adapter_and_its_base_are_found_apart() -> None:
    def adapted(rank: int, epoch: int, body: State) -> State:
        own = [
            t | {"aliases": ["saved.bias"]} if "bias" in t["name"] else t for t in body["tensors"]
        ]
        covers = {"parts": {"adapter default": ["fc.bias", "x", 7]}}
        return body | {"tensors": own, "covers": covers}

    world, state = sharded(adapted), weights(3)
    word = "of the record's 3 tensors, by the trainer's word"
    base = {name: state[name] for name in ("fc.weight", "norm.count")}
    for own, part in (
        ({"fc.bias": state["fc.bias"]}, f"epoch 3 (adapter default: 1 {word})"),
        ({"saved.bias": state["fc.bias"]}, f"epoch 3 (adapter default: 1 {word})"),
        (base, f"epoch 3 (base model: 2 {word})"),
        (state, "epoch 3"),
    ):
        found = match(written("npz", own), world)
        assert [item.when for item in found.matches] == [part, part]
        own[next(iter(own))] = np.ones(4, "float32")
        assert match(written("npz", own), world).outcome == "no match"


def test_what_is_trained_alone_is_said_to_be_that() -> None:
    def trained(rank: int, epoch: int, body: State) -> State:
        return body | {"covers": {"only": "trainable parameters and buffers"}}

    found = match(written("npz", weights(2)), sharded(trained))
    said = "epoch 2 (trainable parameters and buffers)"
    assert [item.when for item in found.matches] == [said, said]


def test_a_shard_alone_is_not_the_epoch() -> None:
    """Though its root is the one that the record of its rank states."""
    found = match(written("npz", {n: v[:2] if v.ndim else v for n, v in weights(2).items()}))
    assert found.outcome == "no match"
    assert found.nearest is not None
    assert found.nearest.problem == "is F32 [2], the record states F32 [4]"


@pytest.mark.parametrize(
    ("change", "tensor", "problem"),
    [
        (lambda s: s.pop("fc.bias"), "fc.bias", "is missing"),
        (lambda s: s.update(extra=np.ones(1)), "extra", "is not in the record"),
        (lambda s: s.update({"norm.count": np.array(8)}), "norm.count", "has digest"),
    ],
)
def test_the_first_tensor_that_differs_is_named(
    change: Callable[[State], Any], tensor: str, problem: str
) -> None:
    state = weights(3)
    change(state)
    near = match(written("npz", state)).nearest
    assert near is not None
    assert (near.stated.epoch, near.tensor) == (3, tensor)
    assert near.problem.startswith(problem)


def test_where_a_rank_is_missing_no_checkpoint_is_the_epoch() -> None:
    found = match(written("npz", weights(2)), sharded(ranks=[0]))
    assert found.outcome == "no match"
    assert found.nearest is not None
    assert found.nearest.problem == "cannot be compared: no rank has [2:4]"


def test_a_withheld_shard_leaves_the_question_open() -> None:
    evidence = withhold(WORLD.evidence(), ["training/epoch/2/state/1"])
    found = match(written("npz", weights(2)), evidence=evidence)
    assert (found.outcome, found.exit_code) == ("unchecked", 3)


def test_of_what_is_no_shard_counts_what_the_lowest_rank_has() -> None:
    def own(rank: int, epoch: int, body: State) -> State:
        return shards(rank, {**weights(epoch), "norm.count": np.array(rank, "int64")})

    world = sharded(own)
    for rank, outcome in ((0, "match"), (1, "no match")):
        state = {**weights(2), "norm.count": np.array(rank, "int64")}
        assert match(written("npz", state), world).outcome == outcome


def test_an_epoch_that_was_run_again_has_both_states() -> None:
    world = sharded(again=9)
    for number in (3, 9):
        found = match(written("npz", weights(number)), world)
        assert found.outcome == "match"
        assert {(item.epoch, item.rank) for item in found.matches} == {(3, 0), (3, 1)}


def test_tensors_that_do_not_give_the_root_are_not_believed() -> None:
    def lie(rank: int, epoch: int, body: State) -> State:
        return body if (rank, epoch) != (1, 2) else {**body, "root": "mth-sha256:" + "00" * 32}

    assert match(written("npz", weights(2)), sharded(lie)).outcome == "no match"


def test_the_command_says_which_records(capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(WORLD.evidence(), Path("bundle"))
    path = str(written("safetensors", weights(2)))
    assert cli.main(["verify-model", path, "--bundle", "bundle"]) == 0
    out = capsys.readouterr().out
    assert "these are exactly the weights of epoch 2" in out
    assert "training/epoch/2/state/1 rank 1" in out
    assert cli.main(["verify-model", path, "--bundle", "bundle", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["matches"]) == 2
