"""Which owners of a k-of-n key signed an anchor, from the transaction's own bytes."""
