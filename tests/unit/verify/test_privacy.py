"""Privacy budgets: what cannot be, what shrinks, and what its steps do not give."""

from __future__ import annotations

from typing import Any

import pytest

from provenance.evidence.disclosure import withhold
from provenance.formats.record import Kind
from provenance.proofs.renyi import RenyiAccountant
from provenance.verify.catalogue import PRIVACY, Status
from provenance.verify.report import VerificationReport
from tests.support.verify_world import Fields, World, before, ending, metrics

DELTA = 1e-5


def steps(count: int, noise: float = 1.1, rate: float = 0.125) -> list[dict[str, Any]]:
    return [{"noise_multiplier": noise, "sample_rate": rate, "steps": count}]


def rdp(count: int, **fields: Any) -> dict[str, Any]:
    """What an accountant states after so many steps."""
    epsilon = RenyiAccountant().epsilon([(1.1, 0.125, count)], DELTA)
    stated = {"accountant": "rdp", "epsilon": epsilon, "delta": DELTA, "history": steps(count)}
    return {**stated, **fields}


def verified(*budgets: object, results: dict[str, Any] | None = None) -> VerificationReport:
    """Of a run that states these, one an epoch."""
    stage = World(("bitcoin",))
    events: list[Fields] = [*before()]
    for epoch, budget in enumerate(budgets, 1):
        events += [metrics(epoch), (Kind.PRIVACY, epoch, {"privacy": budget})]
    ended = ending(events)
    if results is not None:
        ended[len(events)] = (Kind.RESULTS, None, {"results": results})
    stage.ingest(stage.batch(ended))
    stage.anchor()
    return stage.verify()


def problems(*budgets: object) -> list[str]:
    report = verified(*budgets)
    assert {finding.check for finding in report.findings} <= {PRIVACY}
    assert (report.outcome == "failed") is bool(report.findings)
    return [finding.problem for finding in report.findings]


def hand(epsilon: object, delta: object = DELTA, **fields: object) -> dict[str, object]:
    return {"epsilon": epsilon, "delta": delta, **fields}


def test_a_run_without_budgets_skips_the_check() -> None:
    report = verified()
    assert report.checks[PRIVACY - 1].status is Status.SKIPPED
    assert report.notices == ()


def test_an_accountants_budgets_are_recomputed() -> None:
    report = verified(rdp(8), rdp(16), rdp(24))
    assert report.findings == report.notices == ()
    check = report.checks[PRIVACY - 1]
    assert check.status is Status.PASSED
    assert check.detail == "3 budgets, 3 recomputed from steps"


def test_budgets_by_hand_are_held_to_what_is_possible_and_the_notice_says_no_more() -> None:
    report = verified(hand(0.5), hand(0.5), hand(0.6), hand(0.7, 0))
    assert report.findings == ()
    assert report.checks[PRIVACY - 1].status is Status.PASSED
    (notice,) = report.notices
    assert notice.path == "training/epoch/4/privacy/0"
    assert "stated without the steps" in notice.problem


@pytest.mark.parametrize("budget", [{"epsilon": 1.0}, rdp(8, delta=None)])
def test_an_epsilon_without_its_delta_is_noticed(budget: object) -> None:
    report = verified(budget)
    assert (report.findings, report.checks[PRIVACY - 1].status) == ((), Status.PASSED)
    (notice,) = report.notices
    assert notice.problem == "epsilon was not recomputed: it is stated without its delta"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "why"),
    [
        ({"delta": DELTA}, "no epsilon"),
        ({"epsilon": None, "delta": DELTA, "accountant": "rdp", "history": []}, "no epsilon"),
        ({}, "no epsilon"),
        ("text", "no epsilon"),
        ({"accountant": "rdp", "history": []}, "no epsilon"),
        (hand("NaN"), "no epsilon"),
        (hand("Infinity"), "epsilon is infinite, which bounds nothing"),
        (rdp(8, epsilon="Infinity", history=steps(8, noise=0)), "epsilon is infinite"),
    ],
)
def test_a_budget_that_says_nothing_is_never_passed(budget: object, why: str) -> None:
    report = verified(budget, budget)
    check = report.checks[PRIVACY - 1]
    assert (report.findings, check.status) == ((), Status.UNCHECKED)
    assert check.detail.startswith(why)
    assert check.detail.endswith("training/epoch/1/privacy/0 and 1 more")
    assert any(line.startswith("(12)") for line in report.verdict.missing)


@pytest.mark.slow
@pytest.mark.parametrize("unknown", ["Infinity", "NaN", None])
def test_nothing_is_compared_with_an_epsilon_that_is_not_known(unknown: object) -> None:
    report = verified(hand(2.0), hand(unknown), hand(2.5), rdp(8, epsilon=unknown), rdp(16))
    assert (report.findings, report.checks[PRIVACY - 1].status) == ((), Status.UNCHECKED)
    assert problems(hand(2.0), hand(unknown), hand(1.0)) == [
        "states epsilon 1, epoch 1 2: what is spent stays spent"
    ]


