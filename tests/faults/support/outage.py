"""A training through the tracker that times itself, for the outage scenarios.

    python -m tests.faults.support.outage BASE CONFIG STEPS

A step is a little arithmetic and one ``track_epoch``. Prints ``run <id>`` and, at the end,
one line of JSON: seconds of every call and of every step, and what the emitter counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from provenance import ProvenanceTracker
from tests.faults.support.by_hand import stopwatch

STEP_S = 0.001


def main(base: str, config: str, steps: str) -> None:
    calls: list[float] = []
    whole: list[float] = []
    began = time.perf_counter()
    tracker = ProvenanceTracker(base, Path(config))
    print(f"run {tracker.run_id}", flush=True)
    tracker.track_data([1.0, 2.0, 3.0], [4.0])
    tracker.store_merkle_on_blockchain_before_training({"epochs": int(steps)})
    for step in range(1, int(steps) + 1):
        with stopwatch(whole):
            until = time.perf_counter() + STEP_S
            number = 0.0
            while time.perf_counter() < until:
                number += 1.0
            with stopwatch(calls):
                tracker.track_epoch(step, {"loss": 1 / step})
    tracker.store_merkle_on_blockchain_after_training({"accuracy": 1.0})
    counts = tracker.get_blockchain_status()["events"]
    seconds = time.perf_counter() - began
    print(json.dumps({"calls": calls, "steps": whole, "seconds": seconds, "events": counts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
