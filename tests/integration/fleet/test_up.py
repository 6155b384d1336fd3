"""``provenance up`` as an operator runs it: from a spool left behind to anchored, and away."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.paths import ROOT

CLI = [sys.executable, "-m", "provenance.cli"]
MEMORY_LIMIT = 200 * 1024 * 1024


def provenance(*arguments: str) -> Any:
    done = subprocess.run(
        [*CLI, *arguments, "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def up(base: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        [*CLI, "up", "--json", "--base-dir", str(base), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        text += line if line.startswith((" ", "{", "}")) else ""
    try:
        yield process, json.loads(text)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = what()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.3)


def train(base: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "train_digits.py"), str(base)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.strip()


def is_final(base: Path, run: str) -> bool:
    shown = subprocess.run(
        [*CLI, "status", run, "--json", "--base-dir", str(base)], capture_output=True, text=True
    )
    if shown.returncode:
        return False
    networks = json.loads(shown.stdout)["networks"]
    return all(seal["status"] == "final" for n in networks.values() for seal in n.values())


def get(url: str, auth: str) -> Any:
    token = base64.b64encode(auth.encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read())
    except (urllib.error.URLError, TimeoutError, ConnectionError, json.JSONDecodeError):
        return None


@pytest.mark.nodes
def test_a_spool_left_behind_is_brought_home_and_all_stops(tmp_path: Path) -> None:
    """No node and no Redis: the training ends by itself, and `up` does the rest later."""
    run = train(tmp_path)
    with up(tmp_path, "--flower", "--dashboard") as (process, state):
        children = psutil.Process(process.pid).children(recursive=True)
        assert until(lambda: is_final(tmp_path, run)), "not anchored"
        kept = json.loads((tmp_path / "run" / "up.json").read_text())
        flower, auth = state["flower"], kept["flower_auth"]
        assert "flower_auth" not in state
        assert flower.startswith("http://127.0.0.1:")
        names = {"hashing", "anchor-local", "confirm"}

        seen = until(lambda: get(f"{flower}/api/workers", auth))
        assert {name.split("@")[0] for name in seen} == names, "all, from the first look"
        queue_lengths = get(f"{flower}/api/queues/length", auth)["active_queues"]
        queue_names = {queue["name"] for queue in queue_lengths}
        assert queue_names == {"hashing", "anchor.local", "confirm", "verify"}
        hashing_name = next(name for name in seen if name.startswith("hashing@"))
        shutdown = f"{flower}/api/worker/shutdown/{hashing_name}"
        elsewhere = {"Origin": "http://elsewhere.example"}
        for url, data, headers, status in (
            (f"{flower}/api/workers", None, {}, 401),
            (shutdown, b"", elsewhere, 403),  # refused before the password is asked for
            (f"{flower}/workers", None, {"Host": "elsewhere.example"}, 421),
        ):
            stranger = urllib.request.Request(url, data=data, headers=headers)
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(stranger, timeout=5)
            assert refused.value.code == status
        assert (tmp_path / "run" / "up.json").stat().st_mode & 0o777 == 0o600
        api = f"{state['pages']['dashboard']}/api/v1"
        listed = until(lambda: get(f"{api}/runs", ""))
        assert [item["run_id"] for item in listed["runs"]] == [run]
        found = provenance("doctor", "--base-dir", str(tmp_path))["findings"]
        answering = {each["name"]: each for each in found if each["kind"] == "page"}
        assert set(answering) == {"dashboard", "Flower"}
        assert all(each["works"] for each in answering.values()), answering
        assert provenance("status", "--base-dir", str(tmp_path))["pages"] == state["pages"]
        queues = {
            name.split("@")[0]: [queue["name"] for queue in facts["active_queues"]]
            for name, facts in seen.items()
        }
        assert queues["hashing"] == ["hashing"]
        assert queues["anchor-local"] == ["anchor.local"]
        assert queues["confirm"] == ["confirm", "verify"]

        assert kept["pages"] == state["pages"]
        assert until(lambda: get(f"{api}/health", "")["healthy"]), "not all queues work"

        second = train(tmp_path)
        assert until(lambda: is_final(tmp_path, second)), "second run not anchored"
        pages = [tmp_path / "reports" / name / "report.html" for name in (run, second)]
        assert until(lambda: all(page.exists() for page in pages)), "no report"

        def finished() -> Any:
            tasks = (get(f"{flower}/api/tasks", auth) or {}).values()
            done = {str(task["name"]) for task in tasks if task["state"] == "SUCCESS"}
            assert not [name for name in done if "sweep" in name or "alive" in name]
            return done >= {"anchoring.publish local", "verifying.verify"}

        assert until(finished), "Flower shows no finished task of the network and of reports"
        children = psutil.Process(process.pid).children(recursive=True)
        large = {
            " ".join(child.cmdline()[:6]): child.memory_info().rss
            for child in children
            if child.memory_info().rss > MEMORY_LIMIT
        }
        assert not large
        with pytest.raises(subprocess.CalledProcessError) as caught:
            subprocess.run(
                [*CLI, "up", "--base-dir", str(tmp_path)],
                capture_output=True,
                text=True,
                check=True,
            )
        assert caught.value.returncode == 2
        assert "another `provenance up` runs here already" in caught.value.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert len(gone) == len(children)
    verified = provenance("verify", run, "--base-dir", str(tmp_path))
    assert verified["outcome"] == "verified"


@pytest.mark.nodes
def test_a_killed_worker_comes_back_and_a_killed_up_leaves_nothing(tmp_path: Path) -> None:
    with up(tmp_path) as (process, state):
        os.kill(state["services"]["hashing"], signal.SIGKILL)
        run = train(tmp_path)
        assert until(lambda: is_final(tmp_path, run)), "not anchored after the kill"
        children = psutil.Process(process.pid).children(recursive=True)
        kept = json.loads((tmp_path / "run" / "up.json").read_text())["services"]
        assert kept["hashing"] != state["services"]["hashing"]
        assert set(kept.values()) <= {child.pid for child in children}
        process.kill()
        process.wait(10)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive


def test_redis_that_is_configured_but_away_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CLI, "up", "--base-dir", str(tmp_path)],
        env={**os.environ, "PROVENANCE_REDIS_URL": "redis://:sesame@127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr
    assert "sesame" not in done.stderr
    assert "Traceback" not in done.stderr
