"""The commands for a check by hand are run in a real shell."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from provenance.bundle.index import dump
from provenance.bundle.shell_proof import (
    SHA256,
    UNHEX,
    path_of_record_file,
    shell_commands,
)
from provenance.bundle.writer import write_bundle
from provenance.errors import FormatError, InputError, ProofError
from provenance.evidence.placement import newest_tree
from tests.conftest import missing
from tests.support.verify_world import finished

UNHEX_PYTHON = "python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.stdin.read()))'"
UNHEXES = [UNHEX_PYTHON, *([UNHEX] if shutil.which("xxd") else [])]
HASHES = [
    tool for tool in ("sha256sum", "openssl dgst -sha256 -r") if shutil.which(tool.split()[0])
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(
        finished(5, checkpoint=2).evidence(), tmp_path_factory.mktemp("hand") / "it's a bundle"
    )


def shell(text: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-c", text], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("unhex", UNHEXES)
@pytest.mark.parametrize("sha256", HASHES)
@pytest.mark.slow
def test_every_record_reaches_the_run_root_in_a_shell(
    bundle: Path, unhex: str, sha256: str
) -> None:
    evidence = finished(5, checkpoint=2).evidence()
    tree = newest_tree(evidence)
    assert tree is not None
    for record in [r for r in evidence.records if r.place == "tree"][::4]:
        proof = tree.proof(record.path)
        text = shell_commands(proof, record.file).replace(UNHEX, unhex).replace(SHA256, sha256)
        printed = shell(text, bundle).splitlines()
        assert printed[0] == record.digest.hex()
        assert printed[-2] == tree.root.hex()
        assert printed[-1] == f"under run root {tree.root.hex()}"


def test_each_comment_states_what_the_command_prints(bundle: Path) -> None:
    record = bundle / "records/training/epoch/3/metrics/0.json"
    text = path_of_record_file(record).text()
    stated = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith("# ")][:-1]
    assert shell(text, bundle).splitlines()[:-1] == stated


def test_a_changed_record_is_not_under_the_root(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    record = copy / "records/training/epoch/3/metrics/0.json"
    record.write_bytes(record.read_bytes().replace(b'"loss":', b'"l0ss":'))
    assert "NOT under run root" in shell(path_of_record_file(record).text(), copy)


def readme_says(bundle: Path) -> list[str]:
    """What the commands of README.txt print that say who signed."""
    _, _, text = (bundle / "README.txt").read_text().partition("\nWho signed")
    return shell(text.partition("\n\n")[2].partition("\n\n")[0], bundle).splitlines()


@pytest.mark.slow
def test_the_readme_says_how_to_check_who_signed(bundle: Path, tmp_path: Path) -> None:
    if absent := [tool for tool in ("jq", "xxd", "openssl") if not shutil.which(tool)]:
        missing(f"apt-get install {' '.join(absent)}")
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    run = json.loads((copy / "run.json").read_bytes())
    producer, record = run["producers"][0]["producer"], copy / "records/training/results.json"
    whole = ["records: as run.json states", "run id: of this key"]
    signed = f"producer {producer}: signed all {len(run['records'])} records"
    assert readme_says(copy) == [*whole, signed]

    def forged(**changes: object) -> list[str]:
        (copy / "run.json").write_text(json.dumps(run | changes))
        return readme_says(copy)

    unsigned = f"producer {producer}: NOT signed"
    assert forged(public_key="00" * 32) == [whole[0], "run id: NOT of this key", unsigned]
    assert forged(records=run["records"][:-1]) == [*whole, unsigned]
    certificate = run["producers"][0]["certificate"][:-2] + "00"
    assert forged(producers=[run["producers"][0] | {"certificate": certificate}])[2] == unsigned
    strange = "NOT signed: records of a producer that is not in run.json"
    assert forged(producers=[]) == [*whole, strange]
    record.write_bytes(b"{}")
    assert "records: NOT as it states" in forged()


def test_the_last_line_says_which_seal_the_root_is(bundle: Path) -> None:
    text = path_of_record_file(bundle / "records/training/results.json").text()
    run = json.loads((bundle / "run.json").read_bytes())
    assert shell(text, bundle).splitlines()[-1] == (
        f"under run root {run['entries'][-1]['root']}: "
        "seal after, ledger entry 2, in the head of size 3"
    )


def test_a_root_that_the_seal_has_not_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    run = json.loads((copy / "run.json").read_bytes())
    run["entries"][-1]["root"] = "00" * 32
    (copy / "run.json").write_bytes(dump(run))
    with pytest.raises(ProofError, match=r"leads to run root [0-9a-f]{64}, which is not that of"):
        path_of_record_file(copy / "records/training/config.json")
    strange = copy / "records/a\x1b[2J.json"
    strange.write_bytes(b"{}")
    with pytest.raises(InputError, match="control characters"):
        path_of_record_file(strange)


def test_the_path_as_json_carries_proof_root_and_commands(bundle: Path) -> None:
    path = path_of_record_file(bundle / "records/training/results.json")
    document = json.loads(path.to_json())
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert document["run_root"] == manifest["roots"]["after"]
    assert document["proof"]["path"] == "training/results"
    assert (document["seal"], document["ledger_index"], document["head_size"]) == ("after", 2, 3)
    assert "\n".join(document["commands"]) + "\n" == path.text()


def test_what_is_no_record_of_a_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such record file"):
        path_of_record_file(bundle / "records/nothing.json")
    stray = tmp_path / "stray.json"
    stray.write_text("{}")
    with pytest.raises(InputError, match="not a record file of a bundle"):
        path_of_record_file(stray)
    with pytest.raises(InputError, match="not a record file of a bundle"):
        path_of_record_file(bundle / "run.json")
    control = next((bundle / "records/control").iterdir())
    with pytest.raises(InputError, match="under no run root"):
        path_of_record_file(control)


def test_a_bundle_that_cannot_be_read_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (copy / "run.json").write_text("{")
    with pytest.raises(FormatError, match=r"run\.json"):
        path_of_record_file(copy / "records/training/config.json")
