"""``provenance lineage`` over one deployment: a base, a fine-tune, an adapter and a merge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from provenance import ProvenanceTracker
from provenance.bundle.writer import write_bundle
from provenance.cli import main
from tests.support.beyond import lineage_forms
from tests.support.beyond.lineage_world import CHILD, adapted, base, named
from tests.support.beyond.lineage_world import family as two_runs
from tests.support.home import brought_home
from tests.support.verify_world import RUN
from tests.vectors.make_golden import RANKS

pytestmark = pytest.mark.slow  # whole commands
BASE = base()
TUNED = {**BASE, "fc.bias": BASE["fc.bias"] + 1}
MERGED = {name: np.float32(0.25) * BASE[name] + np.float32(0.75) * TUNED[name] for name in BASE}
CUT = {name: np.where(abs(value) < 0.5, value * 0, value) for name, value in TUNED.items()}
HALF = {name: value.astype("f2") for name, value in TUNED.items()}
ZEROS = sum(int((own == 0).sum()) for own in CUT.values())
HOSTILE = "<script>alert(1)</script>"
HUB = "hf:org/net@" + "0" * 40


@dataclass(frozen=True)
class Family:
    """Runs by name, and where they lie."""

    place: Path
    runs: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.runs[name]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    place = tmp_path_factory.mktemp("family")
    saved = {"base": BASE, "tuned": TUNED, "merged": MERGED, "cut": CUT, "half": HALF}
    for name, weights in saved.items():
        save_file(weights, place / f"{name}.safetensors")
    pair = {f"base_model.model.{name}": value for name, value in adapted({}).items()}
    save_file(pair, place / "lora.safetensors")
    runs: dict[str, str] = {}

    def run(name: str, states: list[Any], parent: Any = None) -> None:
        tracker = ProvenanceTracker(place, parent=parent, name=name)
        rows = np.arange(12.0).reshape(6, 2)
        tracker.track_data(rows[:4], rows[4:])
        tracker.track_model(states[0])
        for epoch, weights in enumerate(states[1:], 1):
            tracker.track_epoch(epoch, {"loss": 1 / epoch}, model=weights)
        tracker.store_merkle_on_blockchain_after_training({})
        runs[name] = tracker.run_id

    zero = {name: value * 0 for name, value in BASE.items()}
    run("base", [zero, BASE])
    run("tuned", [BASE, TUNED], {"source": runs["base"], "role": "fine-tuned"})
    run(
        "adapter", [adapted(TUNED), adapted(TUNED)], {"source": runs["tuned"], "role": "adapter-of"}
    )
    sources = (runs["base"], place / "tuned.safetensors", HUB)
    run("merge", [MERGED], [{"source": source, "role": "merged"} for source in sources])
    run("half", [HALF], {"source": runs["tuned"], "role": "quantised"})
    run(HOSTILE, [BASE], runs["base"])
    brought_home(place)
    for name in ("base", "tuned"):
        assert (
            main(["bundle", runs[name], "-o", str(place / f"{name}.zip"), "--base-dir", str(place)])
            == 0
        )
    return Family(place, runs)


@pytest.fixture
def told(family: Family, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def command(*words: str, base_dir: Path | None = None) -> tuple[int, str]:
        code = main(["lineage", *words, "--base-dir", str(base_dir or family.place)])
        return code, capsys.readouterr().out

    return command


Told = Callable[..., tuple[int, str]]


def test_the_tree_shows_ancestors_verified_and_descendants_as_they_say(
    family: Family, told: Told
) -> None:
    code, text = told(family["adapter"])
    assert code == 0
    of = f"an adapter of run {family['tuned']} at epoch 1: the initial weights have all its tensors"
    assert of in text
    assert "all 3 tensors of the parent are there, bit for bit, 2 adapter tensors new" in text
    assert f"is fine-tuned from run {family['base']} at epoch 1: initial weights match" in text
    assert "2 of 3 tensors are the parent's, bit for bit, 1 changed" in text
    code, text = told(family["base"])
    assert (code, "comes from" in text) == (0, False)
    for name in ("tuned", "merge", "adapter", HOSTILE):
        assert f"run {family[name]} ({name}): finished" in text
    assert f"says that it is an adapter of run {family['tuned']}" in text


def test_json_has_the_nodes_and_the_edges_with_their_tensors(family: Family, told: Told) -> None:
    code, text = told(family["merge"], "--json")
    document = json.loads(text)
    assert (code, document["exit_code"], document["problems"]) == (0, 0, [])
    own = [edge for edge in document["edges"] if edge["child"] == family["merge"]]
    edges = {edge["parent"]: edge for edge in own}
    assert edges.keys() == {family["base"], "tuned.safetensors", HUB}
    assert {edge["role"] for edge in edges.values()} == {"merged"}
    assert edges[family["base"]]["tensors"]["changed"] == ["fc.bias"]
    nodes = {node["id"]: node for node in document["nodes"]}
    assert nodes[family["base"]]["outcome"] == "consistent"
    assert nodes[HUB]["weights"] is None
    assert nodes["tuned.safetensors"]["weights"].startswith("mth-sha256:")


@pytest.mark.parametrize(
    ("run", "model", "parents", "lines"),
    [
        (
            "merge",
            "merged",
            ["base", "tuned"],
            [
                "merged.safetensors: the weights before training of run ",
                "base.safetensors: the weights of epoch 1 of run ",
                "tuned.safetensors: the weights that the run names as the model tuned.safetensors",
                "merge: 0.25 * A + 0.75 * B: 24 of 24 entries to the bit, 0 within 1 ulp",
            ],
        ),
        (
            "half",
            "half",
            ["tuned"],
            [
                "half.safetensors: the weights before training of run ",
                "tuned.safetensors: the weights of epoch 1 of run ",
                "3 of the same shape in another type (F32 -> F16)",
                "quantised: 24 of 24 entries are the parent's, 24 rounded to the nearest",
            ],
        ),
        ("tuned", "tuned", [], ["2 of 3 tensors are the parent's, bit for bit, 1 changed"]),
        ("tuned", "tuned", ["base"], ["entries: 20 of 24 are the parent's, bit for bit, 0 zero"]),
    ],
)
def test_models_at_hand_are_tied_to_records_first(
    family: Family, told: Told, run: str, model: str, parents: list[str], lines: list[str]
) -> None:
    more = [word for name in parents for word in ("--parent", path(family, name))]
    code, text = told(family[run], "--model", path(family, model), *more)
    assert code == 0
    for line in lines:
        assert line in text


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("cut", f"pruned: {ZEROS} of 24 entries are zero, the others are the parent's"),
        ("lora", "an adapter alone of 2 tensors; of the parent's 3 fit a pair of them: 1"),
    ],
)
def test_a_model_of_no_record_is_told_and_fails(
    family: Family, told: Told, model: str, shown: str
) -> None:
    words = ("--model", path(family, model), "--parent", path(family, "tuned"))
    code, text = told(family["adapter"], *words)
    assert code == 1
    name, run = path(family, model), family["adapter"]
    assert f"FOUND {name}: no record has these weights for those of run {run}" in text
    assert shown in text
    found = json.loads(told(family["adapter"], *words, "--json")[1])
    assert (found["exit_code"], len(found["models"]["problems"])) == (1, 1)


def path(family: Family, name: str) -> str:
    return str(family.place / f"{name}.safetensors")


def test_bundles_alone_give_the_graph_too(family: Family, told: Told, tmp_path: Path) -> None:
    base, tuned = (str(family.place / f"{name}.zip") for name in ("base", "tuned"))
    code, text = told(tuned, "--parent", base, base_dir=tmp_path)
    assert (code, f"run {family['base']} (base): finished, consistent" in text) == (0, True)
    code, text = told(tuned, base_dir=tmp_path)
    assert (code, f"run {family['base']}, which is not known here" in text) == (0, True)
    code, text = told(base, "--parent", tuned, base_dir=tmp_path)
    line = f"FOUND run {family['tuned']} is no ancestor of run {family['base']}"
    assert (code, line in text) == (1, True)


def test_a_process_that_goes_on_is_an_edge(told: Told, tmp_path: Path) -> None:
    code, text = told(str(RANKS), base_dir=tmp_path)
    line = "rank 1, process 2 after 1: was started again at epoch 2"
    assert (code, line in text) == (0, True)
    document = json.loads(told(str(RANKS), "--format", "prov", base_dir=tmp_path)[1])
    (edge,) = document["wasInformedBy"].values()
    run = next(name for name in document["activity"] if "process" not in name)
    assert edge == {
        "prov:informed": f"{run}.rank-1.process-2",
        "prov:informant": f"{run}.rank-1.process-1",
    }
    assert "after process 1: was started again" in told(str(RANKS), "--format", "html")[1]


def test_claims_that_go_in_a_circle_are_told(told: Told, tmp_path: Path) -> None:
    in_turn = {"run": str(CHILD), "epoch": None}
    world = two_runs([TUNED, BASE], [BASE], named(), of_parent=in_turn)
    for run, name in ((RUN, "one"), (CHILD, "two")):
        write_bundle(world.evidence(run), tmp_path / name)
    code, text = told(str(tmp_path / "two"), "--parent", str(tmp_path / "one"), base_dir=tmp_path)
    circle = f"the claims go in a circle: {CHILD} comes from {RUN} comes from {CHILD}"
    assert (code, f"FOUND run {RUN}: {circle}" in text or f"FOUND {circle}" in text) == (1, True)
    html = told(str(tmp_path / "two"), "--parent", str(tmp_path / "one"), "--format", "html")[1]
    assert circle in html


def test_a_claim_in_a_record_that_was_edited_is_none(told: Told, tmp_path: Path) -> None:
    world = two_runs([TUNED, BASE], [BASE], named())
    for run, name in ((RUN, "one"), (CHILD, "two")):
        write_bundle(world.evidence(run), tmp_path / name)
    (config,) = (tmp_path / "two" / "records" / "training").glob("config*")
    config.write_bytes(config.read_bytes().replace(b'"epoch":null,"run"', b'"epoch":1234,"run"'))
    code, text = told(str(tmp_path / "two"), "--parent", str(tmp_path / "one"), base_dir=tmp_path)
    assert (code, f"run {RUN}, in a record that does not hold" in text) == (1, True)
    assert f"FOUND run {CHILD}: (1) {config.name}" in text or "FOUND run" in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--parent", "{base}.safetensors"], "found a model, expected --model FILE beside it"),
        (["--parent", "nowhere"], "nowhere: there is no such file, nor a run of that name"),
        (["--model", "nowhere.npz"], "nowhere.npz"),
        (["--model", "{broken}"], "broken.safetensors': "),
        (["-o", "x"], "-o: found no --format, expected html, prov or openlineage with it"),
    ],
)
def test_a_mistake_is_one_line(
    family: Family, told: Told, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (family.place / "broken.safetensors").write_bytes(bytes(3))
    places = {"{base}": "base", "{broken}": "broken.safetensors"}
    named = [
        next((word.replace(n, str(family.place / p)) for n, p in places.items() if n in word), word)
        for word in words
    ]
    code, text = told(family["tuned"], *named, "--json")
    assert code == 2
    assert line in json.loads(text)["error"]


def test_a_run_that_is_no_ancestor_is_told(family: Family, told: Told) -> None:
    code, text = told(family["tuned"], "--parent", family["adapter"])
    line = f"FOUND run {family['adapter']} is no ancestor of run {family['tuned']}"
    assert (code, line in text) == (1, True)


# --- pages and documents ------------------------------------------------------------------


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)
        named = dict(attrs)
        self.ids += filter(None, [named.get("id")])
        self.labels += filter(None, [named.get("aria-labelledby")])
        assert not {"src", "href", "onclick", "style"} & named.keys()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_loads_nothing_and_reads_aloud(family: Family, told: Told) -> None:
    target = family.place / "page.html"
    assert told(family["base"], "--format", "html", "-o", str(target)) == (0, f"{target}\n")
    text = target.read_text()
    page = Page(text)
    assert page.open == []
    assert not {"script", "img", "link", "iframe"} & {*page.tags}
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    assert {*page.labels} == {*page.ids}
    assert ("main" in page.tags, page.tags.count("h1"), '<html lang="en">' in text) == (
        True,
        1,
        True,
    )
    _, text = told(family["adapter"], "--format", "html")
    assert f"is an adapter of run {family['tuned']} at epoch 1" in text
    assert "bit for bit, 2 adapter tensors new" in text
    assert json.loads(told(family["adapter"], "--format", "html", "--json")[1])["text"] == text


def test_prov_json_is_of_its_schema_and_names_what_is_there(family: Family, told: Told) -> None:
    document = lineage_forms.prov(told(family["adapter"], "--format", "prov")[1])
    derived = [
        (item["prov:generatedEntity"], item["prov:usedEntity"], item["mlp:role"])
        for item in document["wasDerivedFrom"].values()
    ]
    assert set(derived) == {
        (f"weights:{family['adapter']}", f"weights:{family['tuned']}", "adapter-of"),
        (f"weights:{family['tuned']}", f"weights:{family['base']}", "fine-tuned"),
    }
    assert lineage_forms.prov(told(family["merge"], "--format", "prov")[1])["wasDerivedFrom"].keys()


def test_openlineage_events_are_of_the_specification(family: Family, told: Told) -> None:
    events = lineage_forms.openlineage(told(family["adapter"], "--format", "openlineage")[1])
    assert events.keys() == {family["base"], family["tuned"], family["adapter"]}
    for event in events.values():
        assert event["eventType"] == "COMPLETE"
        for dataset in (*event["inputs"], *event["outputs"]):
            assert dataset["facets"]["version"]["datasetVersion"].startswith("mth-sha256:")
    names = [item["name"] for item in events[family["adapter"]]["inputs"]]
    assert names == [
        f"{family['adapter']}/data/test/0",
        f"{family['adapter']}/data/train/0",
        f"{family['tuned']}/weights",
    ]
    facet = events[family["adapter"]]["run"]["facets"]["parent"]
    assert facet["run"] == {"runId": family["tuned"]}
    assert facet["job"]["name"] == "tuned"
