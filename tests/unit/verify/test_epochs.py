"""What the ranks recorded of an epoch: whole, or named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from provenance.evidence.disclosure import withhold
from provenance.verify.catalogue import COMPLETE, CONTENT, Status
from tests.support.model_world import weights
from tests.support.shard_world import Change, sharded, shards
from tests.support.verify_world import World

ENDED = "rank 1: ended unannounced (no signed run.end)"


def said(world: World) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    report = world.verify()
    assert {f.check for f in (*report.findings, *report.notices)} <= {COMPLETE}
    return (
        [(finding.subject, finding.problem) for finding in report.findings],
        [(notice.subject, notice.problem) for notice in report.notices],
    )


def test_shards_of_all_ranks_are_whole_tensors() -> None:
    assert said(sharded()) == ([], [])


def test_a_killed_rank_is_named_by_the_seal_and_by_every_epoch_it_lacks() -> None:
    world = sharded(ranks=[0])
    with world.store.transaction() as tx:
        (row,) = tx.runs()
    assert row.incomplete == "rank 1: no run.end"
    hole = "tensor 'fc.bias': no rank has [2:4] (and 1 more); no weights from rank 1 of 2"
    assert said(world) == ([("epochs 1 to 3", hole), ("run", ENDED)], [])


def test_a_rank_that_lacks_one_epoch_is_named() -> None:
    def change(rank: int, epoch: int, body: dict[str, Any]) -> dict[str, Any] | None:
        return None if (rank, epoch) == (0, 2) else body

    problems, notices = said(sharded(change, metrics_of=lambda rank, epoch: rank == 0 or epoch < 3))
    hole = "tensor 'fc.bias': no rank has [0:2] (and 1 more); no weights from rank 0 of 2"
    assert problems == [("epoch 2", hole)]
    assert notices == [("epoch 3", "no metrics from rank 1")]


def tensor(which: str, **keys: Any) -> Change:
    """Rank 1's record of epoch 2 with other keys of one tensor."""

    def change(rank: int, epoch: int, body: dict[str, Any]) -> dict[str, Any]:
        if (rank, epoch) != (1, 2):
            return body
        changed = [{**t, **(keys if t["name"] == which else {})} for t in body["tensors"]]
        return {**body, "tensors": changed}

    return change


COPY = {"shard": {"global_shape": [4], "offset": [0]}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (tensor("fc.bias", **COPY), "tensor 'fc.bias': ranks 0 and 1 differ in [0:2]"),
        (
            tensor("fc.bias", shard={"global_shape": [4], "offset": [1]}),
            "tensor 'fc.bias': shards overlap in [1:2]",
        ),
        (
            tensor("fc.weight", shard={"global_shape": [5, 3], "offset": [3, 0]}),
            "tensor 'fc.weight': rank 0 states F32 [4, 3], rank 1 F32 [5, 3]",
        ),
        (tensor("fc.bias", name="fc.other"), "tensor 'fc.bias': no rank has [2:4] (and 1 more)"),
        (
            tensor("fc.bias", shard={"global_shape": [4], "offset": [3]}),
            "records/training/epoch/2/state/1.json: tensors[0].shard.offset: found a list, "
            "expected a shard of [2] inside of [4] (and 2 more)",
        ),
    ],
    ids=["diverged", "overlap", "shape", "name", "malformed"],
)
def test_what_shards_do_not_say_together_is_a_finding(change: Change, problem: str) -> None:
    problems, notices = said(sharded(change))
    assert [(subject, line) for subject, line in problems] == [("epoch 2", problem)]
    assert notices == []


def test_what_is_no_shard_may_differ_and_is_shown() -> None:
    def change(rank: int, epoch: int, body: dict[str, Any]) -> dict[str, Any]:
        return shards(rank, {**weights(epoch), "norm.count": np.array(rank, "int64")})

    line = "tensor 'norm.count': ranks 0 and 1 differ in []: no shard, each rank's own"
    assert said(sharded(change)) == ([], [("epochs 1 to 3", line)])


def test_of_what_a_rank_recorded_twice_the_last_counts() -> None:
    """As after a restart from a checkpoint: both ranks run epoch 3 again."""
    assert said(sharded(again=9)) == ([], [])


def test_withheld_weights_leave_the_question_open() -> None:
    evidence = withhold(sharded().evidence(), ["training/epoch/2/state/1"])
    report = World().verify(evidence, online=False)
    assert report.findings == ()
    (check,) = [result for result in report.checks if result.check.number == COMPLETE]
    assert check.status is Status.UNCHECKED
    assert "epoch 2: withheld weights: whether the shards are whole tensors" in check.detail


def test_the_leaders_shards_before_training_are_called_that() -> None:
    line = "the shards of rank 0 alone: before waits for no other rank"
    world = sharded(first=shards(0, weights(0)))
    assert said(world) == ([], [("model/weights/0", line)])


def test_content_of_a_sharded_state_is_for_verify_model() -> None:
    report = sharded().verify(content={"training/epoch/2/state": weights(2)})
    (check,) = [result for result in report.checks if result.check.number == CONTENT]
    assert check.status is Status.UNCHECKED
    assert "training/epoch/2/state: ranks share it: ask provenance verify-model" in check.detail
