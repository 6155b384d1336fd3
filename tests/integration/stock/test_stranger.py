"""The verifier that a stranger wrote from docs/FORMAT.md, against bundles of this program.

Over 400 lines: a table for each thing that both judge, over one bundle.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from provenance.bundle.index import dump
from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MemorySource
from provenance.bundle.writer import bundle_files, write_files
from provenance.errors import FormatError
from provenance.evidence.disclosure import withhold
from provenance.evidence.run_evidence import RunEvidence
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from provenance.proofs.bitcoin import HEADER_BYTES
from provenance.proofs.renyi import RenyiAccountant
from provenance.verify.catalogue import CONTENT, PORTABLE, Status
from provenance.verify.headers import GivenHeaders
from provenance.verify.verifier import verify
from tests.support.model_world import weights
from tests.support.paths import STRANGER
from tests.support.shard_world import sharded, shards
from tests.support.stranger import load
from tests.support.verify_world import World, before, ending, metrics
from tests.vectors.make_golden import (
    APPROVED,
    CHILD,
    GOLDEN,
    HIDDEN,
    HOST,
    ITEMS,
    LAUNCH,
    LEDGER,
    RANKS,
    RUNS,
    WITHHELD,
    evidence,
    launched_evidence,
    ranks_evidence,
)

ALLOWED = {"blake3", "cryptography", "msgpack"}
SEED = 20_261_122
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def stranger() -> ModuleType:
    return load()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A bundle of this release, in memory."""
    return bundle_files(evidence(tmp_path_factory.mktemp("golden") / "anchors.jsonl"))


def remade(files: Files) -> Files:
    """Manifest and sums made to fit, as a forger would."""
    made = {n: d for n, d in files.items() if n not in ("manifest.json", "SHA256SUMS")}
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = [
        {"path": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in sorted(made.items())
    ]
    made["manifest.json"] = dump(manifest)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in made.items()}
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    return {**made, "SHA256SUMS": text.encode()}


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# --- what it is ---------------------------------------------------------------------------


def test_it_imports_nothing_of_the_program() -> None:
    own = {path.stem for path in STRANGER.iterdir()}
    assert {"verify", "formats", "evidence", "producers", "statement", "vectors"} <= own
    for path in STRANGER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module or ""]
            for name in {each.partition(".")[0] for each in names}:
                known = name in sys.stdlib_module_names | ALLOWED | own
                assert known, f"{path.name} imports {name}"
        assert "importlib" not in path.read_text("utf-8")
        assert "__import__" not in path.read_text("utf-8")
        assert len(path.read_text("utf-8").splitlines()) < 400


def test_it_runs_from_the_command_line(files: Files, tmp_path: Path) -> None:
    for name in ("folder", "packed.zip"):
        place = write_files(files, tmp_path / name)
        done = run(place)
        assert (done.returncode, done.stdout) == (0, "0 problems, 0 things not proven\n")
    (tmp_path / "folder" / "README.txt").write_text("nothing to see")
    done = run(tmp_path / "folder")
    assert done.returncode == 1
    assert done.stdout.startswith("README.txt: ")
    done = run(tmp_path / "folder", "--key", LEDGER.verifier.vkey.replace("5", "6", 1))
    assert "ledger.vkey: is " in done.stdout
    assert run(tmp_path / "nothing").returncode == 1


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(STRANGER / "verify.py"), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


# --- what it finds ------------------------------------------------------------------------


def test_200_random_bits_of_any_file(files: Files, stranger: ModuleType) -> None:
    chance = random.Random(SEED)
    for _ in range(200):
        name = chance.choice(sorted(files))
        bit = chance.randrange(8 * len(files[name]))
        bundle = stranger.Bundle({**files, name: flipped(files[name], bit)})
        named = [line for line in bundle.problems if line.startswith(f"{name}: ")]
        if name == "manifest.json":  # then it speaks of other files, and does not fit its sum
            named = [line for line in bundle.problems if name in line]
        assert named, f"seed {SEED}: bit {bit} of {name}: {bundle.problems}"


