"""The report: complete, self-contained, and deaf to whatever a trainer wrote."""

from __future__ import annotations

import json
import math
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provenance.errors import InputError, MissingExtraError
from provenance.formats.record import Kind
from provenance.report import html as report_module
from provenance.report import template
from provenance.report.html import MAX_SHOWN_CHARS, plots_of, render, write_report
from provenance.report.plot import line_plot
from tests.support.verify_world import (
    RUN,
    Fields,
    World,
    before,
    ending,
    finished,
    flip_metric,
    metrics,
    seal,
    story,
    training,
)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&$run${css}"
HOSTILE += "{{ report }}{% raw %}"
VOID = {"meta", "link", "br", "img", "input", "hr"}
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """Collects tags and attributes, and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.stack: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile() -> World:
    stage = World()
    values = {HOSTILE: 0.5, "loss": float("nan"), f"text {HOSTILE}": HOSTILE, "deep": {HOSTILE: 1}}
    events = [*before(), metrics(1, **values), metrics(2, **{HOSTILE: 0.25, "loss": 1.0})]
    events[2] = (Kind.ARCHITECTURE, None, {"type": HOSTILE})
    stage.ingest(stage.batch(ending(events)))
    stage.anchor()
    return stage


@pytest.mark.slow
def test_writes_both_files_and_returns_the_page(tmp_path: Path) -> None:
    report = finished().verify()
    page = write_report(report, tmp_path / "a" / "b")
    assert page == tmp_path / "a" / "b" / "report.html"
    document = json.loads((page.parent / "report.json").read_text())
    assert document == json.loads(json.dumps(report.as_dict()))
    assert {path.name for path in page.parent.iterdir()} == {"report.html", "report.json"}
    write_report(report, page.parent)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(finished().verify(), tmp_path / "file")


def test_without_jinja2_the_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"ml-provenance\[workers\]"):
        write_report(finished().verify(), tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_page_shows_what_an_auditor_needs() -> None:
    stage = finished(checkpoint=2)
    report = stage.verify()
    text = Page(render(report)).text
    for root in report.roots.values():
        assert root in text
    for seals in report.networks.values():
        for check in seals.values():
            assert str(check.transaction_id) in text
            assert str(check.block_hash) in text
    for result in report.checks:
        assert f"({result.check.number}) {result.check.title}" in text
        assert result.check.limits in text
    for line in report.not_checked:
        assert line in text
    for record in report.evidence.records:
        assert record.digest.hex() in text
    assert str(RUN) in text
    assert "sha256sum" in text
    assert "2023-11-14 22:13:20 UTC" in text


@pytest.mark.slow
def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = Page(render(hostile().verify()))
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on")
        assert name != "src"
        if name == "href":
            assert tag == "a"
            assert value is not None
            assert re.fullmatch(r"evidence/records/[\w./-]+", value)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3)", render(hostile().verify()))


@pytest.mark.slow
def test_hostile_names_and_values_are_text() -> None:
    stage = hostile()
    for report in (stage.verify(), stage.verify(replace(stage.evidence(), incomplete=HOSTILE))):
        page = render(report)
        assert "<script" not in page
        assert "<img" not in page
        assert HOSTILE in Page(page).text


@pytest.mark.slow
def test_every_epoch_opens_by_itself_and_shows_its_record() -> None:
    page = Page(render(finished().verify()))
    assert page.tags.count("details") > 3 * 3
    assert "epoch 3" in page.text
    assert '"accuracy": 0.53' in page.text
    assert "privacy (empty)" in page.text


def test_findings_are_marked_in_list_and_tree() -> None:
    stage = finished()
    evidence = stage.evidence()
    path = "training/epoch/2/metrics/0"
    records = tuple(
        replace(r, data=flip_metric(r.data or b"")) if r.path == path else r
        for r in evidence.records
    )
    report = stage.verify(replace(evidence, records=records))
    page = render(report)
    text = Page(page).text
    assert "Findings" in text
    assert report.findings[0].problem in text
    assert page.count('<li class="bad">') == 4, "training, epoch, metrics, record"
    missing = tuple(replace(r, data=None) if r.path == path else r for r in evidence.records)
    assert "(missing)" in Page(render(stage.verify(replace(evidence, records=missing)))).text


def test_equivocations_late_records_and_holes_are_shown() -> None:
    stage = World()
    stage.ingest(stage.batch([*before(), metrics(1)]))
    stage.ingest(stage.batch([metrics(1, loss=3.0)], first=6))
    text = Page(render(stage.verify())).text
    assert "Worth knowing" in text
    assert "second value for event 6" in text
    assert "Not sealed yet" in text


def test_a_run_with_nothing_yet_has_a_page_too() -> None:
    stage = World()
    stage.ingest(stage.batch(before()[:-1]))
    text = Page(render(stage.verify(online=False))).text
    assert "The run has no seal yet." in text
    assert "No metrics were recorded." in text
    assert "No anchor was asked for." in text
    assert "Nothing is sealed yet." in text
    assert "No network was asked" in text


@pytest.mark.slow
def test_what_no_root_has_yet_is_marked() -> None:
    stage = World(())
    stage.ingest(stage.batch([*before(), *training(1), seal("checkpoint", 1), metrics(2)]))
    page = render(stage.verify())
    assert "1 of its records are under no root so far" in page
    assert page.count("(not sealed)") == 1
    assert "not sealed" not in render(finished(1).verify())


def test_an_unreachable_network_says_why() -> None:
    stage = finished()
    stage.networks["bitcoin"].hang()
    text = Page(render(stage.verify())).text
    assert "no answer to identity" in text
    assert "unreachable" in text


def test_large_runs_stay_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "MAX_PLOTS", 1)
    monkeypatch.setattr(report_module, "MAX_ROWS", 2)
    stage = World(names=())
    events = story()
    events[2] = (Kind.ARCHITECTURE, None, {"layers": "x" * 2 * MAX_SHOWN_CHARS})
    stage.ingest(stage.batch(events))
    text = Page(render(stage.verify())).text
    assert "1 more metrics are in report.json" in text
    assert "The first 2 of 3." in text
    assert "more characters" in text


def test_ranks_are_lines_of_their_own() -> None:
    stage = World(names=())
    events = ending([*before(world_size=2), metrics(1)])
    stage.ingest(
        stage.batch(
            [metrics(1), (Kind.RUN_END, None, {"events": 1, "reason": "x"})],
            producer=b"q" * 16,
            rank=1,
        ),
        stage.batch(events),
    )
    assert "rank 1" in Page(render(stage.verify())).text


@pytest.mark.slow
def test_epsilon_is_a_line_for_each_process_as_it_is_compared() -> None:
    def spends(*epochs: int) -> list[Fields]:
        budget = {"delta": 1e-5, "epsilon": 1.0}
        return [(Kind.PRIVACY, epoch, {"privacy": budget | {"epsilon": n}})
                for n, epoch in enumerate(epochs, 1)]  # fmt: skip

    stage = World(names=())
    stage.ingest(
        stage.batch([*before(world_size=2), *spends(1, 2, 3)]),
        stage.batch(ending([*before(world_size=2), *spends(3, 4)]), producer=b"q" * 16, at=100),
        stage.batch(spends(1, 2), producer=b"r" * 16, rank=1),
    )
    report = stage.verify()
    ((name, (lines, _, _)),) = plots_of(report.evidence.records, report.metrics)
    assert (name, lines) == (
        "epsilon",
        {
            "epsilon rank 0, process 1": [(1, 1), (2, 2), (3, 3)],
            "epsilon rank 0, process 2": [(3, 1), (4, 2)],
            "epsilon rank 1": [(1, 1), (2, 2)],
        },
    )
    assert "rank 0, process 2" in {notice.subject for notice in report.notices}


def test_times_out_of_range_are_numbers() -> None:
    stage = finished()
    evidence = replace(stage.evidence(), created_at=1e17)
    assert "1e+17 s" in Page(render(stage.verify(evidence))).text


@pytest.mark.slow
@pytest.mark.parametrize("depth", [40, 900, 960, 990, 5000])
def test_deeply_nested_bytes_do_not_fell_the_page(depth: int) -> None:
    stage = finished()
    evidence = stage.evidence()
    deep = b'{"body":' + b"[" * depth + b"]" * depth + b"}"
    records = tuple(
        replace(r, data=deep) if r.path == "training/config" else r for r in evidence.records
    )
    report = stage.verify(replace(evidence, records=records))
    assert {finding.path for finding in report.findings} == {"training/config"}
    assert "evidence/records/training/config.json" in render(report)


# --- plots -------------------------------------------------------------------------------


def drawn(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_a_plot_has_axes_labels_and_breaks_at_nan() -> None:
    points = [(1.0, 0.5), (2.0, 0.4), (3.0, math.nan), (4.0, 0.2), (5.0, math.inf), (6.0, None)]
    svg = drawn(line_plot({"loss": points}, "loss"))
    texts = [node.text for node in svg.iter(f"{SVG}text")]
    assert {"epoch", "loss", "1", "6", "0.5"} <= set(texts)
    lines = [p for p in svg.iter(f"{SVG}path") if "line" in (p.get("class") or "")]
    assert (lines[0].get("d") or "").count("M") == 2
    assert len([p for p in svg.iter(f"{SVG}path") if "gap" in (p.get("class") or "")]) == 3
    assert len(list(svg.iter(f"{SVG}circle"))) == 3


def test_a_plot_of_nothing_but_gaps_has_no_line() -> None:
    svg = line_plot({"x": [(1.0, math.nan)]}, "x" * 50)
    assert "line s0" not in svg
    assert "..." in svg
    assert line_plot({}, "none")


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**9).map(float),
            st.none() | st.floats(allow_nan=True, allow_infinity=True),
        ),
        max_size=20,
    ),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20),
)
@example([(0.0, 0.0), (0.0, 5e-324)], "")
def test_any_numbers_and_names_give_a_drawing_within_its_frame(
    points: list[tuple[float, float | None]], name: str
) -> None:
    svg = drawn(line_plot({name: points}, name))
    for circle in svg.iter(f"{SVG}circle"):
        assert 0 <= float(circle.get("cx") or "nan") <= 440
        assert 0 <= float(circle.get("cy") or "nan") <= 250


def test_no_text_from_elsewhere_moves_or_hides_what_the_page_says() -> None:
    odd = "a\x1b[2Jb\x00\x9b\u202ec"
    stage = World(())
    told: list[Any] = [*before(), metrics(1, **{odd: 1.0}), (Kind.NOTE, None, {"text": odd})]
    key, epoch, body = told[4]
    told[4] = (key, epoch, {**body, "name": odd, "tags": [odd], "notes": odd, "group": odd})
    end = {"events": len(told), "reason": odd, "state": "failed"}
    stage.ingest(stage.batch([*told, (Kind.RUN_END, None, end)]))
    page = render(stage.verify())
    assert not set("\x1b\x00\x9b\u202e") & set(page)
    assert page.count("\\u202e") > 4
