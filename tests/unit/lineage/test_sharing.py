"""Which tensors a child has of its parent, from the bundles of both: ours and the stranger's."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MemorySource
from provenance.bundle.writer import bundle_files
from provenance.evidence.sharing import sharing, state_at
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.record import Kind
from provenance.verify.report import VerificationReport
from tests.support.beyond.lineage_world import (
    CHILD,
    adapted,
    base,
    family,
    fields_of,
    named,
    story,
    wrapped,
)
from tests.support.stranger import load
from tests.support.verify_world import RUN, World

BASE = base()
TUNED = {**BASE, "fc.bias": BASE["fc.bias"] + 1, "out.weight": BASE["out.weight"] * 2}
ZERO = {name: value * 0 for name, value in BASE.items()}
HALF = {name: value.astype("f2") for name, value in BASE.items()}
CLASSES = ("equal", "changed", "retyped", "reshaped", "renamed", "added", "removed")


STRANGER = load()


@pytest.fixture
def stranger() -> ModuleType:
    return STRANGER


def held(world: World) -> VerificationReport:
    """The child's bundle, as an auditor reads it, against the parent's."""
    parent, child = (
        read_bundle(MemorySource(bundle_files(world.evidence(run)), "b")) for run in (RUN, CHILD)
    )
    return world.verify(child, parent=world.verify(parent))


def by_stranger(stranger: ModuleType, world: World) -> str:
    """The stranger's line, or its problem."""
    parent, child = (stranger.Bundle(bundle_files(world.evidence(run))) for run in (RUN, CHILD))
    assert (child.problems, parent.problems) == ([], [])
    try:
        return str(stranger.check_parent(child, parent))
    except ValueError as error:
        return f"refused: {error}"


def counts(report: VerificationReport) -> str:
    """Our tensors in the stranger's words."""
    assert report.lineage is not None
    found = report.lineage.tensors
    assert found is not None
    assert found.problem is None
    numbers = ", ".join(f"{len(getattr(found, name))} {name}" for name in CLASSES)
    return f"parent: {numbers}, {len(found.adapters)} of an adapter"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "claim", "line"),
    [
        ([BASE, TUNED], {}, "1 of 3 tensors are the parent's, bit for bit, 2 changed"),
        ([BASE], {}, "all 3 tensors of the parent are there, bit for bit"),
        (
            [adapted(BASE)],
            {"role": "adapter-of"},
            "all 3 tensors of the parent are there, bit for bit, 2 adapter tensors new",
        ),
        (
            [HALF],
            {"role": "quantised"},
            "0 of 3 tensors are the parent's, bit for bit, 3 of the same shape in another type "
            "(F32 -> F16)",
        ),
        (
            [
                {
                    "fc.bias": BASE["fc.bias"],
                    "fc.weight": BASE["fc.weight"][:2],
                    "head": BASE["fc.bias"],
                }
            ],
            {},
            "1 of 3 tensors are the parent's, bit for bit, 1 of another shape, 1 not there, 1 new",
        ),
    ],
)
def test_what_a_child_shares_is_told_tensor_by_tensor(
    stranger: ModuleType, ours: list[Any], claim: dict[str, Any], line: str
) -> None:
    world = family([ZERO, BASE], ours, named(**claim))
    report = held(world)
    told = [notice.problem for notice in report.notices if notice.subject == "parent's tensors"]
    state = "before training" if len(ours) == 1 else "epoch 1"
    assert told == [f"tensor by tensor, {state} against epoch 1 of the parent: {line}"]
    assert report.findings == ()
    assert by_stranger(stranger, world) == counts(report)


