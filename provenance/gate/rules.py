"""The rules of a policy about the run, each held against what verification found.

A rule that holds says so, as does one that does not; one that cannot be checked is no pass. They
rest on what was verified alone: the words of the deployment (``sealed_at``, the number of its
runs) count only where they are bad news.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from provenance.evidence.run_evidence import RecordFile, lenient
from provenance.formats.record import Kind, Phase, Record
from provenance.gate.policy import DatasetRule, Policy, PrivacyRule, StoredRule
from provenance.report.summary import seconds_in, spoken
from provenance.verify.catalogue import NETWORKS, PRIVACY, Status
from provenance.verify.checks.privacy import budgets
from provenance.verify.report import VerificationReport, number

Outcome = Literal["passed", "refused", "unchecked"]
_OPEN: Final = ("pending", "unreachable", "not configured", "receipt", "stated")
_ENDED: Final = ("finished", "pruned")
_CLOCK_S: Final = 300.0
"""How far ahead a block's or a ledger's clock may be."""
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule, and how it came out.

    Attributes:
        rule: Its key in the policy, or that of what every policy holds: ``model``, ``run``,
            ``ended``.
        outcome: ``unchecked``: evidence is missing or a network did not answer; no pass.
        found, expected: For people, half a line each.
        exit_code: As of the whole: 0; 1 refused; 2 not to be used; 3 not checkable.
    """

    rule: str
    outcome: Outcome
    found: str
    expected: str
    exit_code: int

    @property
    def line(self) -> str:
        """One line, whatever comes of the texts in it."""
        return f"{self.rule}: found {self.found}; expected {self.expected}"


def result(
    rule: str, holds: bool | None, found: str, expected: str, exit_code: int | None = None
) -> RuleResult:
    """``holds`` is None where that cannot be said."""
    outcome: Outcome = "unchecked" if holds is None else "passed" if holds else "refused"
    code = {"passed": 0, "refused": 1, "unchecked": 3}[outcome] if exit_code is None else exit_code
    return RuleResult(rule, outcome, found, expected, code)


