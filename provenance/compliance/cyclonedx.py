"""CycloneDX 1.6 ML-BOM: the model, what it was trained and tested on, and with which packages.

https://cyclonedx.org/docs/1.6/json/. The library writes all but ``modelCard`` and ``data``, which
it does not know. A root of section 3 (docs/FORMAT.md) is no file's hash, so that it is a property;
a ``hash`` is of a record's file, or of an artifact that the run digested as one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from provenance.compliance.materials import PREFIX, Material, Materials
from provenance.errors import MissingExtraError
from provenance.report.html import version

try:
    from cyclonedx.model import (
        ExternalReference,
        ExternalReferenceType,
        HashAlgorithm,
        HashType,
        Property,
        XsUri,
    )
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType, Pedigree
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL
except ImportError as error:
    raise MissingExtraError("cyclonedx-python-lib", "compliance") from error

_HASHES: Final = {
    "sha256": HashAlgorithm.SHA_256,
    "sha512": HashAlgorithm.SHA_512,
    "sha3-256": HashAlgorithm.SHA3_256,
    "blake2b": HashAlgorithm.BLAKE2B_512,
    "blake3": HashAlgorithm.BLAKE3,
}
_MODEL: Final = "model"


def cyclonedx(materials: Materials) -> bytes:
    """The document; the same for the same evidence."""
    datasets = [*materials.train, *materials.test]
    model = Component(
        name=materials.name,
        version=materials.seal.root.hex(),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_MODEL,
        properties=_properties(materials.properties),
        external_references=[_evidence(each) for each in (*materials.initial, *materials.weights)],
        pedigree=None
        if materials.parent is None
        else Pedigree(
            ancestors=[_component(materials.parent, ComponentType.MACHINE_LEARNING_MODEL)]
        ),
    )
    data = [_content(each, ComponentType.DATA) for each in datasets]
    files = [_content(each, ComponentType.FILE) for each in materials.artifacts]
    packages = [
        Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"package/{name}",
            purl=PackageURL("pypi", None, name, version),
        )
        for name, version in materials.packages.items()
    ]
    tool = Component(name="ml-provenance", version=version(), type=ComponentType.APPLICATION)
    bom = Bom(
        serial_number=materials.uuid("cyclonedx"),
        metadata=BomMetaData(component=model, tools=[], timestamp=materials.when),
        components=[*data, *files, *packages],
    )
    bom.metadata.tools.components.add(tool)
    bom.register_dependency(model, [*data, *packages])
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"]["component"]["modelCard"] = _model_card(materials, datasets)
    for component in document.get("components", ()):
        if component["type"] == "data":
            component["data"] = [{"type": "dataset", "name": component["name"]}]
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _model_card(materials: Materials, datasets: Sequence[Material]) -> dict[str, Any]:
    parameters: dict[str, Any] = {"datasets": [{"ref": each.path} for each in datasets]}
    body = materials.architecture.body if materials.architecture else {}
    if isinstance(body.get("class"), str):
        parameters["modelArchitecture"] = body["class"]
    card: dict[str, Any] = {"modelParameters": parameters}
    if materials.results:
        metrics = [{"type": name, "value": text} for name, text in materials.results.items()]
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    named = {f"{PREFIX}hyperparameter:{k}": v for k, v in materials.hyperparameters.items()}
    for each in materials.weights:
        named[f"{PREFIX}weights:{each.path}"] = each.root or "not stated"
    for each in materials.initial:
        named[f"{PREFIX}initial-weights:{each.path}"] = each.root or "not stated"
    card["properties"] = [{"name": name, "value": value} for name, value in named.items()]
    return card


def _component(name: str, kind: ComponentType) -> Component:
    return Component(name=name, type=kind, bom_ref=f"parent/{name}")


def _content(material: Material, kind: ComponentType) -> Component:
    digest = material.digest
    named = {f"{PREFIX}root": material.root or "not stated"}
    named |= {
        f"{PREFIX}{key}": str(material.body[key])
        for key in ("kind", "count", "bytes", "name")
        if key in material.body
    }
    return Component(
        name=material.path,
        type=kind,
        bom_ref=material.path,
        hashes=[HashType(alg=_HASHES[digest.algorithm], content=digest.value.hex())]
        if digest
        else [],
        properties=_properties(named),
        external_references=[_evidence(material)],
    )


def _evidence(material: Material) -> ExternalReference:
    """The record's file in a bundle."""
    return ExternalReference(
        type=ExternalReferenceType.EVIDENCE,
        url=XsUri(material.file),
        comment=f"record in the run's bundle; content {material.root or 'without a digest'}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=material.sha256)],
    )


def _properties(named: Mapping[str, str]) -> list[Property]:
    return [Property(name=name, value=value) for name, value in named.items()]
