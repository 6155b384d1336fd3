"""``provenance lineage``: what a run comes from, and what came of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.text import Text
from rich.tree import Tree

from provenance import files
from provenance.app.bundle import bundle_at
from provenance.app.runs import evidence_of
from provenance.cli.output import answer, out, print_json, print_text, progress, settings_of
from provenance.errors import FormatError, InputError
from provenance.lineage import export
from provenance.lineage.at_hand import AtHand, hold
from provenance.lineage.claim import is_bundle
from provenance.lineage.graph import NOT_CHECKED, Graph
from provenance.lineage.walk import lineage_graph
from provenance.log import shown


def lineage(arguments: argparse.Namespace) -> int:
    """Print the graph around a run, or write it in another form."""
    settings = settings_of(arguments, secrets=False)
    if arguments.output and arguments.format == "text":
        raise InputError("-o: found no --format, expected html, prov or openlineage with it")
    bundles, models, runs = list[Path](), list[Path](), list[str]()
    for named in arguments.parent or ():
        path = bundle_at(settings, named)
        if path is None:
            runs.append(str(evidence_of(settings, named).run))
        elif isinstance(path, Path) and is_bundle(path):
            bundles.append(path)
        elif isinstance(path, Path):
            models.append(path)
        else:
            raise InputError(f"--parent: found {named}, expected a run, or a path of this machine")
    if models and arguments.model is None:
        raise InputError(f"--parent {models[0]}: found a model, expected --model FILE beside it")
    with progress() as bars:
        task = bars.add_task("verifying", total=None)
        graph, reports = lineage_graph(
            settings, arguments.subject, bundles, lambda: bars.advance(task)
        )
        graph = graph.expecting(runs)
        held = None
        if arguments.model is not None:
            bars.update(task, description="comparing weights")
            try:
                held = hold(reports, graph.subject, Path(arguments.model), models)
            except FormatError as error:
                raise InputError(str(error)) from error
    code = 1 if held is not None and held.problems else graph.exit_code
    if arguments.format == "text":
        document = {**graph.as_dict(), "models": held and held.as_dict(), "exit_code": code}
        if arguments.json:
            print_json(document)
        else:
            _print(graph, held)
        return code
    if arguments.format == "html":
        text = export.html(graph, held)
    else:
        write = {"prov": export.prov_json, "openlineage": export.openlineage}[arguments.format]
        text = write(graph)
    if arguments.output:
        path = Path(arguments.output)
        with files.errors_of(path, "written"):
            files.replace(path, text.encode(), files.PUBLIC)
        written = {"path": str(path), "bytes": len(text.encode()), "exit_code": code}
        answer(arguments, written, str(path))
    elif arguments.json:
        print_json({"format": arguments.format, "text": text, "exit_code": code})
    else:
        print_text(text)
    return code


def _print(graph: Graph, held: AtHand | None) -> None:
    tree = Tree(_node(graph, graph.subject))
    for name, edges, other in (
        ("comes from", graph.parents, "parent"),
        ("what came of it", graph.children, "child"),
    ):
        if edges(graph.subject):
            _grow(tree.add(name), graph, graph.subject, other, ())
    for rank, number, line in graph.nodes[graph.subject].resumed:
        tree.add(Text(f"rank {rank}, process {number} after {number - 1}: {shown(line)}"))
    out.print(tree)
    if held is not None:
        for line in (*held.ties, *held.shown):
            out.print(line)
    for line in (*graph.problems, *(held.problems if held is not None else ())):
        out.print(f"FOUND {line}")
    out.print(f"not checked: {NOT_CHECKED}")


def _grow(tree: Tree, graph: Graph, run: str, other: str, above: tuple[str, ...]) -> None:
    """Add the parents (or children) of a run, and theirs; a circle is gone round once."""
    for edge in graph.parents(run) if other == "parent" else graph.children(run):
        of = getattr(edge, other)
        branch = tree.add(_node(graph, of))
        lines = [edge.line] if edge.tensors is None else [edge.line, edge.tensors.line]
        for line in lines:
            branch.add(Text(shown(line)))
        if of not in above:
            _grow(branch, graph, of, other, (*above, run))


def _node(graph: Graph, name: str) -> Text:
    own = graph.nodes[name]
    label = f"{own.kind} {own.id}" + (f" ({own.name})" if own.name else "")
    withheld = "its configuration is withheld, which names its parents" if own.withheld else ""
    more = ", ".join(part for part in (own.state, own.outcome, withheld) if part)
    return Text(shown(f"{label}: {more}" if more else label))
