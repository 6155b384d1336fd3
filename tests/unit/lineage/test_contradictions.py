"""Roles and claims that the records of two runs contradict: ours and the stranger's."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.support.beyond.lineage_world import (
    CHILD,
    adapted,
    family,
    fields_of,
    named,
    story,
    wrapped,
)
from tests.support.verify_world import RUN, World, ending, metrics
from tests.unit.lineage.test_sharing import BASE, STRANGER, TUNED, ZERO, by_stranger, counts, held

OTHER = {name: value + 1 for name, value in BASE.items()}


@pytest.fixture
def stranger() -> ModuleType:
    return STRANGER


@pytest.mark.parametrize(
    ("ours", "claim", "ours_says", "strangers"),
    [
        (
            [adapted(TUNED)],
            {"role": "adapter-of"},
            "an adapter leaves the parent's tensors, 2 differ: fc.bias, out.weight",
            "an adapter, and other tensors: ['fc.bias', 'out.weight']",
        ),
        (
            [TUNED],
            {"role": "quantised"},
            "what is quantised has other element types, all are the parent's",
            "quantised, and all types the same",
        ),
        (
            [OTHER],
            {"role": "quantised"},
            "what is quantised has other element types, all are the parent's",
            "quantised, and all types the same",
        ),
        (
            [BASE],
            {"role": "pruned"},
            "what is pruned has other entries, all tensors are the parent's, bit for bit",
            "pruned, and all tensors the same",
        ),
        (
            [BASE],
            {"role": "merged"},
            "names one parent, and is merged from it: expected two or more",
            "merged of one parent",
        ),
        (
            [OTHER, BASE],
            {"role": "fine-tuned"},
            "its initial weights are of none of its recorded epochs, and no tensor is; that run "
            "was checked too: verified",
            "fine-tuned, from other weights",
        ),
        (
            [BASE],
            {"root": "5" * 64},
            f"names root {'5' * 64} of run {RUN}, which has no such seal",
            "a root that is no seal's",
        ),
        (
            [BASE],
            {"run": str(CHILD)},
            f"names '{CHILD}' as the run that it continues; the run that was given is {RUN}",
            f"names no run {RUN} as a parent",
        ),
    ],
)
def test_a_claim_that_the_records_contradict_is_a_finding(
    stranger: ModuleType, ours: list[Any], claim: dict[str, Any], ours_says: str, strangers: str
) -> None:
    world = family([ZERO, BASE], ours, named(**claim))
    (finding,) = held(world).findings
    assert finding.subject == "parent"
    assert finding.problem.endswith(ours_says)
    assert by_stranger(stranger, world) == f"refused: {strangers}"


@pytest.mark.parametrize(
    "ours",
    [
        {name: value.astype("f2") for name, value in OTHER.items()},
        {**OTHER, "fc.bias": BASE["fc.bias"]},
        {"head": OTHER["fc.bias"]},
        wrapped(BASE),
    ],
    ids=["another type", "one tensor", "another head alone", "other names"],
)
def test_weights_that_could_be_the_parents_contradict_no_fine_tuning(
    stranger: ModuleType, ours: dict[str, Any]
) -> None:
    world = family([ZERO, BASE], [ours], named(role="fine-tuned"))
    report = held(world)
    assert (report.outcome, report.findings) == ("anchored", ())
    assert by_stranger(stranger, world) == counts(report)


def test_a_parent_without_weights_of_an_epoch_may_have_had_any(stranger: ModuleType) -> None:
    world = World(("bitcoin",))
    world.ingest(world.batch(ending([*story([ZERO, BASE])[:-3], metrics(2)])))
    ours = story([OTHER], named(role="fine-tuned"))
    world.ingest(world.batch(ours, run=CHILD, producer=b"c" * 16))
    world.anchor()
    report = held(world)
    assert (report.outcome, report.findings) == ("anchored", ())
    assert report.lineage is not None
    assert "and no tensor is; it has no weights of epoch 2; that run" in report.lineage.line
    assert by_stranger(stranger, world) == counts(report)


MADE: dict[str, Any] = {
    "model": "net.pt", "algorithm": "blake3", "weights": fields_of(BASE)["root"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("role", "ours", "ours_says", "strangers"),
    [
        (
            "fine-tuned",
            OTHER,
            "it begins from other weights, of which no tensor is the parent's",
            "fine-tuned, from other weights",
        ),
        (
            "quantised",
            OTHER,
            "what is quantised has other element types, all are the parent's",
            "quantised, and all types the same",
        ),
    ],
)
def test_a_role_to_a_model_is_held_against_the_run_that_made_it(
    stranger: ModuleType, role: str, ours: dict[str, Any], ours_says: str, strangers: str
) -> None:
    world = family([ZERO, BASE], [ours], {**MADE, "role": role})
    (finding,) = held(world).findings
    assert finding.problem == f"names itself {role} of the model 'net.pt': {ours_says}"
    assert by_stranger(stranger, world) == f"refused: {strangers}"
