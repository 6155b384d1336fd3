"""The section ``trust`` counts only as persons approved it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from provenance.cli import main
from provenance.errors import ConfigError, FormatError
from provenance.formats.approval import TrustApproval
from provenance.formats.dsse import Envelope
from provenance.settings import load
from tests.unit.approvals.world import BY, SEEDS, signed

TRUST: dict[str, Any] = {"trainers": {"research": BY["alice"]}, "chains": {"bitcoin": ["signet"]}}


class Config:
    """A configuration whose trust two of three approve."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.file = folder, folder / "config.json", folder / "trust.json"
        self.write(TRUST)

    def write(self, trust: dict[str, Any] | None) -> None:
        rule = {"at_least": 2, "by": BY, "trust": str(self.file)}
        self.path.write_text(json.dumps({"approvals": rule, "trust": trust}))

    def problem(self) -> str | None:
        try:
            load(self.path, self.folder / "artifacts")
        except ConfigError as error:
            assert "\n" not in str(error)
            return str(error)
        return None

    def approve(self, *names: str) -> None:
        approval = TrustApproval.of(json.loads(self.path.read_text())["trust"] or {})
        self.file.write_bytes(signed(Envelope(approval.encode(), {}), *names).encode())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path)


def test_it_counts_with_two_signatures_and_no_longer_once_it_changed(config: Config) -> None:
    assert "trust.json: cannot be read" in (config.problem() or "")
    config.approve("alice")
    assert "approved by alice; expected 2 of alice, bob, carol" in (config.problem() or "")
    config.approve("alice", "carol")
    assert config.problem() is None
    settings = load(config.path, config.folder)
    assert settings.trust.trainers == TRUST["trainers"]
    for changed in ({**TRUST, "require_trainers": False}, {}, None):
        config.write(changed)
        assert "approves another section trust (SHA-256 " in (config.problem() or "")


def test_a_section_that_is_not_there_is_approved_as_an_empty_one(config: Config) -> None:
    config.write(None)
    config.approve("alice", "bob")
    assert config.problem() is None


def test_what_is_signed_is_the_section_not_its_spelling(config: Config) -> None:
    config.approve("alice", "bob")
    turned = {"trust": dict(reversed(TRUST.items()))}
    document = json.loads(config.path.read_text()) | turned
    config.path.write_text(json.dumps(document, indent=4))
    assert config.problem() is None


def _stated(envelope: Envelope) -> TrustApproval:
    return TrustApproval.decode(envelope.payload, "x")


FORGED: dict[str, tuple[Callable[[Envelope], bytes], str]] = {
    "expired": (
        lambda e: signed(
            Envelope(replace(_stated(e), until=date(2020, 1, 1)).encode(), {}), "alice", "bob"
        ).encode(),
        "expired after 2020-01-01",
    ),
    "a later day under the same signatures": (
        lambda e: Envelope(
            replace(_stated(e), until=date(2090, 1, 1)).encode(), e.signatures
        ).encode(),
        "approved by nobody; expected 2 of alice, bob, carol; ",
    ),
    "a stranger": (
        lambda e: signed(Envelope(e.payload, {}), "alice", "eve").encode(),
        "approved by alice; expected 2 of",
    ),
    "another kind of approval": (
        lambda e: Envelope(e.payload.replace(b'"for":"trust"', b'"for":"other"'), {}).encode(),
        "found 'other', expected",
    ),
    "no envelope": (lambda e: b"[]", "expected an object"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_approval_is_refused(name: str, config: Config) -> None:
    config.approve("alice", "bob")
    forge, problem = FORGED[name]
    config.file.write_bytes(forge(Envelope.decode(config.file.read_bytes(), "x")))
    told = config.problem() or ""
    assert problem in told
    assert "approvals.trust: " in told


def test_a_statement_has_one_form() -> None:
    approval = TrustApproval.of(TRUST, date(2027, 1, 31))
    assert TrustApproval.decode(approval.encode(), "x") == approval
    with pytest.raises(FormatError, match="not the one form"):
        TrustApproval.decode(approval.encode().replace(b"2027-01-31", b"2027-02-31"), "x")


def test_the_commands_sign_a_section_that_is_not_taken_yet(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("alice", "bob"):
        key = config.folder / f"{name}.key"
        key.write_text(SEEDS[name].hex())
        key.chmod(0o600)
    file = str(config.file)
    show = ["approvals", "show", "trust", "-o", file]
    assert main([*show, "--config", str(config.path)]) == 0
    assert "0 signed; section trust with SHA-256 " in capsys.readouterr().out
    for name in ("alice", "bob"):
        assert main(["approvals", "sign", file, "--key", str(config.folder / f"{name}.key")]) == 0
    assert config.problem() is None
    assert main(show) == 2
    assert "found no --config, expected the file with trust" in capsys.readouterr().err
    assert main(["approvals", "show", "soon", "-o", file]) == 2
    assert "found 'soon', expected a number, or trust" in capsys.readouterr().err
