"""Bundles with a time lock: made, opened by shares, and the height that approvers wait for.

Life of a lock: whoever has the run's evidence writes a bundle that withholds some records and has
them encrypted beside it. After the height each approver releases a share, which a node of the
chain must show to have passed. Any k shares open the bundle into one that withholds nothing more
of these records, and which verifies as any other.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from provenance import files
from provenance.app.verify import verify_sealed
from provenance.bootstrap import reading
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import bundle_files, write_files
from provenance.errors import InputError, ProofError, RejectedError, WrongNetworkError
from provenance.evidence.disclosure import withhold
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.fields import Fields
from provenance.formats.record import Json
from provenance.ports.values import CHAIN_FIELDS
from provenance.proofs.timelock import lock as locks
from provenance.proofs.timelock.lock import After, Share, TimeLock
from provenance.settings import Settings
from provenance.settings.key_files import IDENTITY, read_seed
from provenance.verify.headers import HeaderSource, chain_rules

_AFTER: Final = re.compile(r"(bitcoin|ethereum):([1-9][0-9]{0,15})")
_MAX_APPROVERS_BYTES: Final = 64 * 1024


def public_key(path: Path) -> bytes:
    """The X25519 public key, 32 bytes, of an identity's file. Raises ConfigError."""
    return locks.private_key(read_seed(path, IDENTITY)).public_key().public_bytes_raw()


def read_approvers(path: Path) -> dict[str, bytes]:
    """Names and X25519 public keys, from a JSON object. Raises InputError, FormatError."""
    with files.errors_of(path, "read"), path.open("rb") as file:
        data = file.read(_MAX_APPROVERS_BYTES)
    top = Fields.parse(data, str(path))
    found = {name: top.hex(name, 32) for name in top.raw}
    if len(set(found.values())) != len(found):
        raise InputError(f"{path}: found a key twice, expected each approver's own")
    return found


def seal(
    settings: Settings,
    run: str,
    target: Path,
    *,
    after: str,
    approvers: Mapping[str, bytes],
    threshold: int,
    lock: Collection[str],
) -> TimeLock:
    """Write a run's bundle in which the chosen records are locked; the lock.

    Args:
        after: ``bitcoin:HEIGHT`` or ``ethereum:HEIGHT``, of the chain of the configured node.
        lock: Kinds and places of the records, as ``--disclose`` of a bundle takes them.

    Raises:
        UnknownRunError, ConfigError, NetworkUnavailable
        InputError: Something that cannot be, a height that has passed, or a target that is there.
        ProofError: The run does not hold.
    """
    match = _AFTER.fullmatch(after)
    if match is None:
        raise InputError(f"--after: found {after!r}, expected bitcoin:HEIGHT or ethereum:HEIGHT")
    network, height = match[1], int(match[2])
    chain, tip = _tip(settings, network)
    if tip >= height:
        raise InputError(f"--after: found height {height}, and {network} is at {tip} already")
    evidence = verify_sealed(settings, run).evidence
    kept = {record.digest for record in withhold(evidence, lock).records if record.withheld}
    chosen = [r for r in evidence.records if r.digest not in kept and r.kind.is_leaf and r.data]
    own = {record.digest for record in chosen}
    made = locks.seal(
        evidence.run,
        evidence.entries[-1].root,
        After(network, chain, height),
        threshold,
        approvers,
        [record.data for record in chosen if record.data],
        secrets.token_bytes,
    )
    records = (replace(r, data=None, withheld=True) if r.digest in own else r
               for r in evidence.records)  # fmt: skip
    attachments = {**evidence.attachments, locks.FILE: made.encode()}
    _write(settings, replace(evidence, records=tuple(records), attachments=attachments), target)
    return made


