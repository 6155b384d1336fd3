"""The word that stands over a verification, and what it rests on.

``failed``      something does not hold
``consistent``  all that is here agrees; what it rests on is not pinned, or could not be checked
``anchored``    the ledger's key is pinned, and so is a public chain that has an anchor, by a node
                or by headers that the reader trusts; but the reader's policy does not hold
``verified``    the policy holds
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from provenance.evidence.disclosure import withheld
from provenance.formats.note import VerifierKey
from provenance.formats.record import Kind
from provenance.verify.catalogue import CHECKS, NETWORKS, Status
from provenance.verify.checks.networks import with_receipts
from provenance.verify.findings import Findings, counted
from provenance.verify.report import NetworkCheck, Outcome, Verdict
from provenance.verify.trust import Trust, Word

PUBLIC: Final = ("ethereum", "bitcoin")
"""Networks whose blocks have a time that nobody sets alone."""
LOCAL_ALONE: Final = (
    "the local file alone, which convinces nobody but the holder of the ledger's key"
)
_HOW: Final = {"receipt": "of which a receipt holds", "stated": "whose block is only stated"}
"""Where nobody showed an anchor."""
Networks = Mapping[str, Mapping[str, NetworkCheck]]


def judge(
    findings: Findings,
    trust: Trust,
    key: VerifierKey | None,
    networks: Networks,
    approved: Sequence[str] = (),
) -> Verdict:
    """Weigh what was found against what the reader pinned.

    Args:
        key: The one that the heads were opened with.
        networks: By network and seal label.
        approved: Who approved what is anchored, a line each.
    """
    by = trust.key_pinned_by(key)
    missing = tuple(_missing(findings, trust, key, networks))
    checks = [check for seals in networks.values() for check in seals.values()]
    anchored = any(check.status == "verified" and check.network in PUBLIC for check in checks)
    outcome: Outcome = "consistent"
    if findings.problems:
        outcome = "failed"
    elif not missing:
        outcome = "verified"
    elif by is not None and anchored and not findings.without_receipt:
        outcome = "anchored"
    standing = findings.standing
    nobody = "no trainer's identity: nobody stands behind the run"
    return Verdict(
        outcome=outcome,
        policy=trust.policy,
        own=trust.own_policy,
        vkey=key.vkey if key else None,
        key=key.label if key else None,
        key_pinned_by=by,
        rests_on=(
            *_withheld_line(findings),
            f"ledger key {key.label}, {_pinned(by)}"
            if key
            else "no ledger's key: none is known here",
            *_chain_lines(networks, findings.asked),
            *_witness_lines(findings, trust),
            *approved,
            standing.line if standing else nobody,
        ),
        missing=missing,
    )


def _missing(
    findings: Findings, trust: Trust, key: VerifierKey | None, networks: Networks
) -> Iterator[str]:
    """What stands between the evidence and ``verified``, a line each."""
    own = trust.own_policy
    for result in findings.results():
        number = result.check.number
        if result.status is Status.UNCHECKED and (own or number != NETWORKS):
            yield f"({number}) {CHECKS[number - 1].title}: {result.detail}"
    if any(item.withheld and item.kind is Kind.CONFIG for item in findings.evidence.records):
        yield "the configuration is withheld: the run's key and number of ranks are not seen"
    if findings.without_receipt and not own:
        yield f"no receipt of {', '.join(findings.without_receipt)}"
    for word in trust.policy:
        line = _unmet(word, findings, trust, key, networks)
        if line is not None:
            yield line
    rows = (check for seals in networks.values() for check in seals.values())
    if own and any(check.status in ("receipt", "stated") for check in rows):
        yield "the networks of the configuration: not all of them showed the anchors"


def _unmet(
    word: Word, findings: Findings, trust: Trust, key: VerifierKey | None, networks: Networks
) -> str | None:
    """Why a word of the policy does not hold; None where it does."""
    if word == "key":
        if trust.key_pinned_by(key) is not None:
            return None
        return "the ledger's key is not pinned" + (f": --trust {key.vkey}" if key else "")
    if word == "witnesses":
        most = max(map(len, findings.cosigned.values()), default=0)
        if trust.witnesses and most >= trust.needed_witnesses:
            return None
        return f"{most} of the {trust.needed_witnesses} witnesses needed cosigned a head of the run"
    if word == "identity":
        standing = findings.standing
        if standing is not None and standing.trainer is not None:
            return None
        if standing is not None and standing.unchecked is not None:
            return standing.line
        return "no pinned trainer signed the run"
    if word == "host":
        if trust.pins_hosts or not findings.unattested:
            return None  # (15) is open where the pinned ones attest nothing
        who = "; ".join(findings.unattested)
        return f"no evidence of a host at start and end by a key that is pinned: {who}"
    names = PUBLIC if word == "anchor" else (word,)
    shown = {
        seal
        for name in names
        for seal, check in networks.get(name, {}).items()
        if check.status == "verified"
    }
    bare = [seal for seal in findings.asked if seal not in shown]
    where = "a pinned chain" if word == "anchor" else word
    if findings.asked and not bare:
        return None
    return f"{', '.join(bare) or 'no seal'}: no anchor that {where} was seen to have"


def _withheld_line(findings: Findings) -> Iterator[str]:
    if kept := withheld(findings.evidence):
        total = counted(len(findings.evidence.records), "record")
        yield f"{len(kept)} of {total} by the digest alone: withheld"


def _pinned(by: str | None) -> str:
    return "which nobody pinned" if by is None else f"pinned: {by}"


def _chain_lines(networks: Networks, asked: Collection[str]) -> list[str]:
    lines: dict[str, None] = {}
    shown = set()
    networks = with_receipts(networks)
    for name, seals in networks.items():
        for check in seals.values():
            how = _HOW.get(check.status, check.status)
            if check.status == "verified":
                shown.add(name)
                how = f"seen {check.shown_by}"
            if name in PUBLIC:
                remark = f" ({check.chain.remark})" if check.chain.remark else ""
                signed = f", {check.cosigners.line}" if check.cosigners else ""
                line = f"{check.chain.label}, {_pinned(check.pinned_by)}, {how}{remark}{signed}"
                lines[line] = None
    if shown == {"local"}:
        lines[LOCAL_ALONE] = None
    elif "ipfs" in shown:
        lines["ipfs, which proves storage and no time"] = None
    if not lines and networks:
        return [f"{', '.join(networks)}: nothing that was seen outside of the evidence"]
    none = (
        "anchors were asked for, and none is here" if asked else "no anchor was asked for or made"
    )
    return list(lines) or [f"no network: {none}"]


def _witness_lines(findings: Findings, trust: Trust) -> list[str]:
    if not trust.witnesses:
        return []
    names = sorted(set().union(*findings.cosigned.values())) if findings.cosigned else []
    who = f" ({', '.join(names[:4])})" if names else ""
    need = f"{trust.needed_witnesses} needed"
    return [f"{len(names)} of {len(trust.witnesses)} pinned witnesses cosigned{who}, {need}"]
