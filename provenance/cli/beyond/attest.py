"""``provenance attest``, ``provenance attestations`` and ``provenance contract register``."""

from __future__ import annotations

import argparse

from provenance.cli.output import answer, settings_of
from provenance.formats.fields import as_json
from provenance.settings import READERS
from provenance.watch import attest as attesting

_ETHEREUM = ("ethereum",)


def register(arguments: argparse.Namespace) -> int:
    """Register a run's newest root in the contract; prints the account that did."""
    settings = settings_of(arguments, secrets=_ETHEREUM)
    every, verifiers = arguments.every, arguments.verifier
    registrar, id = attesting.register(
        settings, arguments.run_id, arguments.contract, every, verifiers
    )
    return answer(
        arguments,
        {"registrar": registrar, "transaction_id": id},
        f"registered by {registrar}, every {every} s, in {id}",
    )


def attest(arguments: argparse.Namespace) -> int:
    """Verify a run and attest how it comes out; 1 where that is failed."""
    settings = settings_of(arguments, secrets=tuple({*READERS, *_ETHEREUM}))
    outcome, id = attesting.attest(
        settings, arguments.run_id, arguments.contract, arguments.registrar
    )
    answer(arguments, {"outcome": outcome, "transaction_id": id}, f"{outcome}: attested in {id}")
    return int(outcome == "failed")


def attestations(arguments: argparse.Namespace) -> int:
    """What the contract says of a run's newest root; 1 where it is overdue or failed."""
    settings = settings_of(arguments, secrets=READERS)
    told = attesting.attestations(
        settings, arguments.run_id, arguments.contract, arguments.registrar
    )
    answer(arguments, {"root": told.root.hex(), **as_json(told)}, told.line)
    return int(told.overdue or told.outcome == "failed")
