"""The demo's walk, over a run that was recorded as the demo records it."""

from __future__ import annotations

from pathlib import Path

import pytest

from provenance.app.bundle import make_bundle
from provenance.demo import training
from provenance.demo.beyond.items import walk
from provenance.demo.beyond.stage import Stage
from provenance.settings import load
from provenance.tracker import ProvenanceTracker
from tests.support.home import brought_home

pytestmark = pytest.mark.slow


def test_the_walk_proves_with_the_owners_folder_and_checks_with_the_bundle(tmp_path: Path) -> None:
    settings, data = load(None, tmp_path / "base"), training.digits()
    with ProvenanceTracker(settings.base_dir) as tracker:
        tracker.track_data((data[0], data[1]), (data[2], data[3]), items=True)
        tracker.store_merkle_on_blockchain_before_training({})
    brought_home(settings.base_dir)
    bundle = make_bundle(settings, tracker.run_id, tmp_path / "bundle").path
    stage = Stage(settings, tmp_path / "none", tracker.run_id, bundle, tmp_path, {})
    line = walk(stage)
    assert line.startswith("all 397 items are absent from the train data of run"), line
    assert line.endswith("a train picture does not pass")