def processes(
    *each: list[Fields], ranks: tuple[int, ...] = (), later: float = 100
) -> VerificationReport:
    """Of a run that these processes wrote one after another, the first of which begins it.

    Args:
        later: Seconds from the start of one to that of the next.
    """
    stage, made = World(("bitcoin",)), list[bytes]()
    for number, events in enumerate(each):
        rank = ranks[number] if ranks else 0
        own = [*before(world_size=1 + max(ranks, default=0)), *events] if rank == 0 else events
        end: Fields = (Kind.RUN_END, None, {"events": len(own), "reason": "x", "state": "failed"})
        own = ending(own) if number == len(each) - 1 else [*own, end]
        made.append(
            stage.batch(own, producer=bytes([number + 1]) * 16, rank=rank, at=later * number)
        )
    stage.ingest(*made)
    stage.anchor()
    return stage.verify()


def spends(epoch: int, budget: object) -> list[Fields]:
    return [metrics(epoch), (Kind.PRIVACY, epoch, {"privacy": budget})]


@pytest.mark.slow
def test_both_records_of_an_epoch_are_judged() -> None:
    first = [*spends(1, rdp(8)), *spends(2, rdp(16, epsilon=0.1))]
    said = [f.problem for f in processes(first, spends(2, rdp(16))).findings]
    assert any(problem.startswith("states epsilon 0.1, its steps give") for problem in said)
    first[3:] = [(Kind.PRIVACY, 2, {"privacy": rdp(16)}), (Kind.PRIVACY, 2, {"privacy": rdp(8)})]
    said = [f.problem for f in processes(first).findings]
    assert any("steps that were taken stay taken" in problem for problem in said)


def test_a_restart_goes_on_from_the_epochs_before_its_first() -> None:
    first = [*spends(1, rdp(8)), *spends(2, rdp(16)), *spends(3, rdp(24))]
    other = [*spends(2, rdp(12)), *spends(3, rdp(20))]  # smaller batches: other steps than before
    report = processes(first, other)
    assert report.findings == ()
    assert report.checks[PRIVACY - 1].status is Status.PASSED
    twice = "several processes spent a budget there, up to epsilon 4.52022, and none states the sum"
    assert ("rank 0, epochs 2 to 3", twice) in {(n.subject, n.problem) for n in report.notices}
    report = processes(first, spends(2, rdp(4)))
    assert any("states 4 steps, epoch 1 8" in f.problem for f in report.findings)


@pytest.mark.slow
@pytest.mark.parametrize("fork_first", [False, True])
def test_a_process_beside_another_hides_no_epsilon(fork_first: bool) -> None:
    fork = [*spends(2, hand(43.6)), *spends(4, hand(43.7))]
    main = [*spends(1, hand(1.0)), *spends(3, hand(1.1)), *spends(5, hand(1.2))]
    both = [fork, main] if fork_first else [main, fork]
    for later, status in ((1, Status.UNCHECKED), (100, Status.PASSED)):
        report = processes(*both, later=later)
        check = report.checks[PRIVACY - 1]
        assert (report.findings, check.status) == ((), status)
        subject = f"rank 0, epochs {'2 to 4' if fork_first else '3 to 5'}"
        (said,) = [n.problem for n in report.notices if n.subject == subject]
        assert "up to epsilon 43.7" in said
    detail = processes(*both, later=1).checks[PRIVACY - 1].detail
    assert detail == "rank 0, processes at once: epsilon 43.6 at epoch 2, then 1.1 at epoch 3"


def test_processes_at_once_whose_epsilon_grows_are_passed() -> None:
    odd = [*spends(1, hand(1.0)), *spends(3, hand(1.2)), *spends(5, hand(1.4))]
    even = [*spends(2, hand(1.1)), *spends(4, hand(1.3))]
    for both in ((odd, even), (odd, odd)):
        assert processes(*both, later=1).checks[PRIVACY - 1].status is Status.PASSED


@pytest.mark.slow
def test_each_rank_is_judged_alone() -> None:
    other = [metrics(1), (Kind.PRIVACY, 1, {"privacy": rdp(8, epsilon=0.1)})]
    report = processes(other, spends(1, rdp(8)), ranks=(1, 0))
    assert ["its steps give" in f.problem for f in report.findings] == [True]
    report = processes([*spends(1, rdp(4))], spends(1, rdp(8)), ranks=(1, 0))
    assert report.checks[PRIVACY - 1].detail == "2 budgets, 2 recomputed from steps"


