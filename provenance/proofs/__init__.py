"""What a chain proves, from bytes alone: frozen and pure, as :mod:`provenance.formats`.

Nothing here trusts what a node says in JSON; everything is recomputed from raw bytes.
"""
