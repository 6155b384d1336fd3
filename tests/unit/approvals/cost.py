"""What a head that waits for approval costs: ``python -m tests.unit.approvals.cost``."""

from __future__ import annotations

import time

from tests.unit.approvals.world import ApprovalWorld, run_id, signed


def world(runs: int) -> ApprovalWorld:
    made = ApprovalWorld()
    for number in range(runs):
        made.head(final=run_id(number))
    return made


def main() -> None:
    for runs in (1, 100, 1000):
        made = world(runs)
        began = time.perf_counter()
        made.publish()
        backlog = time.perf_counter() - began
        made.add(signed(made.take(), "alice"))
        began = time.perf_counter()
        made.publish()
        again, size = time.perf_counter() - began, len(signed(made.take(), "bob").encode())
        line = f"{runs} heads: first pass {backlog * 1e3:.0f} ms, next {again * 1e3:.1f} ms"
        print(f"{line}; envelope {size} bytes")


if __name__ == "__main__":
    main()
