"""A decision for other programs: SARIF, JUnit XML, a model card's section, OCI annotations.

Each says what was decided, refusals too: a file of an earlier run that passed is written over.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree as xml

from provenance.evidence.run_evidence import lenient
from provenance.formats.record import Kind
from provenance.gate.decision import Decision
from provenance.log import shown
from provenance.report import model_card

SARIF_SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
PREFIX: Final = "io.github.ml-provenance"
"""Of annotations that the OCI specification does not name."""
_HELP: Final = "https://github.com/ml-provenance/ml-provenance/blob/main/docs/gate.md"


def sarif(decision: Decision) -> bytes:
    """SARIF 2.1.0 (OASIS): a result for each rule that does not hold, at the model's path."""
    model = decision.model  # a relative reference (RFC 3986, section 4.2), or file:
    uri = model.as_uri() if model.is_absolute() else quote(os.fsencode(model.as_posix()))
    rules = list(dict.fromkeys(item.rule for item in decision.results))
    results: list[dict[str, Any]] = [
        {
            "ruleId": item.rule,
            "ruleIndex": rules.index(item.rule),
            "level": "error",
            "message": {"text": shown(item.line)},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}}}],
        }
        for item in decision.refusals
    ]
    driver = {
        "name": "provenance gate",
        "informationUri": _HELP,
        "rules": [{"id": rule, "helpUri": _HELP} for rule in rules],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True, "exitCode": decision.exit_code}],
        "results": results,
        "properties": facts(decision),
    }
    return _json({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]})


def junit(decision: Decision) -> bytes:
    """JUnit XML as CI servers read it: a test for each rule, an error where it was not checked."""
    failures = sum(item.outcome == "refused" for item in decision.results)
    errors = sum(item.outcome == "unchecked" for item in decision.results)
    suite = xml.Element(
        "testsuite",
        name="provenance gate",
        tests=str(len(decision.results)),
        failures=str(failures),
        errors=str(errors),
        timestamp=_when(decision.checked_at),
    )
    for item in decision.results:
        case = xml.SubElement(
            suite, "testcase", classname=shown(str(decision.model)), name=item.rule
        )
        if item.outcome != "passed":
            kind = "failure" if item.outcome == "refused" else "error"
            xml.SubElement(case, kind, message=shown(item.line), type=item.outcome)
    whole = xml.Element("testsuites")
    whole.append(suite)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(whole) + b"\n"


def facts(decision: Decision) -> dict[str, str]:
    """What was decided about which model, as short texts: for tags, tables and annotations."""
    named = {
        "verdict": "passed" if decision.passed else "refused",
        **(model_card.run_facts(decision.report) if decision.report else {}),
        "weights": decision.weights,
        "policy": decision.policy,
        "checked": _when(decision.checked_at),
    }
    return {name: shown(value) for name, value in named.items() if value is not None}


def card(decision: Decision) -> bytes:
    """A section for a model's README.md, such as Hugging Face shows."""
    check = "provenance gate --model . --policy policy.yaml --bundle BUNDLE"
    return model_card.section(facts(decision), check).encode()


def oci_annotations(decision: Decision) -> bytes:
    """Annotations of an image manifest, as ``oras push --annotation-file`` reads them."""
    named = facts(decision)
    manifest = {f"{PREFIX}.{name}": value for name, value in named.items()}
    records = decision.report.evidence.records if decision.report else ()
    for body in (lenient(r.data).get("body") for r in records if r.kind is Kind.CONFIG):
        code = body.get("code") if isinstance(body, dict) else None
        if isinstance(code, dict) and isinstance(code.get("commit"), str):
            manifest["org.opencontainers.image.revision"] = shown(code["commit"])
    return _json({"$manifest": manifest})


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(document: object) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"
