"""Roles that files at hand, or the run that made a model, contradict: ``provenance lineage``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from provenance import ProvenanceTracker
from provenance.cli import main
from tests.support.beyond.lineage_world import base
from tests.support.home import brought_home

pytestmark = pytest.mark.slow  # whole commands
MADE = base()
CUT = {name: np.where(abs(value) < 0.5, value * 0, value) for name, value in MADE.items()}
OTHER = {**CUT, "fc.bias": MADE["fc.bias"] + 1}
HALF = {name: value[::-1].astype("f2") for name, value in MADE.items()}


class Family:
    """A run that made a model, and runs that name it: their ids, and files of all weights."""

    def __init__(self, place: Path) -> None:
        self.place = place
        saved = {"made": MADE, "cut": CUT, "other": OTHER, "half": HALF}
        for name, weights in saved.items():
            save_file(weights, self.path(name))
        made = self.run([HALF, MADE], None)
        self.cut = self.run([CUT], {"source": self.path("made"), "role": "pruned"})
        self.other = self.run([OTHER], {"source": made, "role": "pruned"})
        self.went_on = self.run([CUT, OTHER], {"source": made, "role": "pruned"})
        self.half = self.run([HALF], {"source": made, "role": "quantised"})
        self.merged = self.run([CUT], {"source": self.path("made"), "role": "merged"})
        self.same_type = self.run([OTHER], {"source": self.path("made"), "role": "quantised"})
        brought_home(place)

    def path(self, name: str) -> str:
        return str(self.place / f"{name}.safetensors")

    def run(self, states: list[Any], parent: Any) -> str:
        tracker = ProvenanceTracker(self.place, parent=parent)
        tracker.track_model(states[0])
        for weights in states[1:]:
            tracker.track_epoch(1, {"loss": 1.0}, model=weights)
        tracker.store_merkle_on_blockchain_after_training({})
        return tracker.run_id


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tmp_path_factory.mktemp("roles"))


@pytest.mark.parametrize(
    ("run", "model", "parent", "line"),
    [
        ("cut", "cut", "made", None),
        ("other", "other", "made", "pruned of {parent}: 4 of 24 entries are neither zero nor the"),
        ("half", "half", "made", "quantised of {parent}: 24 of 24 entries are not the parent's, "),
        # Other weights than those that are meant, on one side or the other.
        ("went_on", "other", "made", "{model}: not shown that it is pruned of {parent}"),
        ("half", "half", "cut", "{model}: not shown that it is quantised of {parent}"),
    ],
)
def test_a_role_is_held_against_the_files(
    family: Family,
    capsys: pytest.CaptureFixture[str],
    run: str,
    model: str,
    parent: str,
    line: str | None,
) -> None:
    child, names = (
        getattr(family, run),
        {"model": family.path(model), "parent": family.path(parent)},
    )
    words = ["lineage", child, "--base-dir", str(family.place), "--model", names["model"]]
    code, text = main([*words, "--parent", names["parent"]]), capsys.readouterr().out
    said = [own for own in text.splitlines() if "not shown" in own or "itself" in own]
    assert code == (1 if "FOUND" in text else 0)
    if line is None:
        assert (code, said) == (0, [])
    elif "not shown" in line:
        assert said == [line.format(**names)]
    else:
        (found,) = said
        names_itself = f"FOUND {names['model']}: run {child} names itself {line.format(**names)}"
        assert found.startswith(names_itself)


@pytest.mark.parametrize(
    ("run", "line"),
    [
        ("merged", "names one parent, and is merged from it: expected two or more"),
        (
            "same_type",
            "names itself quantised of the model made.safetensors: what is quantised has other "
            "element types, all are the parent's",
        ),
    ],
)
def test_a_role_to_a_model_is_held_against_the_run_that_made_it(
    family: Family, capsys: pytest.CaptureFixture[str], run: str, line: str
) -> None:
    child = getattr(family, run)
    code = main(["lineage", child, "--base-dir", str(family.place)])
    assert (code, f"FOUND run {child}: {line}" in capsys.readouterr().out) == (1, True)


def test_a_merge_that_the_files_do_not_show_is_said(
    family: Family, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["lineage", family.merged, "--base-dir", str(family.place)]
    parents = [word for name in ("made", "half") for word in ("--parent", family.path(name))]
    main([*words, "--model", family.path("cut"), *parents])
    said = f"{family.path('cut')}: not shown that it is merged of these models"
    assert said in capsys.readouterr().out
