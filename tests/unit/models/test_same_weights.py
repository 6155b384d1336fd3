"""One set of weights has one digest, and is found, however it was wrapped, tied and saved.

Over 400 lines: case by case, one subject.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model

from provenance.capture.weights.frozen import FrozenDigests
from provenance.cli.auditor.model import _lines
from provenance.errors import InputError
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.model_files import read_model
from provenance.fingerprint.model_state import trained_state
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from provenance.models.match import ModelMatch, match_model
from provenance.verify.verifier import verify
from tests.support.frameworks import framework, installed
from tests.support.model_world import real_story
from tests.support.verify_world import SIGNER, World

pytestmark = pytest.mark.slow  # its frameworks take seconds to load


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def match(path: Path, model: object, before: object = None) -> ModelMatch:
    """A file against a run that recorded the model's weights as those of epoch 3."""
    first = None if before is None else state_digest(before).as_fields()
    return matched(path, state_digest(model).as_fields(), first)


def matched(path: Path, state: dict[str, Any], before: dict[str, Any] | None) -> ModelMatch:
    """The same by the bodies of the records."""
    events = []
    for kind, epoch, body in real_story(states=(3,)):
        if kind is Kind.STATE:
            body = state
        elif kind is Kind.WEIGHTS and before is not None:
            body = before
        events.append((kind, epoch, body))
    stage = World(names=("local",))
    stage.ingest(stage.batch(events))
    stage.anchor()
    report = verify(stage.evidence(), None, verifier_key=SIGNER.verifier, now=0.0)
    return match_model(report, read_model(path))


def part(name: str, count: int, total: int) -> str:
    return f"epoch 3 ({name}: {count} of the record's {total} tensors, by the trainer's word)"


class Tied(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]  # with torch or not
    """An embedding that is the head, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(7, 4)
        self.head = torch.nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.norm = torch.nn.BatchNorm1d(4)
        self.register_buffer("mask", torch.ones(3), persistent=False)
        self.table = torch.ones(2)


def average(model: Any) -> Any:
    return torch.optim.swa_utils.AveragedModel(model)


def private(model: Any) -> Any:
    """As Opacus wraps, without its hooks."""
    kind = type(
        "GradSampleModule",
        (torch.nn.Module,),
        {"__module__": "opacus.grad_sample.gsm_base", "__qualname__": "AbstractGradSampleModule"},
    )
    wrapper = kind()
    wrapper._module = model
    return wrapper


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "OptimizedModule": torch.compile,
    "DataParallel": torch.nn.DataParallel,
    "AveragedModel": average,
    "GradSampleModule": private,
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_wrapping_and_tying_leave_the_root(seed: int) -> None:
    chance = np.random.default_rng(seed)

    def wrapped(model: Any, *more: str) -> Any:
        names = ["OptimizedModule", "DataParallel", "GradSampleModule", *more]
        for name in chance.choice(names, size=chance.integers(0, 4), replace=False):
            model = WRAPPERS[name](model)
        return model

    layers = [torch.nn.Linear(2, 2) for _ in range(4)]
    plain = torch.nn.Sequential(*layers)
    for at in range(1, 4):
        if chance.random() < 0.5:
            layers[at].weight = layers[0].weight
    expected = state_digest(plain)
    inner = torch.nn.Sequential(*[wrapped(layer) for layer in layers])
    digest = state_digest(wrapped(inner, "AveragedModel"))
    assert digest == expected
    assert digest.aliases == expected.aliases
    assert digest.parameter_count == sum(p.numel() for p in plain.parameters())


def test_what_is_covered_and_what_is_not_is_said() -> None:
    digest = state_digest(average(Tied()))
    assert digest.covers == {
        "adapter": "torch.nn.Module",
        "of": ["parameters", "persistent buffers", "extra state"],
        "not": {
            "non-persistent buffers": ["mask"],
            "attributes": ["table"],
            "of the wrapper": ["n_averaged"],
        },
        "unwrapped": ["AveragedModel"],
    }
    assert digest.parameter_count == sum(p.numel() for p in Tied().parameters()) == 36
    assert digest.buffer_count == sum(b.numel() for b in Tied().norm.buffers()) == 9


class Hiding(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]  # as Tied
    """Most of what it trains is where ``state_dict()`` does not look."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.gate = torch.nn.Linear(2, 2)
        self.layers = [self.gate]
        self.experts = [{"a": (torch.nn.BatchNorm1d(2),)}, {"a": (torch.nn.Linear(2, 2),)}]
        self.free = {"scale": torch.nn.Parameter(torch.ones(1)), "gate": self.gate.weight}
        self.shift = torch.zeros(1, requires_grad=True)
        self.__dict__["teacher"] = torch.nn.Sequential(self.gate, torch.nn.Linear(2, 1))
        self.experts[1]["a"][0].back = [self]
        self.kernel, self.table = (3, 3), [torch.ones(2)]
        with torch.no_grad():
            for tensor in (self.free["scale"], self.shift, self.experts[1]["a"][0].weight):
                tensor.fill_(value)


