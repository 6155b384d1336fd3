"""What a trainer's import of the package costs: these stay out until a call needs them."""

from __future__ import annotations

import json
import subprocess
import sys

import structlog
from structlog.testing import capture_logs

from provenance.log import get_logger

NOT_IMPORTED = {
    "alembic", "asyncio", "celery", "cryptography", "email", "httpx", "importlib.metadata",
    "kombu", "msgspec", "multiprocessing", "numpy", "pandas", "pyarrow", "redis",
    "requests", "rich", "sklearn", "socket", "sqlalchemy", "structlog", "subprocess", "torch",
    "triton", "web3", "zipfile",
}  # fmt: skip
PROGRAM = """
import sys
import dataclasses, hashlib, json, pathlib, secrets, uuid  # what they bring is not ours to save
before = set(sys.modules)
from provenance import ProvenanceTracker
print(__import__("json").dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_the_tracker_brings_no_renderer_driver_or_array_library() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stdout))
    assert "provenance.tracker" in modules
    assert not NOT_IMPORTED & modules
    packages = {name.partition(".")[0] for name in modules}
    assert packages & NOT_IMPORTED == set()


def test_a_lazy_logger_loses_no_line() -> None:
    log = get_logger("provenance")
    with capture_logs() as lines:
        log.warning("one", run="r")
        log.info("two")
    assert [line["event"] for line in lines] == ["one", "two"]
    assert lines[0] == {"event": "one", "run": "r", "log_level": "warning"}
    assert type(log).__name__ == "LazyLogger"
    assert structlog.get_config()["processors"], "the configuration is as it was"
