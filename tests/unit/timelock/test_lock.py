"""Time locks: the field and the sharing against a naive reference, and what does not open."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import FormatError, InputError, ProofError, ProvenanceError
from provenance.formats.json_text import canonical_json
from provenance.proofs.timelock import shamir
from provenance.proofs.timelock.lock import (
    After,
    Share,
    TimeLock,
    private_key,
    release,
    seal,
    unlock,
)
from tests.support import stranger
from tests.support.verify_world import OTHER, RUN

KEYS = [private_key(bytes([at]) * 32) for at in range(1, 4)]
PUBLIC = {
    name: key.public_key().public_bytes_raw()
    for name, key in zip(("alice", "bob", "carol"), KEYS, strict=True)
}
RECORDS = [b'{"one":1}', b"", b'{"two":2}' * 50]
AFTER = After("bitcoin", {"chain": "regtest"}, 500)


def made(threshold: int = 2, **changed: Any) -> TimeLock:
    fields: dict[str, Any] = {"run": RUN, "root": b"\7" * 32, "after": AFTER} | changed
    return seal(
        **fields,
        threshold=threshold,
        approvers=PUBLIC,
        records=RECORDS,
        random=Random(1).randbytes,  # a test's
    )


def files(shares: Iterable[Share]) -> list[tuple[str, Share]]:
    return [(f"{'abcd'[at]}.share", share) for at, share in enumerate(shares)]


def naive_times(a: int, b: int) -> int:
    """A product of polynomials over GF(2), reduced by long division."""
    product = 0
    for bit in range(8):
        product ^= (a << bit) if b >> bit & 1 else 0
    for bit in range(14, 7, -1):
        product ^= (0x11B << bit - 8) if product >> bit & 1 else 0
    return product


def test_the_field_is_that_of_aes() -> None:
    """FIPS 197, sections 4.2 and 4.2.1."""
    assert shamir._times(0x57, 0x83) == 0xC1
    assert shamir._times(0x57, 0x13) == 0xFE
    assert all(
        shamir._times(a, b) == naive_times(a, b) for a in range(256) for b in range(0, 256, 7)
    )
    assert all(naive_times(a, shamir._inverse(a)) == 1 for a in range(1, 256))


@pytest.mark.slow
@given(st.binary(min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 2), st.integers())
def test_any_k_shares_give_the_secret_to_us_and_to_a_stranger(
    secret: bytes, threshold: int, more: int, seed: int
) -> None:
    shares = shamir.split(secret, threshold, threshold + more, Random(seed).randbytes)
    theirs = stranger.load("beyond.timelock")
    for chosen in combinations(shares.items(), threshold):
        assert shamir.combine(dict(chosen)) == secret
        assert theirs.combine(dict(chosen)) == secret


def test_fewer_shares_fit_every_secret() -> None:
    """One of two: for each secret there is another share that leads to it."""
    [share] = shamir.split(b"\x2a", 2, 1, Random(2).randbytes).values()
    found = {shamir.combine({1: share, 2: bytes([other])}) for other in range(256)}
    assert len(found) == 256


def test_a_lock_opens_with_any_two_of_three() -> None:
    lock = made()
    assert TimeLock.decode(lock.encode()) == lock
    shares = [release(lock, key) for key in KEYS]
    theirs = stranger.load("beyond.timelock")
    for chosen in combinations(shares, 2):
        assert unlock(lock, files(chosen)) == RECORDS
        assert theirs.unlock(lock.encode(), [each.encode() for each in chosen]) == RECORDS
    assert unlock(lock, files(shares)) == RECORDS
    assert Share.decode(shares[0].encode(), "share") == shares[0]


def test_too_few_shares_or_another_locks_are_refused() -> None:
    lock, other = made(), made(run=OTHER)
    [first, second, _] = [release(lock, key) for key in KEYS]
    for shares, line in (
        ([first], "found 1 share, expected 2 that differ"),
        ([first, first], "b.share: is share 1, as a.share is; expected shares that differ"),
        ([first, release(other, KEYS[1])], "b.share: is of the lock"),
    ):
        with pytest.raises(InputError, match=line):
            unlock(lock, files(shares))
    forged = replace(second, share=bytes(32))
    with pytest.raises(ProofError, match="these shares do not open it"):
        unlock(lock, files([first, forged]))
    with pytest.raises(ProofError, match="expected that of an approver"):
        release(lock, private_key(b"\x09" * 32))


CHANGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "an earlier height": lambda d: d["after"].update(height=1),
    "another chain": lambda d: d["after"].update(chain={"chain": "main"}),
    "another network": lambda d: d["after"].update(network="ethereum"),
    "another run": lambda d: d.update(run=str(OTHER)),
    "another root": lambda d: d.update(root="00" * 32),
    "fewer approvers are enough": lambda d: d.update(threshold=1),
    "another record": lambda d: d["records"].__setitem__(0, "00" * 32),
    "a record less": lambda d: d["records"].pop(),
    "another ephemeral key": lambda d: d.update(ephemeral="09" * 32),
    "a key of low order": lambda d: d.update(ephemeral="00" * 32),
    "another share": lambda d: d["approvers"][0].update(share="00" * 48),
}


@pytest.mark.parametrize("name", CHANGED)
def test_no_share_comes_of_a_lock_that_was_changed(name: str) -> None:
    """An approver who is shown a lower height gives nothing away."""
    document = json.loads(made().encode())
    CHANGED[name](document)
    lock = TimeLock.decode(canonical_json(document))
    with pytest.raises(ProofError) as caught:
        release(lock, KEYS[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["name", "key", "order", "sealed"])
def test_what_approvers_cannot_see_the_opening_does(name: str) -> None:
    lock = made()
    people = list(lock.approvers)
    if name == "sealed":
        lock = replace(lock, sealed=bytes([lock.sealed[0] ^ 1]) + lock.sealed[1:])
    elif name == "order":
        lock = replace(lock, approvers=(people[0], people[1]))
    else:
        change: dict[str, Any] = {name: {"name": "mallory", "key": b"\1" * 32}[name]}
        people[2] = replace(people[2], **change)
        lock = replace(lock, approvers=tuple(people))
    with pytest.raises(ProofError, match="these shares do not open it"):
        unlock(lock, files([release(lock, KEYS[0]), release(lock, KEYS[1])]))


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another version": (lambda d: d.update(v=2), "v: found version 2, expected 1"),
    "another key": (lambda d: d.update(more=1), "more: unknown key"),
    "no approver": (lambda d: d["approvers"].clear(), "approvers: found 0, expected 1 to 16"),
    "more than there are": (lambda d: d.update(threshold=4), "threshold: found 4"),
    "a height that is none": (lambda d: d["after"].update(height=0), "after.height: found 0"),
    "no chain": (lambda d: d["after"].update(chain={}), "after.chain: found no key"),
    "a record twice": (lambda d: d.update(records=["00" * 32] * 2), "records: found a list"),
    "stray base64": (lambda d: d.update(sealed="AAA"), "sealed: found 'AAA', expected base64"),
    "a name with spaces": (lambda d: d["approvers"][0].update(name="a b"), "name: found 'a b'"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_another_form_is_refused_by_both(name: str) -> None:
    change, line = MALFORMED[name]
    document = json.loads(made().encode())
    change(document)
    data = canonical_json(document)
    with pytest.raises(FormatError) as caught:
        TimeLock.decode(data)
    assert re.search(line, str(caught.value)), caught.value
    with pytest.raises((ValueError, KeyError)):
        stranger.load("beyond.timelock").read_lock(data)


@pytest.mark.parametrize(("threshold", "records"), [(0, RECORDS), (4, RECORDS), (2, [])])
def test_what_cannot_be_locked(threshold: int, records: list[bytes]) -> None:
    with pytest.raises(ProvenanceError):
        seal(RUN, bytes(32), AFTER, threshold, PUBLIC, records, Random(1).randbytes)
    with pytest.raises(InputError, match="at most 700000"):
        seal(RUN, bytes(32), AFTER, 2, PUBLIC, [bytes(700_001)], Random(1).randbytes)
