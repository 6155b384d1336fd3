"""A report's statement: what is signed cannot be changed, moved to another run, or left out."""

from __future__ import annotations

import hashlib
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.compliance import statement as module
from provenance.compliance.statement import FILE, ComplianceStatement, check, sign
from provenance.errors import FormatError
from provenance.formats.dsse import Envelope
from tests.support import stranger
from tests.support.paths import ROOT
from tests.unit.compliance.conftest import BUNDLE, SEED, Run

KEY = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw().hex()
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The statement with a change, under the signature that it had."""
    document = json.loads((folder / FILE).read_text())
    statement = json.loads(b64decode(document["payload"]))
    change(statement)
    payload = json.dumps(statement, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    document["payload"] = b64encode(payload.encode()).decode()
    (folder / FILE).write_text(json.dumps(document, separators=(",", ":"), sort_keys=True))


def signed_by_another(folder: Path) -> None:
    envelope = Envelope.decode((folder / FILE).read_bytes(), FILE)
    stated = ComplianceStatement.decode(envelope.payload, FILE)
    (folder / FILE).write_bytes(sign(stated, OTHER))


def test_a_report_holds_against_its_run_and_key(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(BUNDLE, "--check", folder, "--signer", KEY, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["problems"] == document["not_checked"] == []
    assert document["signers"] == [KEY]
    page = hashlib.sha256((folder / "report.html").read_bytes()).hexdigest()
    assert document["statement"]["files"]["report.html"] == page
    assert document["statement"]["run"] == "0192f0c1-2345-8fe8-84b0-4bcead339ab1"


def test_without_key_and_run_it_says_what_is_not_checked(run: Run, folder: Path) -> None:
    assert run("--check", folder) == 3
    assert len(check(folder).not_checked) == 2
    assert check(folder, bytes.fromhex(KEY)).exit_code == 3


@pytest.mark.slow
def test_an_unsigned_report_says_so(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "unsigned"
    assert run(BUNDLE, "--framework", "iso-42001", "-o", out) == 3
    said = capsys.readouterr().out
    assert "not signed" in said
    assert "; rests on ledger key example.org/ledger+211f1e13, which nobody pinned" in said
    assert "nobody signed these files" in (out / "report.html").read_text()
    assert run(BUNDLE, "--check", out) == 3
    assert "not checked: who wrote it: it is not signed" in capsys.readouterr().out
    assert run(BUNDLE, "--check", out, "--signer", KEY) == 1
    assert "found no signature" in capsys.readouterr().out


def linked(folder: Path) -> None:
    (folder / "report.json").unlink()
    (folder / "report.json").symlink_to("report.html")


MODULE = stranger.load()


def piped(folder: Path) -> None:
    (folder / "report.json").unlink()
    os.mkfifo(folder / "report.json")


FORGERIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed file": (
        lambda f: (f / "report.html").write_text("all is well"),
        "report.html: found SHA-256",
    ),
    "a missing file": (lambda f: (f / "report.json").unlink(), "report.json: cannot be read"),
    "a file beside": (
        lambda f: (f / "approval.pdf").write_text("x"),
        "approval.pdf: is not in the statement",
    ),
    "a link": (
        linked,
        "report.json: is not a regular file",
    ),
    "a pipe": (piped, "report.json: is not a regular file"),
    "a folder": (lambda f: (f / "more").mkdir(), "more: is not in the statement"),
    "another key": (signed_by_another, "expected a signature of"),
    "no signature": (
        lambda f: (f / FILE).write_bytes(
            Envelope(Envelope.decode((f / FILE).read_bytes(), FILE).payload, {}).encode()
        ),
        "found no signature",
    ),
    "a changed statement": (
        lambda f: rewrite(f, lambda s: s["predicate"].update(outcome="verified")),
        "does not verify with key",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_refused_with_one_line(
    run: Run, folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    forge, expected = FORGERIES[name]
    forge(folder)
    capsys.readouterr()
    assert run(BUNDLE, "--check", folder, "--signer", KEY) == 1
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FOUND ")]
    assert any(expected in line for line in found), found


@pytest.mark.parametrize("size", [None, 64 * 1024 + 1])
def test_a_statement_that_is_none_is_a_finding(
    run: Run, folder: Path, size: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / FILE).unlink()
    os.mkfifo(folder / FILE) if size is None else (folder / FILE).write_bytes(bytes(size))
    capsys.readouterr()
    assert run(BUNDLE, "--check", folder, "--signer", KEY) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"{FILE}: {'is not a regular file' if size is None else 'more than 65536'}" in line
    with pytest.raises(ValueError, match="regular file|no statement"):
        MODULE.check_report(MODULE.report_files(folder), {}, KEY)


def test_a_report_of_another_run_is_refused(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ROOT / "tests/vectors/bundle-v1-ranks.zip"
    assert run(other, "--check", folder, "--signer", KEY) == 1
    assert "found run 0192f0c1-2345-8fe8-84b0-4bcead339ab1, expected" in capsys.readouterr().out


def test_the_root_of_another_history_of_the_run_is_refused(folder: Path, run: Run) -> None:
    envelope = Envelope.decode((folder / FILE).read_bytes(), FILE)
    stated = json.loads(envelope.payload)
    stated["subject"][0]["digest"]["mth_sha256"] = "00" * 32
    data = json.dumps(stated, separators=(",", ":"), sort_keys=True).encode()
    private = Ed25519PrivateKey.from_private_bytes(SEED)
    (folder / FILE).write_bytes(sign(ComplianceStatement.decode(data, FILE), private))
    assert run(BUNDLE, "--check", folder, "--signer", KEY) == 1


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(statement: dict[str, Any]) -> None:
        inner: Any = statement
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to

    return change


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "another type": (_set("_type", to="https://in-toto.io/Statement/v2"), "found version"),
    "another predicate": (_set("predicateType", to="urn:x"), "found a statement 'urn:x'"),
    "an unknown field": (_set("predicate", "x", to=1), "unknown key"),
    "no run id": (_set("predicate", "run", to="x"), "expected a UUID"),
    "another outcome": (_set("predicate", "outcome", to="fine"), "expected one of"),
    "a short table": (_set("predicate", "table_sha256", to="00"), "64 lower-case hex"),
    "a path": (_set("subject", 1, "name", to="../run.json"), "expected the name of a file"),
    "itself": (_set("subject", 1, "name", to=FILE), "expected the name of a file"),
    "a file twice": (
        lambda s: s["subject"].append(dict(s["subject"][1])),
        "is not the one form",
    ),
    "no files": (_set("subject", to=[]), "subjects"),
    "a hash of another kind": (
        _set("subject", 1, "digest", to={"md5": "00" * 16}),
        "unknown key",
    ),
    "files out of order": (
        lambda s: s.update(subject=[s["subject"][0], *reversed(s["subject"][1:])]),
        "is not the one form",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_statement_has_one_form(folder: Path, name: str) -> None:
    change, expected = MALFORMED[name]
    rewrite(folder, change)
    with pytest.raises(FormatError) as caught:
        check(folder)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_no_byte_of_it_can_be_changed(folder: Path, tmp_path: Path) -> None:
    stated = replace(
        module.read_statement(folder)[1], files={"a": hashlib.sha256(b"a").hexdigest()}
    )
    small = tmp_path / "small"
    small.mkdir()
    (small / "a").write_bytes(b"a")
    whole = sign(stated, Ed25519PrivateKey.from_private_bytes(SEED))
    (small / FILE).write_bytes(whole)
    assert check(small, bytes.fromhex(KEY)).problems == ()
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 1 << at % 7
        (small / FILE).write_bytes(data)
        try:
            assert check(small, bytes.fromhex(KEY)).exit_code == 1, at
        except FormatError:
            continue


def test_a_statement_is_read_as_it_was_written(folder: Path) -> None:
    _, stated = module.read_statement(folder)
    assert ComplianceStatement.decode(stated.encode(), FILE) == stated
    assert stated.seal == "after"
    assert stated.outcome == "consistent"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--check", "{missing}"], "statement.dsse.json: cannot be read"),
        (["--check", "{folder}", "--signer", "zz"], "expected an Ed25519 key"),
        (["--check", "{folder}", "-o", "x"], "--output: found it with --check"),
        (["-o", "x", "--framework", "eu-ai-act"], "found no RUN"),
        (["{bundle}", "--framework", "eu-ai-act"], "found no -o"),
        (["{bundle}", "-o", "x"], "found no --framework"),
        (
            ["{bundle}", "-o", "x", "--framework", "eu-ai-act", "--placed-on", "soon"],
            "expected a day such as 2027-01-31",
        ),
        (
            ["{bundle}", "-o", "x", "--framework", "iso-42001", "--placed-on", "2027-01-31"],
            "expected eu-ai-act",
        ),
        (["{bundle}", "-o", "{other}", "--framework", "eu-ai-act"], "holds something that is no"),
        (["{bundle}", "-o", "x", "--framework", "eu-ai-act", "--signer", KEY], "without --check"),
        (["{bundle}", "-o", "x", "--framework", "eu-ai-act", "--key", "{other}/a"], "key"),
    ],
)
def test_a_mistake_is_one_line(
    run: Run, folder: Path, tmp_path: Path, words: list[str], expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    (other / "a").write_text("thesis")
    names = {
        "{missing}": tmp_path / "none", "{folder}": folder, "{bundle}": BUNDLE, "{other}": other,
    }  # fmt: skip
    given = [next((w.replace(n, str(p)) for n, p in names.items() if n in w), w) for w in words]
    assert run(*given) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert expected in said[0]
    assert (other / "a").read_text() == "thesis"