def test_what_state_dict_does_not_know_is_covered_all_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Hiding()
    digest = state_digest(model)
    shown = [item.name for item in digest.tensors]
    norm = ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"]
    hidden = [
        *(f"experts.0.a.0.{name}" for name in norm), "experts.1.a.0.bias", "experts.1.a.0.weight",
        "free.scale", "shift", "teacher.1.bias", "teacher.1.weight",
    ]  # fmt: skip
    assert shown == sorted(["gate.bias", "gate.weight", *hidden])
    assert digest.covers["parts"] == {"outside state_dict()": hidden}
    assert digest.covers["not"] == {"attributes": ["table"]}
    assert digest.buffer_count == 5
    assert state_digest(torch.compile(model)) == digest
    again = copy.deepcopy(model)
    assert state_digest(again) == digest
    for tensor in (again.free["scale"], again.shift, again.experts[1]["a"][0].weight):
        with torch.no_grad():
            tensor += 1
        assert state_digest(again) != digest
        with torch.no_grad():
            tensor -= 1
        assert state_digest(again) == digest
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    found = match(tmp_path / "m.safetensors", model)
    assert [item.when for item in found.matches] == [part("without 'outside state_dict()'", 2, 13)]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_model_is_found_however_it_was_saved(tmp_path: Path, wrapper: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    outer = WRAPPERS[wrapper](model)
    file = tmp_path / "m.safetensors"
    save_file(model.state_dict(), file)
    found = match(file, outer)
    assert ([item.epoch for item in found.matches], found.names) == ([3], ())
    state = {name: value for name, value in outer.state_dict().items() if name != "n_averaged"}
    torch.save(state, tmp_path / "m.pt")
    found = match(tmp_path / "m.pt", model)
    assert [item.epoch for item in found.matches] == [3]
    assert len(found.names) == 1
    assert "prefix" in found.names[0]
    assert match(file, state).outcome == "match"  # the record has the prefix
    model[0].weight.data[0, 0] += 1
    torch.save(outer.state_dict(), tmp_path / "m.pt")
    assert match(tmp_path / "m.pt", model).outcome == (
        "no match" if wrapper == "AveragedModel" else "match"  # it has a copy
    )


def test_the_counter_of_an_averaged_model_is_set_aside_and_nothing_else(tmp_path: Path) -> None:
    model, file = torch.nn.Linear(2, 2), tmp_path / "m.pt"
    state = average(model).state_dict()
    torch.save(state, file)
    found = match(file, model)
    assert found.outcome == "match"
    assert found.names[-1] == "'n_averaged' of AveragedModel set aside"
    torch.save({**state, "n_more": torch.zeros(1)}, file)
    assert match(file, model).outcome == "no match"
    torch.save({**model.state_dict(), "n_averaged": torch.tensor(0)}, file)
    assert match(file, model).outcome == "no match", "no wrapper's"
    for other in (torch.ones(1000), torch.ones(()), torch.ones(2, dtype=torch.int64)):
        torch.save({**state, "n_averaged": other}, file)
        assert match(file, model).outcome == "no match", "no counter"


def test_tied_weights_are_found_by_any_of_their_names(tmp_path: Path) -> None:
    model, file = Tied(), tmp_path / "m.safetensors"
    save_model(model, str(file))  # keeps one of the names
    assert match(file, model).outcome == "match"
    state = {name: value.clone() for name, value in model.state_dict().items()}
    save_file(state, file)
    found = match(file, model)
    assert found.outcome == "match"
    assert found.names == (
        "the file has other names that the record states: 'head.weight' for 'embed.weight'",
    )
    torch.save(model.state_dict(), tmp_path / "m.pt")
    assert state_digest(tmp_path / "m.pt") == state_digest(model)
    assert match(tmp_path / "m.pt", model).outcome == "match"
    del state["embed.weight"]
    save_file(state, file)
    assert match(file, model).outcome == "match"
    save_file(state | {"embed.weight": state["head.weight"] + 1}, file)  # two, not one
    found = match(file, model)
    assert (found.outcome, found.names) == ("no match", ())
    assert found.nearest is not None
    assert (found.nearest.tensor, found.nearest.differing) == ("embed.weight", 2)
    untied = {**state, "embed.weight": state["head.weight"], "head.weight": torch.ones(7, 4)}
    save_file({name: value.clone() for name, value in untied.items()}, file)
    found = match(file, model)
    assert found.nearest is not None
    assert (found.nearest.tensor, found.nearest.problem) == (
        "head.weight", "is in the record another name of 'embed.weight', from which it differs",
    )  # fmt: skip
    save_file({name: value for name, value in state.items() if name != "head.weight"}, file)
    assert match(file, model).outcome == "no match"


@pytest.mark.parametrize("other", ["_orig_mod.w", "evil", "z", "_orig_mod.evil"])
@pytest.mark.parametrize("shape", [(2,), (3, 1)])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
def test_no_tensor_hides_behind_another_of_its_name(
    other: str, shape: tuple[int, ...], suffix: str
) -> None:
    good = np.ones(2, np.float32)
    body = state_digest({"w": good}).as_fields()
    body["tensors"][0]["aliases"] = ["evil", "z"]
    file = Path(f"m{suffix}")

    def saved(values: Any) -> ModelMatch:
        state = {other: torch.tensor(values), "w": torch.tensor(good)}
        if suffix == ".npz":
            np.savez(file, **{name: value.numpy() for name, value in state.items()})
        else:
            save = save_file if suffix == ".safetensors" else torch.save
            save(state, str(file))
        return matched(file, body, None)

    found = saved(np.full(shape, 666, np.float32))
    assert (found.outcome, found.exit_code) == ("no match", 1)
    assert found.weights is not None
    assert len(found.weights.tensors) == 2
    assert found.nearest is not None
    assert (found.nearest.tensor, found.nearest.differing) == (other, 1)
    assert saved(good).outcome == "match"


def test_a_trainable_part_is_found_alone_and_whole(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Linear(2, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model[1].weight += 1
    part = trained_state(model)
    assert sorted(part) == ["1.bias", "1.weight"]
    assert part.covers["only"] == "trainable parameters and buffers"
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    found = match(tmp_path / "m.safetensors", part, before)
    assert [item.when for item in found.matches] == ["epoch 3 (the rest as before training)"]
    save_file(model[1].state_dict(prefix="1."), tmp_path / "part.safetensors")
    found = match(tmp_path / "part.safetensors", part, before)
    assert [item.when for item in found.matches] == ["epoch 3 (trainable parameters and buffers)"]
    whole = trained_state(model.requires_grad_(True))
    found = match(tmp_path / "m.safetensors", whole, before)
    assert [item.when for item in found.matches] == ["epoch 3"]
    with pytest.raises(InputError, match="no parameter of .*Linear takes a gradient"):
        trained_state(torch.nn.Linear(1, 1).requires_grad_(False))


def test_what_a_record_did_not_read_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Linear(2, 1))
    frozen, bodies = FrozenDigests(0.0, HashFactory()), []
    for epoch in (None, 1):
        reading = frozen.reading(epoch, model)
        assert reading is not None
        bodies.append(reading.fields(model))
        reading.keep()
    save_file(model.state_dict(), "m.safetensors")
    found = matched(Path("m.safetensors"), bodies[1], bodies[0])
    reused = [item.reused for item in found.matches]
    assert reused == [{}, {"the weights before training": 1}]
    lines = list(_lines(found))
    said = "1 of 4 tensors were not read again: frozen, their digests are those of"
    assert f"  not read   {said} the weights before training" in lines
    assert "(blake3, 4 tensors, 9 elements)" in lines[2]


def test_what_no_digest_is_of_is_said() -> None:
    model = average(Tied())
    torch.save(model.state_dict(), "m.pt")
    body = state_digest(model).as_fields()
    body["covers"]["not"] |= {"optimizer": ["step"], "seeds": ["s"], "a\nb": ["x"] * 7, "no": 3}
    found = matched(Path("m.pt"), body, None)
    assert found.outcome == "match"
    assert [line for line in _lines(found) if "no digest" in line] == [
        "  no digest  is of 'a\\nb': x, x, x, x, x and 2 more",
        "  no digest  is of 'attributes': table",
        "  no digest  is of 'non-persistent buffers': mask",
    ]
    (stated,) = found.matches
    assert stated.as_dict()["not_covered"] == stated.not_covered
    assert stated.not_covered["attributes"] == ["table"]


@pytest.mark.slow
def test_an_adapter_and_its_base_are_found_apart(tmp_path: Path) -> None:
    peft = framework("peft", "integrations")
    base = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    plain = {name: value.clone() for name, value in base.state_dict().items()}
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0"], r=2))
    model.save_pretrained(tmp_path)
    assert match(tmp_path / "adapter_model.safetensors", model).matches[0].when == (
        part("adapter default", 2, 6)
    )
    found = match(tmp_path / "adapter_model.safetensors", trained_state(model))
    assert found.outcome == "match"
    save_file(plain, tmp_path / "base.safetensors")
    assert match(tmp_path / "base.safetensors", model).matches[0].when == part("base model", 4, 6)
    base = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    base.load_state_dict(plain)
    headed = peft.LoraConfig(target_modules=["0"], r=2, modules_to_save=["1"])
    found = match(tmp_path / "base.safetensors", peft.get_peft_model(base, headed))
    assert [item.when for item in found.matches] == [part("base model", 4, 8)]
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.data += 1
    model.add_adapter("other", peft.LoraConfig(target_modules=["1"], r=2))
    model.save_pretrained(tmp_path / "two")
    for adapter, file in (("default", "two"), ("other", "two/other")):
        found = match(tmp_path / file / "adapter_model.safetensors", model)
        assert [item.when for item in found.matches] == [part(f"adapter {adapter}", 2, 8)]
    found = match(tmp_path / "base.safetensors", model)
    assert [item.when for item in found.matches] == [part("base model", 4, 8)]
    merged = model.merge_and_unload()
    save_file(merged.state_dict(), tmp_path / "merged.safetensors")
    found = match(tmp_path / "merged.safetensors", plain)
    assert found.outcome == "no match"
    assert found.nearest is not None


def test_the_base_model_is_what_no_part_has(tmp_path: Path) -> None:
    model: Any = {name: np.full(2, at, np.float32) for at, name in enumerate("abcd")}
    body = state_digest(model).as_fields()
    body["covers"] = {"parts": {"adapter one": ["b", 7, "x"], "base model": ["d"], "": 3}}
    stage = World(names=("local",))
    events = [
        (kind, epoch, body if kind is Kind.STATE else fields)
        for kind, epoch, fields in real_story(states=(3,))
    ]
    stage.ingest(stage.batch(events))
    stage.anchor()
    report = verify(stage.evidence(), None, verifier_key=SIGNER.verifier, now=0.0)

    def found(*names: str) -> list[str]:
        path = tmp_path / f"{''.join(names)}.npz"
        np.savez(path, **{name: model[name] for name in names})
        return [item.when for item in match_model(report, read_model(path)).matches]

    assert found("a", "c") == [part("base model", 2, 4)]
    assert found("b") == [part("adapter one", 1, 4)]
    assert found("d") == [part("part 'base model'", 1, 4)]
    assert found("a", "b", "c", "d") == ["epoch 3"]
    assert found("a") == []


# --- tensors of several arrays -----------------------------------------------------------------


def test_quantised_layers_are_their_weights(tmp_path: Path) -> None:
    kind = {torch.nn.Linear}
    model = torch.nn.Sequential(torch.nn.Linear(4, 2))
    packed = torch.ao.quantization.quantize_dynamic(model, kind, dtype=torch.qint8)
    digest = state_digest(packed)
    names = {tensor.name for tensor in digest.tensors}
    assert {"0.weight.int_repr", "0.weight.scale", "0.weight.zero_point", "0.bias"} <= names
    torch.save(packed.state_dict(), tmp_path / "q.pt")
    assert state_digest(tmp_path / "q.pt") == state_digest(packed.state_dict()) == digest
    assert match(tmp_path / "q.pt", packed).outcome == "match"


@pytest.mark.filterwarnings("ignore:.*(quantized tensor creation|CSR):UserWarning")
@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (
            lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
            ["int_repr", "scale", "zero_point"],
        ),
        (
            lambda x: torch.quantize_per_channel(
                x, torch.ones(3) * 0.1, torch.zeros(3), 0, torch.qint8
            ),
            ["axis", "int_repr", "scales", "zero_points"],
        ),
        (lambda x: x.to_sparse(), ["indices", "size", "values"]),
        (lambda x: x.to_sparse_csr(), ["col_indices", "crow_indices", "size", "values"]),
    ],
)
def test_parts_of_a_tensor(make: Callable[[Any], Any], parts: list[str]) -> None:
    dense = torch.eye(3)
    digest = state_digest({"w": make(dense)})
    assert [tensor.name for tensor in digest.tensors] == [f"w.{part}" for part in parts]
    assert (digest.parameter_count, digest.buffer_count) == (9, 0)
    assert state_digest({"w": make(dense)}) == digest
    assert state_digest({"w": make(dense * 2)}) != digest