def test_200_random_bits_with_a_manifest_that_fits(files: Files, stranger: ModuleType) -> None:
    """What is noticed is no mere checksum: the forger made the manifest anew."""
    chance = random.Random(SEED)
    tops = ("records/", "heads/", "tlog/", "ledger.vkey", "equivocations/")
    names = sorted(name for name in files if name.startswith(tops))
    for _ in range(200):
        name = chance.choice(names)
        bit = chance.randrange(8 * len(files[name]))
        bundle = stranger.Bundle(remade({**files, name: flipped(files[name], bit)}))
        assert bundle.problems, f"seed {SEED}: bit {bit} of {name}"


def test_every_file_can_be_missed_and_no_other_added(files: Files, stranger: ModuleType) -> None:
    for name in files:
        rest = {other: data for other, data in files.items() if other != name}
        named = [p for p in stranger.Bundle(rest).problems if p.partition(": ")[0] == name]
        assert named, name
    assert (
        "notes.txt: is not in the manifest" in stranger.Bundle(files | {"notes.txt": b""}).problems
    )
    forged = remade(files | {"notes.txt": b""})
    assert stranger.Bundle(forged).problems == ["notes.txt: run.json does not know it"]


Change = Callable[[dict[str, Any]], None]


def receipt(**changes: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        for path, value in changes.items():
            *parents, last = path.split("__")
            inner = document
            for name in parents:
                inner = inner[name]
            assert inner[last] != value
            inner[last] = value

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("after-bitcoin", receipt(anchor__transaction_id="00" * 32)),
        ("after-bitcoin", receipt(anchor__block_hash="00" * 32)),
        ("after-bitcoin", receipt(evidence__header="00" * HEADER_BYTES)),
        ("after-bitcoin", receipt(evidence__chain="main")),
        ("after-bitcoin", receipt(anchor__payload="4d4c5031" + "00" * 32)),
        ("after-bitcoin", receipt(ledger__index=0)),
        ("after-bitcoin", receipt(root="00" * 32)),
        ("after-bitcoin", receipt(head="")),
        ("after-ethereum", receipt(evidence__contract="0x" + "00" * 20)),
        ("after-ethereum", receipt(evidence__receipt_proof__index=0)),
        ("after-ethereum", receipt(evidence__receipt_proof__nodes=[])),
        ("after-ethereum", receipt(anchor__height=7)),
        ("after-ethereum", receipt(anchor__block_hash="0x" + "00" * 32)),
        ("after-ipfs", receipt(anchor__transaction_id="bafkqaaa")),
        ("after-local", receipt(evidence__public_key="00" * 32)),
        ("after-local", receipt(evidence__line="{}")),
        ("after-local", receipt(phase="before")),
    ],
)
def test_a_forged_receipt(files: Files, stranger: ModuleType, name: str, change: Change) -> None:
    file = f"receipts/{name}.json"
    document = json.loads(files[file])
    change(document)
    forged = remade({**files, file: stranger.canonical(document)})
    problems = stranger.Bundle(forged).problems
    assert any(line.startswith(f"{file}: ") for line in problems), problems


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("subject__0__digest__mth_sha256", "00" * 32),
        ("subject__1__digest__mth_sha256", "00" * 32),
        ("predicate__buildDefinition__externalParameters__world_size", 2),
        ("predicate__buildDefinition__resolvedDependencies__0__digest__gitCommit", "00" * 20),
        ("predicate__buildDefinition__resolvedDependencies__1__digest__mth_sha256", "00" * 32),
        ("predicate__runDetails__metadata__invocationId", "of another"),
        ("predicate__runDetails__byproducts__0__digest__sha256", "00" * 32),
    ],
)
def test_a_forged_statement(files: Files, stranger: ModuleType, path: str, value: object) -> None:
    file = "statement/run.intoto.json"
    document = json.loads(files[file])
    *parents, last = path.split("__")
    inner = document
    for name in parents:
        inner = inner[int(name) if name.isdecimal() else name]
    assert inner[last] != value
    inner[last] = value
    problems = stranger.Bundle(remade({**files, file: stranger.canonical(document)})).problems
    assert [line for line in problems if line.startswith(f"{file}: ")] == problems != []


