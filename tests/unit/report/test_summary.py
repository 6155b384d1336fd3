"""What the report says first: taken from the records as they are, whatever is in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.formats.record import Kind
from provenance.report.html import render
from provenance.report.plot import by_subject, thinned
from provenance.report.summary import lines, seconds_in, size_of, spoken, summary_of
from tests.support.verify_world import KEY, World, ending, finished, metrics, seal

Event = tuple[Kind, int | None, dict[str, Any]]


def config(**fields: Any) -> Event:
    public_key = KEY.public_key().public_bytes_raw().hex()
    own = {"public_key": public_key, "hash_algorithm": "blake3", "world_size": 1}
    return (Kind.CONFIG, None, {**own, **fields})


def run_with(*events: Event, **fields: Any) -> World:
    stage = World(names=())
    labels = {"name": "baseline", "tags": ["b", "a"], "group": "sweep", "notes": "first"}
    head: list[Event] = [
        (Kind.DATA_TRAIN, None, {"kind": "table", "root": "mth-sha256:00", "count": 60000,
                                 "bytes": 47_000_000, "parts_total": 1,
                                 "parts": [{"name": "x", "dtype": "F32", "shape": [60000, 784]}]}),
        (Kind.ARCHITECTURE, None, {"class": "nets.Net", "framework": "torch"}),
        (Kind.WEIGHTS, None, {"root": "mth-sha256:11", "parameter_count": 11_689_512,
                              "covers": {"of": ["parameters", "buffers"]}}),
        config(**labels, training={"lr": 0.001, "opt": {"betas": [0.9, 0.999]}}, **fields),
        seal("before"),
    ]  # fmt: skip
    stage.ingest(stage.batch(ending([*head, *events])))
    return stage


@pytest.mark.slow
def test_the_first_lines_are_name_labels_results_and_configuration() -> None:
    told = summary_of(run_with(metrics(1, loss=0.5)).evidence())
    assert (told.name, told.group, told.notes, told.tags) == (
        "baseline",
        "sweep",
        "first",
        ["a", "b"],
    )
    assert told.results == [("accuracy", "0.9")]
    assert told.config == [("lr", "0.001"), ("opt.betas", "0.9, 0.999")]
    assert ("data.train", "table, 60,000 rows, 47 MB") in told.data
    assert ("", "x: F32 60000 × 784") in told.data
    assert ("parameters", "11,689,512") in told.model
    assert ("covered by the digest", "parameters, buffers") in told.model
    assert told.begun == "2023-11-14 22:13:20 UTC"
    assert told.seconds == 8.0


def test_without_results_the_last_epoch_stands_for_them() -> None:
    stage = World(names=())
    epochs = [metrics(1, loss=0.5), metrics(2, loss=0.25)]
    stage.ingest(stage.batch([config(), seal("before"), *epochs]))
    told = summary_of(stage.evidence())
    assert told.results == [("epoch 2.loss", "0.25")]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ({"commit": "ab", "dirty": True}, [("commit", "ab"), ("uncommitted changes", "yes")]),
        ({"commit": "ab", "dirty": None}, [("commit", "ab"), ("uncommitted changes", "not known")]),
        (
            {"commit": None, "dirty": None, "problem": "git is not installed"},
            [("commit", "not known: git is not installed")],
        ),
        ({"commit": None, "dirty": None}, [("commit", "not known")]),
        (None, []),
    ],
)
def test_a_commit_that_is_not_known_says_why(code: Any, told: list[tuple[str, str]]) -> None:
    stage = World(names=())
    stage.ingest(stage.batch([config(code=code), seal("before")]))
    assert summary_of(stage.evidence()).code == told


def test_a_hidden_number_is_said_to_be_hidden() -> None:
    stage, point = World(names=()), {"point": "02" + "af" * 32, "scale": 6}
    hidden = {"eval.accuracy": point, "loss": {"point": None, "scale": 6}}
    body = {"results": {"eval": {}, "f1": 0.5}, "commitments": hidden}
    stage.ingest(stage.batch([config(), seal("before"), (Kind.RESULTS, None, body)]))
    assert summary_of(stage.evidence()).results == [
        ("f1", "0.5"),
        ("eval.accuracy", "hidden, committed to"),
        ("loss", "hidden, without a commitment"),
    ]


def test_steps_alone_state_the_last_of_them() -> None:
    series = [{"step": [1, 2], "metrics": {"lr": [3, 4]}}, {"step": [5], "metrics": {"loss": [6]}}]
    stage = World(names=())
    steps: Event = (Kind.STEPS, None, {"series": series, "steps": 3})
    stage.ingest(stage.batch([config(), seal("before"), steps]))
    assert summary_of(stage.evidence()).results == [("step 5.loss", "6")]
    page = render(stage.verify())
    assert "so far" in page
    assert "Results, as" in page
    stage = World(names=())
    stage.ingest(stage.batch([config(), seal("before")]))
    assert "Results, as" not in render(stage.verify())
    assert "As a table" not in page


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=12)
@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "tags", "group", "notes", "parent", "training", "code", "environment"]
        ),
        ODD,
    ),
    st.dictionaries(
        st.sampled_from(["kind", "count", "bytes", "parts", "parts_total", "root"]), ODD
    ),
    st.dictionaries(st.sampled_from(["series", "steps"]), ODD),
)
def test_whatever_a_trainer_states_there_is_a_page(
    stated: dict[str, Any], data: dict[str, Any], steps: dict[str, Any]
) -> None:
    stage = World(names=())
    events: list[Event] = [(Kind.DATA_TRAIN, None, data), config(**stated), seal("before")]
    stage.ingest(stage.batch(ending([*events, (Kind.STEPS, None, steps)])))
    assert render(stage.verify()).endswith("</html>")


@pytest.mark.slow
def test_steps_are_drawn_by_their_numbers_and_a_long_line_is_thinned() -> None:
    steps = range(1, 20_001)
    values = [1 / step + step % 7 for step in steps]
    metrics = dict.fromkeys(("loss", "val/loss", "lr", "grad_norm", "samples"), values)
    series = [{"step": list(steps), "metrics": metrics}]
    page = render(run_with((Kind.STEPS, None, {"series": series, "steps": 20_000})).verify())
    assert "loss by step" in page
    assert 'text-anchor="end">20000</text>' in page, "up to the last step, inside of the picture"
    assert len(page) < 300_000


@pytest.mark.slow
def test_a_run_of_many_epochs_has_a_small_page() -> None:
    assert len(render(finished(500).verify())) < 300_000


@pytest.mark.slow
def test_a_record_with_a_finding_is_listed_among_thousands() -> None:
    stage = run_with(*[metrics(epoch) for epoch in range(1, 301)])
    report = stage.verify()
    records = tuple(
        replace(r, data=(r.data or b"").replace(b"150", b"151", 1))
        if r.path == "training/epoch/150/metrics/0"
        else r
        for r in stage.evidence().records
    )
    page = render(stage.verify(replace(stage.evidence(), records=records)))
    assert "epoch 150" in page
    assert "epoch 149<" not in page
    assert "more, in the evidence" in page
    assert report.findings == ()


def test_train_and_validation_share_a_plot() -> None:
    names = ["train_loss", "val/loss", "loss", "eval.accuracy", "lr", "test_"]
    assert by_subject(names) == {
        "loss": ["train_loss", "val/loss", "loss"],
        "accuracy": ["eval.accuracy"],
        "lr": ["lr"],
        "test_": ["test_"],
    }


@pytest.mark.slow
@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=31, max_size=200))
def test_a_thinned_line_keeps_its_least_and_its_greatest(values: list[float | None]) -> None:
    points = [(float(at), value) for at, value in enumerate(values)]
    kept = thinned(points, 30)
    assert len(kept) <= 30
    assert set(kept) <= set(points)
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)
    known = [y for _, y in points if y is not None]
    left = [y for _, y in kept if y is not None]
    if known:
        assert (min(left), max(left)) == (min(known), max(known))
    assert (None in values) == any(y is None for _, y in kept)


def test_words_for_sizes_and_durations() -> None:
    assert [size_of(n) for n in (0, 999, 1000, 46_758_048, 10**14)] == [
        "0 bytes", "999 bytes", "1 kB", "46.8 MB", "100 TB",
    ]  # fmt: skip
    assert [spoken(s) for s in (0.25, 59, 60, 3661, 90_000)] == [
        "0.25 s", "59 s", "1 min", "1 h 1 min", "1 d 1 h",
    ]  # fmt: skip
    assert [seconds_in(s) for s in ("90min", "36 h", "7d", "90m", "1 h 1 min")] == [
        5400, 129_600, 604_800, None, None,
    ]  # fmt: skip
    assert lines({"a": {"b": 1, "c": None}, "d": []}) == [
        ("a.b", "1"),
        ("a.c", "not set"),
        ("d", ""),
    ]
