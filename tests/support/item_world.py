"""Runs whose item sets are recorded, at home on disk, and their bundles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np

from provenance.app.bundle import make_bundle
from provenance.items.folder import ItemFolder
from provenance.settings import Settings, load
from provenance.tracker import ProvenanceTracker
from tests.support.home import brought_home

ROWS = np.arange(240, dtype=np.uint8).reshape(60, 4)
LABELS = np.arange(60) % 3
TRAIN = 48
"""Rows of the train data; the others are the test data."""


@dataclass(frozen=True)
class ItemWorld:
    """Runs at one base directory; ``bundles`` in their order."""

    settings: Settings
    runs: tuple[str, ...]
    bundles: tuple[Path, ...]

    def folder(self, at: int = 0) -> ItemFolder:
        """What the owner keeps of a run's sets."""
        return ItemFolder(self.settings.base_dir, UUID(self.runs[at]))


def item_world(base: Path, runs: int = 2) -> ItemWorld:
    """Runs over the same data, each under keys of its own; items are ``[row, label]``."""
    settings, named = load(None, base), []
    for _ in range(runs):
        with ProvenanceTracker(base) as tracker:
            train, test = slice(0, TRAIN), slice(TRAIN, None)
            tracker.track_data((ROWS[train], LABELS[train]), (ROWS[test], LABELS[test]), items=True)
            tracker.store_merkle_on_blockchain_before_training({})
            tracker.track_epoch(1, {"loss": 0.5})
        named.append(tracker.run_id)
    brought_home(base)
    bundles = (make_bundle(settings, run, base / f"{run}.zip").path for run in named)
    return ItemWorld(settings, tuple(named), tuple(bundles))
