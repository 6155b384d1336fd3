"""What verifying a head of several owners costs: ``python -m tests.benchmarks.beyond.multisig``."""

from __future__ import annotations

import os
import time

from provenance.ports.values import anchor_payload
from provenance.proofs.multisig.bitcoin import Script, check_spend
from provenance.proofs.multisig.ethereum import StoreRequest, read_call
from tests.support.nodes.owners import BITCOIN_KEYS, cosigned, ethereum_signatures, psbt_of

CHAIN, CONTRACT, TIMES = 31337, b"\xcc" * 20, 20


def main() -> None:
    spent = {"ethereum": 0.0, "bitcoin": 0.0}
    script = Script.of(2, BITCOIN_KEYS)
    for _ in range(TIMES):  # each of another root, so that nothing is remembered
        root = os.urandom(32)
        request = StoreRequest(CHAIN, CONTRACT, root, 1_800_000_000)
        calldata = request.calldata(ethereum_signatures(request, 0, 1))
        psbt = psbt_of(anchor_payload(root), script)
        whole = cosigned(psbt, script, 0, 1).whole(script)
        began = time.process_time()
        asked, signatures = read_call(CHAIN, CONTRACT, calldata)
        assert len(asked.signers(signatures)) == 2
        spent["ethereum"] += time.process_time() - began
        began = time.process_time()
        assert len(check_spend(whole, psbt.spent)[1]) == 2
        spent["bitcoin"] += time.process_time() - began
    for network, seconds in spent.items():
        print(f"verifying 2 of 3 on {network}: {seconds / TIMES * 1e3:.1f} ms of CPU an anchor")


if __name__ == "__main__":
    main()
