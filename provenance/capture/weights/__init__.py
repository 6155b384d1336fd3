"""The weights of an epoch: copied or read where they lie, and hashed beside the training."""
