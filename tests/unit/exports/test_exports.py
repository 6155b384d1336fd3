"""Exports, read by the stock readers: C2PA's, and Rekor's types."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import c2pa
import pytest
import rekor_types
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from provenance.cli import main
from provenance.exports.c2pa import FORMAT, RUN_ASSERTION
from provenance.formats.dsse import pae
from tests.support.beyond.paper_tpm import CA_KEY, DAY, certificate
from tests.support.model_world import deployment, key_files, model_folder

pytestmark = pytest.mark.slow


def name(text: str) -> x509.Name:
    pairs = ((x509.NameOID.ORGANIZATION_NAME, "test"), (x509.NameOID.COMMON_NAME, text))
    return x509.Name([x509.NameAttribute(*pair) for pair in pairs])


def issued(key: ec.EllipticCurvePublicKey, ca: bool) -> x509.Certificate:
    """As C2PA wants them (C2PA specification 2.2, 14.5)."""
    usages: list[bool] = [not ca, False, False, False, False, ca, ca, False, False]
    own, issuer = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier
    builder = (
        x509.CertificateBuilder()
        .subject_name(name("root" if ca else "signer"))
        .issuer_name(name("root"))
        .public_key(key)
        .serial_number(2 - ca)
        .not_valid_before(DAY)
        .not_valid_after(DAY.replace(year=2123))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.KeyUsage(*usages), critical=True)
        .add_extension(own.from_public_key(key), critical=False)
        .add_extension(issuer.from_issuer_public_key(CA_KEY.public_key()), critical=False)
    )
    if not ca:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(usage, critical=False)
    return builder.sign(CA_KEY, SHA256())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A deployment, its model, a key and the key's certificates."""
    base = tmp_path_factory.mktemp("exports")
    deployment(base / "artifacts")
    key = key_files(base / "keys")
    private = load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    chain = [issued(private.public_key(), False), issued(CA_KEY.public_key(), True)]
    cert = base / "chain.pem"
    cert.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
    model = model_folder(base / "model") / "model.safetensors"
    return {"base": base / "artifacts", "key": key, "cert": cert, "model": model}


def exported(world: dict[str, Path], *command: str) -> int:
    return main(["export", *command, "--base-dir", str(world["base"])])


def c2pa_command(world: dict[str, Path], **other: Path) -> list[str]:
    files = {**world, **other}
    options = [f"--{option}={files[option]}" for option in ("model", "key", "cert")]
    return ["c2pa", "latest", *options, "-o", str(files["base"].parent / "model.c2pa")]


def read(model: Path, manifest: bytes) -> tuple[dict[str, Any], list[str]]:
    """What C2PA's reader says: the active manifest, and what fails."""
    with model.open("rb") as file, c2pa.Reader(FORMAT, file, manifest) as reader:
        told = json.loads(reader.json())
    failed = told["validation_results"]["activeManifest"]["failure"]
    return told["manifests"][told["active_manifest"]], [each["code"] for each in failed]


def test_c2pa_s_reader_takes_the_manifest_of_a_model(world: dict[str, Path]) -> None:
    assert exported(world, *c2pa_command(world)) == 0
    data = (world["base"].parent / "model.c2pa").read_bytes()
    manifest, failed = read(world["model"], data)
    assert failed == ["signingCredential.untrusted"]  # nobody pinned the test's root
    own = {each["label"]: each["data"] for each in manifest["assertions"]}
    assert own["c2pa.actions.v2"]["actions"][0]["action"] == "c2pa.created"
    assert own[RUN_ASSERTION]["record"].startswith("training/epoch/")
    assert own[RUN_ASSERTION]["seal"] == "after"
    other = world["base"].parent / "other.safetensors"
    other.write_bytes(world["model"].read_bytes()[:-1] + b"\1")
    assert "assertion.dataHash.mismatch" in read(other, data)[1]


def test_rekor_s_types_take_the_entry(
    world: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = world["base"].parent / "entry.json"
    assert exported(world, "rekor", "latest", f"--key={world['key']}", "-o", str(path)) == 0
    entry = json.loads(path.read_bytes())
    proposed = rekor_types.Dsse.model_validate(entry).spec.root.proposed_content
    assert proposed is not None
    envelope = json.loads(proposed.envelope)
    pem = base64.b64decode(str(proposed.verifiers[0]))
    public = load_pem_public_key(pem)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    payload = base64.b64decode(envelope["payload"])
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    public.verify(signature, pae(payload), ec.ECDSA(SHA256()))
    assert json.loads(payload)["_type"] == "https://in-toto.io/Statement/v1"
    assert b"PRIVATE" not in path.read_bytes()


def test_what_cannot_be_exported_is_one_line(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = key_files(tmp_path)
    foreign = model_folder(tmp_path / "model", epoch=99) / "model.safetensors"
    public = tmp_path / "pub.pem"
    private = load_pem_private_key(world["key"].read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    plain = tmp_path / "plain.pem"
    plain.write_bytes(certificate("signer", private, usage=None).public_bytes(Encoding.PEM))
    rows: list[tuple[dict[str, Path], str]] = [
        ({"key": other}, "the first certificate is of another key than --key"),
        ({"cert": plain}, "plain.pem: C2PA signs nothing with it: "),
        ({"cert": public}, "found no certificates, expected them as PEM"),
        ({"cert": tmp_path / "none"}, "No such file or directory"),
        ({"model": foreign}, "these are not weights of run"),
        ({"model": tmp_path}, "found no file, expected a model's file"),
    ]
    for change, line in rows:
        assert exported(world, *c2pa_command(world, **change)) in (1, 2)
        said = capsys.readouterr().err.strip()
        assert line in said
        assert "\n" not in said
    assert exported(world, "rekor", "latest", f"--key={public}", "-o", str(tmp_path / "x")) == 2
    assert "it has mode 0644, expected 0600" in capsys.readouterr().err
