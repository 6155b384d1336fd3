"""Quotes, certificates and event logs, packed by hand: every byte counts, every list is bounded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import (
    BadSignatureError,
    FormatError,
    ProofError,
    ProvenanceError,
    TooLargeError,
)
from provenance.proofs.host import event_log
from provenance.proofs.host.certificates import certified_by
from provenance.proofs.host.evidence import HostEvidence, Report, read_host_evidence
from provenance.proofs.host.tpm import check_quote, read_public
from tests.support import stranger
from tests.support.beyond.paper_tpm import (
    DAY,
    KEY,
    ROOT,
    certificate,
    der,
    public,
    quote,
)
from tests.support.beyond.paper_tpm import event_log as packed

EXTRA = b"\x11" * 32
QUOTE = quote(EXTRA, {0: b"\x01" * 32, 23: b"\x02" * 32})
OTHER = ec.derive_private_key(0xB0B, ec.SECP256R1())


def test_what_a_quote_says_is_read() -> None:
    found = check_quote(QUOTE, EXTRA)
    assert (found.clock, found.resets, found.restarts, found.safe) == (3_600_000, 7, 0, True)
    assert (found.pcrs, found.extra) == ((0, 23), EXTRA)


@pytest.mark.parametrize("name", ["attest", "signature", "public"])
def test_no_byte_of_a_quote_can_be_changed_dropped_or_added(name: str) -> None:
    """But those that say nothing: attributes of the key that nobody asks for."""
    data = getattr(QUOTE, name)
    unasked = range(4, 8) if name == "public" else ()
    for at in range(len(data)):
        for changed in (data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :], data[:at]):
            if at in unasked and len(changed) == len(data):
                continue
            with pytest.raises((FormatError, BadSignatureError, ProofError)):
                check_quote(replace(QUOTE, **{name: changed}), EXTRA)
    with pytest.raises((FormatError, BadSignatureError)):
        check_quote(replace(QUOTE, **{name: data + b"\0"}), EXTRA)


@pytest.mark.slow
def test_the_stranger_agrees_about_every_bit() -> None:
    own = stranger.load("beyond.host")
    taken = 0
    for name in ("attest", "signature", "public"):
        data = getattr(QUOTE, name)
        for bit in range(len(data) * 8):
            at, mask = divmod(bit, 8)
            flipped = data[:at] + bytes([data[at] ^ 1 << mask]) + data[at + 1 :]
            changed = replace(QUOTE, **{name: flipped})
            said = []
            both: list[Any] = [(check_quote, changed), (own.check_quote, changed.as_json())]
            for check, form in both:
                try:
                    check(form, EXTRA)
                    said.append(True)
                except (ProvenanceError, ValueError, KeyError):
                    said.append(False)
            assert said[0] == said[1], (name, bit)
            taken += said[0]
    assert taken == 32 - 6  # attributes of the key that nobody asks for


@pytest.mark.parametrize("bit", [1, 4, 5, 16, 17, 18])
def test_a_key_that_is_no_attestation_key_is_refused(bit: int) -> None:
    with pytest.raises(ProofError, match="not a TPM's own restricted signing key"):
        read_public(public(attributes=0x00050072 ^ 1 << bit))


BODY = HostEvidence(
    "start", QUOTE, b"\1", (Report("tdx_guest", b"\2", (b"\3",)),), (("kernel", "6"),), ("x",)
)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"more": 1}, "body: more: unknown key"),
    "no phase": ({"phase": "middle"}, "body: phase: found 'middle'"),
    "no PCRs": ({"pcrs": {}}, "body: tpm.pcrs: found an object, expected values by numbers"),
    "PCR 24": ({"pcrs": {"24": "00" * 32}}, "body: tpm.pcrs: "),
    "PCR 07": ({"pcrs": {"07": "00" * 32}}, "body: tpm.pcrs: "),
    "a short PCR": ({"pcrs": {"0": "00"}}, "body: tpm.pcrs.0: "),
    "capital hex": ({"attest": "FF"}, "body: tpm.attest: found 'FF'"),
    "a quote too large": ({"attest": "00" * 4097}, "body: tpm.attest: .* at most 4096 bytes"),
    "five certificates": ({"certificates": ["00"] * 5}, "body: tpm.certificates: .* at most 4"),
    "17 reports": (
        {"reports": [{"provider": "x", "report": "00", "certificates": []}] * 17},
        "body: reports: .* at most 16",
    ),
    "a report of two lines": (
        {"reports": [{"provider": "x\ny", "report": "00", "certificates": []}]},
        r"body: reports\[0\].provider: found .* expected 1 to 32 of a-z",
    ),
    "a report's nine certificates": (
        {"reports": [{"provider": "x", "report": "00", "certificates": ["00"] * 9}]},
        r"body: reports\[0\].certificates: .* at most 8",
    ),
    "an event log too large": ({"event_log": "00" * (2**20 + 1)}, "body: event_log: .* 1048576"),
}


@pytest.mark.parametrize(("change", "line"), BAD.values(), ids=BAD)
def test_a_record_of_a_host_has_one_form(change: dict[str, Any], line: str) -> None:
    body: Any = BODY.as_json()
    assert read_host_evidence(body) == BODY
    for name, value in change.items():
        (body["tpm"] if name in body["tpm"] else body)[name] = value
    with pytest.raises(FormatError) as caught:
        read_host_evidence(body)
    assert re.match(line, str(caught.value)), caught.value


MIDDLE = certificate("test CA", OTHER, ca=True)
LEAF = certificate("ak", KEY)
UNDER = certificate("ak", KEY, "test CA", OTHER)


@pytest.mark.parametrize("chain", [[LEAF], [LEAF, ROOT], [UNDER, MIDDLE], [UNDER, MIDDLE, ROOT]])
def test_certificates_lead_to_a_pinned_root(chain: list[x509.Certificate]) -> None:
    key = KEY.public_key()
    assert certified_by(der(*chain), key, [ROOT], DAY) == "CN=test root"
    assert certified_by(der(*chain), key, [], DAY) is None
    assert (
        certified_by(der(*chain), key, [certificate("x", OTHER, "x", OTHER, ca=True)], DAY) is None
    )
    assert certified_by((), key, [ROOT], DAY) is None


REFUSED: dict[str, tuple[list[x509.Certificate], str]] = {
    "another key's": ([certificate("ak", OTHER)], "is of another key than the quote's"),
    "of no attestation key": ([certificate("ak", KEY, usage=None)], "is not an attestation key's"),
    "for a server": (
        [certificate("ak", KEY, usage=ExtendedKeyUsageOID.SERVER_AUTH)],
        "is not an attestation key's",
    ),
    "expired": ([certificate("ak", KEY, days=1)], "valid 2023-11-13 to 2023-11-14, .* 2023-11-14"),
    "issued by no CA": (
        [UNDER, certificate("test CA", OTHER)],
        "CN=ak is not issued by the next one",
    ),
    "issued by another": ([LEAF, MIDDLE], "CN=ak is not issued by the next one"),
    "signed by another": (
        [certificate("ak", KEY, "test root", OTHER), ROOT],
        "CN=ak is not issued by the next one",
    ),
}


@pytest.mark.parametrize(("chain", "line"), REFUSED.values(), ids=REFUSED)
def test_certificates_that_do_not_hold_are_refused(
    chain: list[x509.Certificate], line: str
) -> None:
    late = DAY.replace(hour=1)
    with pytest.raises(ProofError, match=line):
        certified_by(der(*chain), KEY.public_key(), [ROOT], late)
    with pytest.raises(FormatError, match="tpm: certificates: "):
        certified_by((b"x",), KEY.public_key(), [ROOT], late)


def naive(events: Iterable[tuple[int, bytes]], locality: int) -> dict[int, bytes]:
    values = {0: bytes(31) + bytes([locality])}
    for pcr, data in events:
        before = values.get(pcr, bytes(32))
        values[pcr] = hashlib.sha256(before + hashlib.sha256(data).digest()).digest()
    return values


@given(
    st.lists(st.tuples(st.integers(0, 23), st.binary(max_size=40)), max_size=8), st.integers(0, 4)
)
def test_a_log_replays_as_the_events_extended(
    events: list[tuple[int, bytes]], locality: int
) -> None:
    log = packed(events, locality)
    assert event_log.replay(log) == naive(events, locality)
    with pytest.raises(FormatError):
        event_log.replay(log[:-1])


@given(st.binary(max_size=200))
def test_what_is_no_log_is_refused(data: bytes) -> None:
    start = packed([])
    for bad in (data, start + b"\1" + data):
        with pytest.raises(ProvenanceError):
            event_log.replay(bad)


@pytest.mark.slow
def test_a_log_is_bounded() -> None:
    with pytest.raises(TooLargeError, match="event log of 1048577 bytes"):
        event_log.replay(bytes(2**20 + 1))
    with pytest.raises(TooLargeError, match="more than 20000 events"):
        event_log.replay(packed([(0, b"")] * 20_001))
