"""The run tree as a picture: the root, its four parts and what is below them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from provenance.report.template import fill

WIDTH: Final = 960
_BOX: Final = (200, 44)
_ROWS: Final = (10, 94, 168)
_STEP: Final = 54
MAX_BELOW: Final = 4
"""Boxes below one part; of more, the first two, how many are between, and the last."""


class Box(NamedTuple):
    """One box: its place in pixels, two lines of text, and what it hangs on."""

    x: float
    y: float
    label: str
    digest: str
    bad: bool
    parent: tuple[float, float] | None


def tree_picture(tree: Mapping[str, Any], bad_paths: Collection[str]) -> str:
    """An SVG of a tree as ``MLProvenanceMerkleTree.as_dict`` gives it; nodes at ``bad_paths`` are
    marked."""
    width, parts = _BOX[0], tree["children"]
    top = (WIDTH - width) / 2
    boxes = [Box(top, _ROWS[0], "run root", tree["value"], "" in bad_paths, None)]
    hook = (WIDTH / 2, _ROWS[0] + _BOX[1])
    for at, part in enumerate(parts):
        x = (WIDTH / len(parts)) * (at + 0.5) - width / 2
        bad = part["path"] in bad_paths
        boxes.append(Box(x, _ROWS[1], part["label"], part["value"], bad, hook))
        below = part.get("children", ())
        for row, (label, digest, doubtful) in enumerate(_below(below, bad_paths)):
            place = (x + 10, _ROWS[2] + _STEP * row - 10)
            boxes.append(Box(x + 20, place[1] + 10, label, digest, doubtful, (x + 10, _ROWS[1])))
    height = max(box.y for box in boxes) + _BOX[1] + 10
    return fill("tree.svg.j2", boxes=boxes, width=WIDTH, height=height, box=_BOX, row=_ROWS[1])


def _below(nodes: Any, bad_paths: Collection[str]) -> list[tuple[str, str, bool]]:
    shown = [(_name(node), node["value"], node["path"] in bad_paths) for node in nodes]
    if len(shown) <= MAX_BELOW:
        return shown
    between = shown[2:-1]
    return [*shown[:2], (f"{len(between):,} more", "", any(b[2] for b in between)), shown[-1]]


def _name(node: Mapping[str, Any]) -> str:
    below = node.get("children", ())
    return f"{node['label']} ({len(below)})" if below else str(node["label"])
