"""The run's metrics are locked until a block of Ethereum, and two of three approvers open them."""

from __future__ import annotations

import secrets
import time
from contextlib import closing

from provenance.bootstrap import reading
from provenance.bundle.reader import read_bundle
from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError, NetworkUnavailable, RejectedError
from provenance.timelock.bundles import open_bundle, public_key, release, seal

NEEDS = ("ethereum",)
_BLOCKS = 3


def walk(stage: Stage) -> str:
    """Seal, be refused a share before the block, wait for it, and open what was sealed."""
    keys = {name: stage.scratch / f"{name}.key" for name in ("alice", "bob", "carol")}
    for path in keys.values():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    approvers = {name: public_key(path) for name, path in keys.items()}
    height = _height(stage) + _BLOCKS
    locked, opened = stage.scratch / "locked.zip", stage.scratch / "opened.zip"
    lock = seal(
        stage.settings,
        stage.run,
        locked,
        after=f"ethereum:{height}",
        approvers=approvers,
        threshold=2,
        lock=["metrics"],
    )
    shares = [stage.scratch / f"{name}.share" for name in ("alice", "carol")]
    try:
        release(stage.settings, locked, keys["alice"], shares[0])
    except RejectedError as error:
        early = str(error)
    else:
        raise IntegrityError("a share was released before its block")
    deadline = time.monotonic() + 12
    while _height(stage) < height:
        if time.monotonic() > deadline:
            raise NetworkUnavailable(f"ethereum: no block {height} in time")
        time.sleep(0.2)
    for name, share in zip(("alice", "carol"), shares, strict=True):
        release(stage.settings, locked, keys[name], share)
    number = open_bundle(stage.settings, locked, shares, opened)
    if any(record.withheld for record in read_bundle(opened).records):
        raise IntegrityError(f"{opened}: records are still withheld")
    told = f"{number} records stayed shut until Ethereum block {height} ({early})"
    return f"{told}; alice and carol opened lock {lock.digest().hex()[:16]}, each digest fits"


def _height(stage: Stage) -> int:
    with closing(reading.open_network(stage.settings, "ethereum")) as network:
        return network.identity().height or 0
