"""The committed artifact is what the pinned compiler makes of the committed source."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from provenance.chains.ethereum.contract import ARTIFACT, BYTECODE, DEPLOYED_BYTECODE
from provenance.errors import IntegrityError, ServerMissingError
from provenance_devnet import contract as compiling

SOURCE = compiling.SOURCES[0].with_name("MLProvenance.sol")
"""Of ``MLProvenance``."""
compiled = functools.cache(compiling.compile_artifact)
CI = os.environ.get("CI", "").lower() == "true"


@pytest.fixture(scope="module")
def solc() -> Path:
    try:
        return compiling.compiler()
    except ServerMissingError as error:
        if CI:
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.mark.parametrize("source", compiling.SOURCES, ids=lambda source: source.stem)
def test_recompiled_it_is_the_same_to_the_byte(solc: Path, source: Path) -> None:
    artifact = compiled(solc, source.stem, source.read_text("utf-8"))
    assert compiling.render(artifact) == source.with_suffix(".json").read_text("utf-8")
    assert "0.8.30" in artifact["compiler"]


def test_the_check_notices_a_changed_artifact(
    solc: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "SOURCES", [SOURCE])
    monkeypatch.setattr(compiling, "compile_artifact", compiled)
    copy = tmp_path / "MLProvenance.json"
    assert compiling.main(["--check", "--folder", str(tmp_path)]) == 1
    assert compiling.main(["--folder", str(tmp_path)]) == 0
    assert compiling.main(["--check", "--folder", str(tmp_path)]) == 0
    changed = json.loads(copy.read_text())
    changed["bytecode"] = changed["bytecode"][:-2] + "00"
    copy.write_text(compiling.render(changed))
    assert compiling.main(["--check", "--folder", str(tmp_path)]) == 1
    assert "does not fit MLProvenance.sol" in capsys.readouterr().err


def test_a_changed_source_makes_other_bytes(solc: Path) -> None:
    source = SOURCE.read_text("utf-8").replace("return;", "return ;")
    artifact = compiling.compile_artifact(solc, SOURCE.stem, source)
    assert compiling.render(artifact) != SOURCE.with_suffix(".json").read_text("utf-8")


def test_a_source_with_a_complaint_is_refused(solc: Path) -> None:
    with pytest.raises(IntegrityError, match=r"MLProvenance\.sol"):
        compiling.compile_artifact(
            solc, SOURCE.stem, "pragma solidity 0.8.30; contract MLProvenance { x }"
        )


def test_no_node_says_what_to_install(
    solc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ServerMissingError, match=r"install Node\.js"):
        compiling.compiler(tmp_path)
    with pytest.raises(ServerMissingError, match=r"install Node\.js"):
        compiling.compile_artifact(solc, SOURCE.stem, "")
    assert compiling.main(["--check"]) == 3
    assert "Node.js" in capsys.readouterr().err


def test_an_install_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = tmp_path / "deploy" / "devnet" / "solc"
    pinned.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        (pinned / name).write_text("{}")
    broken = tmp_path / "npm"
    broken.write_text("#!/bin/sh\necho no registry >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    with pytest.raises(ServerMissingError, match="failed: no registry"):
        compiling.compiler(tmp_path)
    broken.write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(compiling, "_DEADLINE_S", 0.1)
    with pytest.raises(ServerMissingError, match="took over"):
        compiling.compiler(tmp_path)


def test_a_node_that_does_not_run_is_told(solc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false")
    with pytest.raises(ServerMissingError, match="does not run"):
        compiling.compile_artifact(solc, SOURCE.stem, "")


def test_the_artifact_ships_with_the_package() -> None:
    assert ARTIFACT["settings"]["evmVersion"] == "paris"
    assert DEPLOYED_BYTECODE in BYTECODE
    source = SOURCE.read_bytes()
    assert ARTIFACT["sourceSha256"] == hashlib.sha256(source).hexdigest()
