"""Mines on one devnet's chains every so many seconds, in a process of its own.

    python -m provenance_devnet.miner ROOT STATE_DIR SECONDS

It ends when the state file names no chain that runs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from provenance.errors import ProvenanceError, ServerMissingError
from provenance_devnet.supervisor import Devnet


def main(root: str, state_dir: str, seconds: str) -> None:
    """Mines until no chain is left; what a chain does not take now waits for the next turn."""
    net = Devnet(Path(root), Path(state_dir))
    while True:
        time.sleep(float(seconds))
        try:
            net.mine()
        except ServerMissingError:
            return
        except ProvenanceError as error:
            sys.stderr.write(f"{error}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
