"""A model card for the Hugging Face Hub: front matter with ``model-index``, and what is known.

https://huggingface.co/docs/hub/model-cards. Task and data set have no types that a record has:
they are ``other``. What a person must say stays empty.
"""

from __future__ import annotations

import json
from typing import Any

from provenance.compliance.materials import Materials
from provenance.errors import MissingExtraError
from provenance.log import shown
from provenance.report import model_card
from provenance.report.summary import size_of
from provenance.verify.report import VerificationReport

try:
    import yaml
except ImportError as error:
    raise MissingExtraError("yaml", "compliance") from error

_UNWRITTEN = ("Intended use", "Limitations", "Licence", "How the data were obtained")


def hub_card(report: VerificationReport, materials: Materials) -> bytes:
    """The ``README.md``; metrics that are no finite numbers are left to the records."""
    metrics: list[dict[str, Any]] = []
    for name, text in materials.results.items():
        value = _number(text)
        if value is not None:
            metrics.append({"type": name, "value": value})
    entry: dict[str, Any] = {"name": materials.name, "results": []}
    if metrics:
        dataset = {"type": "other", "name": f"test data of run {materials.run}"}
        entry["results"] = [{"task": {"type": "other"}, "dataset": dataset, "metrics": metrics}]
    front = yaml.safe_dump({"model-index": [entry]}, sort_keys=False, allow_unicode=True)
    facts = {k: shown(v) for k, v in model_card.run_facts(report).items() if v is not None}
    for each in materials.weights:
        facts[f"weights, {each.path}"] = shown(each.root or "not stated")
    for title, contents in (("training data", materials.train), ("test data", materials.test)):
        for each in contents:
            nbytes = each.body.get("bytes")
            size = f", {size_of(nbytes)}" if isinstance(nbytes, int | float) else ""
            facts[f"{title}, {each.path}"] = shown(f"{each.root or 'not stated'}{size}")
    check = "provenance verify BUNDLE; provenance verify-model . --bundle BUNDLE"
    empty = "".join(f"## {title}\n\n*To be written by a person.*\n\n" for title in _UNWRITTEN)
    title = _plain(materials.name)
    return f"---\n{front}---\n\n# {title}\n\n{empty}{model_card.section(facts, check)}".encode()


def _number(text: str) -> float | int | None:
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _plain(text: str) -> str:
    """A name that Markdown and HTML take as letters."""
    return "".join(c if c.isalnum() or c in " -.,:" else f"&#{ord(c)};" for c in shown(text))
