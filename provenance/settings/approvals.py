"""Who must sign before something happens: so many of these persons. One shape, in the configuration
and in a gate's policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from provenance.settings.section import Count, Section, Text

PublicKey = Annotated[
    str,
    Meta(pattern="^[0-9a-f]{64}$", description="64 lower-case hex digits (Ed25519)"),
]


class TrustedIdentity(Section, frozen=True):
    """An account that Sigstore certifies, and the OpenID Connect issuer behind it."""

    identity: Text
    issuer: Text

    @property
    def account(self) -> str:
        """``ci@example.org, by https://accounts.google.com``, as signatures are named."""
        from provenance.formats.producers.keyless import account  # a trainer needs none of it

        return account(self.identity, self.issuer)


class ApprovalRule(Section, frozen=True):
    """People who must have approved: so many of these."""

    at_least: Count
    by: Mapping[str, PublicKey | TrustedIdentity]
    """Their public keys, or Sigstore identities, by name."""

    @property
    def signers(self) -> dict[str, str]:
        """Their names, by who an envelope says has signed: a key as hex, or an account."""
        return {pin if isinstance(pin, str) else pin.account: name for name, pin in self.by.items()}

    def other_issuer(self, signer: str) -> str | None:
        """What is the matter with the account of one of them behind another issuer; None where it
        is nobody's."""
        for name, pin in sorted(self.by.items()):
            if isinstance(pin, str) or signer == pin.account:
                continue
            if signer.startswith(pin.account.removesuffix(pin.issuer)):
                return f"signed by {signer}, expected {pin.issuer} behind {name}"
        return None

    @property
    def wanted(self) -> str:
        """``2 of alice, bob, carol``."""
        return f"{self.at_least} of {', '.join(sorted(self.by))}"

    def problem(self) -> tuple[str, str] | None:
        """The key, and what is the matter with it."""
        pins = {p if isinstance(p, str) else p.identity.casefold() for p in self.by.values()}
        if len(pins) < len(self.by):  # whoever has an e-mail address has it at each issuer
            return "by", "found a key or identity under two names, expected one of each person"
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
    sigstore_root: Path | None = None
    """Trusted root (JSON) of their Sigstore identities; else that of sigstore's package."""
