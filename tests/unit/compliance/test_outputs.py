"""The files of a report, held by their formats' own validators, from hostile records too."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import sys
import zlib
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import rdflib
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx3_validate.core import check_graph
from spdx3_validate.spdx_versions import SPDX_VERSIONS
from spdx_python_model import v3_0_1 as spdx

from provenance.compliance.cyclonedx import cyclonedx
from provenance.compliance.dossier import dossier_of
from provenance.compliance.hub_card import hub_card
from provenance.compliance.materials import materials_of
from provenance.compliance.pdf import pdf
from provenance.compliance.spdx import spdx3
from provenance.compliance.write import OUTPUTS
from provenance.formats.record import Kind
from provenance.verify.report import Outcome, VerificationReport
from tests.support.paths import ROOT
from tests.support.verify_world import KEY, NOW, World, ending, metrics, seal

VENDORED = ROOT / "tests/vectors/spdx"
HOSTILE = "<script>alert(1)</script> | `x` \u202e日本\x1b[31m\n---\n# {{ 7 * 7 }}"


@pytest.fixture(scope="module")
def hostile() -> VerificationReport:
    """A run whose every name and value is an attempt."""
    public = KEY.public_key().public_bytes_raw().hex()
    events: list[Any] = [
        (Kind.DATA_TRAIN, None, {"kind": HOSTILE, "count": -1, "bytes": "x", "root": "sha256:zz"}),
        (Kind.DATA_TEST, None, {"kind": [HOSTILE], "count": 2**53, "root": "blake3:" + "0" * 64}),
        (Kind.ARCHITECTURE, None, {"class": HOSTILE, "framework": {"a": HOSTILE}}),
        (Kind.WEIGHTS, None, {"root": HOSTILE, "bytes": 1e300}),
        (
            Kind.CONFIG,
            None,
            {
                "public_key": public,
                "world_size": 1,
                "name": HOSTILE,
                "tags": [HOSTILE],
                "code": {"commit": HOSTILE, "dirty": "maybe"},
                "environment": {"packages": {"": "1", HOSTILE: HOSTILE, "numpy": "", "ok": "1.0"}},
                "parent": {"run": HOSTILE},
                "training": {HOSTILE: HOSTILE, "nan": "NaN", "deep": [[[HOSTILE]]], "": {}},
            },
        ),
        (Kind.ARTIFACT, None, {"name": HOSTILE, "digest": "sha256:" + "ab" * 32, "bytes": 3}),
        seal("before"),
        metrics(1, **{HOSTILE: 1.0}),
        (Kind.STATE, 1, {"root": None}),
    ]
    *done, _ = ending(events)
    done[-2] = (Kind.RESULTS, None, {"results": {HOSTILE: 0.5, "n": "NaN", "t": True, "": 1}})
    total = len(done)
    done.append((Kind.RUN_END, None, {"events": total, "reason": HOSTILE}))
    world = World(names=())
    world.ingest(world.batch(done, at=253_402_300_700.0 - NOW))  # the last minutes of 9999
    return world.verify()


@pytest.fixture(params=["golden", "hostile"])
def report(
    request: pytest.FixtureRequest, verified: VerificationReport, hostile: VerificationReport
) -> VerificationReport:
    return {"golden": verified, "hostile": hostile}[request.param]


def test_a_later_verification_gives_the_same_bills(verified: VerificationReport) -> None:
    materials, again = materials_of(verified), materials_of(verified)
    for write in (cyclonedx, spdx3):
        assert write(materials) == write(again)
    assert b"2026" not in cyclonedx(materials)  # when this is run


# --- CycloneDX ----------------------------------------------------------------------------


def test_cyclonedx_s_own_validator_takes_the_bill(report: VerificationReport) -> None:
    data = cyclonedx(materials_of(report)).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data) is None
    wrong = data.replace('"machine-learning-model"', '"model"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(wrong) is not None


def test_the_bill_names_what_the_records_name(verified: VerificationReport) -> None:
    bill = json.loads(cyclonedx(materials_of(verified)))
    model = bill["metadata"]["component"]
    named = {each["name"]: each["value"] for each in model["properties"]}
    root = verified.seals[-1].root.hex()
    assert named["ml-provenance:run-root"] == f"mth-sha256:{root}"
    assert named["ml-provenance:ledger-head"].startswith("4 8f5dc456")
    assert len([name for name in named if name.startswith("ml-provenance:anchor:")]) == 4
    card = model["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "accuracy", "value": "0.9"}
    ]
    train, test = card["modelParameters"]["datasets"]
    assert (train["ref"], test["ref"]) == ("data/train/0", "data/test/0")
    parts = {each["bom-ref"]: each for each in bill["components"]}
    (evidence,) = parts["data/train/0"]["externalReferences"]
    record = next(r for r in verified.evidence.records if r.path == "data/train/0")
    assert evidence["hashes"] == [{"alg": "SHA-256", "content": record.digest.hex()}]
    assert parts["package/numpy"]["purl"] == "pkg:pypi/numpy@2.0.0"
    assert "hashes" not in parts["data/train/0"]  # a tree's root is no file's hash
    (edges,) = [each for each in bill["dependencies"] if each["ref"] == "model"]
    assert set(edges["dependsOn"]) == set(parts)


def test_a_file_s_digest_is_a_hash(hostile: VerificationReport) -> None:
    bill = json.loads(cyclonedx(materials_of(hostile)))
    hashes = {each["bom-ref"]: each.get("hashes") for each in bill["components"]}
    assert [{"alg": "SHA-256", "content": "ab" * 32}] in hashes.values()
    assert hashes["data/test/0"] == [{"alg": "BLAKE3", "content": "0" * 64}]
    assert hashes["data/train/0"] is None


# --- SPDX ---------------------------------------------------------------------------------


@cache
def shapes() -> rdflib.Graph:
    """SPDX's own model as SHACL shapes; tests/vectors/spdx/README.md says where it is from."""
    graph = rdflib.Graph()
    graph.parse(
        data=gzip.decompress((VENDORED / "spdx-model.ttl.gz").read_bytes()), format="turtle"
    )
    return graph