def release(
    settings: Settings,
    bundle: Path,
    key_file: Path,
    target: Path,
    headers: HeaderSource | None = None,
) -> Share:
    """Write an approver's share of a bundle's lock, once its height has passed.

    Args:
        headers: Bitcoin's, which are asked instead of the configured node.

    Raises:
        InputError: The bundle has no lock. RejectedError: The height has not passed.
        WrongNetworkError: The node or the headers are of another chain than the lock's.
        ProofError: The key is of no approver, or the headers do not begin with the chain's first
            block. ConfigError, NetworkUnavailable
    """
    lock = lock_of(read_bundle(bundle))
    if headers is not None:
        told, (chain, tip) = "the headers are of", _tip_of(headers, lock.after)
    else:
        told, (chain, tip) = "the node serves", _tip(settings, lock.after.network)
    if chain != lock.after.chain:
        raise WrongNetworkError(
            f"{lock.after.network}: {told} {chain}, the lock waits for {lock.after.chain}"
        )
    if tip < lock.after.height:
        wanted = f"the lock waits for {lock.after.height}"
        found = f"{lock.after.network}: is at height {tip}"
        raise RejectedError(f"{found}, {wanted}: nothing is released")
    share = locks.release(lock, locks.private_key(read_seed(key_file, IDENTITY)))
    with files.errors_of(target, "written"):
        files.replace(target, share.encode())
    return share


def open_bundle(settings: Settings, bundle: Path, shares: Sequence[Path], target: Path) -> int:
    """Write the bundle with its locked records open; how many.

    Raises:
        InputError: No lock, too few shares or another lock's, or a target that is there.
        ProofError: Something is forged: what opens is not what the bundle's digests name.
    """
    evidence = read_bundle(bundle)
    lock, given = lock_of(evidence), list[tuple[str, Share]]()
    for path in shares:
        with files.errors_of(path, "read"), path.open("rb") as file:
            given.append((str(path), Share.decode(file.read(2048), str(path))))
    opened = dict(zip(lock.records, locks.unlock(lock, given), strict=True))
    places = {record.digest for record in evidence.records if record.withheld}
    if foreign := next((digest for digest in opened if digest not in places), None):
        raise ProofError(f"{locks.FILE}: record {foreign.hex()} is none that the bundle withholds")
    records = tuple(
        replace(r, data=opened[r.digest], withheld=False) if r.digest in opened else r
        for r in evidence.records
    )
    rest = {name: data for name, data in evidence.attachments.items() if name != locks.FILE}
    _write(settings, replace(evidence, records=records, attachments=rest), target)
    return len(opened)


def lock_of(evidence: RunEvidence) -> TimeLock:
    """The lock of a bundle, of this run. Raises InputError, FormatError, ProofError."""
    data = evidence.attachments.get(locks.FILE)
    if data is None:
        raise InputError(f"{evidence.source.where}: has no {locks.FILE}")
    lock = TimeLock.decode(data)
    if lock.run != evidence.run:
        raise ProofError(f"{locks.FILE}: is of run {lock.run}, the bundle of {evidence.run}")
    return lock


def _tip(settings: Settings, name: str) -> tuple[dict[str, Json], int]:
    """Which chain the configured node serves, and how high it is."""
    with closing(reading.open_network(settings, name)) as network:
        identity = network.identity()
    chain = {key: identity.fields[key] for key in CHAIN_FIELDS if key in identity.fields}
    return chain, identity.height or 0


def _tip_of(headers: HeaderSource, after: After) -> tuple[dict[str, Json], int]:
    """As :func:`_tip`: as many blocks as lie on the chain's first."""
    chain = after.chain.get("chain")
    if after.network != "bitcoin" or not isinstance(chain, str):
        raise InputError(f"--headers: are of bitcoin, the lock waits for {after.network}")
    genesis = chain_rules(chain).genesis
    tip = headers.depth(bytes.fromhex(genesis)[::-1], chain) - 1
    return {"chain": chain, "genesis": genesis}, tip


def _write(settings: Settings, evidence: RunEvidence, target: Path) -> None:
    if target.exists():
        raise InputError(f"{target}: is there already, expected a new folder or .zip")
    write_files(bundle_files(evidence), target, files.mode_below(target, settings.base_dir))