def some(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(names) - _SHOWN
    return f"{', '.join(names[:_SHOWN])}{f' and {more} more' if more > 0 else ''}"


def run_rules(policy: Policy, report: VerificationReport) -> Iterator[RuleResult]:
    """All that is held against the run itself, and its parent's."""
    yield _verifies(report)
    yield _ended(report)
    yield _ledger_key(policy, report)
    yield from _networks(policy, report)
    yield from _ages(policy, report)
    yield from _signer(policy, report)
    if policy.datasets is not None:
        yield from _datasets(policy.datasets, report)
    if policy.privacy is not None:
        yield _privacy(policy.privacy, report)
    if policy.clean_code:
        yield _code(report)
    yield from _unfinished(policy, report)


def _verifies(report: VerificationReport) -> RuleResult:
    """All checks but of the networks, of which the policy names those that count."""
    expected = f"run {report.run} verifies"
    if report.findings:
        first, more = report.findings[0], len(report.findings) - 1
        found = f"({first.check}) {first.subject}: {first.problem}"
        return result("run", False, found + (f", and {more} more" if more else ""), expected)
    open_ = [
        f"({item.check.number}) {item.check.title}: {item.detail}"
        for item in report.checks
        if item.status is Status.UNCHECKED and item.check.number != NETWORKS
    ]
    if any(r.withheld and r.kind is Kind.CONFIG for r in report.evidence.records):
        open_.append("the configuration is withheld, which says whose the run is")
    return result("run", None if open_ else True, some(open_) or "all checks hold", expected)


def _ended(report: VerificationReport) -> RuleResult:
    sealed = bool(report.seals) and report.seals[-1].label == Phase.AFTER
    found = report.state.line if sealed else f"{report.state.line}, and no seal after training"
    holds = sealed and report.state.state in _ENDED
    return result("ended", holds, found, "a training that ended, and is sealed")


def _ledger_key(policy: Policy, report: VerificationReport) -> RuleResult:
    found = report.verdict.vkey
    pins = [pin.key for pin in policy.trust().ledger_keys]
    labels = " or ".join(key.label for key in pins)
    holds = found in [key.vkey for key in pins]
    return result("ledger_keys", holds, report.verdict.key or "none", labels)


def _networks(policy: Policy, report: VerificationReport) -> Iterator[RuleResult]:
    """Of the newest seal, which has the weights."""
    seal = report.seals[-1].label if report.seals else None
    for name, rule in policy.networks.named().items():
        key = f"networks.{name}"
        deep = 0 if isinstance(rule, StoredRule) else rule.confirmations
        expected = f"the newest seal anchored{f', {deep} confirmations deep' if deep else ''}"
        check = report.networks.get(name, {}).get(seal or "")
        if check is None:
            yield result(
                key, False, f"no anchor of {seal or 'the run, which has no seal'}", expected
            )
            continue
        chain = None if isinstance(rule, StoredRule) else rule.chain
        found = f"{check.status}{f' ({check.reason})' if check.reason else ''}"
        holds: bool | None = check.status == "verified"
        if chain is not None and check.chain.id != chain:
            holds, found, expected = False, check.chain.label, f"{name} ({chain})"
        elif check.status in _OPEN:
            holds = None
        elif holds and check.depth < deep:
            holds, found = None, f"{check.depth} confirmations"
        elif holds and deep:
            found = f"{check.depth} confirmations on {check.chain.label}"
        yield result(key, holds, found, expected)


def _ages(policy: Policy, report: VerificationReport) -> Iterator[RuleResult]:
    """From the earliest time: a later anchor, which anybody can make, makes no run younger."""
    seal = report.seals[-1] if report.seals else None
    checks = [report.networks.get(name, {}) for name in policy.networks.named()]
    times = [
        check.time
        for seals in checks
        if seal and (check := seals.get(seal.label)) and check.status == "verified" and check.time
    ]
    for key, age, moments in (
        ("max_anchor_age", policy.max_anchor_age, times),
        ("max_run_age", policy.max_run_age, [*times, seal.sealed_at] if seal else []),
    ):
        if age is None:
            continue
        if not moments:
            yield result(key, None, "no time that could be checked", f"at most {age}")
            continue
        old = report.checked_at - min(moments)
        found = spoken(old) if old >= -_CLOCK_S else "a time that is yet to come"
        yield result(key, -_CLOCK_S <= old <= (seconds_in(age) or 0), found, f"at most {age}")


def _signer(policy: Policy, report: VerificationReport) -> Iterator[RuleResult]:
    if not policy.signers:
        return
    standing = report.standing
    found = "no identity" if standing is None else standing.line
    holds: bool | None = standing is not None and standing.trainer in policy.signers
    if standing is not None and standing.unchecked is not None:
        holds = None
    yield result("signers", holds, found, f"the run signed by {' or '.join(policy.signers)}")


def _datasets(rule: DatasetRule, report: VerificationReport) -> Iterator[RuleResult]:
    """Required data must be under a run root; forbidden data must be nowhere, also not in what a
    process that was started again states."""
    records = [r for r in report.evidence.records if r.kind in (Kind.DATA_TRAIN, Kind.DATA_TEST)]
    told = [(record.place, _data_digests(record, rule.algorithm)) for record in records]
    problem = next((digests for _, digests in told if isinstance(digests, str)), "")
    problem = problem or ("" if records else "no data was recorded")
    known = [(place, digests) for place, digests in told if isinstance(digests, set)]
    if rule.required:
        sealed = {digest for place, digests in known if place == "tree" for digest in digests}
        lacking = [digest for digest in rule.required if digest not in sealed]
        found = problem or (f"none of {some(lacking)}" if lacking else "all of them")
        holds = None if problem else not lacking
        yield result("datasets.required", holds, found, "data of each digest that is required")
    if rule.forbidden:
        used = [d for d in rule.forbidden if any(d in digests for _, digests in known)]
        expected = f"no forbidden data, by {rule.algorithm} digests"
        holds = False if used else None if problem else True
        yield result("datasets.forbidden", holds, some(used) or problem or "none", expected)


def _data_digests(record: RecordFile, algorithm: str) -> set[str] | str:
    """Of the data that a record states, and of its parts; or why they cannot be compared."""
    body = lenient(record.data).get("body")
    if not isinstance(body, dict):
        return "a record of data that is withheld"
    if body.get("algorithm") != algorithm:
        return f"data digested with {str(body.get('algorithm'))[:40]!r}"
    parts = body.get("parts")
    listed = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    if body.get("parts_total") != len(listed):
        return "data whose parts are not all listed"
    return {str(body.get("root")), *(str(part.get("digest")) for part in listed)}


def _privacy(rule: PrivacyRule, report: VerificationReport) -> RuleResult:
    """The sum over the processes of a rank, which is never less than what they spent together;
    the highest of all ranks."""
    expected = f"at most epsilon {rule.epsilon:g} at delta {rule.delta:g}, stated to the last epoch"
    records = _decoded(report)
    tracked: dict[int, int] = {}
    for record in records.values():
        if record.kind.is_epoch:
            tracked[record.rank] = max(tracked.get(record.rank, 0), record.epoch or 0)
    check = next(item for item in report.checks if item.check.number == PRIVACY)
    if check.status is not Status.PASSED:
        return result("privacy", None, check.detail or check.status.value, expected)
    highest, delta = 0.0, 0.0
    for rank, processes in budgets(records).items():
        last, total, total_delta = 0, 0.0, 0.0
        for process in processes:
            stated = [record.body.get("privacy") for _, record in process]
            fields = [each for each in stated if isinstance(each, dict)]
            values = [(number(each.get("epsilon")), number(each.get("delta"))) for each in fields]
            known = [(e, d or 0.0) for e, d in values if e is not None]
            if len(known) < len(process):
                return result("privacy", None, "a budget without its epsilon", expected)
            total += max(e for e, _ in known)
            total_delta += max(d for _, d in known)
            last = max(last, *(record.epoch or 0 for _, record in process))
        if last < tracked.pop(rank, 0):
            found = f"no budget of rank {rank} behind epoch {last}"
            return result("privacy", None, found, expected)
        highest, delta = max(highest, total), max(delta, total_delta)
    if tracked:
        return result("privacy", None, f"no budget of rank {min(tracked)}", expected)
    if rule.recomputed and (open_ := _not_recomputed(report)):
        return result("privacy", None, open_, f"{expected}, recomputed from steps")
    holds = highest <= rule.epsilon and delta <= rule.delta
    return result("privacy", holds, f"epsilon {highest:g} at delta {delta:g}", expected)


def _not_recomputed(report: VerificationReport) -> str | None:
    """What check (12) says of a budget that it did not recompute."""
    lines = (f"{n.subject}: {n.problem}" for n in report.notices if n.check == PRIVACY)
    return next(lines, None)


def _code(report: VerificationReport) -> RuleResult:
    expected = "a git commit without changes"
    records = [r for r in report.evidence.records if r.kind is Kind.CONFIG]
    commit = "no configuration"
    for record in records:
        body = lenient(record.data).get("body")
        code = body.get("code") if isinstance(body, dict) else None
        code = code if isinstance(code, dict) else {}
        if not isinstance(code.get("commit"), str) or code.get("dirty") is None:
            why = str(code.get("problem") or "no commit was recorded")[:200]
            return result("clean_code", None, why, expected)
        if code["dirty"] is not False:
            return result("clean_code", False, f"changes on top of {code['commit']:.12}", expected)
        commit = f"commit {code['commit']:.12}"
    return result("clean_code", True if records else None, commit, expected)


def _unfinished(policy: Policy, report: VerificationReport) -> Iterator[RuleResult]:
    """Runs that were begun and not brought to their end, by the ledger's own count."""
    if policy.max_unfinished_runs is None:
        return
    claim, most = report.evidence.ledger, policy.max_unfinished_runs
    count = claim.runs - claim.complete
    holds = None if not claim.runs else count <= most
    found = f"{count} of {claim.runs} runs of the ledger" if claim.runs else "no count of runs"
    yield result("max_unfinished_runs", holds, found, f"at most {most} that are not sealed whole")


def sealed(report: VerificationReport, *kinds: Kind) -> list[RecordFile]:
    """Records under a run root, of some kinds or of all."""
    records = report.evidence.records
    return [r for r in records if r.place == "tree" and (not kinds or r.kind in kinds)]


def _decoded(report: VerificationReport) -> dict[str, Record]:
    decoded = {record.path: record.decoded for record in sealed(report)}
    return {path: record for path, record in decoded.items() if isinstance(record, Record)}
