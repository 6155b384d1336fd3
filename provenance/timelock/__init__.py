"""Records that a bundle keeps back until a block height, by shares of a key that approvers hold."""
