"""Who must sign before something happens: so many of these persons. One shape, in the configuration
and in a gate's policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from provenance.settings.section import Count, Section

PublicKey = Annotated[
    str,
    Meta(pattern="^[0-9a-f]{64}$", description="64 lower-case hex digits (Ed25519)"),
]


class ApprovalRule(Section, frozen=True):
    """People who must have approved: so many of these."""

    at_least: Count
    by: Mapping[str, PublicKey]
    """Their public keys by name."""

    @property
    def wanted(self) -> str:
        """``2 of alice, bob, carol``."""
        return f"{self.at_least} of {', '.join(sorted(self.by))}"

    def problem(self) -> tuple[str, str] | None:
        """The key, and what is the matter with it."""
        if len(set(self.by.values())) < len(self.by):
            return "by", "found a key under two names, expected one of each person"
        if self.at_least > len(self.by):
            return "at_least", f"found {self.at_least}, expected at most the {len(self.by)} in by"
        return None


class ApprovalSettings(ApprovalRule, frozen=True):
    """Who approves what this deployment does."""

    networks: Annotated[
        tuple[Literal["ethereum", "bitcoin", "ipfs", "local"], ...],
        Meta(description="a list of ethereum, bitcoin, ipfs, local"),
    ] = ()
    """There the final root of a run is anchored only when they have signed."""
    since: Annotated[int, Meta(ge=0, le=2**53 - 1, description="a whole number from 0")] = 0
    """Index of the ledger's first entry that it is asked of."""
    trust: Path | None = None
    """File of their approval of the section ``trust``, which counts only with it."""
