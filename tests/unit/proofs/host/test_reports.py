"""Reports of confidential hardware, packed by hand: each field is held, and no other one passes."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import (
    BadSignatureError,
    FormatError,
    ProofError,
    ProvenanceError,
    TrailingBytesError,
)
from provenance.proofs.host.certificates import (
    Attested,
    fingerprint,
    read_chain,
    read_pem,
    root_of,
)
from provenance.proofs.host.evidence import Report
from provenance.proofs.host.nvidia import check_nvidia
from provenance.proofs.host.sev_snp import certificates_of, check_sev_snp
from provenance.proofs.host.tdx import check_tdx
from tests.support import stranger
from tests.support.beyond.paper_tee import (
    AMD,
    CA_KEY,
    CHIP,
    CHIP_KEY,
    PCK,
    PCK_CERTIFICATE,
    TCB,
    VENDOR,
    certificate,
    certificate_table,
    chip_certificate,
    der,
    gpu_report,
    snp_report,
    td_quote,
)
from tests.support.beyond.paper_tpm import DAY

EXTRA = b"\x11" * 32
SAN = "2.5.29.17"
OTHER = ec.derive_private_key(0xB0B, ec.SECP384R1())
Check = Callable[[Report, bytes], Attested]
TURIN = {AMD + "3.9": 1, AMD + "3.1": 2, AMD + "3.2": 3, AMD + "3.3": 4, AMD + "3.8": 9}
HELD: dict[str, tuple[Check, Report, str]] = {
    "a quote of version 4": (check_tdx, td_quote(EXTRA), "MRTD"),
    "a quote of version 5": (check_tdx, td_quote(EXTRA, version=5), "MRTD"),
    "a quote of TDX 1.5": (check_tdx, td_quote(EXTRA, version=5, size=648), "MRTD"),
    "a report of a guest": (check_sev_snp, snp_report(EXTRA), "measurement"),
    "one of version 5": (check_sev_snp, snp_report(EXTRA, {0: b"\5"}), "measurement"),
    "one by a cloud's key": (
        check_sev_snp,
        snp_report(EXTRA, {0x48: b"\4"}, (chip_certificate(chip=None), VENDOR)),
        "measurement",
    ),
    "one of Turin": (
        check_sev_snp,
        snp_report(
            EXTRA,
            {0x180: bytes([1, 2, 3, 4, 0, 0, 0, 9]), 0x1A0: CHIP[:8] + bytes(56)},
            (chip_certificate(TURIN, CHIP[:8]), VENDOR),
        ),
        "measurement",
    ),
    "a GPU's measurements": (check_nvidia, gpu_report(EXTRA), "measurements"),
}


@pytest.mark.parametrize(("check", "report", "name"), HELD.values(), ids=HELD)
def test_what_holds_is_taken_by_both_verifiers(check: Check, report: Report, name: str) -> None:
    attested = check(report, EXTRA)
    assert next(iter(attested.measured)) == name
    assert root_of(attested.chain, [], DAY, "x") is None
    assert root_of(attested.chain, [VENDOR], DAY, "x") == VENDOR
    assert root_of(attested.chain, [], DAY, "x", {fingerprint(VENDOR)}) == VENDOR
    assert stranger.load("beyond.reports").check(report.as_json(), EXTRA) is not None


def other(report: Report, at: int, mask: int = 1) -> Report:
    data = report.data
    return replace(report, data=data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])


@pytest.mark.slow
@pytest.mark.parametrize(("check", "report", "_"), HELD.values(), ids=HELD)
def test_no_byte_can_be_changed(check: Check, report: Report, _: str) -> None:
    """But within a certificate's text, whose spaces say nothing; certificates have their own."""
    most = report.data.find(b"-----BEGIN")
    own = stranger.load("beyond.reports")

    @settings(max_examples=60)
    @given(st.integers(0, (most if most > 0 else len(report.data)) - 1), st.integers(1, 255))
    def changed(at: int, mask: int) -> None:
        forged = other(report, at, mask)
        with pytest.raises((FormatError, BadSignatureError, ProofError)) as caught:
            check(forged, EXTRA)
        assert "\n" not in str(caught.value)
        with pytest.raises((ValueError, KeyError, IndexError)):
            own.check(forged.as_json(), EXTRA)

    changed()


@pytest.mark.parametrize(("check", "report", "_"), HELD.values(), ids=HELD)
def test_nothing_can_be_left_out_or_added(check: Check, report: Report, _: str) -> None:
    for size in range(0, len(report.data), 7):
        with pytest.raises((FormatError, ProofError)):
            check(replace(report, data=report.data[:size]), EXTRA)
    with pytest.raises((FormatError, TrailingBytesError)):
        check(replace(report, data=report.data + b"\1"), EXTRA)
    for moment in (bytes(32), b"\x11" * 31 + b"\0"):
        with pytest.raises(ProofError, match=r"report data is 11|nonce is 11"):
            check(report, moment)