def test_both_judge_the_first_subject_of_a_statement_alike(
    files: Files, stranger: ModuleType
) -> None:
    """One that leaves out how the run ended stays open, another root than the newest does not
    hold."""
    file, entries = "statement/run.intoto.json", json.loads(files["run.json"])["entries"]
    earlier = {
        "digest": {"mth_sha256": entries[0]["root"]},
        "annotations": {"seal": "before", "state": "finished"},
    }
    no_end = {"annotations": {"seal": "after"}}
    for changed, fails in ((no_end, False), (earlier, True)):
        document = json.loads(files[file])
        document["subject"][0].update(changed)
        forged = remade({**files, file: stranger.canonical(document)})
        report = verify(read_bundle(MemorySource(forged, "forged")), None, now=0.0)
        assert [finding.file for finding in report.findings] == [file] * fails
        bundle = stranger.Bundle(forged)
        assert [line.startswith(file) for line in bundle.problems] == [True] * fails
        assert (f"{file}: how the run ended is left out" in bundle.unproven) is not fails
        assert (report.checks[PORTABLE - 1].status is Status.UNCHECKED) is not fails


def run_json(change: Change) -> Callable[[Files], Files]:
    def forge(files: Files) -> Files:
        document = json.loads(files["run.json"])
        change(document)
        return remade({**files, "run.json": dump(document)})

    return forge


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda run: run["entries"][2].update(root="00" * 32), "run.json: the records give root"),
        (lambda run: run["entries"].reverse(), "run.json: "),
        (lambda run: run["inclusions"].clear(), "run.json: an entry without a proof"),
        (lambda run: run["consistencies"].clear(), "run.json: KeyError"),
        (lambda run: run["consistencies"][-1]["proof"].clear(), "run.json: "),
        (lambda run: run["records"].pop(), "does not know it"),
        (lambda run: run["records"][0].update(kind="results"), "run.json: "),
        (lambda run: run["records"][0].update(withheld=True), "said to be withheld"),
        (lambda run: run.update(public_key="00" * 32), "another public key"),
        (lambda run: run["heads"].pop(), "run.json does not know it"),
        (lambda run: run["producers"].clear(), "run.json: "),
        (lambda run: run["producers"][0]["statements"].pop(), "records that nobody signed"),
        (lambda run: run["producers"][0].update(certificate="00" * 164), "of another run, key"),
        (lambda run: run["records"][-1].update(rank=1), "a rank that nobody certified"),
        (lambda run: run["entries"][0]["coverage"].clear(), "run.json: the records give root"),
        (lambda run: run["entries"][2]["coverage"].clear(), "its coverage at"),
        (lambda run: run["equivocations"][0].update(seq=7), "run.json: "),
        (lambda run: run.update(identity=run["identity"][:-4] + "0000"), "run.json: "),
        (lambda run: run.update(run=run["run"].replace("-8", "-7", 1)), "no run id"),
        (lambda run: run.update(incomplete="a\u202eb"), "run.json: a text that prints not"),
        (lambda run: run.update(state="open" * 501), "run.json: a text that prints not"),
        (lambda run: run["ledger"].update(runs=9999), "ledger: other runs are unfinished"),
        (lambda run: run["ledger"].update(size=1), "run.json: ledger: an entry"),
        (lambda run: run["ledger"].update(more=1), "other keys in ledger"),
        (lambda run: run.update(state="open"), "ledger: not this run"),
    ],
)
def test_a_forged_run_json(
    files: Files, stranger: ModuleType, change: Change, problem: str
) -> None:
    problems = stranger.Bundle(run_json(change)(files)).problems
    assert any(problem in line for line in problems), problems


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.update(incomplete="a\u202eb"),
        lambda run: run["ledger"].update(runs=9999),
        lambda run: run["ledger"].update(size=1),
        lambda run: run["ledger"]["unfinished"][0].update(run=run["run"]),
        lambda run: run["ledger"]["unfinished"].append({}),
        lambda run: run.update(state="open"),
    ],
)
def test_both_refuse_a_text_and_a_claim_that_cannot_be(
    files: Files, stranger: ModuleType, change: Change
) -> None:
    forged = run_json(change)(files)
    assert stranger.Bundle(forged).problems
    with suppress(FormatError):
        assert read_bundle(MemorySource(forged, "forged")).problems


