"""The composition root: settings in, working parts out.

Nothing else constructs a client, opens a database or reads a key file.
:mod:`~provenance.bootstrap.reading` makes what verifiers, checkers and reports need, and can
neither make a key or a file nor send; :mod:`~provenance.bootstrap.sending` makes what records
and anchors. Every function imports what it needs when it is called, so that a trainer pays
for none of it.
"""
