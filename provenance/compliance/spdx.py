"""SPDX 3.0.1 with the AI and Dataset profiles, as JSON-LD by SPDX's own bindings.

https://spdx.github.io/spdx-spec/v3.0.1/. What the profiles ask for and no record has is said to be
unknown, in SPDX's words: ``NOASSERTION``, or an agent of that name. Times are those of the run's
records, which are claims. A root of section 3 (docs/FORMAT.md) is a hash of the algorithm
``other``: no file has it as its hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from provenance.compliance.materials import Material, Materials
from provenance.errors import MissingExtraError
from provenance.report.html import version

try:
    from spdx_python_model import v3_0_1 as spdx
except ImportError as error:
    raise MissingExtraError("spdx-python-model", "compliance") from error

_ALGORITHMS: Final = {
    "sha256": spdx.HashAlgorithm.sha256,
    "sha512": spdx.HashAlgorithm.sha512,
    "sha3-256": spdx.HashAlgorithm.sha3_256,
    "blake2b": spdx.HashAlgorithm.blake2b512,
    "blake3": spdx.HashAlgorithm.blake3,
}
_UNKNOWN: Final = "NOASSERTION"


class _Document:
    """Elements of one document, named below one URN."""

    def __init__(self, materials: Materials) -> None:
        self.materials = materials
        self.space = f"urn:uuid:{materials.uuid('spdx')}#"
        self.elements = spdx.SHACLObjectSet()
        self.info = spdx.CreationInfo(_id="_:creation", created=materials.when, specVersion="3.0.1")
        self.elements.add(self.info)
        tool = self.add("tool", spdx.Tool, name=f"ml-provenance {version()}")
        self.unknown = self.add("agent", spdx.Agent, name=_UNKNOWN)
        self.info.createdBy = [self.unknown._id]
        self.info.createdUsing = [tool._id]

    def add(self, what: str, kind: Any, **values: Any) -> Any:
        """An element; lists and references are as the bindings take them."""
        element = kind(_id=self.space + what, creationInfo=self.info)
        for name, value in values.items():
            setattr(element, name, value)
        return self.elements.add(element)

    def relate(self, source: Any, kind: str, targets: Iterable[Any]) -> None:
        """A relationship to all of them; none where there are none."""
        named = [target._id for target in targets]
        if named:
            self.add(
                f"{kind}",
                spdx.Relationship,
                from_=source._id,
                to=named,
                relationshipType=getattr(spdx.RelationshipType, kind),
                completeness=spdx.RelationshipCompleteness.noAssertion,
            )

    def package(self, what: str, kind: Any, name: str, version: str, **values: Any) -> Any:
        """A model or a data set, with what their profiles ask of each."""
        return self.add(
            what,
            kind,
            name=name,
            suppliedBy=self.unknown._id,
            originatedBy=[self.unknown._id],
            builtTime=self.materials.when,
            releaseTime=self.materials.when,
            software_downloadLocation=f"urn:uuid:{self.materials.run}",
            software_packageVersion=version,
            **values,
        )

    def dataset(self, material: Material) -> Any:
        """A data set, by its record."""
        count = material.body.get("count")
        size = count if isinstance(count, int) and count >= 0 else None
        return self.package(
            f"record/{material.path}",
            spdx.dataset_DatasetPackage,
            material.path,
            material.root or _UNKNOWN,
            comment=_record(material),
            verifiedUsing=_hashes(material),
            software_primaryPurpose=spdx.software_SoftwarePurpose.data,
            dataset_datasetType=[spdx.dataset_DatasetType.noAssertion],
            **({} if size is None else {"dataset_datasetSize": size}),
        )


def spdx3(materials: Materials) -> bytes:
    """The document; the same for the same evidence."""
    made = _Document(materials)
    model = made.package(
        "model",
        spdx.ai_AIPackage,
        materials.name,
        materials.seal.root.hex(),
        comment="The version is the run's root, the download location its id; the times are its "
        f"last record's, by the trainer's clock. {' '.join(map(_record, materials.weights))}",
        software_primaryPurpose=spdx.software_SoftwarePurpose.model,
        ai_hyperparameter=_entries(materials.hyperparameters),
        ai_metric=_entries(materials.results),
        ai_informationAboutTraining=json.dumps(dict(materials.properties), sort_keys=True),
        verifiedUsing=[h for each in materials.weights for h in _hashes(each)],
    )
    architecture = materials.architecture.body.get("class") if materials.architecture else None
    if isinstance(architecture, str) and architecture:
        model.ai_typeOfModel = [architecture]
    train = [made.dataset(each) for each in materials.train]
    test = [made.dataset(each) for each in materials.test]
    packages = [
        made.add(
            f"package/{name}",
            spdx.software_Package,
            name=name,
            software_packageVersion=version,
            software_packageUrl=f"pkg:pypi/{name.lower()}@{version}",
        )
        for name, version in materials.packages.items()
    ]
    made.relate(model, "trainedOn", train)
    made.relate(model, "testedOn", test)
    made.relate(model, "dependsOn", packages)
    if materials.parent is not None:
        parent = made.package(
            "parent", spdx.ai_AIPackage, materials.parent, _UNKNOWN,
            software_primaryPurpose=spdx.software_SoftwarePurpose.model,
        )  # fmt: skip
        made.relate(parent, "ancestorOf", [model])
    members = [str(e.spdxId) for e in made.elements.foreach_type(spdx.Element)]
    profiles = spdx.ProfileIdentifierType
    made.add(
        "document",
        spdx.SpdxDocument,
        name=f"run {materials.run}",
        rootElement=[model._id],
        element=sorted(members),
        profileConformance=[profiles.core, profiles.software, profiles.ai, profiles.dataset],
    )
    document = spdx.JSONLDSerializer().serialize_data(made.elements, force_at_graph=True)
    document["@graph"].sort(key=lambda each: str(each.get("spdxId", each.get("@id"))))
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _entries(named: Mapping[str, str]) -> list[Any]:
    return [spdx.DictionaryEntry(key=key, value=value) for key, value in named.items()]


def _hashes(material: Material) -> Sequence[Any]:
    """Of the content itself."""
    digest = material.digest
    if digest is not None:
        algorithm = _ALGORITHMS[digest.algorithm]
        return [spdx.Hash(algorithm=algorithm, hashValue=digest.value.hex())]
    if material.root is not None:
        return [spdx.Hash(algorithm=spdx.HashAlgorithm.other, hashValue=material.root)]
    return []


def _record(material: Material) -> str:
    return f"Recorded in {material.file}, SHA-256 {material.sha256}."
