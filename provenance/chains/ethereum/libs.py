"""web3.py and eth_account without their side effect.

py_ecc, which comes with them, raises the interpreter's recursion limit to 100,000. With
that limit a few kilobytes of nested JSON from anywhere overflow the C stack and kill the
process; with the ordinary one they are a RecursionError. Import both from here.
"""

from __future__ import annotations

import sys

_limit = sys.getrecursionlimit()

from eth_account import Account  # noqa: E402  they raise the limit read above
from web3 import HTTPProvider, __version__  # noqa: E402  they raise the limit read above
from web3.types import RPCEndpoint, RPCResponse  # noqa: E402  they raise the limit read above

sys.setrecursionlimit(_limit)

CLIENT = f"web3 {__version__}"

__all__ = ["CLIENT", "Account", "HTTPProvider", "RPCEndpoint", "RPCResponse"]