def test_withheld_budgets_were_not_checked() -> None:
    stage = World(("bitcoin",))
    stage.ingest(stage.batch(ending([*before(), *spends(1, rdp(8))])))
    stage.anchor()
    report = stage.verify(withhold(stage.evidence(), ["metrics"]))
    assert report.checks[PRIVACY - 1].detail == "withheld budgets: 1"


def hides(point: object) -> VerificationReport:
    """Of a run whose second epoch hides its epsilon behind this commitment."""
    stage = World(("bitcoin",))
    commitments = {"epsilon": {"point": point, "scale": 6}}
    hidden: Fields = (Kind.PRIVACY, 2, {"privacy": {"delta": DELTA}, "commitments": commitments})
    stage.ingest(stage.batch(ending([*before(), *spends(1, rdp(8)), metrics(2), hidden])))
    stage.anchor()
    return stage.verify()


def test_a_hidden_epsilon_is_said_and_holds_nothing_up() -> None:
    report = hides("02" + "ab" * 32)
    assert report.outcome == "verified"
    told = "2 budgets, 1 with a hidden epsilon, 1 recomputed from steps"
    assert report.checks[PRIVACY - 1].detail == told
    (notice,) = report.notices
    assert notice.path == "training/epoch/2/privacy/0"
    assert notice.problem == (
        "epsilon is hidden behind a commitment in 1 budget: no proof about it is here"
    )
    assert any(line.startswith("What an epsilon that is hidden is") for line in report.not_checked)


@pytest.mark.parametrize("point", [None, "", "ab" * 33, 7])
def test_an_epsilon_without_a_commitment_stays_open(point: object) -> None:
    report = hides(point)
    check = report.checks[PRIVACY - 1]
    assert check.status is Status.UNCHECKED
    assert "no epsilon: training/epoch/2" in check.detail
    assert report.outcome != "verified"


def test_budgets_under_no_root_are_judged_too() -> None:
    stage = World(("bitcoin",))
    stage.ingest(stage.batch([*before(), *spends(1, rdp(8, epsilon=0.1))]))
    (found,) = stage.verify().findings
    assert found.subject.startswith("unsealed/")


@pytest.mark.slow
@pytest.mark.parametrize("accountant", ["RDP", "", None])
def test_steps_are_recomputed_however_rdp_is_meant(accountant: str | None) -> None:
    report = verified(rdp(8, accountant=accountant))
    assert report.notices == ()
    assert report.checks[PRIVACY - 1].detail == "1 budget, 1 recomputed from steps"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "why"),
    [
        (
            hand(0.01, history=steps(8)),
            "names no accountant, and states epsilon 0.01, its steps give 3.15174 by rdp",
        ),
        (
            hand(0.01, 0, history=steps(8)),
            "epsilon was not recomputed: its delta is 0, for which rdp has none",
        ),
        (
            hand(0.01, history=[s for i in range(200) for s in steps(1, 0.3 + i / 1e6, 0.5)]),
            "epsilon was not recomputed: the steps take too long to account for",
        ),
    ],
    ids=["differs", "delta 0", "too long"],
)
def test_steps_of_no_accountant_fail_nothing_and_are_not_passed_over(
    budget: dict[str, object], why: str
) -> None:
    report = verified(budget, budget)  # of another accountant's, honest epsilon may be lower
    assert (report.findings, report.checks[PRIVACY - 1].status) == ((), Status.PASSED)
    assert [n.problem for n in report.notices] == [why]


def at(epsilon: float, delta: float) -> dict[str, object]:
    """A budget by hand at this delta."""
    return hand(epsilon) | {"delta": delta}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budgets", "says"),
    [
        (
            (at(5.0, 1e-5), at(0.1, 1.1e-5), at(0.2, 1.1e-5)),
            ["states epsilon 0.1, epoch 1 5: delta changed, from 1e-05 to 1.1e-05"],
        ),
        ((at(5.0, 1e-5), at(5.1, 1.1e-5)), []),
        ((at(1.0, 1e-5), at(4.9, 2e-5), at(5.0, 2e-5)), []),
        ((at(1.0, 0.5),), ["its delta is 0.5: with that probability nothing is bounded"]),
    ],
)
def test_a_delta_that_rose_under_a_lower_epsilon_or_bounds_little_is_said(
    budgets: tuple[object, ...], says: list[str]
) -> None:
    report = verified(*budgets)
    assert report.findings == ()
    told = [n.problem for n in report.notices if "delta" in n.problem]
    assert told == says


def test_a_line_begins_with_it_where_nothing_was_recomputed() -> None:
    report = verified(rdp(8, accountant="prv", epsilon=1.0))
    assert report.checks[PRIVACY - 1].detail == "none recomputed from steps: 1 budget"


def test_white_space_around_an_accountants_name_does_not_count() -> None:
    assert verified(rdp(8, accountant="rdp ")).checks[PRIVACY - 1].detail.startswith("1 budget, 1 ")
    assert any("its steps give" in p for p in problems(rdp(8, accountant=" rdp", epsilon=0.1)))


