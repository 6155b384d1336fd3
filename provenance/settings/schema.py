"""JSON Schema of a configuration: ``python -m provenance.settings.schema`` prints it.

``docs/schemas/settings.json`` is that output; a test holds the two together. The schema says
what msgspec checks: keys, types, bounds. What takes more than one key, or the environment,
:func:`provenance.settings.load` alone refuses.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from msgspec.json import schema_components

from provenance.settings.approvals import ApprovalSettings, TrustedIdentity
from provenance.settings.beyond.host import HostSettings, TpmSettings
from provenance.settings.multisig import BitcoinMultisig, EthereumMultisig, TrustedMultisig
from provenance.settings.reading import NOT_IN_JSON, SECTIONS, TABLE
from provenance.settings.section import Section
from provenance.settings.values import (
    ArchiveSettings,
    BlockchainSettings,
    CommitmentSettings,
    IdentitySettings,
    OnChainSettings,
    Settings,
    TeamSettings,
    TrustedChains,
    TrustedContract,
    TrustedWitnesses,
    TrustSettings,
    VerificationSettings,
    WebhookSettings,
    WeightSettings,
)

TRUST: tuple[type[Section], ...] = (
    TrustSettings,
    TrustedContract,
    TrustedChains,
    TrustedIdentity,
    TrustedMultisig,
    TrustedWitnesses,
    EthereumMultisig,
    BitcoinMultisig,
)


def settings_schema() -> dict[str, Any]:
    """The schema, draft 2020-12; further keys of the top level are the trainer's."""
    _, parts = schema_components(
        [Settings],
        schema_hook=lambda kind: {"type": "string"},
        ref_template="#/$defs/{name}",
    )
    sections: list[type[Section]] = [
        Settings, WeightSettings, CommitmentSettings, BlockchainSettings, IdentitySettings,
        VerificationSettings, WebhookSettings, OnChainSettings, ArchiveSettings, TeamSettings,
        ApprovalSettings, HostSettings, TpmSettings,
        *SECTIONS.values(), *TRUST,
    ]  # fmt: skip
    for cls in sections:
        part = parts[cls.__name__]
        properties = part["properties"]
        for name in NOT_IN_JSON:
            properties.pop(name, None)
        properties |= {alias: properties[name] for alias, name in cls.ALIASES.items()}
        for name, schema in properties.items():
            schema = {k: v for k, v in schema.items() if k != "default" or v not in ("", None)}
            if {"type": "null"} not in schema.get("anyOf", ()):  # null reads as absent
                schema = {"anyOf": [schema, {"type": "null"}]}
            properties[name] = schema
        part["patternProperties"] = {r"^(_comment|\$schema)": {}}
        del part["title"]
        part.pop("required", None)
        if "url" in properties:
            urls = [alias for alias, name in cls.ALIASES.items() if name == "url"]
            part["oneOf"] = [{"required": [name]} for name in ("url", *urls)]
    whole = parts.pop("Settings")
    whole["additionalProperties"] = True
    whole["properties"][TABLE] = {"$ref": "#"}  # or a hyperparameter of that name
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of ml-provenance",
        **whole,
        "$defs": parts,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(settings_schema(), indent=2) + "\n")
