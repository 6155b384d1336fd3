"""Ethereum itself confirms the run's Bitcoin anchor, and not as one of the main chain."""

from __future__ import annotations

from provenance.app.verify import verify_run
from provenance.chains.ethereum.interface import deploy
from provenance.cross.confirm import confirm_bitcoin
from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError
from provenance.verify.trust import LEAST_WORK

NEEDS = ("bitcoin", "ethereum")


def walk(stage: Stage) -> str:
    """Deploy the contract; have it check the receipts' proofs, and again as the main chain's."""
    report, ethereum = verify_run(stage.settings, stage.run), stage.settings.blockchain.ethereum
    assert ethereum is not None
    view, _ = deploy(ethereum, "BitcoinAnchor")
    confirmed = confirm_bitcoin(stage.settings, report, view)
    head = confirmed.heads[-1]
    if head.refused is not None:
        raise IntegrityError(f"the contract refuses {head.transaction_id}: {head.refused}")
    dear = confirm_bitcoin(stage.settings, report, view, LEAST_WORK["main"])
    if not all(h.refused for h in dear.heads):
        raise IntegrityError("the contract takes blocks of a test chain for the main chain's")
    both = f"Ethereum chain {confirmed.chain_id} confirms Bitcoin block {head.block_hash}"
    return f"{both}, and refuses it as the main chain's; {report.cross[-1].line}"
