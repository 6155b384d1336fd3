"""Content digests of arrays, tables, tensors, datasets and files."""
