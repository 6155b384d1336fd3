"""Anchoring passes in a process that kills itself; see ``tests.faults.support.anchoring.Nursery``.

Production code is not changed: the network and the store that a pass is given are wrapped,
and what passes through them are the points to die at.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery
from provenance.anchor.publish import publish
from provenance.bootstrap import sending
from provenance.chains import ipfs, local  # noqa: F401  imported so that the child has it
from provenance.ports.values import Draft, SignedVersion
from provenance.settings import load
from provenance.stores import sql  # noqa: F401  imported so that the child has it
from tests.faults.support.anchoring import LEASE_S, RETRY

Point = Callable[[str], None]


class WatchedNetwork:
    def __init__(self, inner: Any, point: Point) -> None:
        self.inner, self.point = inner, point

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        made: Draft = self.inner.draft(payload, replaces)
        self.point("built")
        return made

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        made: SignedVersion = self.inner.sign(draft, nonce)
        self.point("signed")
        return made

    def broadcast(self, version: SignedVersion) -> None:
        self.inner.broadcast(version)
        self.point("sent")


class WatchedTx:
    def __init__(self, inner: Any, point: Point) -> None:
        self.inner, self.point = inner, point
        self.after: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def add_version(self, *arguments: Any) -> Any:
        made = self.inner.add_version(*arguments)
        self.point("storing")
        self.after.append("stored")
        return made

    def mark_sent(self, *arguments: Any) -> None:
        self.inner.mark_sent(*arguments)
        self.point("recording")
        self.after.append("recorded")


class WatchedStore:
    def __init__(self, inner: Any, point: Point) -> None:
        self.inner, self.point = inner, point

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @contextmanager
    def transaction(self, *run: Any) -> Iterator[Any]:
        with self.inner.transaction(*run) as tx:
            watched = WatchedTx(tx, self.point)
            yield watched
        for name in watched.after:
            self.point(name)


def work(base: Path, job: dict[str, Any], report: int) -> None:
    """Run the job's passes; every point is written to ``report`` before it can kill."""
    settings = load(base / "config.json", base)
    seen = 0

    def point(name: str) -> None:
        nonlocal seen
        seen += 1
        os.write(report, name.encode() + b"\n")
        if name == job.get("point") or seen == job.get("nth"):
            os.kill(os.getpid(), signal.SIGKILL)

    store: Any = WatchedStore(sending.open_store(settings), point)
    network: Any = WatchedNetwork(sending.open_network(settings, job["network"]), point)
    stop = time.monotonic() + job.get("seconds", 0.0)
    rng = random.Random(job.get("seed", 0))
    common: dict[str, Any] = {
        "lease_s": job.get("lease_s", LEASE_S),
        "retry": RETRY,
        "rng": rng.random,
        "conditions": sending.anchor_conditions(settings, job["network"]),
    }
    while True:
        clock, owner = (lambda: time.time() + job["skew"]), secrets.token_hex(6)
        if "publish" in job["do"]:
            publish(AnchorDelivery(store, network, clock, owner, **common))
        if "confirm" in job["do"]:
            bump_s = job.get("bump_s", 1e9)
            delivery = AnchorDelivery(store, network, clock, owner + "c", **common)
            confirm(delivery, poll_s=0.05, fee_bump_after_s=bump_s)
        if time.monotonic() >= stop:
            return
        time.sleep(rng.random() * 0.05)


def child(base: Path, job: dict[str, Any], report: int) -> None:
    try:
        work(base, job, report)
    finally:
        error = sys.exc_info()[1]
        if error is not None:
            traceback.print_exception(error)
        os._exit(1 if error else 0)


def main(base: str) -> None:
    for line in sys.stdin:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            child(Path(base), json.loads(line), writing)
        os.close(writing)
        with os.fdopen(reading) as told:
            points = told.read().split()
        _, status = os.waitpid(pid, 0)
        answer = {"status": os.waitstatus_to_exitcode(status), "points": points}
        answer["killed"] = answer["status"] == -signal.SIGKILL
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