def spdx_errors(document: dict[str, Any]) -> list[str]:
    context = json.loads(gzip.decompress((VENDORED / "spdx-context.jsonld.gz").read_bytes()))
    version = SPDX_VERSIONS[1]
    assert document["@context"] == version.context_url
    graph = rdflib.Graph()
    graph.parse(data=json.dumps({**document, "@context": context["@context"]}), format="json-ld")
    return check_graph(graph, shapes(), version, error_external=True)


@pytest.mark.slow
def test_spdx_s_own_validator_takes_the_bill(hostile: VerificationReport) -> None:
    document = json.loads(spdx3(materials_of(hostile)))
    assert spdx_errors(document) == []


@pytest.mark.slow
def test_spdx_s_own_validator_refuses_another(verified: VerificationReport) -> None:
    document = json.loads(spdx3(materials_of(verified)))
    for each in document["@graph"]:
        each.pop("dataset_datasetType", None)
    assert len(spdx_errors(document)) == 2


def test_the_bindings_read_the_bill_back(report: VerificationReport) -> None:
    data = spdx3(materials_of(report))
    read = spdx.SHACLObjectSet()
    spdx.JSONLDDeserializer().read(io.BytesIO(data), read)
    assert read.link() == set()  # no reference leads out of it
    (model,) = [
        each
        for each in read.foreach_type(spdx.ai_AIPackage)
        if each.software_packageVersion == report.seals[-1].root.hex()
    ]
    assert model.name == materials_of(report).name
    datasets = list(read.foreach_type(spdx.dataset_DatasetPackage))
    assert sorted(str(each.name) for each in datasets) == ["data/test/0", "data/train/0"]
    kinds = {
        str(each.relationshipType).rpartition("/")[2]
        for each in read.foreach_type(spdx.Relationship)
    }
    assert kinds >= {"trainedOn", "testedOn"}


