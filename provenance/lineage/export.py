"""The graph as a page, and in other people's words: W3C PROV as PROV-JSON, OpenLineage events.

Sources: PROV-JSON, W3C Member Submission of 24 April 2013
(https://www.w3.org/submissions/2013/SUBM-prov-json-20130424/); OpenLineage 2-0-2
(https://openlineage.io/spec/2-0-2/OpenLineage.json) with its facets ParentRunFacet 1-0-1 and
DatasetVersionDatasetFacet 1-0-1. Both say what the records say; neither is signed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from provenance.lineage.at_hand import AtHand
from provenance.lineage.graph import NOT_CHECKED, Edge, Graph, Node
from provenance.report.template import fill

HERE: Final = Path(__file__).resolve().parent

NAMESPACE: Final = "urn:ml-provenance:lineage:v1#"
PRODUCER: Final = "urn:ml-provenance"
SPEC: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS: Final = "https://openlineage.io/spec/facets/1-0-1/"
_EVENTS: Final = {
    "finished": "COMPLETE", "pruned": "COMPLETE", "closed": "COMPLETE", "failed": "FAIL",
    "interrupted": "ABORT", "running": "RUNNING",
}  # fmt: skip
"""Its event by how a training ended, as its records say; OTHER where they do not."""


def html(graph: Graph, held: AtHand | None) -> str:
    """One HTML page: style inside, no script, nothing loaded."""
    problems = [*graph.problems, *(held.problems if held is not None else ())]
    values = {"graph": graph, "held": held, "problems": problems, "not_checked": NOT_CHECKED}
    return fill("page.html.j2", HERE, **values)


def prov_json(graph: Graph) -> str:
    """The graph as one PROV-JSON document: a run is an activity, and so is each process that
    went on with it; weights and datasets are entities; a claim is a derivation between weights, and
    a communication between runs."""
    document: dict[str, Any] = {
        "prefix": {"mlp": NAMESPACE, "run": "urn:uuid:", "weights": f"{NAMESPACE}weights/"},
        **{kind: {} for kind in ("entity", "activity", "used", "wasGeneratedBy")},
        **{kind: {} for kind in ("wasDerivedFrom", "wasInformedBy")},
    }
    for node in graph.nodes.values():
        own = _weights(node)
        document["entity"][own] = _filled(
            {"prov:label": node.name or node.id, "mlp:digest": node.weights}
        )
        if node.kind == "model":
            continue
        run = f"run:{node.id}"
        about = {"prov:label": node.name, "mlp:state": node.state, "mlp:root": node.root}
        times = {"prov:startTime": node.began, "prov:endTime": node.ended}
        document["activity"][run] = _filled({**times, **about, "mlp:verified": node.outcome})
        document["wasGeneratedBy"][f"_:g{_number(document)}"] = {
            "prov:entity": own,
            "prov:activity": run,
        }
        for path, root in node.data.items():
            name = f"mlp:data/{root.replace(':', '-')}"
            document["entity"][name] = {"prov:label": path, "mlp:digest": root}
            document["used"][f"_:u{_number(document)}"] = {
                "prov:activity": run,
                "prov:entity": name,
            }
        for rank, number, line in node.resumed:
            before, now = (f"{run}.rank-{rank}.process-{at}" for at in (number - 1, number))
            document["activity"].setdefault(before, {})
            document["activity"][now] = {"prov:label": line}
            _informed(document, now, before)
    for edge in graph.edges:
        parent = graph.nodes[edge.parent]
        about = _filled({"mlp:role": edge.role, "mlp:matches": edge.matches, "mlp:says": edge.line})
        document["wasDerivedFrom"][f"_:d{_number(document)}"] = {
            "prov:generatedEntity": _weights(graph.nodes[edge.child]),
            "prov:usedEntity": _weights(parent),
            **about,
        }
        if parent.kind == "run":
            _informed(document, f"run:{edge.child}", f"run:{edge.parent}")
    kept = {kind: own for kind, own in document.items() if own}
    return json.dumps(kept, indent=2, sort_keys=True) + "\n"


def _informed(document: dict[str, Any], later: str, earlier: str) -> None:
    relation = {"prov:informed": later, "prov:informant": earlier}
    document["wasInformedBy"][f"_:i{_number(document)}"] = relation


def openlineage(graph: Graph) -> str:
    """The runs whose records are here as OpenLineage events, one a line: inputs are datasets and
    the parents' weights, the output is a run's own."""
    runs = (node for node in graph.nodes.values() if node.ended is not None)
    return "".join(json.dumps(_event(graph, node), sort_keys=True) + "\n" for node in runs)


def _event(graph: Graph, node: Node) -> dict[str, Any]:
    parents = graph.parents(node.id)
    facets = {}
    continued = next((e for e in parents if graph.nodes[e.parent].kind == "run"), None)
    if continued is not None:
        facets["parent"] = _parent(graph, continued)
    inputs = [_dataset(f"{node.id}/{path}", root) for path, root in node.data.items()]
    inputs += [_model(graph.nodes[edge.parent]) for edge in parents]
    return {
        "eventType": _EVENTS.get(node.state, "OTHER"),
        "eventTime": node.ended,
        "producer": PRODUCER,
        "schemaURL": SPEC,
        "run": {"runId": node.id, "facets": facets},
        "job": {"namespace": PRODUCER, "name": node.name or node.id, "facets": {}},
        "inputs": inputs,
        "outputs": [_model(node)],
    }


def _parent(graph: Graph, edge: Edge) -> dict[str, Any]:
    return {
        "_producer": PRODUCER,
        "_schemaURL": f"{_FACETS}ParentRunFacet.json#/$defs/ParentRunFacet",
        "run": {"runId": edge.parent},
        "job": {"namespace": PRODUCER, "name": graph.nodes[edge.parent].name or edge.parent},
    }


def _model(node: Node) -> dict[str, Any]:
    return _dataset(f"{node.id}/weights" if node.kind == "run" else node.id, node.weights)


def _dataset(name: str, root: str | None) -> dict[str, Any]:
    facet = f"{_FACETS}DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"
    version = {"_producer": PRODUCER, "_schemaURL": facet, "datasetVersion": root}
    facets = {} if root is None else {"version": version}
    return {"namespace": PRODUCER, "name": name, "facets": facets}


def _weights(node: Node) -> str:
    """A qualified name, of characters that one may have."""
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in "-._/" else "-" for c in node.id)
    return f"weights:{plain}"


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _number(document: dict[str, Any]) -> int:
    """Of the next relation: how many there are."""
    return sum(len(own) for kind, own in document.items() if kind != "prefix")
