"""A deployment with a run, its model, and a policy that the model passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from provenance.bootstrap import reading
from provenance.gate.decision import Decision, Gate, Source
from provenance.gate.policy import load_policy
from provenance.settings import Settings
from tests.support.model_world import deployment, model_folder

PLAIN = ["config.json", "assets.txt", "assets/*", "assets.d/.hidden", ".git/HEAD", ".gitattributes"]


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return deployment(tmp_path / "artifacts")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


def vkey(settings: Settings) -> str:
    key = reading.ledger_key(settings)
    assert key is not None
    return key.vkey


def write_policy(path: Path, settings: Settings, **rules: Any) -> Path:
    """That of ``settings``' ledger and its local file, and ``rules``; None takes one away."""
    own = {"ledger_keys": [vkey(settings)], "networks": {"local": {}}, "files": PLAIN, **rules}
    path.write_text(yaml.safe_dump({k: v for k, v in own.items() if v is not None}))
    return path


Hold = Callable[..., Decision]


@pytest.fixture
def hold(home: Settings, model: Path, tmp_path: Path) -> Hold:
    def held(source: Source | None = "latest", model: Path = model, **rules: Any) -> Decision:
        policy = load_policy(write_policy(tmp_path / "policy.yaml", home, **rules))
        return Gate(home, policy).decide(model, source)

    return held


def refused(decision: Decision) -> dict[str, str]:
    """The refusals by rule, each of one line."""
    assert not decision.passed
    assert decision.exit_code
    assert all("\n" not in item.line for item in decision.refusals)
    return {item.rule: item.line for item in decision.refusals}


def flip(model: Path) -> None:
    file = model / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
