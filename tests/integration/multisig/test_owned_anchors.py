"""Heads of a deployment with several owners: held, signed apart, sent once, and verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from provenance.anchor.delivery import Outcome
from provenance.app.verify import verify_run
from provenance.multisig.requests import (
    add_signatures,
    make_request,
    sign_request,
    waiting,
)
from provenance.ports.values import AnchorState
from provenance.settings import BitcoinSettings
from tests.integration.multisig.owned import Owned
from tests.support.nodes.ethereum_chain import Anvil
from tests.support.nodes.regtest import Regtest

pytest_plugins = ("tests.support.nodes.fixtures_ethereum",)
pytestmark = pytest.mark.nodes


@pytest.fixture(scope="module")
def owned(
    tmp_path_factory: pytest.TempPathFactory, anvil_chain: Anvil, bitcoin_settings: BitcoinSettings
) -> Owned:
    return Owned(tmp_path_factory.mktemp("owned"), anvil_chain, Regtest(bitcoin_settings))


def test_a_head_waits_for_two_owners_and_goes_on_by_itself(owned: Owned, tmp_path: Path) -> None:
    for name in owned.names:
        owned.publish(name)
        row = owned.row(name)
        assert row.state is AnchorState.HELD
        assert row.reason == f"waits for owners: 0 of 2 signed: provenance multisig request {name}"
        made = make_request(owned.settings, name)
        assert make_request(owned.settings, name) == made
        for number in (2, 0):
            signed = sign_request(owned.owner(number), made)
            path = tmp_path / f"{name}-{number}.json"
            path.write_bytes(signed.encode())
            owned.publish(name)
            assert owned.row(name).state is AnchorState.HELD
            add_signatures(owned.settings, [path])
        for row_ in waiting(owned.settings):
            if row_.network == name:
                assert len(row_.signers) == 2
        done = owned.publish(name)
        assert list(done.outcomes.values()) == [Outcome.SENT]
        owned.confirm(name)
        assert owned.row(name).state is AnchorState.FINAL
    report = verify_run(owned.settings, "latest")
    for line in (*report.verdict.lines(), *map(str, report.findings)):
        print(line)
    assert report.outcome == "verified"
