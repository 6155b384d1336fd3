"""docs/schemas/settings.json says what the settings are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from provenance.settings.schema import settings_schema

PUBLISHED = Path("docs/schemas/settings.json")
EXAMPLES = [*Path("configs").glob("*.json"), *Path("tests/vectors/settings").glob("*.json")]


def valid(document: object) -> bool:
    return jsonschema.Draft202012Validator(settings_schema()).is_valid(document)


def test_the_published_schema_is_the_settings() -> None:
    """Else: python -m provenance.settings.schema > docs/schemas/settings.json"""
    assert json.loads(PUBLISHED.read_text("utf-8")) == json.loads(json.dumps(settings_schema()))


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_examples_are_valid(path: Path) -> None:
    assert valid(json.loads(path.read_text("utf-8")))


@pytest.mark.parametrize(
    "document",
    [
        {"hash_algorithm": "md5"},
        {"weight_digests": {"recheck_share": 2}},
        {"blockchain": {"network": []}},
        {"blockchain": {"networks": ["dogecoin"]}},
        {"blockchain": {"ipfs": {}}},
        {"blockchain": {"ipfs": {"url": "http://x", "api_url": "http://x"}}},
        {"blockchain": {"ethereum": {"url": "http://x", "gas": 1}}},
        {"blockchain": {"ethereum": {"url": "http://x", "gas_price": "fast"}}},
        {"blockchain": {"storage_options": {"store_before": True}}},
    ],
)
def test_what_load_refuses_is_invalid(document: dict[str, Any]) -> None:
    assert not valid(document)


def test_the_trainers_keys_and_comments_are_valid() -> None:
    assert valid({"betas": [0.9, 0.999], "lr_scheduler": {"name": "cosine"}, "_comment": 1})
    assert valid({"blockchain": {"_comment": "x", "networks": None}})
