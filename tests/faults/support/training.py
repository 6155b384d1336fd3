"""A trainer for the fault tests: a whole run through an Emitter, every promise printed.

    python -m tests.faults.support.training BASE RUN OPTIONS

Prints ``producer <hex>``, then the sequence number of every event whose emit returned True,
after it did, each by one write(2). Its spool files are linked into ``BASE/kept`` as well, so
that they can be shipped once more after the run.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from provenance.capture.emitter import Emitter
from provenance.capture.keys import load_run_keys
from provenance.formats.record import Kind


class Printing:
    """An emitter that says what it promised."""

    def __init__(self, base: Path, run: UUID, rank: int, world_size: int, pace_s: float) -> None:
        self.folder, self.kept = base / "spool" / str(run), base / "kept" / str(run)
        self.pace_s = pace_s
        self.keys = load_run_keys(self.folder)
        self.emitter = Emitter(base / "spool", run, rank, world_size)
        self.promised = 0  # counted here: the emitter is what is under test
        self.keep()
        say(f"producer {self.emitter.producer.hex()}")

    def emit(self, kind: Kind, epoch: int | None = None, /, **fields: Any) -> None:
        if self.emitter.emit(kind, epoch, fields):
            say(str(self.promised))
            self.promised += 1
        if self.pace_s:
            time.sleep(self.pace_s)

    def seal(self, phase: str, anchor: bool) -> None:
        self.emit(Kind.SEAL, None, phase=phase, anchor=anchor, epoch=None)

    def keep(self) -> None:
        """Hard links: they go on to show what is written, and outlive the shipper."""
        self.kept.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.suffix in (".seg", ".key") and not path.name.startswith("."):
                with suppress(FileExistsError, FileNotFoundError):
                    os.link(path, self.kept / path.name)


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def main(base: str, run: str, options: str) -> None:
    chosen = json.loads(options)
    rank, size, anchor = chosen["rank"], chosen["world_size"], chosen["anchor"]
    rng = random.Random(f"{chosen['seed']}/{rank}")
    trainer = Printing(Path(base), UUID(run), rank, size, chosen["pace_s"])
    if rank == 0:
        trainer.emit(Kind.DATA_TRAIN, root=f"train {rng.random()}")
        trainer.emit(Kind.DATA_TEST, root=f"test {rng.random()}")
        trainer.emit(Kind.ARCHITECTURE, structure="net")
        trainer.emit(Kind.WEIGHTS, root=f"weights {rng.random()}")
        trainer.emit(
            Kind.CONFIG,
            public_key=trainer.keys.public_key.hex(),
            hash_algorithm="blake3",
            world_size=size,
            training={"epochs": chosen["epochs"]},
        )
        trainer.seal("before", anchor)
    for epoch in range(1, chosen["epochs"] + 1):
        for step in range(chosen["metrics"]):
            trainer.emit(Kind.METRICS, epoch, step=step, metrics={"loss": rng.random()})
        trainer.emit(Kind.STATE, epoch, root=f"state {rng.random()}")
        trainer.keep()
    if rank == 0:
        trainer.emit(Kind.RESULTS, results={"accuracy": rng.random()})
        trainer.seal("after", anchor)
    trainer.keep()
    if trainer.emitter.close():
        say(str(trainer.promised))
    trainer.keep()


if __name__ == "__main__":
    main(*sys.argv[1:])
