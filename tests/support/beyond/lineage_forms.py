"""The forms of a graph for other people's tools, held against what their specifications require.

Written anew from https://www.w3.org/submissions/2013/SUBM-prov-json-20130424/ and from
https://openlineage.io/spec/2-0-2/OpenLineage.json: what is written here of the two, nothing else is
let through.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import jsonschema

NAME = {"type": "string", "pattern": "^(mlp|run|weights|_):[A-Za-z0-9._/-]+$"}
RELATIONS = {
    "used": ("activity", "entity"),
    "wasGeneratedBy": ("entity", "activity"),
    "wasDerivedFrom": ("generatedEntity", "usedEntity"),
    "wasInformedBy": ("informed", "informant"),
}


def _relation(*ends: str) -> dict[str, Any]:
    names = {f"prov:{end}": NAME for end in ends}
    own = {"type": "object", "required": [*names], "properties": names}
    return {"type": "object", "propertyNames": NAME, "additionalProperties": own}


THINGS = {"type": "object", "propertyNames": NAME, "additionalProperties": {"type": "object"}}
PROV = {
    "type": "object",
    "additionalProperties": False,
    "required": ["prefix", "entity", "activity"],
    "properties": {
        "prefix": {"type": "object", "additionalProperties": {"type": "string", "format": "uri"}},
        "entity": THINGS,
        "activity": THINGS,
        **{relation: _relation(*ends) for relation, ends in RELATIONS.items()},
    },
}

URI = {"type": "string", "pattern": "^[a-z]+:[!-~]+$"}
TEXT = {"type": "string", "minLength": 1}


def _object(
    required: dict[str, Any], optional: dict[str, Any], more: Any = False
) -> dict[str, Any]:
    properties = {**required, **optional}
    return {
        "type": "object",
        "required": [*required],
        "properties": properties,
        "additionalProperties": more,
    }


def _facets(**known: dict[str, Any]) -> dict[str, Any]:
    """Any facet says who makes it and what its schema is."""
    base = {"_producer": URI, "_schemaURL": URI}
    own = {name: _object({**base, **fields}, {}) for name, fields in known.items()}
    return {"type": "object", "properties": own, "additionalProperties": _object(base, {}, True)}


RUN_ID = {"type": "string", "format": "uuid"}
JOB = {"namespace": TEXT, "name": TEXT}
DATASET = _object(JOB, {"facets": _facets(version={"datasetVersion": TEXT})})
OPENLINEAGE = _object(
    {
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": URI,
        "schemaURL": URI,
        "run": _object(
            {"runId": RUN_ID},
            {
                "facets": _facets(
                    parent={"run": _object({"runId": RUN_ID}, {}), "job": _object(JOB, {})}
                )
            },
        ),
        "job": _object(JOB, {"facets": _facets()}),
    },
    {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "inputs": {"type": "array", "items": DATASET},
        "outputs": {"type": "array", "items": DATASET},
    },
)
FORMATS = jsonschema.FormatChecker(["uuid"])


def prov(text: str) -> dict[str, Any]:
    """A PROV-JSON document of the form, whose relations name what it has alone."""
    document: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator(PROV).validate(document)
    known = document["entity"].keys() | document["activity"].keys()
    assert {name.partition(":")[0] for name in known} <= document["prefix"].keys()
    for relation, ends in RELATIONS.items():
        for item in document.get(relation, {}).values():
            assert {item[f"prov:{end}"] for end in ends} <= known
    return document


def openlineage(text: str) -> dict[str, dict[str, Any]]:
    """The events by run, each of the form."""
    events = [json.loads(line) for line in text.splitlines()]
    for event in events:
        jsonschema.Draft202012Validator(OPENLINEAGE, format_checker=FORMATS).validate(event)
        assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    found = {event["run"]["runId"]: event for event in events}
    assert len(found) == len(events)
    return found
