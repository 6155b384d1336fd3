"""Who stands behind a run by Sigstore: sigstore's own verifier, a small Sigstore of the tests."""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import sigstore_root
from provenance.bootstrap.sending import seal_policy
from provenance.errors import (
    ConfigError,
    MissingExtraError,
    ProvenanceError,
    UnavailableError,
)
from provenance.formats.json_text import canonical_json
from provenance.formats.producers.certificate import (
    MAX_IDENTITY_BYTES,
    identity_statement,
    sign_identity,
)
from provenance.formats.producers.keyless import open_bundle
from provenance.settings import TrustedIdentity, load
from provenance.verify.identity import check_identity, enrolment
from provenance.verify.trust import Trust
from tests.support.sigstore_world import ISSUER, WHO, Sigstore
from tests.support.verify_world import KEY, OTHER, OWN, RUN, finished

PUBLIC = KEY.public_key().public_bytes_raw()
STATEMENT = identity_statement(RUN, PUBLIC)
LABEL = f"{WHO}, by {ISSUER}"
WORKFLOW = "https://github.com/example/train/.github/workflows/train.yml@refs/heads/main"


@pytest.fixture(scope="module")
def sigstore() -> Sigstore:
    return Sigstore()


@pytest.fixture(scope="module")
def trust(sigstore: Sigstore, tmp_path_factory: pytest.TempPathFactory) -> Trust:
    root = sigstore.trusted_root(tmp_path_factory.mktemp("sigstore") / "root.json")
    return Trust(trainers={"ci": TrustedIdentity(WHO, ISSUER)}, sigstore_root=root)


def signed(bundle: bytes) -> bytes:
    return b"\x02" + bundle


# --- what is accepted ------------------------------------------------------------------------


def test_a_run_that_sigstore_certifies_is_the_pinned_trainers(
    sigstore: Sigstore, trust: Trust
) -> None:
    identity = signed(sigstore.sign(STATEMENT))
    assert len(identity) < MAX_IDENTITY_BYTES // 3
    standing = check_identity(identity, RUN, PUBLIC, trust)
    assert (standing.trainer, standing.unchecked) == ("ci", None)
    assert standing.line == f"identity {LABEL}, by its Sigstore certificate, trainer ci, pinned"
    assert standing.as_json() == {"name": WHO, "issuer": ISSUER, "not_checked": None}
    assert enrolment(trust)(identity, RUN, PUBLIC) is None


def test_a_workflow_is_named_by_its_uri(sigstore: Sigstore, trust: Trust) -> None:
    issuer = "https://token.actions.githubusercontent.com"
    identity = signed(sigstore.sign(STATEMENT, WORKFLOW, issuer))
    standing = check_identity(identity, RUN, PUBLIC, trust)
    assert standing.identity.label == f"{WORKFLOW}, by {issuer}"
    assert standing.trainer is None
    assert standing.line.endswith("which nobody pinned")


def test_the_form_leaves_rfc_3161_timestamps_open(sigstore: Sigstore) -> None:
    """docs/FORMAT.md 2.3 says so: all other bytes are held by the form, or by Sigstore."""
    document = json.loads(sigstore.sign(STATEMENT))
    for text in ("QUI=", "QUM="):
        timestamps = {"rfc3161Timestamps": [{"signedTimestamp": text}]}
        document["verificationMaterial"]["timestampVerificationData"] = timestamps
        assert open_bundle(canonical_json(document), STATEMENT).label == LABEL


# --- what is refused -------------------------------------------------------------------------

Attempt = Callable[[Sigstore], bytes]


def _of_a_name_of_another_type(sigstore: Sigstore) -> bytes:
    """The account's name becomes one of a directory, of as many bytes: a BIT STRING."""
    told = json.loads(sigstore.sign(STATEMENT))
    certificate = told["verificationMaterial"]["certificate"]
    der = b64decode(certificate["rawBytes"])
    other = b"\xa4\x0e" + bytes.fromhex("300c310a30080603550403030100")
    certificate["rawBytes"] = b64encode(der.replace(b"\x81\x0e" + WHO.encode(), other)).decode()
    return canonical_json(told)


