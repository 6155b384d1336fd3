"""Bitcoin: heads in ``OP_RETURN`` outputs, through bitcoind."""