# --- golden files -------------------------------------------------------------------------


def headers_of(files: Files) -> GivenHeaders:
    raw = []
    for name in (n for n in files if n.endswith("-bitcoin.json")):
        told = json.loads(files[name])["evidence"]
        raw += [bytes.fromhex(each) for each in (told["header"], *told["headers"])]
    return GivenHeaders.of(raw)


def test_the_golden_bundle_is_made_the_same_each_time(files: Files, tmp_path: Path) -> None:
    assert bundle_files(evidence(tmp_path / "anchors.jsonl")) == files


def test_both_accept_a_new_golden_bundle(files: Files, stranger: ModuleType) -> None:
    report = verify(
        read_bundle(MemorySource(files, "golden")),
        None,
        verifier_key=LEDGER.verifier,
        headers=headers_of(files),
        now=0.0,
    )
    assert (report.outcome, report.findings) == ("consistent", ())
    assert {name: sorted(seals) for name, seals in report.networks.items()} == {
        name: ["after", "before", "checkpoint-2"]
        for name in ("bitcoin", "ethereum", "ipfs", "local")
    }
    assert {check.status for check in report.networks["bitcoin"].values()} == {"stated"}
    bundle = stranger.Bundle(files, LEDGER.verifier.vkey)
    assert (bundle.problems, bundle.unproven) == ([], [])


@pytest.mark.parametrize("ranks", [(0, 1), (0,), (1, 0)])
def test_both_put_the_shards_of_two_ranks_together(
    stranger: ModuleType, ranks: tuple[int, ...]
) -> None:
    bundle = stranger.Bundle(bundle_files(sharded(ranks=ranks).evidence()))
    gone = ["run.json: 1 ranks ended unannounced"]
    for epoch in (1, 2, 3):
        for name in ("fc.bias", "fc.weight"):
            gone.append(f"run.json: epoch {epoch}: tensor {name}: no rank has all of it")
    assert sorted(bundle.problems) == (sorted(gone) if len(ranks) == 1 else [])


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"offset": [0]}, "ranks diverged"),
        ({"offset": [1]}, "shards overlap"),
        ({"offset": [3]}, "rank 1 has more than there is"),
        ({"offset": [True]}, "rank 1 has no place"),
        ({"global_shape": [5]}, "ranks have different tensors"),
    ],
)
def test_both_refuse_shards_that_do_not_fit(
    stranger: ModuleType, keys: dict[str, Any], told: str
) -> None:
    def change(rank: int, epoch: int, body: dict[str, Any]) -> dict[str, Any]:
        if (rank, epoch) == (1, 2):
            body["tensors"][0]["shard"] |= keys
        return body

    evidence = sharded(change).evidence()
    assert [f.subject for f in verify(evidence, None, now=0.0).findings] == ["epoch 2"]
    problems = stranger.Bundle(bundle_files(evidence)).problems
    assert problems == [f"run.json: epoch 2: tensor fc.bias: {told}"]


@pytest.mark.parametrize(
    ("keys", "problem", "told"),
    [
        ({"root": f"mth-sha256:{'00' * 32}"}, "states root mth-sha256:00", "its root is not"),
        ({"tensors": [], "tensor_count": 0}, "states root mth-sha256:", "its root is not"),
        ({"tensor_count": 10**9}, "tensor_count is 1000000000, the record", "another tensor_count"),
        ({"tensors": []}, "tensor_count is 3, the record states 0", "another tensor_count"),
        ({"algorithm": "none"}, "algorithm is 'none', its tensors", "digests of another"),
    ],
    ids=["root", "no tensors", "count", "tensors", "algorithm"],
)
@pytest.mark.parametrize(
    "body", [state_digest(weights(0)).as_fields(), shards(0, weights(0))], ids=["whole", "shards"]
)
def test_both_refuse_a_root_that_is_not_of_the_tensors_beside_it(
    stranger: ModuleType, body: dict[str, Any], keys: dict[str, Any], problem: str, told: str
) -> None:
    evidence = sharded(first=body | keys).evidence()
    (finding,) = verify(evidence, None, now=0.0).findings
    assert (finding.check, finding.path) == (CONTENT, "model/weights/0")
    assert finding.problem.startswith(problem)
    (line,) = stranger.Bundle(bundle_files(evidence)).problems
    assert line.startswith(f"records/model/weights/0.json: {told}")


