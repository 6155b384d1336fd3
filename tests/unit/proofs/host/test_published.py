"""Evidence that real hardware made and others published: parsed, verified, followed to the
vendors' roots.

The files are other projects' and lie in none of ours. ``PROVENANCE_HOST_VECTORS`` names a folder
that has them, by the names in :data:`FILES`, which say where each comes from and what it is.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from provenance.errors import BadSignatureError, FormatError, ProofError
from provenance.proofs.host.certificates import Attested, fingerprint, root_of
from provenance.proofs.host.evidence import NVIDIA, SEV_SNP, TDX, Report
from provenance.proofs.host.nvidia import check_nvidia
from provenance.proofs.host.roots import VENDOR_ROOTS
from provenance.proofs.host.sev_snp import check_sev_snp
from provenance.proofs.host.tdx import check_tdx

FOLDER = os.environ.get("PROVENANCE_HOST_VECTORS")
TDX_GUEST = "google/go-tdx-guest testing/testdata/"
SEV_GUEST = "google/go-sev-guest verify/"
VIRTEE = "virtee/sev tests/certs_data/"
NVTRUST = "NVIDIA/attestation-sdk common-test-data/serialized_test_evidence/"
FILES = {
    "tdx_prod_quote_SPR_E4.dat": (TDX_GUEST, "6dde5548bec99147fef832643301f113df99931547be26df"),
    "quote_v5_sample.dat": (TDX_GUEST, "cf77a6e91e48291d5d338c5f3b5d0674225a4d13e7d83ff5"),
    "cos-113-tdx-quote.dat": (
        TDX_GUEST + "ccel/",
        "54334c81b4e03634ab3a269ad397c9cea3b5c9ee96c57505",
    ),
    "attestation.bin": (
        SEV_GUEST + "testdata/",
        "377e6241d3b373ab1df80c0f96978594e7e21f4797dd6ea9",
    ),
    "vcek.testcer": (SEV_GUEST + "testdata/", "0d057f9b6e29a69eda9c0154b259567d291c1c08d73a11e9"),
    "ask_ark_milan.pem": (SEV_GUEST + "trust/", "22e62f8d2c21a156470145fc75f7b5a377cb053ced3e97f0"),
    "report_milan.hex": (VIRTEE, "3d956e9104969a038031a6b63dd6c4b60000619d37702065"),
    "vcek_milan.der": (VIRTEE, "3bbfb6ee259f75a95d13168cfdf2e034181bb93c7c016825"),
    "multi_gpu_hopper.json": (NVTRUST, "9cb4a41a9e0bec27923a779325dec8ed9d182a4b7605e429"),
}
"""By name: repository and folder, and how the SHA-256 begins."""
NOW = datetime(2026, 6, 1, tzinfo=UTC)

pytestmark = pytest.mark.skipif(
    FOLDER is None, reason="PROVENANCE_HOST_VECTORS names no folder of published evidence"
)


def read(name: str) -> bytes:
    data = (Path(str(FOLDER)) / name).read_bytes()
    assert sha256(data).hexdigest().startswith(FILES[name][1]), FILES[name][0] + name
    return data


def root(attested: Attested) -> str:
    found = root_of(attested.chain, [], NOW, "x", VENDOR_ROOTS)
    assert found is not None
    return VENDOR_ROOTS[fingerprint(found)]


@pytest.mark.parametrize(
    ("name", "size", "at"),
    [
        ("tdx_prod_quote_SPR_E4.dat", 4935, 568),  # its publisher put a line of text behind it
        ("quote_v5_sample.dat", 5006, 574),
        ("cos-113-tdx-quote.dat", 8000, 568),
    ],
)
def test_quotes_of_tdx(name: str, size: int, at: int) -> None:
    data = read(name)[:size]
    attested = check_tdx(Report(TDX, data), data[at : at + 64])
    assert root(attested) == "Intel SGX Root CA"
    with pytest.raises(ProofError, match="tdx: report data is"):
        check_tdx(Report(TDX, data), b"\1" * 32)
    for place in (4, at, 700, 800, 1000):
        forged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((FormatError, ProofError, BadSignatureError)):
            check_tdx(Report(TDX, forged), forged[at : at + 64])


def test_reports_of_sev_snp() -> None:
    pem = x509.load_pem_x509_certificates(read("ask_ark_milan.pem"))
    above = tuple(each.public_bytes(Encoding.DER) for each in pem)
    data = bytes.fromhex(read("report_milan.hex").decode())
    report = Report(SEV_SNP, data, (read("vcek_milan.der"), *above))
    assert root(check_sev_snp(report, data[0x50:0x90])) == "AMD ARK-Milan"
    for place in (0x90, 0x180, 0x1A0, 0x2A0, 0x2E8):
        forged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((ProofError, BadSignatureError)):
            check_sev_snp(replace(report, data=forged), data[0x50:0x90])
    data = read("attestation.bin")
    debug = Report(SEV_SNP, data, (read("vcek.testcer"), *above))
    with pytest.raises(ProofError, match="policy b0000 lets its host debug it"):
        check_sev_snp(debug, data[0x50:0x90])


def test_measurements_of_gpus() -> None:
    devices = set()
    for each in json.loads(read("multi_gpu_hopper.json")):
        pem = x509.load_pem_x509_certificates(base64.b64decode(each["certificate"]))
        chain = tuple(one.public_bytes(Encoding.DER) for one in pem)
        report = Report(NVIDIA, base64.b64decode(each["evidence"]), chain)
        attested = check_nvidia(report, bytes.fromhex(each["nonce"]))
        assert root(attested) == "NVIDIA Device Identity CA"
        devices.add(attested.device)
        with pytest.raises(ProofError, match="nvidia: nonce is"):
            check_nvidia(report, bytes(32))
    assert len(devices) == 4
