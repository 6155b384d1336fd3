"""What tests of deploy/ share: its files, parsed, and the fleet's commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from provenance.app import up
from provenance.settings import NETWORKS, BlockchainSettings, Settings
from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
BASE = Path("/var/lib/provenance")
FLOWER_PORT = 5555
METRICS = "127.0.0.1:9464"

Doc = dict[str, Any]


def compose_file() -> Doc:
    document: Doc = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return document


def kubernetes_files(*folders: str) -> list[Doc]:
    """Every object of these folders (the base, and the example of secrets), out of the lists."""
    found: list[Doc] = []
    k8s = DEPLOY / "k8s"
    paths = [path for folder in folders or ("base", ".") for path in (k8s / folder).glob("*.yaml")]
    for path in sorted(paths):
        if path.name == "kustomization.yaml":
            continue
        for document in yaml.safe_load_all(path.read_text()):
            found += document["items"] if document["kind"] == "List" else [document]
    return found


def deployments() -> list[Doc]:
    return [document for document in kubernetes_files() if document["kind"] == "Deployment"]


def containers() -> list[Doc]:
    return [c for d in deployments() for c in d["spec"]["template"]["spec"]["containers"]]


def pods() -> dict[str, Doc]:
    """The specification of each pod, those of jobs too."""
    found = {}
    for document in kubernetes_files():
        spec = document.get("spec", {})
        template = spec.get("jobTemplate", document)["spec"].get("template") if spec else None
        if template is not None:
            found[document["metadata"]["name"]] = template["spec"]
    return found


def fleet_argv() -> dict[str, list[str]]:
    """What ``provenance up`` runs, with the interpreter's path as an image has it."""
    chain = BlockchainSettings(networks=NETWORKS)
    everything = up.services(Settings(BASE, blockchain=chain), FLOWER_PORT, "", METRICS)
    assert all(service.argv[0] == sys.executable for service in everything)
    return {service.name: ["python", *service.argv[1:]] for service in everything}
