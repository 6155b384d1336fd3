"""Content digests of tensors that lie on a CUDA device."""
