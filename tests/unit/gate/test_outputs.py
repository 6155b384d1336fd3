"""What other programs read of a decision."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import jsonschema
import pytest

from provenance.formats.note import VerifierKey
from provenance.gate import outputs
from provenance.gate.decision import Decision
from tests.support.model_world import COMMIT
from tests.support.verify_world import RUN
from tests.unit.gate.conftest import Hold

TEXT = {"type": "string", "minLength": 1}
URI = {"type": "string", "pattern": "^([A-Za-z0-9._~:/?#@!$&'()*+,;=-]|%[0-9A-F]{2})+$"}
"""RFC 3986, appendix A."""


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    """An object with these keys and no others."""
    shape = {"type": "object", "required": required, "additionalProperties": False}
    return {**shape, "properties": properties}


RULE = closed(["id"], id=TEXT, helpUri=URI)
LOCATION = closed(
    ["physicalLocation"],
    physicalLocation=closed(
        ["artifactLocation"], artifactLocation=closed(["uri"], uri=URI)
    ),
)  # fmt: skip
RESULT = closed(
    ["message"],
    ruleId=TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level={"enum": ["none", "note", "warning", "error"]},
    message=closed(["text"], text=TEXT),
    locations={"type": "array", "items": LOCATION},
)
DRIVER = closed(
    ["name"],
    name=TEXT,
    informationUri=URI,
    rules={"type": "array", "items": RULE, "uniqueItems": True},
)
INVOCATION = closed(
    ["executionSuccessful"], executionSuccessful={"type": "boolean"}, exitCode={"type": "integer"}
)
RUN_OBJECT = closed(
    ["tool"],
    tool=closed(["driver"], driver=DRIVER),
    invocations={"type": "array", "items": INVOCATION},
    results={"type": "array", "items": RESULT},
    properties={"type": "object"},
)
SARIF = closed(
    ["version", "runs"],
    **{"$schema": URI},
    version={"const": "2.1.0"},
    runs={"type": "array", "items": RUN_OBJECT},
)
"""OASIS SARIF 2.1.0, sections 3.13 to 3.58: as much of it as is written here, and nothing else."""


@pytest.fixture
def refusal(hold: Hold, model: Path) -> Decision:
    (model / "evil\x1b.py").write_text("")
    return hold(networks={"local": {}, "ipfs": {}})


def test_sarif_has_a_result_for_each_refusal(refusal: Decision, hold: Hold) -> None:
    document = json.loads(outputs.sarif(refusal))
    jsonschema.validate(document, SARIF)
    (run,) = document["runs"]
    assert [item["ruleId"] for item in run["results"]] == ["files", "networks.ipfs"]
    for item in run["results"]:
        assert run["tool"]["driver"]["rules"][item["ruleIndex"]]["id"] == item["ruleId"]
        assert "\x1b" not in item["message"]["text"]
    assert run["properties"]["verdict"] == "refused"


def test_a_models_path_is_a_uri_reference(
    refusal: Decision, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, uri in {
        "a b/100%#?.h5": "a%20b/100%25%23%3F.h5",
        "c:d/ü\udcff": "c%3Ad/%C3%BC%FF",
        "/m/\udcff": "file:///m/%FF",
    }.items():
        document = outputs.sarif(replace(refusal, model=Path(path)))
        jsonschema.validate(json.loads(document), SARIF)
        assert json.dumps(uri).encode() in document
        assert b"\\udc" not in document.replace(b"\\\\udc", b"")


def test_junit_has_a_case_for_each_rule(refusal: Decision) -> None:
    (suite,) = xml.fromstring(outputs.junit(refusal))
    assert suite.attrib["tests"] == str(len(refusal.results)) == str(len(suite))
    failed = {case.attrib["name"]: case[0].tag for case in suite if len(case)}
    assert failed == {"files": "failure", "networks.ipfs": "failure"}


def test_card_and_annotations_say_what_was_decided(
    hold: Hold, model: Path, refusal: Decision
) -> None:
    facts = outputs.facts(refusal)
    assert facts["verdict"] == "refused"
    (model / "evil\x1b.py").unlink()
    decision = hold()
    facts = outputs.facts(decision)
    assert (facts["verdict"], facts["run"], facts["policy"]) == (
        "passed",
        str(RUN),
        decision.policy,
    )
    size, root = facts["head"].split()
    assert (int(size), len(root)) == (2, 64)
    annotations = json.loads(outputs.oci_annotations(decision))["$manifest"]
    assert annotations["io.github.ml-provenance.verdict"] == "passed"
    assert annotations["org.opencontainers.image.revision"] == COMMIT
    assert all(isinstance(value, str) for value in annotations.values())
    card = outputs.card(decision).decode()
    assert card.startswith("## Provenance\n\n| | |\n| --- | --- |\n| verdict | `passed` |\n")
    assert decision.report is not None
    assert decision.report.verdict.vkey is not None
    assert VerifierKey.from_vkey(decision.report.verdict.vkey).label in card
