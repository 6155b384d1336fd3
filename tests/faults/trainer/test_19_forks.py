"""Scenario 19: forks inside the trainer: producers of their own, and nothing missing."""

from __future__ import annotations

from uuid import UUID

import pytest

from provenance.formats.record import Kind, Record
from tests.faults.support import by_hand
from tests.faults.support.harness import World, rounds, scenario, seeded
from tests.faults.support.processes import Trainer

# What was promised is printed with the producer's name: several processes share the pipe.
SETUP = """
import os, signal, sys, threading, time
from pathlib import Path
from uuid import UUID
from provenance.formats.record import Kind
from provenance.capture.emitter import Emitter
from provenance.capture.keys import load_run_keys

base, run = Path(sys.argv[1]), UUID(sys.argv[2])
keys = load_run_keys(base / "spool" / str(run))
emitter = Emitter(base / "spool", run)

def emit(kind, epoch=None, **fields):
    if emitter.emit(kind, epoch, fields):
        seq = emitter.counts()["written"] - 1
        os.write(1, f"{emitter.producer.hex()} {seq} {os.getpid()}\\n".encode())

def begin():
    emit(Kind.DATA_TRAIN, root="t")
    emit(Kind.WEIGHTS, root="w")
    emit(Kind.CONFIG, public_key=keys.public_key.hex(), hash_algorithm="blake3",
         world_size=1, training={})
    emit(Kind.SEAL, None, phase="before", anchor=True)

def finish():
    emit(Kind.SEAL, None, phase="after", anchor=True)
    emitter.close("finished")
"""

LOADER = (
    SETUP
    + """
import torch
from torch.utils.data import DataLoader, Dataset

class Numbers(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        emit(Kind.METRICS, index, item=index)
        return torch.tensor([float(index)])

begin()
for epoch in (1, 2):
    for number, batch in enumerate(DataLoader(Numbers(), batch_size=4, num_workers=2)):
        emit(Kind.METRICS, 1000 * epoch + number, total=float(batch.sum()))
finish()
"""
)

# Threads emit while the process forks; children fork again; some are killed in mid-emit.
TREE = (
    SETUP
    + """
import random
rng = random.Random(int(os.environ["SEED"]))
begin()
stop = threading.Event()

def chatter():
    while not stop.is_set():
        emit(Kind.METRICS, 7, thread=True)
        time.sleep(0.0003)

threads = [threading.Thread(target=chatter) for _ in range(2)]
for thread in threads:
    thread.start()
children = []
for number in range(int(os.environ["FORKS"])):
    doomed = rng.random() < 0.4
    pause = rng.uniform(0, 0.01)
    pid = os.fork()
    if pid == 0:
        emit(Kind.METRICS, number, child=True)
        if number % 3 == 0:
            inner = os.fork()
            emit(Kind.METRICS, number, inner=inner == 0)
            if inner == 0:
                emitter.close("exit")
                os._exit(0)
            os.waitpid(inner, 0)
        while doomed:
            emit(Kind.METRICS, number, doomed=True)
        emitter.close("exit")
        os._exit(0)
    if doomed:
        time.sleep(pause)
        os.kill(pid, signal.SIGKILL)
        os.write(1, b"killed\\n")
    emit(Kind.METRICS, number, parent=True)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
stop.set()
for thread in threads:
    thread.join()
finish()
"""
)


def promised(trainer: Trainer) -> dict[str, dict[int, int]]:
    """Producer (hex) -> seq -> the process that was promised it.

    Threads of one process may name a neighbour's newer number, so that numbers are a
    lower bound there; the count of distinct ones is checked against the database anyway.
    """
    found: dict[str, dict[int, int]] = {}
    for line in trainer.lines():
        if line.count(" ") == 2:
            producer, seq, pid = line.split(" ")
            found.setdefault(producer, {})[int(seq)] = int(pid)
    return found


def stored(world: World, run: UUID) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    with world.store().snapshot() as tx:
        for row in tx.records(run):
            found.setdefault(row.producer.hex(), set()).add(row.seq)
    return found


@pytest.mark.parametrize("name", ["loader", "tree"])
def test_forked_children_are_producers_of_their_own(name: str, world: World) -> None:
    with scenario(19, f"fork inside the trainer ({name})") as tally:
        rng = seeded()
        for _ in range(rounds(1, 5 if name == "loader" else 10)):
            code = LOADER if name == "loader" else TREE
            env = {"SEED": str(rng.getrandbits(32)), "FORKS": str(rounds(12, 30))}
            trainer = world.trainer(code=code, env=env)
            trainer.finish()
            by_hand.bring_home(world.settings)
            claims, there = promised(trainer), stored(world, trainer.run)
            tally.kills += trainer.lines().count("killed")
            for producer, seqs in claims.items():
                tally.events += len(seqs)
                tally.lost += len(seqs.keys() - there.get(producer, set()))
                assert len(set(seqs.values())) == 1, "two processes wrote as one producer"
            for producer, found in there.items():
                assert found == set(range(len(found))), f"{producer}: a hole"
            processes = [next(iter(seqs.values())) for seqs in claims.values()]
            assert len(processes) == len(set(processes)), "a process wrote as two producers"
            if name == "loader":  # two epochs of two workers each, and the trainer
                assert len(claims) == 5
                with world.store().snapshot() as tx:
                    rows = tx.records(trainer.run, [Kind.METRICS])
                items = [Record.decode(row.data).body.get("item") for row in rows]
                assert sorted(i for i in items if isinstance(i, int)) == sorted([*range(64)] * 2)
            world.wait_sealed(trainer.run, 2)
        assert tally.kills or name == "loader"
        world.judge(tally)