class Extra(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]  # with torch or not
    """A module with extra state."""

    def __init__(self, extra: object) -> None:
        super().__init__()
        self.layer, self.extra = torch.nn.Linear(1, 1, bias=False), extra

    def get_extra_state(self) -> Any:
        """It."""
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        """Takes it."""


def test_extra_state_counts_or_is_refused() -> None:
    torch.manual_seed(0)
    states = [
        None, torch.ones(2), 1, 1.0, True, "1", b"1", {"a": [1, None]}, {"a": [2, None]}, {}, [],
        {"a": []}, {"a": {}}, {"a": {"b": 1}}, {"a.b": 1}, {1: 2}, {"1": 2}, {"a": [0, 1]},
        {"a": {"0": 0, "1": 1}}, {"a": {0: 0, 1: 1}}, {"a": None}, ["a", "b"], {"b": []},
        "list", ["list"],
    ]  # fmt: skip
    roots = []
    for state in states:
        torch.manual_seed(0)
        model = Extra(state)
        roots.append(state_digest(model).root)
        assert state_digest(model.state_dict()).root == roots[-1]
    assert len(set(roots)) == len(roots)
    assert state_digest(Extra({"a": 1})).parameter_count == 1  # of the layer
    with pytest.raises(InputError, match="'_extra_state.a': found object"):
        state_digest(Extra({"a": object()}))


