"""``provenance timelock``: records that stay shut until a block height."""

from __future__ import annotations

import argparse
from pathlib import Path

from provenance.app.verify import header_source
from provenance.cli.output import answer, settings_of
from provenance.settings import READERS
from provenance.timelock import bundles


def key(arguments: argparse.Namespace) -> int:
    """Print the public key that an approver states."""
    public = bundles.public_key(Path(arguments.file)).hex()
    return answer(arguments, {"file": arguments.file, "public_key": public}, public)


def seal(arguments: argparse.Namespace) -> int:
    """Write a bundle in which the chosen records are locked."""
    lock = bundles.seal(
        settings_of(arguments, secrets=READERS),
        arguments.run_id,
        Path(arguments.output),
        after=arguments.after,
        approvers=bundles.read_approvers(Path(arguments.approvers)),
        threshold=arguments.threshold,
        lock=arguments.lock,
    )
    document = {"output": arguments.output, "records": len(lock.records)}
    after = f"{lock.after.network} block {lock.after.height}"
    return answer(
        arguments,
        document | {"lock": lock.digest().hex(), "after": after},
        f"{arguments.output}: {len(lock.records)} records locked until {after}",
    )


def release(arguments: argparse.Namespace) -> int:
    """Write an approver's share, once the height has passed."""
    settings = settings_of(arguments, secrets=READERS)
    output, headers = Path(arguments.output), header_source(arguments.headers or ())
    share = bundles.release(settings, Path(arguments.bundle), Path(arguments.key), output, headers)
    document = {"output": str(output), "index": share.index, "lock": share.lock.hex()}
    return answer(arguments, document, f"{output}: share {share.index}")


def unlock(arguments: argparse.Namespace) -> int:
    """Write the bundle with its locked records open."""
    settings = settings_of(arguments, secrets=False)
    shares = [Path(each) for each in arguments.shares]
    output = Path(arguments.output)
    number = bundles.open_bundle(settings, Path(arguments.bundle), shares, output)
    document = {"output": str(output), "records": number}
    return answer(arguments, document, f"{output}: {number} records open; now: provenance verify")
