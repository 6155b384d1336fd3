"""A fleet that is watched: figures, alerts, dashboard, readiness and traces are of what runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
import yaml

from provenance.app.processes import free_ports
from tests.support import readme
from tests.support.nodes.otlp import Receiver, receiving
from tests.support.paths import ROOT

pytestmark = pytest.mark.nodes
CLI = [sys.executable, "-m", "provenance.cli"]
WATCHED = ROOT / "deploy" / "observability"
NAME = re.compile(r"\bprovenance_\w+")


class Fleet:
    """``provenance up --metrics`` on a folder, with a receiver of its spans."""

    def __init__(self, base: Path, port: int, spans: Receiver) -> None:
        self.base, self.port, self.spans = base, port, spans
        self.run = UUID(int=0)

    def get(self, path: str) -> tuple[int, str]:
        try:
            url = f"http://127.0.0.1:{self.port}{path}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def figures(self) -> str:
        return self.get("/metrics")[1]

    def health(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CLI, "health", "--base-dir", str(self.base)], capture_output=True, text=True
        )


def until(what: Callable[[], Any], seconds: float = 180.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.3)
    return found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """With one run that is final, and what it left in the figures."""
    base, (port,) = tmp_path_factory.mktemp("watch"), free_ports(1)
    with receiving() as spans, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.url)
        command = [*CLI, "up", "--metrics", f"127.0.0.1:{port}", "--base-dir", str(base)]
        with (base / "up.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        made = Fleet(base, port, spans)
        try:
            assert until(lambda: made.get("/readyz")[0] == 200), made.get("/readyz")
            example = ROOT / "examples" / "train_digits.py"
            trained = [sys.executable, str(example), str(base)]
            done = subprocess.run(trained, capture_output=True, text=True, check=True)
            made.run = UUID(done.stdout.strip())
            assert until(lambda: 'provenance_runs{state="sealed"} 1.0' in made.figures())
            assert until(lambda: verified(made.figures())), made.figures()
            yield made
        finally:
            process.terminate()
            process.wait(60)


def verified(figures: str) -> bool:
    return 'outcome="done",queue="verify",task="workers.verifying.verify"' in figures


def families(figures: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\w+)", figures, re.MULTILINE))


def test_figures_are_those_of_the_run(fleet: Fleet) -> None:
    figures = fleet.figures()
    for line in (
        'provenance_reachable{part="database"} 1.0',
        'provenance_reachable{part="redis"} 1.0',
        "provenance_dropped_events_total 0.0",
        'provenance_unanchored_root_age_seconds{network="local"} 0.0',
        'provenance_anchor_outcomes_total{network="local",outcome="final"}',
        'provenance_rpc_seconds_count{call="broadcast",network="local"}',
        'provenance_stream_entries{shard="15"} 0.0',
    ):
        assert line in figures
    report = f'spool="{fleet.base}/spool"'
    assert until(lambda: report in fleet.figures()), "the shipper reports"


def test_rules_and_dashboard_name_what_is_scraped_and_the_page_tells_each(fleet: Fleet) -> None:
    known = families(fleet.figures())
    page = (ROOT / "docs" / "observability.md").read_text()
    assert json.loads((WATCHED / "dashboard.json").read_text())["panels"]
    for path in (WATCHED / "alerts.yaml", WATCHED / "dashboard.json"):
        named = {name.removesuffix("_bucket") for name in NAME.findall(path.read_text())}
        assert named
        assert named - known == set(), path
    told = set(re.findall(r"^\| `(provenance_\w+)", page, re.MULTILINE))
    assert told == known


def test_the_deployment_is_ready_until_redis_takes_no_writes(fleet: Fleet) -> None:
    assert json.loads(fleet.get("/healthz")[1]) == {"alive": True}
    assert json.loads(fleet.get("/readyz")[1]) == {"ready": True, "reasons": []}
    assert fleet.health().returncode == 0
    url = json.loads((fleet.base / "run" / "up.json").read_text())["redis_url"]
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", 1)
        try:
            status, text = fleet.get("/readyz")
            said = fleet.health()
        finally:
            client.config_set("maxmemory", 0)
    assert status == 503
    assert "OutOfMemory" in json.loads(text)["reasons"][0]
    assert said.returncode == 1
    assert said.stdout.startswith("failing: Redis at 127.0.0.1")
    assert until(lambda: fleet.get("/readyz")[0] == 200)


def test_a_run_s_trace_goes_from_the_spool_to_its_report(fleet: Fleet) -> None:
    wanted = {"ship", "drain", "seal", "run", "publish", "confirm", "verify"}

    def names() -> set[str]:
        own = [span for span in fleet.spans.spans if span.trace_id == fleet.run.bytes]
        return {span.name for span in own}

    assert until(lambda: names() >= wanted), names()
    sealed = (fleet.base / "log" / "confirm.log").read_text()
    assert f'"trace_id": "{fleet.run.hex}"' in sealed


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules() -> None:
    command = ["promtool", "check", "rules", str(WATCHED / "alerts.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_its_line_in_the_runbook() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    anchors = {title.lower() for title in re.findall(r"^#+ (\w+)$", page, re.MULTILINE)}
    (group,) = yaml.safe_load((WATCHED / "alerts.yaml").read_text())["groups"]
    runbooks = {rule["alert"]: rule["annotations"]["runbook"] for rule in group["rules"]}
    assert len(runbooks) == len(group["rules"]) > 10
    for alert, where in runbooks.items():
        assert where == f"docs/observability.md#{alert.lower()}"
        assert alert.lower() in anchors
        line = page.partition(f"\n### {alert}\n")[2].partition("\n#")[0]
        assert any(span.startswith("provenance ") for span in readme.spans(line)), alert
