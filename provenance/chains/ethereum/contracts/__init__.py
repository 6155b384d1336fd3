"""The ``MLProvenance`` contract: source, compiled artifact, and how to put it on a chain.

``MLProvenance.json`` is what ``provenance_devnet.contract`` makes of ``MLProvenance.sol``; a test
compiles it again and compares.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

MAX_METADATA_BYTES = 256


@dataclass(frozen=True, slots=True)
class Artifact:
    """The compiled contract. ``deployed_bytecode`` is what lies at its address."""

    abi: tuple[dict[str, Any], ...]
    bytecode: bytes
    deployed_bytecode: bytes
    compiler: str
    evm_version: str
    source_sha256: str


def load_artifact() -> Artifact:
    """Read ``MLProvenance.json`` from the installed package."""
    raw = json.loads((files(__name__) / "MLProvenance.json").read_text("utf-8"))
    return Artifact(
        abi=tuple(raw["abi"]),
        bytecode=bytes.fromhex(raw["bytecode"][2:]),
        deployed_bytecode=bytes.fromhex(raw["deployedBytecode"][2:]),
        compiler=raw["compiler"],
        evm_version=raw["settings"]["evmVersion"],
        source_sha256=raw["sourceSha256"],
    )
