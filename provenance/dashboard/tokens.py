"""Tokens by which a team reads the dashboard and the API.

The file keeps their SHA-256: they are 32 random bytes, which nobody guesses. It is read at each
request, so that a token that was revoked is worth nothing from then on.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from provenance import files
from provenance.errors import ConfigError, InputError

PREFIX: Final = "mlp_"
"""So that scanners of code find one that was committed."""
ALL: Final = "all"
"""In place of a team: the runs of every team."""
_MAX_BYTES: Final = 2**20


class Scope(StrEnum):
    """What a token may do; each may what those before it may."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def allows(self, needed: Scope) -> bool:
        """Whether a token of this scope may do what needs that one."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A team's token: its SHA-256 in hex, and the Unix seconds at which it was made."""

    team: str
    scope: Scope
    sha256: str
    created_at: float

    @property
    def sees(self) -> str | None:
        """Whose runs alone; None: all."""
        return None if self.team == ALL else self.team


class TokenFile:
    """The tokens of a deployment, a JSON list in a file that its owner alone reads.

    Args:
        named: Somebody said that tokens are needed, by naming this file.
    """

    def __init__(self, path: Path, *, named: bool = False) -> None:
        self.path = path
        self._needed = named or os.path.lexists(path)

    def needed(self) -> bool:
        """Whether who asks needs a token: once there was a file, were it gone since."""
        self._needed = self._needed or os.path.lexists(self.path)
        return self._needed

    def read(self) -> list[Token]:
        """All of them; none where there is no file.

        Raises:
            ConfigError: It is open to others, or is no list of tokens.
        """
        try:
            data = files.read_private(self.path, _MAX_BYTES)
            return msgspec.json.decode(data, type=list[Token])
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError("", str(error.strerror or error), str(self.path)) from error
        except msgspec.DecodeError as error:
            problem = f"no list of tokens: {error}; make it anew with: provenance token new TEAM"
            raise ConfigError("", problem, str(self.path)) from error

    def holder(self, given: str) -> Token | None:
        """The token of this text; None where it is none."""
        digest, found = _digest(given), None
        for token in self.read():
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found

    def new(self, team: str, scope: Scope, now: float) -> str:
        """Make a team's token, which is told this once. InputError where the team has one."""
        if not team or len(team) > 100 or not team.isprintable():
            raise InputError(f"token of {team[:100]!r}: expected a name of up to 100 letters")
        text = PREFIX + secrets.token_urlsafe(32)

        def added(tokens: list[Token]) -> list[Token]:
            if any(token.team == team for token in tokens):
                raise InputError(f"{self.path}: {team} has a token; revoke it first")
            return [*tokens, Token(team, scope, _digest(text), now)]

        self._change(added)
        return text

    def revoke(self, team: str) -> None:
        """Forget a team's token. InputError where it has none."""

        def left(tokens: list[Token]) -> list[Token]:
            others = [token for token in tokens if token.team != team]
            if len(others) == len(tokens):
                raise InputError(f"{self.path}: has no token of {team}")
            return others

        self._change(left)

    def _change(self, change: Callable[[list[Token]], list[Token]]) -> None:
        with files.errors_of(self.path, "written"):
            files.make_folders(self.path.parent, files.PRIVATE)
            with files.locked(self.path.parent):
                data = msgspec.json.encode(change(self.read()))
                files.replace(self.path, msgspec.json.format(data) + b"\n")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