def test_models_by_name() -> None:
    first, second = torch.nn.Linear(1, 1), torch.nn.DataParallel(torch.nn.Linear(2, 2))
    digest = state_digest({"G": first, "D": second})
    assert [tensor.name for tensor in digest.tensors] == [
        "D.bias", "D.weight", "G.bias", "G.weight",
    ]  # fmt: skip
    assert digest == state_digest(torch.nn.ModuleDict({"G": first, "D": second.module}))
    covers: Any = digest.covers
    assert covers["models"]["D"]["unwrapped"] == ["DataParallel"]
    assert [t.name for t in state_digest([first]).tensors] == ["0.bias", "0.weight"]


def test_an_exported_or_scripted_module_is_the_module() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).eval()
    program = torch.export.export(model, (torch.ones(3, 2),))
    assert state_digest(program) == state_digest(model) == state_digest(torch.jit.script(model))
    assert state_digest(program).parameter_count == state_digest(model).parameter_count


# --- files ---------------------------------------------------------------------------------------


def test_attributes_of_a_tensor_are_said_to_be_left_out() -> None:
    class Scaled(torch.nn.Parameter):  # type: ignore[misc, name-defined, unused-ignore]
        scale = 1.0

    model = torch.nn.Module()
    model.weight = torch.ones(2).as_subclass(Scaled)
    model.register_parameter("weight", model.weight)
    model.weight.scale = 2.0
    assert state_digest(model).covers["not"] == {"attributes": ["weight.scale"]}