def test_zeros_behind_a_quote_say_nothing() -> None:
    """As some hosts pad it, and its certificates' text."""
    report = td_quote(EXTRA)
    assert check_tdx(replace(report, data=report.data + bytes(99)), EXTRA)


PCK_OTHER = certificate("PCK", PCK)
FIRMWARE: dict[str, tuple[Check, Report, str]] = {
    f"another version of the firmware, byte {at}": (
        check_sev_snp,
        snp_report(EXTRA, {0x180: bytes(TCB[n] ^ (n == at) for n in range(8))}),
        "sev-snp: a version of the firmware differs",
    )
    for at in (0, 1, 6, 7)
}
REFUSED: dict[str, tuple[Check, Report, str]] = {
    **FIRMWARE,
    "an SGX enclave's": (check_tdx, other(td_quote(EXTRA), 4), "tdx: type of the environment"),
    "version 3": (check_tdx, other(td_quote(EXTRA), 0, 7), "tdx: version 0003, expected"),
    "a body of another size": (
        check_tdx,
        td_quote(EXTRA, version=5, size=600),
        "tdx: size of the body 00000258, expected 00000288",
    ),
    "a debug TD": (check_tdx, td_quote(EXTRA, {120: b"\1"}), "tdx: .*it can be debugged"),
    "another's TDX module": (check_tdx, td_quote(EXTRA, {64: b"\1"}), "tdx: the TDX module is not"),
    "a debug module": (check_tdx, td_quote(EXTRA, {112: b"\1"}), "tdx: the TDX module is not"),
    "another enclave": (check_tdx, td_quote(EXTRA, None, {128: b"x"}), "tdx: .* is not Intel's"),
    "another product": (check_tdx, td_quote(EXTRA, None, {256: b"\1"}), "tdx: .* is not Intel's"),
    "a debug enclave": (check_tdx, td_quote(EXTRA, None, {48: b"\x17"}), "tdx: .*attributes 17"),
    "an enclave of another key": (
        check_tdx,
        td_quote(EXTRA, None, {320: b"x"}),
        "tdx: the quoting enclave reported another key",
    ),
    "no PCK certificate": (
        check_tdx,
        td_quote(EXTRA, chain=(PCK_OTHER, VENDOR)),
        "tdx: certificates: the first has no extension 1.2.840.113741.1.13.1",
    ),
    "another's PCK": (
        check_tdx,
        td_quote(EXTRA, chain=(certificate("PCK", OTHER, {"1.2.840.113741.1.13.1": b"0"}),)),
        "tdx: report of the quoting enclave: the key is not on secp256r1",
    ),
    "a debug guest": (check_sev_snp, snp_report(EXTRA, {8: b"\0\0\x0b"}), "sev-snp: .* debug it"),
    "version 4": (check_sev_snp, snp_report(EXTRA, {0: b"\4"}), "sev-snp: version 4"),
    "signed by none": (check_sev_snp, snp_report(EXTRA, {0x48: b"\x1c"}), "sev-snp: .*by key 7"),
    "another algorithm": (check_sev_snp, snp_report(EXTRA, {0x34: b"\2"}), "sev-snp: .*algorithm"),
    "another chip": (
        check_sev_snp,
        snp_report(EXTRA, {0x1A0: bytes(64)}),
        "sev-snp: certified is chip 0001",
    ),
    "a cloud's certificate for a chip": (
        check_sev_snp,
        snp_report(EXTRA, None, (chip_certificate(chip=None), VENDOR)),
        "sev-snp: certificates: the first has no extension 1.3.6.1.4.1.3704.1.4",
    ),
    "no certificates": (check_sev_snp, snp_report(EXTRA, None, ()), "sev-snp: no certificates"),
    "another key": (
        check_sev_snp,
        snp_report(EXTRA, None, (certificate("VCEK", OTHER), VENDOR)),
        "sev-snp: report: the key did not sign this",
    ),
    "a key of another curve": (
        check_sev_snp,
        snp_report(EXTRA, None, (PCK_CERTIFICATE,)),
        "sev-snp: report: the key is not on secp384r1",
    ),
    "no certificate": (
        check_sev_snp,
        replace(snp_report(EXTRA), certificates=(b"x",)),
        "sev-snp: certificates: ",
    ),
    "a GPU's firmware": (
        check_nvidia,
        replace(gpu_report(EXTRA), certificates=der(certificate("x", CHIP_KEY))),
        "nvidia: certificates: the first has no extension 2.23.133.5.4.1",
    ),
    "a GPU without certificates": (
        check_nvidia,
        replace(gpu_report(EXTRA), certificates=()),
        "nvidia: no certificates",
    ),
}


