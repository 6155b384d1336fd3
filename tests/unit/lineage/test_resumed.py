"""A training that stopped and goes on: in each form of the graph it links to what it continues."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from provenance.cli import main
from tests.support.beyond import lineage_forms
from tests.support.home import brought_home

pytestmark = pytest.mark.slow
TRAINER = """
import os, signal, sys, numpy
import provenance
base, how, run = sys.argv[1:]
kept = {"killed": {}, "resumed": {}, "preempted": {}, "continued": {"parent": run}}[how]
if how == "resumed":
    tracker = provenance.ProvenanceTracker.resume(run, base)
else:
    tracker = provenance.ProvenanceTracker(base, **kept)
print(tracker.run_id, flush=True)
first = {"killed": 1, "resumed": 3, "preempted": 1, "continued": 2}[how]
tracker.track_model({"w": numpy.full(4, first - 1.0)})
for epoch in (first, first + 1):
    tracker.track_epoch(epoch, {"loss": 1.0}, {"w": numpy.full(4, float(epoch))})
    if how == "killed" and epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "preempted":
        os.kill(os.getpid(), signal.SIGTERM)
tracker.store_merkle_on_blockchain_after_training({})
"""


def train(base: Path, how: str, run: str = "-") -> tuple[int, str]:
    """Its exit status, and the id of its run."""
    command = [sys.executable, "-c", TRAINER, str(base), how, run]
    own = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        command, env=own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120
    )
    return done.returncode, done.stdout.decode().strip()


def test_a_resumed_and_a_preempted_run_link_to_what_they_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By real processes: one is killed and resumed in its own run, one is told to end and is gone
    on with in a new run, from the weights of its last epoch."""
    status, killed = train(tmp_path, "killed")
    assert status == -9
    assert train(tmp_path, "resumed", killed) == (0, killed)
    status, preempted = train(tmp_path, "preempted")
    assert status == -15
    status, continued = train(tmp_path, "continued", preempted)
    assert status == 0
    brought_home(tmp_path)

    def asked(run: str, *words: str) -> str:
        capsys.readouterr()
        assert main(["lineage", run, *words, "--base-dir", str(tmp_path)]) == 0
        return capsys.readouterr().out

    again = "was started again at epoch 3"
    goes_on = f"continues run {preempted} from epoch 1: initial weights match"
    assert f"rank 0, process 2 after 1: {again}" in asked(killed)
    text = asked(continued)
    assert (goes_on in text, f"run {preempted}: interrupted" in text) == (True, True)

    assert f"rank 0, process 2, after process 1: {again}" in asked(killed, "--format", "html")
    assert goes_on in asked(continued, "--format", "html")

    (edge,) = lineage_forms.prov(asked(killed, "--format", "prov"))["wasInformedBy"].values()
    of = f"run:{killed}.rank-0.process-"
    assert edge == {"prov:informed": f"{of}2", "prov:informant": f"{of}1"}
    document = lineage_forms.prov(asked(continued, "--format", "prov"))
    assert list(document["wasInformedBy"].values()) == [
        {"prov:informed": f"run:{continued}", "prov:informant": f"run:{preempted}"}
    ]
    (derived,) = document["wasDerivedFrom"].values()
    ends = (derived["prov:generatedEntity"], derived["prov:usedEntity"], derived["mlp:matches"])
    assert ends == (f"weights:{continued}", f"weights:{preempted}", True)

    (event,) = lineage_forms.openlineage(asked(killed, "--format", "openlineage")).values()
    (process,) = event["run"]["facets"]["mlProvenance_processes"]["processes"]
    assert process.pop("says").startswith(again)
    assert process == {"rank": 0, "process": 2, "continues": 1}
    events = lineage_forms.openlineage(asked(continued, "--format", "openlineage"))
    assert events[continued]["run"]["facets"]["parent"]["run"] == {"runId": preempted}
    assert [item["name"] for item in events[continued]["inputs"]] == [f"{preempted}/weights"]
    assert {run: event["eventType"] for run, event in events.items()} == {
        preempted: "ABORT",
        continued: "COMPLETE",
    }
    assert json.loads(asked(continued, "--json"))["problems"] == []
