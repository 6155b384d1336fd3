"""The local anchor file: chained, signed, torn, tampered with, shared."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from provenance.chains import local
from provenance.chains.local import LocalNetwork
from provenance.errors import (
    BadSignatureError,
    FormatError,
    IntegrityError,
    LyingNodeError,
    NetworkUnavailable,
    ProofError,
    ProvenanceError,
    RejectedError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats.record import canonical_json
from provenance.ports.values import Place, SignedVersion, anchor_payload
from provenance.proofs.local_file import local_transaction_id, read_lines
from provenance.settings import LocalSettings

pytestmark = pytest.mark.slow

SEED = bytes(range(32))


def payload(number: int) -> bytes:
    return anchor_payload(hashlib.sha256(str(number).encode()).digest())


def network(path: Path, clock: Callable[[], float] = lambda: 1_700_000_000.25) -> LocalNetwork:
    return LocalNetwork(LocalSettings(path), SEED, clock)


def put(target: LocalNetwork, number: int) -> SignedVersion:
    version = target.sign(target.draft(payload(number)), None)
    target.broadcast(version)
    return version


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "anchors.jsonl"


def test_a_line_can_be_checked_by_hand(path: Path) -> None:
    target = network(path)
    version = put(target, 1)
    put(target, 2)
    first, second = path.read_bytes().splitlines()
    fields = json.loads(first)
    assert fields["ts"] == "2023-11-14T22:13:20.250000Z"
    assert (fields["v"], fields["seq"], fields["prev"]) == (1, 0, "0" * 64)
    assert json.loads(second)["prev"] == hashlib.sha256(first).hexdigest()
    signature = bytes.fromhex(fields.pop("signature"))
    Ed25519PublicKey.from_public_bytes(target.public_key).verify(
        signature, b"ml-provenance/local/v1\0" + canonical_json(fields)
    )
    assert version.transaction_id == "local:" + hashlib.sha256(payload(1)).hexdigest()[:32]
    seen = target.observe(version)
    assert (seen.block_time, seen.height) == (1_700_000_000.25, 0)
    assert seen.block_hash == hashlib.sha256(first).hexdigest()


def test_the_whole_file_verifies(path: Path) -> None:
    target = network(path)
    for number in range(20):
        put(target, number)
    entries = read_lines(path.read_bytes(), target.public_key)
    assert [entry.payload for entry in entries] == [payload(n) for n in range(20)]
    with pytest.raises(BadSignatureError):
        read_lines(path.read_bytes(), LocalNetwork(LocalSettings(path), bytes(32)).public_key)


def test_every_byte_matters(path: Path) -> None:
    target = network(path)
    for number in range(3):
        put(target, number)
    good = path.read_bytes()
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1
        path.write_bytes(bytes(bad))
        with pytest.raises((FormatError, IntegrityError)):
            read_lines(path.read_bytes(), target.public_key)
        if at % 40 == 0:
            with pytest.raises(LyingNodeError):
                target.identity()
            with pytest.raises(LyingNodeError):
                put(network(path), 9)
            assert path.read_bytes() == bytes(bad)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda lines: [lines[1], lines[0]], ProofError),
        (lambda lines: lines[1:], ProofError),
        (lambda lines: [lines[0], lines[2]], ProofError),
        (lambda lines: [*lines, lines[2]], ProofError),
        (lambda lines: [b"{}", *lines], UnknownVersionError),
        (lambda lines: [b"[]"], FormatError),
        (lambda lines: [b"no"], FormatError),
        (lambda lines: [b""], FormatError),
        (lambda lines: [lines[0] + b" "], FormatError),
        (lambda lines: [canonical_json(json.loads(lines[0]) | {"x": 1})], FormatError),
        (lambda lines: [canonical_json(json.loads(lines[0]) | {"payload": 1})], FormatError),
        (lambda lines: [canonical_json(json.loads(lines[0]) | {"payload": "00"})], FormatError),
        (lambda lines: [canonical_json(json.loads(lines[0]) | {"ts": "now"})], FormatError),
    ],
)
def test_lines_out_of_place(
    path: Path, change: Callable[[list[bytes]], list[bytes]], error: type[ProvenanceError]
) -> None:
    target = network(path)
    for number in range(3):
        put(target, number)
    lines = change(path.read_bytes().splitlines())
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with pytest.raises(error):
        read_lines(path.read_bytes(), target.public_key)


def test_a_torn_line_is_cut_off_and_nothing_else(path: Path) -> None:
    target = network(path)
    put(target, 1)
    good = path.read_bytes()
    put(target, 2)
    whole = path.read_bytes()
    for length in range(len(good) + 1, len(whole)):
        path.write_bytes(whole[:length])
        fresh = network(path)
        with pytest.raises(TruncatedError):
            read_lines(path.read_bytes(), target.public_key)
        version = fresh.sign(fresh.draft(payload(2)), None)
        assert fresh.observe(version).place is Place.UNKNOWN
        assert path.read_bytes() == whole[:length]  # reading mends nothing
        fresh.broadcast(version)
        assert path.read_bytes() == whole


def test_a_replaced_file_is_read_anew(path: Path, tmp_path: Path) -> None:
    target = network(path)
    version = put(target, 1)
    path.rename(tmp_path / "aside")
    assert target.observe(version).place is Place.UNKNOWN
    target.broadcast(version)
    assert target.observe(version).place is Place.MINED
    path.write_bytes(b"")
    assert target.observe(version).place is Place.UNKNOWN
    with pytest.raises(NetworkUnavailable, match="not in"):
        target.evidence(version, target.observe(version))


def test_repeats_write_nothing_and_other_processes_lines_are_seen(path: Path) -> None:
    one, two = network(path), network(path)
    version = put(one, 1)
    put(two, 2)
    put(one, 3)
    size = path.stat().st_size
    two.broadcast(version)
    put(one, 2)
    assert path.stat().st_size == size
    assert two.identity().height == one.identity().height == 3
    evidence = one.evidence(version, one.observe(version))
    assert str(evidence["line"]).encode() == path.read_bytes().splitlines()[0]
    assert evidence["public_key"] == one.public_key.hex()


def _write(path: Path, first: int) -> None:
    target = network(path)
    for number in range(first, first + 15):
        put(target, number)


def test_processes_and_threads_share_one_file(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(path, first)) for first in (0, 10, 20)]
    for worker in workers:
        worker.start()
    shared = network(path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: put(shared, number), range(30, 50)))
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    entries = read_lines(path.read_bytes(), shared.public_key)
    assert sorted(e.payload for e in entries) == sorted(
        payload(n) for n in [*range(35), *range(35, 50)]
    )


def test_what_the_system_refuses_is_unavailable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = network(path)
    put(target, 1)
    good = path.read_bytes()
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        return real(descriptor, data[: len(data) // 2])

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for broken in (short, full):
        monkeypatch.setattr(os, "write", broken)
        with pytest.raises(NetworkUnavailable, match=r"full|No space"):
            put(target, 2)
        assert path.read_bytes() == good
    monkeypatch.undo()
    put(target, 2)
    blocked = network(path / "below a file")
    with pytest.raises(NetworkUnavailable):
        put(blocked, 1)


def test_a_lock_that_is_held_is_waited_for_and_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = network(path)
    put(target, 1)
    monkeypatch.setattr(local, "LOCK_TIMEOUT_S", 0.05)
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(NetworkUnavailable, match="another process holds"):
            put(target, 2)
    put(target, 2)


def test_drafts_and_ids_are_checked(path: Path) -> None:
    target = network(path)
    with pytest.raises(RejectedError):
        target.draft(payload(1), put(target, 2))
    with pytest.raises(RejectedError, match="32 hex"):
        target.lookup("local:xyz")
    assert target.lookup(local_transaction_id(payload(2))).root == payload(2)[4:]
    assert "000102" not in repr(target)
