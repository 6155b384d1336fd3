"""The mutation campaign in short: ``python -m tests.adversary.campaign`` is the long form."""

from __future__ import annotations

import os

import pytest

from tests.adversary import campaign
from tests.adversary.mutations import Mutation

SEED = int(os.environ.get("PROVENANCE_MUTATION_SEED", "20261129"))


@pytest.mark.slow
def test_no_change_of_a_deployment_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    code = campaign.main(["--mutations", "150", "--bit-flips", "20", "--seed", str(SEED)])
    told = capsys.readouterr().out
    assert code == 0, told
    assert f"seed {SEED}" in told


def test_what_is_not_noticed_and_not_free_is_accepted() -> None:
    tally = campaign.Tally()
    tally.count("verify", Mutation("edit", "run.json: created_at"), noticed=False)
    assert (tally.accepted, sum(tally.free.values())) == ([], 1)
    tally.count("verify", Mutation("edit", "run.json: records.*.digest"), noticed=False)
    assert tally.accepted == ["verify: edit run.json: records.*.digest"]
