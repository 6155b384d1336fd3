"""Policies: read strictly, refused by name, and described by the published schema."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from provenance.errors import ConfigError
from provenance.gate.policy import load_policy, policy_schema
from provenance.settings import load
from tests.support.verify_world import SIGNER

KEY = SIGNER.verifier.vkey
BASE: dict[str, Any] = {"ledger_keys": [KEY], "networks": {"bitcoin": {"confirmations": 6}}}
DIGEST = "mth-sha256:" + "ab" * 32
WHOLE: dict[str, Any] = {
    "ledger_keys": [KEY],
    "networks": {
        "ethereum": {"confirmations": 12, "chain": 1},
        "bitcoin": {"confirmations": 6, "chain": "main"},
        "ipfs": {},
        "local": {},
    },
    "files": ["config.json", "assets/*"],
    "architecture": "unchecked",
    "epoch": "last",
    "parts": True,
    "max_anchor_age": "30d",
    "max_run_age": "12h",
    "signers": {"alice": "ab" * 32, "ci": {"identity": "a@example.org", "issuer": "https://x"}},
    "datasets": {
        "required": [DIGEST],
        "forbidden": [DIGEST, "sha256:" + "ab" * 32],
        "algorithm": "sha256",
    },
    "privacy": {"epsilon": 3, "delta": 1e-5, "recomputed": True},
    "clean_code": True,
    "parent": {"named": True, "passes": True},
    "approvals": {"at_least": 1, "by": {"alice": "ab" * 32, "bob": "cd" * 32}},
    "max_unfinished_runs": 0,
}


def forbidden(digest: str) -> dict[str, Any]:
    return {**BASE, "datasets": {"forbidden": [digest]}}


def spending(epsilon: float) -> dict[str, Any]:
    return {**BASE, "privacy": {"epsilon": epsilon, "delta": 0}}


def approved(at_least: int, **by: str) -> dict[str, Any]:
    keys = {name: text * 32 for name, text in by.items()}
    return {**BASE, "approvals": {"at_least": at_least, "by": keys}}


def read(tmp_path: Path, document: object) -> Any:
    path = tmp_path / "policy.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return load_policy(path)


def test_every_rule_is_read_from_yaml_and_from_json(tmp_path: Path) -> None:
    policy = read(tmp_path, WHOLE)
    assert list(policy.networks.named()) == ["ethereum", "bitcoin", "ipfs", "local"]
    assert (policy.privacy.epsilon, policy.epoch, policy.parent.passes) == (3.0, "last", True)
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(WHOLE))
    assert load_policy(path) == policy
    assert load_policy(path).digest == policy.digest != read(tmp_path, BASE).digest


REFUSED = {
    "signer: unknown key, expected one of approvals": {**BASE, "signer": {"a": "ab" * 32}},
    "approvals: found 2, expected an object": {**BASE, "approvals": 2},
    "approvals.at_least: found 3, expected at most the 2": approved(3, alice="ab", bob="cd"),
    "approvals.by: found a key or identity under two names": approved(1, alice="ab", bob="ab"),
    "approvals.by.alice: found \"xy": approved(1, alice="xy"),
    "networks.lcal: unknown key, expected one of": {**BASE, "networks": {"lcal": {}}},
    "networks.bitcoin.depth: unknown key": {**BASE, "networks": {"bitcoin": {"depth": 6}}},
    "datasets.forbiden: unknown key": {**BASE, "datasets": {"forbiden": [DIGEST]}},
    "privacy.delta: missing": {**BASE, "privacy": {"epsilon": 1}},
    "ledger_keys: missing": {"networks": {"local": {}}},
    "networks: missing": {"ledger_keys": [KEY]},
    "ledger_keys: verifier key 'x'": {**BASE, "ledger_keys": ["x"]},
    'networks: found {}, expected a value': {**BASE, "networks": {}},
    "networks.local: found nothing": {**BASE, "networks": {"local": None}},
    "ledger_keys: found []": {**BASE, "ledger_keys": []},
    "signers: found nothing, expected a value": f"ledger_keys: ['{KEY}']\nsigners:\n# alice: ab\n",
    "datasets.required: found": {**BASE, "datasets": {"required": ["mth-sha256:ab"]}},
    "signers.a: found \"ab\"": {**BASE, "signers": {"a": "ab"}},
    "max_run_age: found \"30\"": {**BASE, "max_run_age": "30"},
    "datasets.forbidden: found \"mth-blake3:": forbidden("mth-blake3:" + "ab" * 32),
    "datasets.required: missing": {**BASE, "datasets": {"algorithm": "sha256"}},
    "privacy.epsilon: found Infinity, expected a number": spending(math.inf),
    "max_unfinished_runs: found 900719925": {**BASE, "max_unfinished_runs": 2**53},
    "networks.ethereum.chain: found": {**BASE, "networks": {"ethereum": {"chain": 2**53}}},
    "clean_code: found \"yes\"": {**BASE, "clean_code": "yes"},
    "epoch: found \"first\", expected one of trained, last, any": {**BASE, "epoch": "first"},
    "not YAML: more than 100000 values": "datasets: &a {required: *a}",
    "key 'epoch' stands twice": f"ledger_keys: ['{KEY}']\nepoch: last\nepoch: any\n",
    "found null, expected an object": "",
}  # fmt: skip


NO_SCHEMA = ("verifier key", "expected at most the 2", "under two names")
"""What the loader refuses and a schema cannot say."""


@pytest.mark.slow
@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_a_rule_is_refused_in_one_line(message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, REFUSED[message])
    text = str(refused.value)
    assert message in text
    assert text.startswith(f"{tmp_path / 'policy.yaml'}: ")
    assert "\n" not in text


def test_numbers_that_are_too_long_to_print_are_refused_by_key(tmp_path: Path) -> None:
    """YAML reads whole numbers to any base, and Python prints none of more than 4300 digits."""
    long = "0x" + "f" * 5000
    text = yaml.safe_dump(BASE)
    for key in ("privacy", "max_unfinished_runs", "signers"):
        value = {"privacy": f"{{epsilon: {long}, delta: 0}}", "signers": f"{{a: {long}}}"}
        with pytest.raises(ConfigError, match=rf"policy.yaml: {key}[a-z.]*: found a value that"):
            read(tmp_path, f"{text}{key}: {value.get(key, long)}\n")


def test_a_digest_must_be_of_the_rules_algorithm(tmp_path: Path) -> None:
    """No record has another beside it: a rule that nothing breaks would forbid nothing."""
    with pytest.raises(ConfigError, match=r"datasets.forbidden: found 'sha256:.*see algorithm"):
        read(tmp_path, forbidden("sha256:" + "ab" * 32))
    assert read(tmp_path, forbidden("blake3:" + "ab" * 32)).datasets.forbidden


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_only_a_file_of_some_size_is_read(tmp_path: Path, suffix: str) -> None:
    large, pipe = tmp_path / f"large{suffix}", tmp_path / f"pipe{suffix}"
    large.write_bytes(b" " * (1024**2 + 1))
    os.mkfifo(pipe)
    for path, problem in (
        (large, "more than 1048576 bytes"),
        (pipe, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        with pytest.raises(ConfigError, match=f"^{path}: {problem}"):
            load_policy(path)
        with pytest.raises(ConfigError, match=f"^{path}: {problem}"):
            load(path)


def test_the_page_has_every_key_and_its_policy_is_one(tmp_path: Path) -> None:
    page = Path("docs/gate.md").read_text()
    example = re.findall(r"```yaml\n(.+?)```", page, re.DOTALL)[0]
    assert read(tmp_path, example).networks.bitcoin.chain == "main"
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall("`([a-z_]+)`", row)}
    assert named >= set(policy_schema()["properties"]) - {"$schema"}
    assert named >= {"model", "run", "ended"}


def test_the_published_schema_is_the_policy() -> None:
    """Else: python -m provenance.gate.policy > docs/schemas/gate-policy.json"""
    published = json.loads(Path("docs/schemas/gate-policy.json").read_text())
    assert published == json.loads(json.dumps(policy_schema()))


def test_the_schema_takes_and_refuses_what_the_loader_does() -> None:
    check = jsonschema.Draft202012Validator(policy_schema())
    check.check_schema(policy_schema())
    check.validate({**WHOLE, "$schema": "gate-policy.json"})
    for message, document in REFUSED.items():
        if isinstance(document, dict) and not any(word in message for word in NO_SCHEMA):
            assert not check.is_valid(document), message
