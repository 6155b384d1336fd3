"""The run is verified again into the ledger, and its root is attested on Ethereum, by its verifier
alone."""

from __future__ import annotations

import time
from contextlib import closing

from msgspec.structs import replace

from provenance.app.verify import verify_run
from provenance.bootstrap import sending
from provenance.chains.ethereum.interface import EthereumInterface, deploy
from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError, RejectedError
from provenance.formats.tlog.outcome import FILE
from provenance.ports.values import Work
from provenance.settings import Settings
from provenance.settings.values import VerificationSettings
from provenance.watch.again import verify_next
from provenance.watch.attest import attest, attestations, register

NEEDS = ("ethereum",)
_DAY_S = 86_400


def walk(stage: Stage) -> str:
    """Verify the run again; register its root, attest, and try a stranger's."""
    told = _again(stage)
    ethereum = stage.settings.blockchain.ethereum
    assert ethereum is not None
    with closing(EthereumInterface(ethereum)) as network:
        own = str(network.sender)
    contract, _ = deploy(ethereum, "MLProvenanceAttestations")
    register(stage.settings, stage.run, contract, _DAY_S, [own])
    outcome, _ = attest(stage.settings, stage.run, contract, own)
    watched = attestations(stage.settings, stage.run, contract, own)
    if watched.overdue or watched.outcome != outcome:
        raise IntegrityError(f"the contract says {watched.outcome}, attested was {outcome}")
    try:
        attest(stage.settings, stage.run, contract, contract)
    except RejectedError:
        where = f"Ethereum chain {watched.chain_id} holds it {outcome}, on time"
        return f"{told}; {where}, and refuses the attestation of a root that nobody registered"
    raise IntegrityError("the contract takes an attestation that nobody may make")


def _again(stage: Stage) -> str:
    daily = _daily(stage.settings)
    policy = sending.seal_policy(daily)
    with closing(sending.open_store(daily)) as store:
        with store.transaction() as tx:
            tx.add_work_of_sealed(Work.VERIFICATION, 0.0, time.time())  # not a day behind its seal
        while verify_next(daily, store, policy, time.time) is not None:
            pass
    notices = verify_run(stage.settings, stage.run).notices
    return next(notice.problem for notice in notices if notice.subject == FILE)


def _daily(settings: Settings) -> Settings:
    return replace(settings, verification=VerificationSettings(_DAY_S))