def rdp(count: int, **fields: Any) -> dict[str, Any]:
    epsilon = RenyiAccountant().epsilon([(1.1, 0.125, count)], 1e-5)
    steps = {"noise_multiplier": 1.1, "sample_rate": 0.125, "steps": count}
    return {"accountant": "rdp", "delta": 1e-5, "epsilon": epsilon, "history": [steps], **fields}


@pytest.mark.parametrize(
    ("budgets", "status"),
    [
        ((rdp(8), rdp(16)), Status.PASSED),
        ((rdp(8), rdp(8, epsilon=1.0)), Status.FAILED),
        ((rdp(8, accountant="RDP"), rdp(8, epsilon=1.0)), Status.FAILED),
        ((rdp(8, accountant="RDP", epsilon=1.0),), Status.FAILED),
        ((rdp(8, accountant=None, epsilon=1.0),), Status.PASSED),
        ((rdp(16), rdp(8)), Status.FAILED),
        (({"epsilon": 2.0, "delta": 1e-5}, {"epsilon": 1.9, "delta": 1e-5}), Status.FAILED),
        (({"epsilon": 2.0, "delta": 1e-5}, {"epsilon": 1.9, "delta": 1e-4}), Status.PASSED),
        (({"epsilon": 2.0, "delta": 1},), Status.FAILED),
        (({"epsilon": 2.0},), Status.PASSED),
        (({"epsilon": 2.0, "delta": 1e-5}, {"epsilon": 1.9}), Status.FAILED),
        (({"epsilon": "Infinity", "delta": 0.5},), Status.UNCHECKED),
        (({"epsilon": "Infinity", "delta": 0.5}, {"epsilon": 2, "delta": 0.5}), Status.UNCHECKED),
        ((rdp(8, epsilon="Infinity"), rdp(16)), Status.UNCHECKED),
    ],
)
def test_both_judge_budgets_alike(
    stranger: ModuleType, budgets: tuple[dict[str, Any], ...], status: Status
) -> None:
    events = before()
    for epoch, budget in enumerate(budgets, 1):
        events += [metrics(epoch), (Kind.PRIVACY, epoch, {"privacy": budget})]
    stage = World(names=())
    stage.ingest(stage.batch(ending(events)))
    found = stage.evidence()
    assert verify(found, None, now=0.0).checks[11].status is status
    bundle = stranger.Bundle(bundle_files(found))
    assert bool(bundle.problems) is (status is Status.FAILED)
    assert any("bounds nothing" in line for line in bundle.unproven) is (status is Status.UNCHECKED)


@pytest.mark.parametrize(
    ("epochs", "epsilon", "later", "status"),
    [
        ((2, 4), 40.0, 1.0, Status.UNCHECKED),
        ((2, 4), 40.0, 100.0, Status.PASSED),
        ((2, 4), 0.0, 1.0, Status.PASSED),
        ((1, 3), 0.0, 100.0, Status.PASSED),
    ],
    ids=["hidden", "one after another", "at once", "epochs twice"],
)
def test_both_judge_budgets_of_two_processes_alike(
    stranger: ModuleType, epochs: tuple[int, ...], epsilon: float, later: float, status: Status
) -> None:
    stage, batches = World(names=()), []
    for at, (own, more) in enumerate([((1, 3, 5), 0.0), (epochs, epsilon)]):
        events = before()
        for epoch in own:
            budget = {"epsilon": epoch + more, "delta": 1e-5}
            events += [metrics(epoch), (Kind.PRIVACY, epoch, {"privacy": budget})]
        batches.append(stage.batch(ending(events), producer=bytes([at + 1]) * 16, at=at * later))
    stage.ingest(*batches)
    found = stage.evidence()
    check = verify(found, None, now=0.0).checks[11]
    assert check.status is status
    bundle = stranger.Bundle(bundle_files(found))
    left = [line for line in bundle.unproven if "at once" in line]
    assert (bundle.problems, bool(left)) == ([], status is Status.UNCHECKED)
    assert [line for line in bundle.unproven if "budget" in line] == []


