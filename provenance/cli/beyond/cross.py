"""``provenance contract confirm``."""

from __future__ import annotations

import argparse

from provenance.app.bundle import bundle_at
from provenance.app.verify import verify_path, verify_run
from provenance.cli.output import answer, settings_of, when
from provenance.cross.confirm import Confirmation, Confirmations, confirm_bitcoin
from provenance.settings import READERS
from provenance.verify.findings import counted


def confirm(arguments: argparse.Namespace) -> int:
    """Have Ethereum check the Bitcoin anchors of a run; 1 where it refuses one."""
    settings, subject = settings_of(arguments, secrets=READERS), arguments.subject
    path = bundle_at(settings, subject)
    if path is not None:
        report = verify_path(settings, path)
    else:
        report = verify_run(settings, subject, offline=True)
    found = confirm_bitcoin(settings, report, arguments.view, arguments.least_work)
    answer(arguments, found.as_dict(), *(_line(found, head) for head in found.heads))
    return found.exit_code


def _line(found: Confirmations, head: Confirmation) -> str:
    where = f"{', '.join(head.seals)}: Ethereum chain {found.chain_id}"
    if head.work is None:
        return f"{where} refuses bitcoin ({head.chain}) {head.transaction_id}: {head.refused}"
    headers = f"{counted(head.headers, 'header')} of 2^{head.work:.1f} hashes"
    register = "; no receipt of this head on that chain, so no register was asked"
    if head.registered is not None:
        register = f", and the register {head.register} holds it since {when(head.registered)}"
    return (
        f"{where} confirms: bitcoin ({head.chain}) block {head.block_hash} of {when(head.time)} "
        f"carries root {head.root.hex()} under {headers}{register}"
    )