@pytest.mark.parametrize(("check", "report", "line"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_hold_is_refused_by_both_verifiers(
    check: Check, report: Report, line: str
) -> None:
    with pytest.raises((FormatError, BadSignatureError, ProofError)) as caught:
        check(report, EXTRA)
    assert re.match(line, str(caught.value)), caught.value
    with pytest.raises((ValueError, KeyError, IndexError)):
        stranger.load("beyond.reports").check(report.as_json(), EXTRA)


MIDDLE = certificate("middle", OTHER, ca=True)
LEAF = certificate("x", CHIP_KEY, issuer="middle", issuer_key=OTHER)
CHAINS: dict[str, tuple[list[Any], str]] = {
    "expired": ([certificate("x", CHIP_KEY, days=0)], "x: certificates: valid "),
    "of another issuer": ([certificate("x", CHIP_KEY), MIDDLE], "x: .*CN=x is not issued by"),
    "of no CA": (
        [certificate("x", CHIP_KEY, issuer="y", issuer_key=OTHER), certificate("y", OTHER)],
        "x: .*CN=x is not issued by",
    ),
    "signed by another": ([certificate("x", CHIP_KEY, issuer_key=OTHER), VENDOR], "x: .*CN=x is"),
    "with a CA below one that may have none": (
        [LEAF, MIDDLE, certificate("test vendor", CA_KEY, ca=True, below=0)],
        "x: .*CN=middle is not issued by",
    ),
    "of a CA whose key signs no certificates": (
        [LEAF, certificate("middle", OTHER, {"2.5.29.15": b"\3\2\7\x80"}, ca=True)],
        "x: .*CN=x is not issued by",
    ),
    "of a name that is no text": (
        [certificate("x\n\x1b[2J", CHIP_KEY), MIDDLE],
        r"x: certificates: 'CN=x\\n\\x1b\[2J' is not issued",
    ),
}


@pytest.mark.parametrize(("chain", "line"), CHAINS.values(), ids=CHAINS)
def test_a_chain_that_does_not_hold_is_refused(chain: list[Any], line: str) -> None:
    with pytest.raises(ProofError, match=line):
        root_of(chain, [VENDOR], DAY, "x", {fingerprint(chain[-1])})


def test_a_root_is_a_ca_that_may_have_those_below_it() -> None:
    chain = [LEAF, MIDDLE]
    assert root_of(chain, [VENDOR], DAY, "x") == VENDOR
    assert root_of(chain, [certificate("test vendor", CA_KEY, ca=True, below=0)], DAY, "x") is None


def _with(name: bytes) -> bytes:
    """A certificate whose subject's only value (its tag and text) is another one."""
    return der(LEAF)[0].replace(b"\x0c\x01x", name)


DIRECTORY = bytes.fromhex("3010a40e300c310a30080603550403030100")
"""A subject alternative name: a directory name whose common name is a BIT STRING."""
MALFORMED = {
    "of version 25": der(LEAF)[0].replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\x18"),
    "with a name that is no UTF-8": _with(b"\x0c\x01\xff"),
    "with a name of another type": _with(b"\x03\x01\x00"),
    "with a directory name of another type": der(certificate("x", CHIP_KEY, {SAN: DIRECTORY}))[0],
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_certificate_is_a_format_error(data: bytes) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n" + b64encode(data) + b"\n-----END CERTIFICATE-----\n"
    with pytest.raises(FormatError, match="^x: certificates: "):
        read_chain([data], "x")
    with pytest.raises(FormatError, match="^x: certificates: "):
        read_pem(pem, "x")


def test_a_root_counts_by_its_own_fingerprint_alone() -> None:
    forged = certificate("test vendor", CHIP_KEY, issuer_key=CHIP_KEY, ca=True)
    pinned = {fingerprint(VENDOR)}
    assert root_of([forged], [], DAY, "x", pinned) is None
    assert root_of(read_chain(der(VENDOR), "x"), [], DAY, "x", pinned) == VENDOR


def test_a_host_hands_out_certificates_in_a_table() -> None:
    report, chip = snp_report(EXTRA).data, chip_certificate()
    table = certificate_table(ark=VENDOR, vcek=chip, ask=MIDDLE)
    assert certificates_of(report, table) == der(chip, MIDDLE, VENDOR)
    assert certificates_of(report, certificate_table(vcek=chip)) == der(chip)
    assert certificates_of(report, bytes(24)) == ()
    for bad in (table[:-1], table[:30]):
        with pytest.raises(FormatError, match="sev-snp: certificates end at byte"):
            certificates_of(report, bad)


@pytest.mark.slow
@given(st.binary(max_size=100))
def test_what_is_no_table_is_refused(data: bytes) -> None:
    try:
        found = certificates_of(snp_report(EXTRA).data, data)
    except ProvenanceError:
        return
    assert len(found) <= 3