@pytest.mark.parametrize(
    ("attempt", "problem"),
    [
        pytest.param(lambda s: s.sign(STATEMENT, "eve@example.org"), "none of trust", id="who"),
        pytest.param(lambda s: s.sign(STATEMENT, issuer="https://evil"), "none of", id="issuer"),
        pytest.param(
            lambda s: s.sign(identity_statement(OTHER, PUBLIC)), "another message", id="run"
        ),
        pytest.param(
            lambda s: s.sign(identity_statement(RUN, bytes(32))), "another message", id="key"
        ),
        pytest.param(
            lambda s: s.sign(STATEMENT, late=timedelta(minutes=10)), "valid at", id="expired"
        ),
        pytest.param(lambda s: s.sign(STATEMENT, sct=False), "signed certificate t", id="no-sct"),
        pytest.param(lambda s: Sigstore().sign(STATEMENT), "certificate chain", id="other-root"),
        pytest.param(lambda s: Sigstore(ca=s.ca).sign(STATEMENT), "SCT", id="other-ct-log"),
        pytest.param(
            lambda s: Sigstore(ca=s.ca, ct=s.ct).sign(STATEMENT),
            "invalid log entry",
            id="other-rekor",
        ),
        pytest.param(
            lambda s: s.sign(STATEMENT, names=[x509.RFC822Name(WHO), x509.RFC822Name("b@c")]),
            "expected one name",
            id="two-names",
        ),
        pytest.param(
            lambda s: s.sign(STATEMENT, names=[x509.DNSName("example.org")]),
            "an e-mail address or a URI",
            id="host",
        ),
        pytest.param(_of_a_name_of_another_type, "certificate: oid must be", id="odd-name"),
        pytest.param(lambda s: s.sign(STATEMENT) + b" ", "canonical form", id="spaces"),
        pytest.param(
            lambda s: s.sign(STATEMENT).replace(b".v0.3+json", b".v0.4+json"),
            "version",
            id="version",
        ),
        pytest.param(lambda s: b"{" + b" " * 16384, "at most 16384", id="too-large"),
        pytest.param(lambda s: b"", "not JSON", id="empty"),
    ],
)
def test_no_other_identity_is_the_pinned_trainers(
    sigstore: Sigstore, trust: Trust, attempt: Attempt, problem: str
) -> None:
    told = enrolment(trust)(signed(attempt(sigstore)), RUN, PUBLIC)
    assert told is not None
    assert problem in told
    assert "\n" not in told


@pytest.mark.slow
def test_no_flipped_byte_anywhere_in_a_bundle_passes(sigstore: Sigstore, trust: Trust) -> None:
    good = signed(sigstore.sign(STATEMENT))
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 7
        with pytest.raises(ProvenanceError) as caught:
            check_identity(bytes(bad), RUN, PUBLIC, trust)
        assert "\n" not in str(caught.value), at


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of everything in a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))


def test_nothing_that_stands_in_a_bundle_raises_anything_else(
    sigstore: Sigstore, trust: Trust
) -> None:
    good = sigstore.sign(STATEMENT)
    hostile: tuple[Any, ...] = (
        None,
        0,
        -1,
        "",
        "0",
        "-1",
        "99999999999999999",
        "9" * 19,
        "9" * 5000,
        "AAAA",
        "=",
    )
    for path in [path for path in leaves(json.loads(good)) if path]:
        for other in hostile:
            bundle = json.loads(good)
            inner = bundle
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = other
            with pytest.raises(ProvenanceError) as caught:
                check_identity(signed(canonical_json(bundle)), RUN, PUBLIC, trust)
            assert "\n" not in str(caught.value), path


