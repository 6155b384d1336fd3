"""The keys of the Compose Specification that deploy/compose.yaml uses, and no other.

https://github.com/compose-spec/compose-spec/blob/main/spec.md
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

NAME = "^[a-zA-Z0-9._-]+$"
DURATION = r"^([0-9]+(us|ms|s|m|h))+$"
SIZE = r"^[0-9]+[bkmg]$"
STRING: Schema = {"type": "string", "minLength": 1}
STRINGS: Schema = {"type": "array", "items": {"type": "string"}, "minItems": 1}
NAMES: Schema = {"type": "array", "items": STRING, "uniqueItems": True, "minItems": 1}


def _object(properties: Schema, *required: str) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _named(value: Schema) -> Schema:
    return {"type": "object", "patternProperties": {NAME: value}, "additionalProperties": False}


HEALTHCHECK = _object(
    {
        "test": {
            "type": "array",
            "items": [{"enum": ["CMD", "CMD-SHELL"]}, STRING],
            "additionalItems": STRING,
            "minItems": 2,
        },
        "interval": {"type": "string", "pattern": DURATION},
        "timeout": {"type": "string", "pattern": DURATION},
        "start_period": {"type": "string", "pattern": DURATION},
        "retries": {"type": "integer", "minimum": 1},
    },
    "test",
)

SERVICE = _object(
    {
        "image": STRING,
        "build": _object({"context": STRING, "dockerfile": STRING}, "context", "dockerfile"),
        "command": STRINGS,
        "user": STRING,
        "profiles": NAMES,
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "init": {"type": "boolean"},
        "read_only": {"type": "boolean"},
        "tmpfs": {"type": "array", "items": {"type": "string", "pattern": "^/"}},
        "cap_drop": NAMES,
        "security_opt": NAMES,
        "mem_limit": {"type": "string", "pattern": SIZE},
        "stop_grace_period": {"type": "string", "pattern": DURATION},
        "networks": NAMES,
        "ports": {"type": "array", "items": {"type": "string"}},
        "volumes": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+:/"}},
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "secrets": NAMES,
        "configs": {
            "type": "array",
            "items": _object({"source": STRING, "target": STRING}, "source", "target"),
        },
        "depends_on": _named(
            _object(
                {
                    "condition": {
                        "enum": [
                            "service_started",
                            "service_healthy",
                            "service_completed_successfully",
                        ]
                    }
                },
                "condition",
            )
        ),
        "healthcheck": HEALTHCHECK,
        "logging": _object(
            {
                "driver": STRING,
                "options": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "driver",
        ),
    },
    "image",
    "restart",
    "mem_limit",
    "stop_grace_period",
    "security_opt",
    "networks",
    "logging",
)

COMPOSE: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": _named(SERVICE),
        "networks": _named(_object({"internal": {"type": "boolean"}})),
        "volumes": _named(_object({})),
        "configs": _named(_object({"file": STRING}, "file")),
        "secrets": _named(_object({"file": STRING}, "file")),
    },
    "patternProperties": {"^x-": {}},
    "required": ["name", "services", "networks", "volumes", "configs", "secrets"],
    "additionalProperties": False,
}
