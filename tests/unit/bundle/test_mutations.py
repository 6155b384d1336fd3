"""One changed bit, anywhere in a bundle of 100 epochs: never accepted, always named.

The seed is printed; ``PROVENANCE_MUTATION_SEED`` sets it.
"""

from __future__ import annotations

import os
import random
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from provenance.app.verify import verify_path
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import write_bundle
from provenance.bundle.zip import write_zip
from provenance.cli import main
from provenance.errors import ProvenanceError
from provenance.evidence.run_evidence import RunEvidence
from provenance.settings import Settings, load
from tests.support.verify_world import finished

EPOCHS = 100
MUTATIONS = 200
SEED = int(os.environ.get("PROVENANCE_MUTATION_SEED", "0")) or random.SystemRandom().getrandbits(32)


@pytest.fixture(scope="module")
def evidence() -> RunEvidence:
    """Anchored on Ethereum and Bitcoin, with the evidence of both, and so with .ots proofs."""
    return finished(EPOCHS, checkpoint=50).evidence()


@pytest.fixture(scope="module")
def original(evidence: RunEvidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(evidence, tmp_path_factory.mktemp("original") / "bundle", ots=True)


@pytest.fixture(scope="module")
def files(original: Path) -> dict[str, bytes]:
    found = sorted(path for path in original.rglob("*") if path.is_file())
    return {path.relative_to(original).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load(None, tmp_path_factory.mktemp("auditor") / "artifacts")


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    print(f"PROVENANCE_MUTATION_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")


def flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    bit = chance.randrange(8 * len(data))
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def told(settings: Settings, bundle: Path) -> list[str]:
    """What an offline verification says is wrong, line by line; empty where it is accepted."""
    try:
        report = verify_path(settings, bundle, offline=True)
    except ProvenanceError as error:
        assert "\n" not in str(error)
        assert error.exit_code in (1, 2)
        return [str(error)]
    if report.outcome != "failed":  # nothing is pinned here: it is "consistent" at best
        return []
    assert report.exit_code == 1, "a changed file fails, it does not stay open"
    assert report.findings
    for finding in report.findings:
        assert "\n" not in finding.problem
    return [f"{f.file} {f.path} {f.subject}: {f.problem}" for f in report.findings]


def names_it(lines: list[str], name: str) -> bool:
    """Whether a line names the file; for a record its path in the run."""
    wanted = name
    if name.startswith("records/") and name.endswith(".json"):
        wanted = name.removeprefix("records/").removesuffix(".json")
    return any(wanted in line for line in lines)


def kinds(files: Mapping[str, bytes]) -> set[str]:
    return {name.partition("/")[0] for name in files}


@pytest.mark.slow
def test_the_bundle_is_a_whole_one_and_is_accepted(
    files: Mapping[str, bytes], original: Path, settings: Settings
) -> None:
    expected = {"manifest.json", "SHA256SUMS", "README.txt", "run.json", "ledger.vkey"}
    assert kinds(files) >= expected | {
        "records",
        "receipts",
        "heads",
        "tlog",
        "statement",
    }
    assert sum(name.endswith(".ots") for name in files) > EPOCHS
    assert sum("/metrics/" in name for name in files) >= EPOCHS
    assert told(settings, original) == []


@pytest.mark.slow
def test_every_one_of_200_flipped_bits_is_named(
    original: Path,
    files: Mapping[str, bytes],
    settings: Settings,
    chance: random.Random,
    tmp_path: Path,
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(original, bundle)
    tops = [name for name in files if "/" not in name]
    chosen = [*tops, *chance.choices(list(files), k=MUTATIONS - len(tops))]
    for name in chosen:
        (bundle / name).write_bytes(flipped(files[name], chance))
        lines = told(settings, bundle)
        (bundle / name).write_bytes(files[name])
        assert lines, f"{name}: accepted"
        assert names_it(lines, name), (name, lines)
    assert told(settings, bundle) == []


@pytest.mark.slow
def test_a_flipped_bit_in_each_kind_of_file_is_named_on_the_command_line(
    original: Path,
    files: Mapping[str, bytes],
    chance: random.Random,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(original, bundle)
    arguments = ["verify", str(bundle), "--offline", "--base-dir", str(tmp_path / "artifacts")]
    assert main(arguments) == 3, "consistent: nothing is pinned"
    capsys.readouterr()
    for kind in sorted(kinds(files)):
        name = chance.choice([name for name in files if name.partition("/")[0] == kind])
        (bundle / name).write_bytes(flipped(files[name], chance))
        assert main(arguments) == 1, name
        captured = capsys.readouterr()
        lines = [line for line in captured.out.splitlines() if line.startswith("FOUND ")]
        lines += captured.err.splitlines()
        assert names_it(lines, name), (name, lines)
        assert "Traceback" not in captured.err
        (bundle / name).write_bytes(files[name])


@pytest.mark.slow
def test_a_flipped_bit_of_a_zipped_file_is_named(
    files: Mapping[str, bytes], settings: Settings, chance: random.Random, tmp_path: Path
) -> None:
    for name in chance.choices(list(files), k=20):
        bundle = tmp_path / "bundle.zip"
        bundle.unlink(missing_ok=True)
        with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
            for each, data in files.items():
                archive.writestr(each, flipped(data, chance) if each == name else data)
        lines = told(settings, bundle)
        assert lines, f"{name}: accepted"
        assert names_it(lines, name), (name, lines)


@pytest.mark.slow
def test_no_flipped_bit_of_a_zip_changes_what_is_read(
    files: Mapping[str, bytes], settings: Settings, chance: random.Random, tmp_path: Path
) -> None:
    """A zip also has words that no evidence depends on (a date, who made it): where one of
    those is changed and accepted, every file that is read is the original, bit for bit."""
    bundle = tmp_path / "bundle.zip"
    write_zip(files, bundle)
    assert told(settings, bundle) == []
    data = bundle.read_bytes()
    whole = read_bundle(bundle)
    entries = data.index(b"PK\x01\x02")
    accepted = 0
    for at in range(MUTATIONS):
        changed = bytearray(data)
        area = (0, entries) if at % 4 else (entries, len(data))
        bit = chance.randrange(8 * area[0], 8 * area[1])
        changed[bit // 8] ^= 1 << bit % 8
        bundle.write_bytes(changed)
        lines = told(settings, bundle)
        if not lines:
            accepted += 1
            assert replace(read_bundle(bundle), source=whole.source) == whole, bit
        elif area[0] == 0:
            assert any(name in line for name in files for line in lines), (bit, lines)
    assert accepted < MUTATIONS / 4, "most of a zip is evidence"