def test_the_production_root_is_that_of_the_package(
    sigstore: Sigstore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    sigstore_root.verifier.cache_clear()
    stranger = enrolment(Trust(trainers={"ci": TrustedIdentity(WHO, ISSUER)}))
    told = stranger(signed(sigstore.sign(STATEMENT)), RUN, PUBLIC)
    assert told is not None
    assert "certificate chain" in told


def test_where_the_own_root_cannot_be_kept_nobody_is_checked(
    sigstore: Sigstore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    sigstore_root.verifier.cache_clear()
    standing = check_identity(signed(sigstore.sign(STATEMENT)), RUN, PUBLIC, Trust())
    assert standing.trainer is None
    assert "not checked: sigstore's trusted root cannot be kept here" in standing.line
    with pytest.raises(UnavailableError, match=r"set trust\.sigstore_root"):
        enrolment(Trust(trainers={"ci": TrustedIdentity(WHO, ISSUER)}))


@pytest.mark.parametrize("content", [None, "", "{}", '{"mediaType": "x"}'])
def test_a_root_that_is_none_is_the_configurations_fault(
    tmp_path: Path, trust: Trust, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "root.json").write_text(content)
    with pytest.raises(ConfigError, match=r"trust\.sigstore_root: .*root\.json") as caught:
        enrolment(replace(trust, sigstore_root=tmp_path / "root.json"))
    assert "\n" not in str(caught.value)


# --- verdict ---------------------------------------------------------------------------------


@pytest.fixture
def without_sigstore(monkeypatch: pytest.MonkeyPatch) -> None:
    sigstore_root.verifier.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "sigstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sigstore", None)


def test_the_verdict_names_who_stands_behind_the_run(sigstore: Sigstore, trust: Trust) -> None:
    world = finished()
    evidence = replace(world.evidence(), identity=signed(sigstore.sign(STATEMENT)))
    asked = replace(OWN.also(trust), require=("key", "identity"))
    report = world.verify(evidence, trust=asked)
    assert report.outcome == "verified"
    assert f"identity {LABEL}, by its Sigstore certificate, trainer ci, pinned" in (
        report.verdict.rests_on
    )
    assert report.as_dict()["identity"] == {"name": WHO, "issuer": ISSUER, "not_checked": None}
    nobody = replace(asked, trainers={})
    assert world.verify(evidence, trust=nobody).verdict.missing == (
        "no pinned trainer signed the run",
    )


def test_an_identity_of_another_root_fails(trust: Trust) -> None:
    world = finished()
    evidence = replace(world.evidence(), identity=signed(Sigstore().sign(STATEMENT)))
    report = world.verify(evidence, trust=OWN.also(trust))
    (found,) = report.findings
    assert (report.outcome, found.check, found.subject) == ("failed", 1, "identity")
    assert report.as_dict()["identity"] is None


@pytest.mark.usefixtures("without_sigstore")
def test_without_the_extra_nobody_is_checked_and_the_verdict_says_so(
    sigstore: Sigstore, trust: Trust
) -> None:
    world = finished()
    evidence = replace(world.evidence(), identity=signed(sigstore.sign(STATEMENT)))
    told = "sigstore is not installed; get it with: pip install 'ml-provenance[sigstore]'"
    line = f"identity {LABEL}: not checked: {told}"
    report = world.verify(evidence, trust=replace(OWN.also(trust), require=("key", "identity")))
    assert (report.outcome, report.verdict.missing) == ("anchored", (line,))
    assert line in report.verdict.rests_on
    assert f"Who ran it: {line}" in report.not_checked
    assert report.as_dict()["identity"] == {"name": WHO, "issuer": ISSUER, "not_checked": told}
    with pytest.raises(MissingExtraError):  # workers that must know it do not start
        enrolment(trust)
    forged = replace(evidence, identity=signed(sigstore.sign(b"another")))
    assert world.verify(forged, trust=OWN).outcome == "failed", "its signature needs no extra"


def test_workers_enrol_whom_the_configuration_requires(
    sigstore: Sigstore, trust: Trust, tmp_path: Path
) -> None:
    pin = {"ci": {"identity": WHO, "issuer": ISSUER}}
    section = {"trainers": pin, "sigstore_root": str(trust.sigstore_root)}
    enrolled = seal_policy(load({"trust": section}, tmp_path)).trainers
    assert enrolled is not None
    assert enrolled(signed(sigstore.sign(STATEMENT)), RUN, PUBLIC) is None
    assert "none of trust.trainers" in str(
        enrolled(signed(sigstore.sign(STATEMENT, "eve@example.org")), RUN, PUBLIC)
    )
    lenient = {**section, "require_trainers": False}
    assert seal_policy(load({"trust": lenient}, tmp_path)).trainers is None


@pytest.mark.usefixtures("without_sigstore")
def test_keys_are_checked_without_the_extra() -> None:
    key = Ed25519PrivateKey.generate()
    pinned = Trust(trainers={"team": key.public_key().public_bytes_raw().hex()})
    assert enrolment(pinned)(sign_identity(RUN, PUBLIC, key), RUN, PUBLIC) is None