# --- for people ---------------------------------------------------------------------------


def pdf_text(data: bytes) -> str:
    """The strings that a PDF shows, in order: those of fonts with one byte for a letter."""
    shown = []
    for match in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        try:
            content = zlib.decompress(match[1])
        except zlib.error:
            continue
        for text in re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", content, re.DOTALL):
            shown.append(re.sub(rb"\\(.)", rb"\1", text).decode("latin-1"))
    return "\n".join(shown)


@pytest.mark.slow
def test_the_pdf_s_text_can_be_taken_out(verified: VerificationReport) -> None:
    dossier = dossier_of(verified, "eu-ai-act", date(2027, 1, 31))
    data = pdf(dossier, None)
    assert data.startswith(b"%PDF-1.")
    text = pdf_text(data)
    assert "Run root at after: 96c3d2a132fe2100" in text
    assert "Art. 10(2)(a)  Design choices: evidence verified" in text
    assert "To be written by a person: intended purpose" in text
    assert "nobody signed these files" in text
    assert text.count("To be written by a person") == sum(
        len(row.requirement.write) for row in dossier.rows
    )


def test_the_page_says_what_each_outcome_means(report: VerificationReport) -> None:
    page = OUTPUTS["report.html"](dossier_of(report, "eu-ai-act"), None).decode()
    told = page.partition("How to read it")[2].partition("</section>")[0]
    for outcome in get_args(Outcome):
        assert re.search(f'<span class="badge {outcome}">{outcome}</span></dt><dd>[A-Z]', told)
    assert "{{" not in told


@pytest.mark.slow
def test_hostile_records_break_no_file(hostile: VerificationReport) -> None:
    dossier = dossier_of(hostile, "eu-ai-act")
    assert [each.until for each in dossier.retention] == [None] * 3
    made = {name: write(dossier, "ab" * 32) for name, write in OUTPUTS.items()}
    page = made["report.html"].decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "49" not in re.findall(r"# ([^<]{2})", page)
    text = pdf_text(made["report.pdf"])
    assert "\\u65e5" in text
    assert "\\u202e" in text
    assert json.loads(made["report.json"])["run_id"] == str(hostile.run)


def test_the_card_s_front_matter_is_one_document(report: VerificationReport) -> None:
    card = hub_card(report, materials_of(report)).decode()
    assert card.startswith("---\n")
    end = card.index("\n---\n", 4)
    (entry,) = yaml.safe_load(card[4:end])["model-index"]
    assert entry["name"] == materials_of(report).name
    numbers = {each["type"]: each["value"] for each in entry["results"][0]["metrics"]}
    assert all(type(value) in (int, float) for value in numbers.values())
    assert set(numbers.values()) == ({0.9} if entry["name"] == str(report.run) else {0.5, 1})
    assert "<script" not in card[end:]
    assert "To be written by a person" in card


# --- without the extra --------------------------------------------------------------------

_WITHOUT = """
import sys
for name in ("cyclonedx", "fpdf", "spdx_python_model", "jinja2"):
    sys.modules[name] = None
from provenance.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_report_is_checked_without_the_packages_that_write_one(
    written: Path, tmp_path: Path
) -> None:
    def without(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _WITHOUT, "compliance", "--base-dir", str(tmp_path)]
        return subprocess.run([*command, *words], capture_output=True, text=True, check=False)

    checked = without("--check", str(written))
    assert checked.returncode == 3, checked.stderr
    assert "statement.dsse.json: holds" in checked.stdout
    bundle = str(ROOT / "tests/vectors/bundle-v1.zip")
    missing = without(bundle, "--framework", "eu-ai-act", "-o", str(tmp_path / "out"))
    assert missing.returncode == 2
    assert "pip install 'ml-provenance[compliance]'" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1