@st.composite
def states(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The tensors of a record: a few names, some of shards, with a few digests and aliases."""
    found = []
    for name in draw(st.lists(st.sampled_from("abcde"), min_size=1, unique=True)):
        size, digest = draw(st.integers(1, 2)), draw(st.sampled_from("01"))
        tensor: dict[str, Any] = {
            "name": name,
            "dtype": draw(st.sampled_from(["F32", "I8"])),
            "shape": [size],
            "digest": f"sha256:{digest * 64}",
        }
        if draw(st.booleans()):
            tensor["aliases"] = draw(st.lists(st.sampled_from("abcde"), max_size=2))
        if draw(st.integers(0, 4)) == 0:
            tensor["shard"] = {"global_shape": [4], "offset": [draw(st.integers(0, 1))]}
        found.append(tensor)
    return found


def plain(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "dtype": "F32", "shape": [1], "digest": f"sha256:{'0' * 64}", **more}


@pytest.mark.slow
@given(states(), states())
@example(
    [plain("a")],
    [
        plain("b", aliases=["a"], shard={"global_shape": [4], "offset": [0]}),
        plain("c", aliases=["a"], dtype="I8"),
        plain("d", aliases=["a"]),
    ],
)  # the first that it could be by name is none by shape or type
def test_the_stranger_finds_what_we_find_in_any_two_states(
    child: list[dict[str, Any]], parent: list[dict[str, Any]]
) -> None:
    lineage = STRANGER.check_parent.__globals__
    bundles, ours = [], []
    for tensors in (child, parent):
        record = {"path": "model/weights/0", "kind": "model.weights", "epoch": None, "rank": 0}
        run = {"records": [{**record, "ts": "", "producer": "", "seq": 0}]}
        bodies = {"model/weights/0": {"tensors": tensors}}
        bundles.append(SimpleNamespace(run=run, bodies=bodies))
        event = Event(0, Kind.WEIGHTS, None, 0, 0, {"tensors": tensors})
        header = SegmentHeader(RUN, bytes(16), 0, 1, 0)
        ours.append(state_at([record_of(event, header, bytes(32))], None))
    found = sharing(ours[0], ours[1], "", "")
    assert found is not None
    try:
        theirs = lineage["shared"](*(lineage["state_at"](bundle, None) for bundle in bundles))
    except ValueError:
        assert found.problem is not None
        return
    assert [len(getattr(found, kind)) for kind in CLASSES] == [*map(len, theirs.values())]
    for kind in ("equal", "changed", "retyped", "reshaped") if not sharded(child, parent) else ():
        assert list(getattr(found, kind)) == theirs[kind]


def sharded(*states: list[dict[str, Any]]) -> bool:
    """Whether one has shards, whose names the two programs write in their own ways."""
    return any("shard" in tensor for state in states for tensor in state)


@pytest.mark.slow
def test_an_adapter_whose_base_is_the_parents_matches() -> None:
    report = held(family([BASE, TUNED], [adapted(TUNED)], named(role="adapter-of")))
    assert (report.outcome, report.findings) == ("verified", ())
    assert report.lineage is not None
    assert report.lineage.line.startswith(
        f"is an adapter of run {RUN} at epoch 1: the initial weights have all its tensors"
    )
    assert report.as_dict()["parent"]["tensors"]["adapters"] == (
        "fc.lora_A.default.weight", "fc.lora_B.default.weight",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "theirs", "line"),
    [
        (wrapped(TUNED), TUNED, "1 of 3 tensors are the parent's, bit for bit, 2 under another"),
        (
            wrapped({"fc.bias": BASE["fc.bias"]}),
            {"fc.bias": BASE["fc.bias"]},
            "none of the parent's 1 tensors is there under its own name, 1 under another name",
        ),
    ],
)
def test_tensors_under_an_adapters_names_contradict_nothing(
    stranger: ModuleType, ours: Any, theirs: Any, line: str
) -> None:
    world = family([BASE, theirs], [ours], named(role="fine-tuned"))
    report = held(world)
    assert (report.outcome, report.findings) == ("anchored", ())
    assert report.lineage is not None
    assert report.lineage.line.startswith(
        f"says that it is fine-tuned from run {RUN}; its initial weights cannot be compared by "
        f"name with those of that run: {len(theirs) - (len(theirs) > 1)} of {len(theirs)} tensors "
        "stand under another name; of an adapter's training the role is adapter-of"
    )
    told = [notice.problem for notice in report.notices if notice.subject == "parent's tensors"]
    assert line in told[0]
    assert by_stranger(stranger, world) == counts(report)


def test_a_parent_that_names_its_child_is_a_finding(stranger: ModuleType) -> None:
    in_turn = {"run": str(CHILD), "epoch": None}
    world = family([ZERO, BASE], [BASE], named(), of_parent=in_turn)
    (finding,) = held(world).findings
    assert finding.problem == (
        f"run {RUN} names this run as a parent in turn: the claims go in a circle"
    )
    assert by_stranger(stranger, world) == "refused: the claims go in a circle"


MODEL = {"model": "hf:a/b@" + "0" * 40, "algorithm": "blake3", "weights": f"mth-sha256:{'1' * 64}"}


@pytest.mark.parametrize(
    ("parent", "line", "strangers"),
    [
        (
            named(role="cousin"),
            "parent.role: found 'cousin', expected one of continues, ",
            "a role",
        ),
        (named(root="5" * 63), "parent.root: found '5", "no run root"),
        ({**MODEL, "role": "cousin"}, "parent.role: found 'cousin'", "a role that is none"),
        ({**MODEL, "weights": "1" * 64}, "parent.weights: found '1", "no root of weights"),
        ({**MODEL, "model": "\n"}, "parent.model: found '\\\\n', expected a name", "no name"),
        ({**MODEL, "more": 1}, "parent.more: unknown key", "other keys of a parent"),
        ([named()] * 65, "parent: found 65 parents, expected 64", "too many parents"),
    ],
)
def test_a_claim_of_another_form_leaves_the_check_open(
    stranger: ModuleType, parent: Any, line: str, strangers: str
) -> None:
    world = family([ZERO, BASE], [BASE], parent)
    report = world.verify(world.evidence(CHILD))
    assert report.findings == ()
    (told,) = (m for m in report.verdict.missing if "training/config" in m)
    assert line.replace("\\\\", "\\") in told
    assert strangers in by_stranger(stranger, world)


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        (fields_of(BASE)["root"], ", which are its initial weights"),
        (fields_of(TUNED)["root"], ""),
    ],
)
def test_a_model_that_is_named_is_told_with_its_weights(weights: str, line: str) -> None:
    world = family([BASE], [BASE], {**MODEL, "weights": weights, "role": "fine-tuned"})
    told = [n.problem for n in world.verify(world.evidence(CHILD)).notices if n.subject == "parent"]
    says = f"says that it is fine-tuned from the model {MODEL['model']!r} with weights {weights}"
    assert told == [says + line]


def test_digests_by_two_algorithms_are_not_compared(stranger: ModuleType) -> None:
    world = family([ZERO, BASE], [BASE], named(epoch=1), algorithm="sha256")
    report = held(world)
    assert report.lineage is not None
    assert report.lineage.tensors is not None
    assert report.lineage.tensors.problem == "their digests are by sha256 and blake3"
    assert by_stranger(stranger, world) == "refused: no digests of one algorithm"


def test_other_names_of_a_tensor_are_told_and_prove_nothing() -> None:
    world = World(("bitcoin",))
    world.ingest(world.batch(story([ZERO, BASE])))
    ours = story([{"net.bias": BASE["fc.bias"]}], named())
    ours[3][2]["tensors"][0]["aliases"] = ["fc.bias"]
    world.ingest(world.batch(ours, run=CHILD, producer=b"c" * 16))
    world.anchor()
    report = held(world)
    assert report.lineage is not None
    assert report.lineage.tensors is not None
    assert report.lineage.tensors.renamed == ("net.bias",)
    assert "1 under another name, not compared" in report.lineage.tensors.line
