"""IPFS: content identifiers and UnixFS folders."""