@pytest.mark.parametrize("name", ["prv", "gdp"])
def test_another_accountants_epsilon_is_not_recomputed(name: str) -> None:
    report = verified(rdp(8, accountant=name, epsilon=0.7), rdp(16, accountant=name, epsilon=0.69))
    assert report.findings == ()
    (notice,) = report.notices
    assert notice.problem == f"epsilon was not recomputed: the accountant {name!r} is another"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budgets", "problem"),
    [
        ((hand(-3),), "states epsilon -3, expected 0 or more"),
        ((hand("1"),), "states epsilon '1', expected 0 or more"),
        ((hand(True),), "states epsilon True"),
        ((hand(1, 7),), "states delta 7, expected a number from 0 to below 1"),
        ((hand(1, 1.0),), "states delta 1"),
        ((rdp(8, delta=0),), "states delta 0"),
        ((hand(2.0), hand(0.1)), "states epsilon 0.1, epoch 1 2: what is spent stays spent"),
        ((rdp(8), hand(3.0), hand(2.9)), "states epsilon 2.9, epoch 2 3"),
        ((hand(2.0), hand(1.0, 1e-6)), "states epsilon 1"),
        ((rdp(16), rdp(8)), "states 8 steps, epoch 1 16"),
        ((rdp(8, epsilon=0.5),), "states epsilon 0.5, its steps give 3."),
        ((rdp(8, epsilon=0.5, accountant="RDP"),), "states epsilon 0.5, its steps give 3."),
        ((rdp(8), rdp(9, history=steps(9, noise=3.0))), "other steps for what epoch 1 states"),
        ((rdp(8, history=steps(8, rate=1.5)),), "states a history that is none"),
        ((rdp(8, history=[{}]),), "states a history that is none"),
        ((rdp(8, history=steps(0)),), "states a history that is none"),
    ],
)
def test_what_cannot_be_is_a_finding(budgets: tuple[object, ...], problem: str) -> None:
    assert any(problem in found for found in problems(*budgets))


def test_a_higher_delta_buys_a_lower_epsilon() -> None:
    assert problems(hand(2.0), hand(1.0, 1e-3)) == []


@pytest.mark.slow
def test_a_lower_epsilon_of_another_accountant_is_noticed_where_it_changed() -> None:
    prv = hand(0.01, accountant="prv")
    report = verified(hand(5.0), prv, prv)
    assert report.findings == ()
    said = [(n.path, n.problem) for n in report.notices if "changed" in n.problem]
    problem = "states epsilon 0.01, epoch 1 5: the accountant changed, from none to prv"
    assert said == [("training/epoch/2/privacy/0", problem)]
    for later in (hand(5.1, accountant="prv"), hand(0.01, 1e-3, accountant="prv")):
        notices = verified(hand(5.0), later).notices
        assert [n for n in notices if "changed" in n.problem] == []


@pytest.mark.slow
def test_epochs_behind_the_last_budget_are_noticed() -> None:
    some = [*spends(1, rdp(8)), metrics(2), *spends(3, rdp(16)), metrics(4), metrics(5)]
    behind = ("rank 0, epochs 4 to 5", "no budget stated, the last is of epoch 3")
    stage = World(("bitcoin",))
    stage.ingest(stage.batch(ending([*before(), *some])))
    stage.anchor()
    report = stage.verify()
    assert report.findings == ()
    assert [(n.subject, n.problem) for n in report.notices if n.check == PRIVACY] == [behind]
    hidden = stage.verify(withhold(stage.evidence(), ["training/epoch/5"]))
    assert behind not in {(n.subject, n.problem) for n in hidden.notices}
    # Another rank that states none, and a restart that states what the first could not.
    report = processes([metrics(1), metrics(2)], [*spends(1, rdp(8)), metrics(2)], ranks=(1, 0))
    assert [n.subject for n in report.notices if n.check == PRIVACY] == ["rank 0, epoch 2"]
    report = processes([*spends(1, rdp(8)), metrics(2)], spends(2, rdp(16)))
    assert [n for n in report.notices if n.check == PRIVACY] == []


def test_results_that_state_another_epsilon_are_noticed() -> None:
    said = [n.problem for n in verified(rdp(8), results={"epsilon": 99}).notices]
    assert len(said) == 1
    assert said[0].startswith("the results state epsilon 99, the last epoch 3.")


@pytest.mark.slow
def test_a_history_that_takes_too_long_is_left_and_said() -> None:
    many = [s for i in range(200) for s in steps(1, noise=0.3 + i / 1e6, rate=0.5)]
    check = verified(rdp(8, history=many)).checks[PRIVACY - 1]
    assert check.status is Status.UNCHECKED
    assert check.detail.startswith("the steps take too long to account for: training/")
