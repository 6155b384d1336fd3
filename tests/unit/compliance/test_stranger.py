"""The stranger's verifier says the same of a report as the command, good or forged."""

from __future__ import annotations

import json
import zipfile
from base64 import b64decode
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support import stranger
from tests.support.paths import ROOT
from tests.unit.compliance.conftest import BUNDLE
from tests.unit.compliance.test_statement import FORGERIES, KEY, MALFORMED, rewrite

MODULE = stranger.load()


@cache
def run_json(bundle: Path) -> dict[str, Any]:
    with zipfile.ZipFile(bundle) as archive:
        document: dict[str, Any] = json.loads(archive.read("run.json"))
    return document


def refused(folder: Path, signer: str | None = KEY, bundle: Path = BUNDLE) -> bool:
    try:
        MODULE.check_report(MODULE.report_files(folder), run_json(bundle), signer)
    except MODULE.WRONG:
        return True
    return False


def test_it_takes_a_good_one(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(BUNDLE), "--report", str(written), "--signer", KEY]
    assert MODULE.main(words) == 0
    assert "0 problems" in capsys.readouterr().out
    assert MODULE.main(words[:3]) == 0
    assert "which you did not name" in capsys.readouterr().out


@pytest.mark.parametrize("name", FORGERIES)
def test_it_refuses_each_forgery(folder: Path, name: str) -> None:
    FORGERIES[name][0](folder)
    assert refused(folder)


@pytest.mark.parametrize("name", MALFORMED)
def test_it_refuses_each_other_form(folder: Path, name: str) -> None:
    rewrite(folder, MALFORMED[name][0])
    files = MODULE.load(folder)
    payload = b64decode(json.loads(files["statement.dsse.json"])["payload"])
    check_statement = MODULE.check_report.__globals__["check_statement"]  # past the signature
    with pytest.raises(MODULE.WRONG):
        check_statement(payload, files, run_json(BUNDLE))


def test_it_refuses_another_run(written: Path) -> None:
    assert refused(written, bundle=ROOT / "tests/vectors/bundle-v1-ranks.zip")
    assert not refused(written)
