"""The vendors' programs and files that attest a host, each bounded."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Final, NoReturn

from provenance.errors import UnavailableError

WAIT_S: Final = 10.0


def run_tool(*command: str, package: str, until: float, **environment: str) -> bytes:
    """What a program prints; ``environment`` beside the names that any needs.

    Args:
        package: That has it.
        until: Of ``time.monotonic``; :data:`WAIT_S` at most.

    Raises:
        UnavailableError: It is not here, fails, or gives no answer in time.
    """
    own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    wait = max(min(WAIT_S, until - time.monotonic()), 0.1)
    try:
        done = subprocess.run(
            command,
            env=own | {name: value for name, value in environment.items() if value},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=wait,
            check=False,
        )
    except subprocess.TimeoutExpired:
        refuse(f"{command[0]}: no answer within {wait:.1f} s")
    except FileNotFoundError:
        refuse(f"{command[0]}: not installed here ({package})")
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        cause = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        refuse(f"{command[0]}: {cause}")
    return done.stdout


def read_bounded(path: Path, most: int) -> bytes:
    """A file that has something, and at most ``most`` bytes; OSError or UnavailableError."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if not data:
        refuse("empty")
    return data if len(data) <= most else refuse(f"more than {most} bytes")


def refuse(problem: str) -> NoReturn:
    """Raise the problem as UnavailableError."""
    raise UnavailableError(problem)