def test_both_accept_what_is_withheld(stranger: ModuleType, tmp_path: Path) -> None:
    whole = evidence(tmp_path / "anchors.jsonl")
    files = bundle_files(withhold(whole, ["metrics", "training/epoch/3", "late"]))
    report = verify(read_bundle(MemorySource(files, "withheld")), None, now=0.0)
    assert report.outcome == "consistent"
    bundle = stranger.Bundle(files)
    assert bundle.problems == []
    assert "records/data/train/0.json: withheld" in bundle.unproven
    assert "records/training/epoch/3/state/0.json: withheld" not in bundle.unproven


@pytest.mark.parametrize(
    "golden",
    [GOLDEN, WITHHELD, RANKS, LAUNCH, APPROVED, HIDDEN, HOST, ITEMS, RUNS],
    ids=lambda path: path.stem,
)
def test_golden_bundles_of_version_1_verify_forever(golden: Path, stranger: ModuleType) -> None:
    report = verify(read_bundle(golden), None, verifier_key=LEDGER.verifier, now=0.0)
    assert (report.outcome, report.findings) == ("consistent", ())
    bundle = stranger.Bundle(stranger.load(golden), LEDGER.verifier.vkey)
    assert bundle.problems == []


def test_the_golden_child_holds_its_parents_tensors_forever(stranger: ModuleType) -> None:
    parent = verify(read_bundle(GOLDEN), None, verifier_key=LEDGER.verifier, now=0.0)
    report = verify(read_bundle(CHILD), None, parent=parent, now=0.0)
    assert report.findings == ()
    assert report.lineage is not None
    assert report.lineage.line.startswith(f"is an adapter of run {parent.run} at epoch 3: ")
    assert report.lineage.matches is True
    child, of = (stranger.Bundle(stranger.load(path)) for path in (CHILD, GOLDEN))
    assert (child.problems, of.problems) == ([], [])
    assert stranger.check_parent(child, of) == (
        "parent: 2 equal, 0 changed, 0 retyped, 0 reshaped, 0 renamed, 2 added, 0 removed, "
        "2 of an adapter"
    )


def test_golden_bundles_hold_every_kind_of_record() -> None:
    records = [
        record
        for path in (GOLDEN, RANKS, LAUNCH, RUNS, HOST)
        for record in read_bundle(path).records
    ]
    assert {record.kind for record in records} == set(Kind)


@pytest.mark.parametrize(
    ("make", "state", "budgets", "open_checks", "unproven"),
    [
        (ranks_evidence, "finished", "4 budgets, 4 recomputed from steps", set(), []),
        (
            launched_evidence,
            "failed (OSError)",
            "no privacy budget was recorded",
            {4},
            [
                "run.json: the run of rank 1 of 4 of a launch alone",
                "run.json: weights were not recorded",
            ],
        ),
    ],
    ids=["ranks", "launch"],
)
def test_both_say_the_same_of_runs_of_ranks(
    stranger: ModuleType,
    tmp_path: Path,
    make: Callable[[Path], RunEvidence],
    state: str,
    budgets: str,
    open_checks: set[int],
    unproven: list[str],
) -> None:
    files = bundle_files(make(tmp_path / "anchors.jsonl"))
    report = verify(
        read_bundle(MemorySource(files, "new")), None, verifier_key=LEDGER.verifier, now=0.0
    )
    assert (report.findings, report.state.line) == ((), state)
    assert report.checks[11].detail == budgets
    assert {
        check.check.number for check in report.checks if check.status is Status.UNCHECKED
    } == open_checks
    bundle = stranger.Bundle(files, LEDGER.verifier.vkey)
    assert (bundle.problems, bundle.unproven) == ([], unproven)
