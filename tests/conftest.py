"""Real servers for the tests: isolated, on free ports, started when first asked for.

A missing server skips on a laptop with a line that says how to get it; with ``CI=true`` it
fails.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

# Before numpy and torch read it: two workers with two threads each spin more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import structlog
from hypothesis import HealthCheck, settings

from provenance.settings import BitcoinSettings
from provenance_devnet import Devnet, ServerState

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
CI = os.environ.get("CI", "").lower() == "true"
RECURSION_LIMIT = sys.getrecursionlimit()

pytest_plugins = ["tests.support.nodes.fixtures_postgres"]

settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=CI,
)
settings.register_profile("quick", settings.get_profile("default"), max_examples=20)
settings.load_profile("default")


def missing(reason: str) -> None:
    """Skip on a laptop, fail in CI."""
    if CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: whoever runs out of files last has short ones left."""
    slow = Counter(item.path for item in items if is_slow(item))
    items.sort(key=lambda item: -slow[item.path])


def is_slow(item: pytest.Item) -> bool:
    """Marked so; outside of the quick folders a test needs no mark."""
    quick = item.path.is_relative_to(TESTS / "unit") or item.path.is_relative_to(TESTS / "property")
    return not quick or item.get_closest_marker("slow") is not None


def pytest_collection_finish() -> None:
    """What the test files imported stays; a collection looks at what tests make alone.

    One of the imports, py_ecc, raises the recursion limit past what the C stack holds.
    """
    gc.collect()
    gc.freeze()
    sys.setrecursionlimit(RECURSION_LIMIT)


@pytest.fixture(autouse=True)
def log_lines_go_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nobody configured structlog, which a test does that captures lines."""
    own = structlog._config._CONFIG
    monkeypatch.setattr(own, "logger_factory", lambda *_: structlog.PrintLogger(sys.stderr))


@pytest.fixture(autouse=True)
def ctrl_c_is_ctrl_c() -> Iterator[None]:
    """Also where this was started in the background, or an earlier test took the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def devnet_server() -> Iterator[Callable[[str], ServerState]]:
    """Starts one of the devnet's servers in a state folder of this test session."""
    folder = Path(tempfile.mkdtemp(prefix="prov-"))
    devnet = Devnet(ROOT, folder)
    started: dict[str, ServerState] = {}

    def server(name: str) -> ServerState:
        if name not in started:
            (started[name],) = devnet.up([name])
        if not started[name].running:
            missing(f"{name}: {started[name].problem}; or run: make devnet")
        return started[name]

    yield server
    devnet.down()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_url(devnet_server: Callable[[str], ServerState]) -> str:
    return devnet_server("redis").url


@pytest.fixture(scope="session")
def ethereum_url(devnet_server: Callable[[str], ServerState]) -> str:
    return devnet_server("ethereum").url


@pytest.fixture(scope="session")
def bitcoin_server(devnet_server: Callable[[str], ServerState]) -> ServerState:
    return devnet_server("bitcoin")


@pytest.fixture(scope="session")
def bitcoin_settings(bitcoin_server: ServerState) -> BitcoinSettings:
    return BitcoinSettings(
        url=bitcoin_server.url,
        network="regtest",
        cookie_file=Path(bitcoin_server.detail["cookie_file"]),
        wallet=bitcoin_server.detail["wallet"],
        confirmations=3,
        timeout_s=15.0,
    )


@pytest.fixture(scope="session")
def ipfs_url(devnet_server: Callable[[str], ServerState]) -> str:
    return devnet_server("ipfs").url