def test_a_checkpoint_says_what_was_taken(tmp_path: Path) -> None:
    model, file = torch.nn.Linear(2, 1), tmp_path / "m.ckpt"
    torch.save({"epoch": 3, "state_dict": model.state_dict(), "lr": 0.1}, file)
    digest = state_digest(file)
    assert digest == state_digest(model)
    assert digest.covers == {
        "adapter": "ckpt file",
        "of": ["tensors"],
        "not": {"beside it": ["epoch", "lr"]},
        "state": "state_dict",
    }
    torch.save({"G": model.state_dict(), "epoch": 1, "D": model.state_dict()}, file)
    with pytest.raises(InputError, match="several states: 'G', 'D'; expected one"):
        state_digest(file)


def test_one_file_of_a_folder_is_found_and_the_others_are_named(tmp_path: Path) -> None:
    model, other = torch.nn.Linear(2, 2), {"alien": torch.ones(3)}
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    save_file(other, tmp_path / "other.safetensors")
    found = match(tmp_path, model)
    assert ([item.epoch for item in found.matches], found.state) == ([3], "model.safetensors")
    assert found.left == ("'other.safetensors': has weights of no record",)
    assert found.outcome == "unchecked"
    assert match(tmp_path, {**model.state_dict(), **other}).outcome == "match", "they are shards"
    assert match(tmp_path, {"w": np.ones(2)}).outcome == "no match"


def test_shards_by_their_index(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    state = model.state_dict()
    places = {name: f"pytorch_model-{name[0]}.bin" for name in state}
    for place in set(places.values()):
        torch.save({n: v for n, v in state.items() if places[n] == place}, tmp_path / place)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(str({"weight_map": places}).replace("'", '"'))
    assert state_digest(tmp_path) == state_digest(index) == state_digest(model)
    assert state_digest(tmp_path).covers["files"] == sorted(set(places.values()))
    assert match(tmp_path, model).outcome == "match"
    (tmp_path / "pytorch_model-1.bin").unlink()
    with pytest.raises(InputError, match="is missing"):
        state_digest(tmp_path)


@pytest.mark.slow
def test_what_preprocessing_layers_of_keras_were_told_counts(tmp_path: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = framework("keras")
    installed("h5py", "keras")

    def model(bound: float, sample: Sequence[float], mean: float = 0.0) -> Any:
        keras.utils.clear_session()
        adapted = keras.layers.Discretization(num_bins=3)
        adapted.reset_state()
        adapted.update_state(np.array(sample))
        adapted.finalize_state()
        told = [
            keras.layers.Discretization(bin_boundaries=[bound]), adapted,
            keras.layers.Normalization(mean=[mean], variance=np.ones(1)),
        ]  # fmt: skip
        return keras.Sequential(
            [keras.Input((1,)), *told, keras.layers.Dense(1, kernel_initializer="ones")]
        )

    one, others = [1.0, 2.0, 3.0], [(5.0, [1.0, 2.0, 3.0]), (0.0, [1.0, 20.0, 30.0])]
    digest = state_digest(model(0.0, one))
    assert state_digest(model(0.0, one)) == digest
    for other in (*(model(*told) for told in others), model(0.0, one, 1.0)):
        assert state_digest(other) != digest
    covers: Any = digest.covers
    names = covers["parts"]["arguments of preprocessing layers"]
    assert [name.split("/")[1].rstrip("_1") for name in names] == [
        "discretization", "discretization", "normalization"
    ]  # fmt: skip
    model(0.0, one).save(tmp_path / "m.keras")
    (found,) = match(tmp_path / "m.keras", model(0.0, one)).matches
    assert found.when == part("without 'arguments of preprocessing layers'", 2, 5)


@pytest.mark.slow
def test_keras_files_are_found_by_the_paths_of_variables(tmp_path: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = framework("keras")
    installed("h5py", "keras")
    layers = [keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.layers.Input((2,)), *layers, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    digest = state_digest(model)
    assert {t.name for t in digest.tensors} == {v.path for v in model.weights}
    assert digest.parameter_count == model.count_params()
    covers: Any = digest.covers
    assert covers["adapter"] == "keras"
    assert covers["not"]["seeds"]
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    assert state_digest(tmp_path / "m.keras") == state_digest(tmp_path / "m.weights.h5")
    model.save(tmp_path / "m.h5")
    assert state_digest(tmp_path / "m.h5") == digest
    for file in ("m.keras", "m.weights.h5", "m.h5"):
        assert match(tmp_path / file, model).outcome == "match"
    assert len(state_digest(model.get_weights()).tensors) == len(model.weights)
    model.layers[0].bias.assign(np.ones(3))
    assert match(tmp_path / "m.keras", model).outcome == "no match"
    (tmp_path / "bad.keras").write_bytes(b"PK")
    with pytest.raises(Exception, match="keras file"):
        state_digest(tmp_path / "bad.keras")


@pytest.mark.slow
def test_flax_models_by_path() -> None:
    jax, nnx = framework("jax", "flax"), framework("flax.nnx", "flax")
    optax = framework("optax", "flax")
    train_state = framework("flax.training.train_state", "flax")
    model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1)))
    digest = state_digest(model)
    assert digest == state_digest(nnx.state(model))
    assert {"layers.0.kernel", "layers.0.bias"} <= {t.name for t in digest.tensors}
    assert digest.parameter_count == 9
    params = {"w": jax.numpy.ones((2, 2), jax.numpy.bfloat16)}
    state = train_state.TrainState.create(
        apply_fn=None, params=params, tx=optax.adam(optax.linear_schedule(1.0, 0.0, 3))
    )
    found = state_digest(state)
    assert {"params.w", "opt_state.0.mu.w", "step"} <= {t.name for t in found.tensors}
    assert found.parameter_count == 4
    assert found.covers["not"] == {"fields": ["apply_fn", "tx"]}
    with pytest.raises(InputError, match="'w': found dtype int4"):
        state_digest({"w": jax.numpy.ones(2, jax.numpy.int4)})
    key = jax.random.key(0)
    data = state_digest({"k": jax.random.key_data(key)})
    assert state_digest({"k": key}) == data
    assert state_digest({"k": jax.random.key(1)}).root != data.root
    assert len(state_digest(nnx.Rngs(0)).tensors) == 2
